"""The page as a visitor meets it, in Chromium."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ui_server import Server, serve

from omnifusion.video import Writer, read

sync_api = pytest.importorskip("playwright.sync_api") if "OMNIFUSION_REQUIRE_BROWSER" not in os.environ else None
if sync_api is None:
    from playwright import sync_api
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXAMPLE = Path(__file__).parent.parent / "assets" / "examples" / "train.mp4"
SECOND = 1000
RUN = 120 * SECOND
"""Generous: the machine may be busy."""

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]
if CHROMIUM is None and os.environ.get("OMNIFUSION_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="Chromium is not installed (apt-get install chromium)"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    assert CHROMIUM is not None, "OMNIFUSION_REQUIRE_BROWSER=1, but Chromium is not installed"
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(server: Server, browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    context = browser.new_context(viewport={"width": 1360, "height": 1000})
    opened = open_page(context, server.url)
    yield opened
    context.close()


def open_page(context: sync_api.BrowserContext, url: str) -> sync_api.Page:
    opened = context.new_page()
    opened.set_default_timeout(60 * SECOND)
    opened.goto(url)
    opened.wait_for_selector("#run")
    return opened


def click_example(page: sync_api.Page, index: int = 0) -> None:
    page.locator("#examples button.thumbnail-item").nth(index).click()
    expect(page.locator("#step1")).to_contain_text("36 frames", timeout=60 * SECOND)


def set_number(page: sync_api.Page, name: str, value: float) -> None:
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def prepare_short_run(page: sync_api.Page, frames: int = 3) -> None:
    click_example(page)
    set_number(page, "frames", frames)
    expect(page.locator("#estimate")).to_contain_text("About", timeout=60 * SECOND)


def prepare_long_run(page: sync_api.Page, folder: Path) -> None:
    """One that takes long enough for all that is to happen meanwhile: an example to and fro."""
    film = read(EXAMPLE)
    with Writer(folder / "long.mp4", film) as writer:
        for frame in [*film.frames, *film.frames[::-1]]:
            writer.add(frame)
    page.locator("#clip input[type=file]").set_input_files(folder / "long.mp4")
    expect(page.locator("#step1")).to_contain_text("72 frames", timeout=60 * SECOND)
    page.locator("#preset").get_by_label("standard").check()
    expect(page.locator("#estimate")).to_contain_text("About", timeout=60 * SECOND)


def progress(page: sync_api.Page) -> sync_api.Locator:
    return page.locator("#progress")


def link_of(page: sync_api.Page) -> str:
    return str(page.locator("#link textarea, #link input").input_value())


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_the_first_sight_is_a_film_in_color_and_the_button(
    browser: sync_api.Browser, server: Server, width: int, height: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": height})
    opened = open_page(context, server.url)
    expect(opened.locator("#film video")).to_be_in_viewport(ratio=0.9)
    expect(opened.locator("#run")).to_be_in_viewport(ratio=1)
    assert opened.locator("#film video").evaluate("film => film.play().then(() => film.videoWidth)") > 0
    if width > 800:
        for name in ("preset", "prior", "steps", "eta"):
            expect(opened.locator(f"#{name}")).to_be_in_viewport(ratio=0.6)
        expect(opened.locator("#preset")).to_contain_text("dB")
    context.close()


def test_an_example_shows_its_finished_result_at_once_and_asks_no_network(page: sync_api.Page, server: Server) -> None:
    foreign: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((server.url, "data:", "blob:")) else foreign.append(r.url))
    page.reload()
    page.wait_for_selector("#run")
    click_example(page, 1)
    expect(page.locator("#film")).to_contain_text("painted houses", timeout=30 * SECOND)
    expect(page.locator("#heading")).to_contain_text("painted houses")
    expect(page.locator("#scores")).to_contain_text("PSNR")
    expect(page.locator("#step1 video")).not_to_be_visible()
    assert foreign == []


def test_a_run_moves_ends_can_be_recolored_compared_and_shared(
    page: sync_api.Page, browser: sync_api.Browser, server: Server
) -> None:
    prepare_short_run(page)
    page.click("#run")
    expect(page.locator("#cancel")).to_be_enabled(timeout=30 * SECOND)
    expect(page.locator("#coverage svg")).to_be_visible(timeout=RUN)
    expect(page.locator("#mask img")).to_be_visible()
    link = link_of(page)
    assert "run=" in link, "the link is there before the end"
    expect(progress(page)).to_contain_text("Finished in", timeout=RUN)
    expect(page.locator("#heading")).to_contain_text("3 frames")
    assert link_of(page) == link
    expect(page.locator("#film video")).to_be_visible()

    set_number(page, "shown", 2)
    expect(page.locator("#parts")).to_contain_text("propagated")
    before = page.locator("#parts").inner_text()
    set_number(page, "iteration", 0)
    expect(page.locator("#parts")).not_to_have_text(before)

    page.get_by_text("3 · Choices").click()
    set_number(page, "eta", 0.5)
    page.click("#run")
    expect(progress(page)).not_to_contain_text("Finished", timeout=30 * SECOND)
    expect(progress(page)).to_contain_text("Finished in", timeout=RUN)
    assert link_of(page) != link

    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#runs")).to_contain_text("0.5")
    expect(page.locator("#compared img").first).to_be_visible()

    visitor = browser.new_context()
    shared = open_page(visitor, link)
    expect(shared.locator("#heading")).to_contain_text("3 frames", timeout=60 * SECOND)
    expect(shared.locator("#film video")).to_be_in_viewport()
    expect(shared.locator("#frames input[type=number]")).to_have_value("3")
    visitor.close()


def test_a_closed_tab_loses_nothing(browser: sync_api.Browser, server: Server) -> None:
    """Closed at random moments, the link shows the same result."""
    found = set()
    for moment in np.random.default_rng(int(time.time())).uniform(0, 3, 5):
        context = browser.new_context()
        first = open_page(context, server.url)
        prepare_short_run(first, 12)
        first.click("#run")
        expect(first.locator("#link")).to_be_visible(timeout=30 * SECOND)
        link = link_of(first)
        first.wait_for_timeout(moment * SECOND)
        first.close()
        again = open_page(context, link)
        expect(progress(again)).to_contain_text(re.compile("Finished in|Opened from"), timeout=RUN)
        token = urllib.parse.parse_qs(urllib.parse.urlparse(link).query)["run"][0]
        with np.load(server.results / token / "colors" / "00000.npz") as colors:
            found.add(hashlib.sha256(colors["ab"].tobytes()).hexdigest())
        expect(again.locator("#heading")).to_contain_text("12 frames")
        context.close()
    assert len(found) == 1


def test_cancel_keeps_and_shows_what_is_done(page: sync_api.Page, tmp_path: Path) -> None:
    prepare_long_run(page, tmp_path)
    page.click("#run")
    expect(page.locator("#coverage svg")).to_be_visible(timeout=RUN)
    page.click("#cancel")
    expect(progress(page)).to_contain_text("Stopped", timeout=RUN)
    expect(page.locator("#heading")).to_contain_text("stopped early")
    expect(page.locator("#film video")).to_be_visible()
    expect(page.locator("#run")).to_be_enabled()


def test_a_second_visitor_is_queued_and_told_and_a_run_can_be_canceled_from_its_link(
    page: sync_api.Page, browser: sync_api.Browser, server: Server, tmp_path: Path
) -> None:
    context = browser.new_context()
    second = open_page(context, server.url)
    prepare_short_run(second, 1)
    prepare_long_run(page, tmp_path)
    page.click("#run")
    expect(page.locator("#coverage svg")).to_be_visible(timeout=RUN)
    link = link_of(page)
    second.click("#run")
    expect(progress(second)).to_contain_text("1 other run first", timeout=30 * SECOND)
    page.close()
    again = open_page(context, link)
    again.click("#cancel")
    expect(progress(again)).to_contain_text("Stopped", timeout=RUN)
    expect(progress(second)).to_contain_text("Finished in", timeout=RUN)
    context.close()


def test_exemplars_are_tied_to_frames_and_checked(page: sync_api.Page, tmp_path: Path) -> None:
    click_example(page)
    page.get_by_text("2 · A frame in color").click()
    set_number(page, "frame", 5)
    page.click("#own")
    expect(page.locator("#notes")).to_contain_text("Frame 5 is an exemplar")
    page.get_by_text("2 · A frame in color").click()
    with page.expect_download() as download:
        page.locator("#preview a[download]").click()
    gray = tmp_path / download.value.suggested_filename
    download.value.save_as(gray)
    page.locator("#exemplar input[type=file]").set_input_files(gray)
    expect(page.locator(".toast-body")).to_contain_text("exemplar is gray", timeout=30 * SECOND)


def draw(page: sync_api.Page, ink: int, *path: tuple[float, float], brush: str = "brush") -> None:
    """A stroke with a color of the palette through points, as shares of the picture."""
    page.locator(f"#{brush} button[data-ink]").nth(ink).click()
    box = page.locator(f"#{brush} canvas").bounding_box()
    assert box is not None
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in path]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


@pytest.mark.parametrize("width", [1366, 390])
def test_scribbles_make_an_exemplar(browser: sync_api.Browser, server: Server, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=width < 800)
    opened = open_page(context, server.url)
    click_example(opened, 2)
    opened.get_by_text("2 · A frame in color").click()
    opened.get_by_role("tab", name="Paint it").click()
    opened.locator("#brush").evaluate("brush => brush.scrollIntoView()")
    draw(opened, 5, (0.1, 0.1), (0.4, 0.1))
    spread = opened.locator("#spread img")
    expect(spread).to_be_visible()
    one = spread.get_attribute("src") or ""
    draw(opened, 3, (0.1, 0.95), (0.9, 0.95))
    expect(spread).not_to_have_attribute("src", one)
    opened.locator("#brush button[name=undo]").click()
    draw(opened, 0, (0.1, 0.95), (0.9, 0.95))
    opened.click("#take")
    expect(opened.locator("#notes")).to_contain_text("from your scribbles")
    expect(opened.locator("#step2")).to_contain_text("frame 0")
    context.close()


def test_a_result_is_fixed_by_a_stroke_and_the_fix_undone(page: sync_api.Page, server: Server) -> None:
    def colors() -> np.ndarray:
        token = urllib.parse.parse_qs(urllib.parse.urlparse(link_of(page)).query)["run"][0]
        with np.load(server.results / token / "colors" / "00000.npz") as arrays:
            return np.array(arrays["ab"])

    prepare_short_run(page, 4)
    page.click("#run")
    expect(progress(page)).to_contain_text("Finished in", timeout=RUN)
    before, link = colors(), link_of(page)
    page.get_by_text("4 · Fix").click()
    page.click("#advise")
    expect(page.locator("#hint")).to_contain_text("would settle")
    places = page.locator("#places button.thumbnail-item")
    expect(places).to_have_count(3)
    places.nth(2).click()
    named = places.nth(2).inner_text().split()[-1]
    expect(page.locator("#fixframe input[type=number]")).to_have_value(named)
    set_number(page, "fixframe", 2)
    page.locator("#fixbrush").evaluate("brush => brush.scrollIntoView()")
    page.wait_for_timeout(SECOND)
    draw(page, 1, (0.55, 0.2), (0.7, 0.2), brush="fixbrush")
    expect(page.locator("#fixed img")).to_be_visible()
    page.click("#fixit")
    expect(progress(page)).to_contain_text("Fixed in", timeout=RUN)
    fixed = colors()
    assert link_of(page) != link and 0 < (fixed != before).any(1).mean() < 0.5
    page.click("#unfix")
    expect(page.locator("#unfix")).not_to_be_visible(timeout=RUN)
    assert link_of(page) != link and (colors() == before).all()


def test_a_shipped_example_is_colored_here_to_be_fixed(page: sync_api.Page) -> None:
    page.get_by_text("4 · Fix").click()
    expect(page.locator("#hint")).to_contain_text("ships without")
    expect(page.locator("#fixit")).not_to_be_visible()
    page.click("#anew")
    expect(progress(page)).to_contain_text("Finished in", timeout=RUN)
    expect(page.locator("#anew")).not_to_be_visible()
    expect(page.locator("#fixit")).to_be_visible()
    page.get_by_text("Time, memory and downloads").click()
    page.click("#chroma")
    expect(page.locator("#files")).to_contain_text("chroma", timeout=60 * SECOND)


def test_the_prior_offers_versions_of_a_frame(page: sync_api.Page) -> None:
    click_example(page, 2)
    page.get_by_text("2 · A frame in color").click()
    page.get_by_role("tab", name="Have it guessed").click()
    page.click("#guess")
    versions = page.locator("#versions button.thumbnail-item")
    expect(versions).to_have_count(3, timeout=RUN)
    versions.nth(1).click()
    expect(page.locator("#notes")).to_contain_text("the prior invented")


def test_a_run_that_does_not_fit_can_be_trimmed(page: sync_api.Page) -> None:
    click_example(page)
    page.locator("#preset").get_by_label("paper").check()
    set_number(page, "frames", 36)
    expect(page.locator("#estimate")).to_contain_text("more than this machine")
    page.click("#fit")
    expect(page.locator("#fit")).not_to_be_visible()
    expect(page.locator("#estimate")).not_to_contain_text("more than this machine")
    expect(page.locator("#preset").get_by_label("paper")).not_to_be_checked()


def test_an_expired_link_says_so_and_keeps_its_settings(browser: sync_api.Browser, server: Server) -> None:
    context = browser.new_context()
    opened = open_page(context, f"{server.url}/?run={'a' * 22}&preset=standard&prior=bundled&eta=0.7&steps=9&seed=5")
    expect(progress(opened)).to_contain_text("expired", timeout=60 * SECOND)
    expect(opened.locator("#eta input")).to_have_value("0.7")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width(browser: sync_api.Browser, server: Server, scheme: str, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, is_mobile=True)
    opened = open_page(context, server.url)
    click_example(opened)
    expect(opened.locator("#run")).to_be_visible()
    overflow = opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 1, "the page is wider than the phone"
    assert opened.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    context.close()


def test_the_keyboard_reaches_the_run_button(page: sync_api.Page) -> None:
    seen = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.closest('[id]')?.id"))
    assert "run" in seen


def test_a_file_that_is_no_video_is_a_sentence_not_a_traceback(page: sync_api.Page, tmp_path: Path) -> None:
    bad = tmp_path / "broken.mp4"
    bad.write_bytes(b"this is not a video")
    page.locator("#clip input[type=file]").set_input_files(bad)
    toast = page.locator(".toast-body")
    expect(toast.first).to_contain_text("broken.mp4", timeout=30 * SECOND)
    assert "Traceback" not in toast.first.inner_text()
    assert "/" not in toast.first.inner_text().replace("and/or", "")
