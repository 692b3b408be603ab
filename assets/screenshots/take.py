"""Take the pictures of the page that README and docs show; ``take.py FOLDER`` takes all into a folder to look at.

Needs Chromium.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from test_ui_browser import CHROMIUM, FLAGS, RUN, SECOND, draw, expect, open_page, status, wait_for_form
from ui_server import ROOT, serve

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
SHOWN = "".join(path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))


def keep(page: Page, name: str) -> None:
    """Save what is in sight."""
    if Path(__file__).parent == FOLDER and f"screenshots/{name}.webp" not in SHOWN:
        return
    page.wait_for_timeout(2 * SECOND)
    Image.open(io.BytesIO(page.screenshot())).save(FOLDER / f"{name}.webp", quality=85)


def visit(page: Page, name: str) -> None:
    """The page as it opens, scribbles on a frame, a run that goes on, what came of it, and a fix."""
    keep(page, f"{name}-first")
    page.locator("#examples button").nth(1).click()
    expect(status(page)).to_contain_text("Precomputed")
    page.get_by_text("2 · A frame in color").click()
    page.get_by_role("tab", name="Paint").click()
    page.locator("#brush").evaluate("brush => brush.scrollIntoView()")
    page.wait_for_timeout(2 * SECOND)
    for paint, path in (
        (5, ((0.05, 0.1), (0.4, 0.1))),
        (0, ((0.6, 0.5), (0.7, 0.5))),
        (3, ((0.1, 0.95), (0.2, 0.95))),
    ):
        draw(page, paint, *path)
    expect(page.locator("#spread img")).to_be_visible()
    keep(page, f"{name}-scribbles")
    page.locator("#step1 > button.label-wrap").click()
    page.locator("#examples button").nth(1).click()  # its own first frame gives the colors
    expect(page.locator("#step1")).to_contain_text("painted houses")
    wait_for_form(page)
    page.click("#run")
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator("#after img")).to_be_visible(timeout=RUN)
    keep(page, f"{name}-run")
    expect(status(page)).to_contain_text("Finished in", timeout=RUN)
    page.evaluate("scrollTo(0, 0)")
    keep(page, f"{name}-result")
    page.get_by_text("4 · Fix").click()
    page.locator("#fixbrush").evaluate("brush => brush.scrollIntoView()")
    page.wait_for_timeout(2 * SECOND)
    draw(page, 4, (0.35, 0.3), (0.48, 0.3), brush="fixbrush")
    expect(page.locator("#fixed img")).to_be_visible()
    keep(page, f"{name}-fix")
    page.click("#fixit")
    expect(status(page)).to_contain_text("Fixed in", timeout=RUN)
    page.evaluate("scrollTo(0, 0)")
    keep(page, f"{name}-fixed")


def main() -> None:
    """Take them all."""
    desktop = {"viewport": {"width": 1366, "height": 768}}
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, looks in {"desktop": desktop, "dark": desktop | {"color_scheme": "dark"}, "phone": phone}.items():
            context = browser.new_context(**looks)
            visit(open_page(context, server.url), name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
