"""Take the pictures of the page that README shows: ``python assets/screenshots/take.py`` (needs Chromium)."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from test_ui_browser import CHROMIUM, FLAGS, RUN, SECOND, click_example, draw, expect, open_page, progress
from ui_server import ROOT, serve

DESKTOP, PHONE = (1366, 768), (390, 844)


def keep(page: Page, name: str) -> None:
    """Save what is in sight, if README shows it."""
    if f"{name}.webp" not in (ROOT / "README.md").read_text():
        return
    page.wait_for_timeout(2 * SECOND)
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.save(ROOT / "assets" / "screenshots" / f"{name}.webp", quality=85)


def visit(page: Page, size: str) -> None:
    """The page as it opens, scribbles on a frame, a run that goes on, a fix, and what came of it."""
    keep(page, f"{size}-first")
    click_example(page, 1)
    page.get_by_text("2 · A frame in color").click()
    page.get_by_role("tab", name="Paint it").click()
    page.locator("#brush").evaluate("brush => brush.scrollIntoView()")
    for ink, path in (
        (7, ((0.05, 0.32), (0.25, 0.32))),
        (3, ((0.6, 0.3), (0.9, 0.3))),
        (0, ((0.1, 0.85), (0.2, 0.87))),
    ):
        draw(page, ink, *path)
    expect(page.locator("#spread img")).to_be_visible()
    page.wait_for_timeout(5 * SECOND)
    keep(page, f"{size}-scribbles")
    page.get_by_text("2 · A frame in color").click()
    page.click("#run")
    expect(page.locator("#coverage")).to_contain_text("inpainted", timeout=RUN)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(5 * SECOND)
    keep(page, f"{size}-run")
    expect(progress(page)).to_contain_text("Finished in", timeout=RUN)
    page.get_by_text("4 · Fix").click()
    page.locator("#fixbrush").evaluate("brush => brush.scrollIntoView()")
    page.wait_for_timeout(2 * SECOND)
    draw(page, 4, (0.35, 0.3), (0.48, 0.3), brush="fixbrush")
    expect(page.locator("#fixed img")).to_be_visible()
    keep(page, f"{size}-fix")
    page.click("#fixit")
    expect(progress(page)).to_contain_text("Fixed in", timeout=RUN)
    page.evaluate("scrollTo(0, 0)")
    keep(page, f"{size}-result")


def main() -> None:
    """Take them all."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for size, (width, height) in {"desktop": DESKTOP, "phone": PHONE}.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, is_mobile=width < 800, has_touch=width < 800
            )
            visit(open_page(context, server.url), size)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
