"""The page as a visitor meets it, in Chromium: what it says is compared with what the results on disk hold."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import cv2
import numpy as np
import pytest
from ui_server import Server, serve

from omnifusion.state import Video
from omnifusion.ui.result_tab import gray_of
from omnifusion.video import read, write, write_image

sync_api = pytest.importorskip("playwright.sync_api") if "OMNIFUSION_REQUIRE_BROWSER" not in os.environ else None
if sync_api is None:
    from playwright import sync_api
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
SECOND = 1000
RUN = 180 * SECOND
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
    yield open_page(context, server.url)
    context.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small gray clips of other scenes, ``a`` and ``b``, with frames in color; one of one frame; a longer one."""
    folder = tmp_path_factory.mktemp("clips")
    made = {"a": ("train", 6, (192, 108)), "b": ("street", 5, (160, 90)), "one": ("train", 1, (192, 108)),
            "long": ("street", 36, (384, 216))}  # fmt: skip
    for name, (example, frames, size) in made.items():
        film = read(EXAMPLES / f"{example}.mp4", frames)
        colors = [cv2.resize(np.ascontiguousarray(frame.transpose(1, 2, 0)), size) for frame in np.asarray(film.frames)]
        for k in (0, frames - 1):
            write_image(folder / f"{name}{k}.png", colors[k].transpose(2, 0, 1))
        grays = [gray_of(color).transpose(2, 0, 1) for color in colors]
        write(folder / f"{name}.mp4", Video(np.stack(grays + grays[::-1] * (name == "long")), film.fps))
    return folder


def open_page(context: sync_api.BrowserContext, url: str) -> sync_api.Page:
    opened = context.new_page()
    opened.set_default_timeout(60 * SECOND)
    opened.goto(url)
    opened.wait_for_selector("#of-splash", state="detached")
    expect(opened.locator("#film video")).to_be_attached()
    wait_for_form(opened)
    return opened


def wait_for_form(page: sync_api.Page) -> None:
    """The form waits while something is taken in, and so do visitors."""
    page.wait_for_function("() => !document.querySelector('#run').inert")


def give_clip(page: sync_api.Page, path: Path, frames: str) -> None:
    if not page.locator("#clip input[type=file]").count():  # one is there already
        page.locator("#step1 button.label-wrap").click()
        page.locator("#clip").get_by_label("Clear").click()
        expect(page.locator("#step1")).not_to_contain_text("frame", timeout=30 * SECOND)
    page.locator("#clip input[type=file]").set_input_files(path)
    expect(page.locator("#step1")).to_contain_text(f"{path.name}, {frames}", timeout=60 * SECOND)


def give_frame(page: sync_api.Page, path: Path, frame: int, wait: bool = True) -> None:
    if not page.locator("#exemplar input[type=file]").is_visible() and "frame 0" in page.locator("#step2").inner_text():
        page.locator("#step2 > button.label-wrap").click()
    if frame:
        set_number(page, "frame", frame)
    page.locator("#exemplar input[type=file]").set_input_files(path)
    if wait:
        expect(page.locator("#step2")).to_contain_text(f"frame {frame}", timeout=60 * SECOND)


def set_number(page: sync_api.Page, name: str, value: float) -> None:
    wait_for_form(page)
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def take_time(page: sync_api.Page) -> None:
    """Choose a preset with which the long clip is still at work when the test has done what it does meanwhile."""
    page.locator("#step3 > button.label-wrap").click()
    page.locator("#preset").get_by_label("Standard").check()
    expect(page.locator("#step3")).to_contain_text("standard, ")
    wait_for_form(page)


def status(page: sync_api.Page) -> sync_api.Locator:
    return page.locator("#status")


def token_of(page: sync_api.Page) -> str:
    return parse_qs(urlparse(page.url).query).get("run", [""])[0]


def report_of(server: Server, token: str) -> dict[str, Any]:
    request = json.loads((server.results / token / "request.json").read_text())
    return json.loads((server.results / token / "report.json").read_text()) | {"asked": request}


def colorize(page: sync_api.Page, until: str = "Finished in") -> str:
    """Press the button, and wait for the end; returns the token that the address bar has from the start."""
    before = token_of(page)
    page.click("#run")
    page.wait_for_function("before => !location.search.includes(before || ' ') && location.search", arg=before)
    token = token_of(page)
    expect(status(page)).to_contain_text(until, timeout=RUN)
    expect(page.locator("#run")).to_be_enabled()
    assert token_of(page) == token
    return token


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_first_sight_says_what_the_page_does_and_color_moves(
    browser: sync_api.Browser, server: Server, width: int, height: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=width < 800)
    foreign: list[str] = []
    context.on("request", lambda r: None if r.url.startswith((server.url, "data:", "blob:")) else foreign.append(r.url))
    opened = context.new_page()
    opened.goto(server.url, wait_until="commit")
    expect(opened.locator("#of-splash img")).to_be_visible(timeout=10 * SECOND)
    assert opened.locator("#of-splash img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    expect(opened.locator("#film video")).to_be_in_viewport(ratio=0.9, timeout=60 * SECOND)
    expect(opened.locator("#of-splash")).to_have_count(0)
    expect(opened.locator("#run")).to_be_in_viewport(ratio=1)
    expect(opened.locator(".of-head a")).to_have_text(["Paper (ACCV 2024)"])
    expect(opened.locator("#eta")).not_to_be_visible()
    assert opened.locator("#film video").evaluate("film => film.play().then(() => film.videoWidth)") > 0
    for button in opened.locator("#examples button").all():
        assert (button.bounding_box() or {})["width"] > 100
    assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 1, "nothing is cut off"
    assert opened.locator("#examples").evaluate("box => box.scrollHeight - box.clientHeight") <= 0
    assert foreign == []
    context.close()


def test_the_page_is_for_keyboards_and_readers_of_screens(page: sync_api.Page) -> None:
    reached: list[Any] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.closest('#examples, #film, #run')?.id"))
    assert {"examples", "film", "run"} <= set(reached)
    wipe = page.locator(".of-film input")
    wipe.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.locator(".of-film").evaluate("figure => figure.style.getPropertyValue('--at')") == "60%"
    line = page.locator("#graycolor [data-testid=slider]")
    line.focus()
    before = line.get_attribute("style")
    page.keyboard.press("ArrowRight")
    expect(line).not_to_have_attribute("style", before or "")
    for kind in ("img", "video"):
        nameless = [part for part in page.locator(f"#stage {kind}:visible").all()
                    if not (part.get_attribute("alt") or part.get_attribute("aria-label"))]  # fmt: skip
        assert not nameless, kind


def test_an_example_shows_its_finished_result_and_its_clip(page: sync_api.Page) -> None:
    page.locator("#examples button").nth(1).press("Enter")
    expect(page.locator("#film")).to_contain_text("painted houses", timeout=60 * SECOND)
    expect(page.locator("#heading")).to_contain_text("painted houses")
    expect(page.locator("#step1")).to_contain_text("36 frames", timeout=60 * SECOND)
    expect(status(page)).to_contain_text("Precomputed")
    assert token_of(page) == ""


def test_a_run_from_the_drop_to_the_link(
    page: sync_api.Page, browser: sync_api.Browser, server: Server, clips: Path
) -> None:
    give_clip(page, clips / "a.mp4", "6 frames")
    expect(page.locator("#film")).to_contain_text("a.mp4, not colorized yet")
    expect(page.locator("#outcome")).not_to_be_visible()
    expect(page.locator("#step4")).not_to_be_visible()
    held: list[sync_api.Route] = []
    page.route("**/gradio_api/upload**", lambda route: held.append(route))
    give_frame(page, clips / "a0.png", 0, wait=False)
    expect(page.locator("#run")).to_have_attribute("inert", "")
    page.locator("#run").click(force=True)  # at once after the drop: nothing runs without the picture
    page.locator("#run").evaluate("run => run.click()")
    page.wait_for_timeout(SECOND)
    assert held and not token_of(page), "the picture is under way"
    held[0].continue_()
    page.unroute("**/gradio_api/upload**")
    expect(page.locator("#step2")).to_contain_text("frame 0", timeout=60 * SECOND)
    expect(status(page)).to_contain_text("very well")
    expect(page.locator("#estimate")).to_contain_text("About")
    token = colorize(page)
    report = report_of(server, token)
    assert report["exemplars"] == [0] and report["asked"]["name"] == "a.mp4" and report["frames"] == 6
    expect(page.locator("#heading")).to_contain_text("6 frames")
    expect(page.locator("#film")).to_contain_text("color")
    with page.expect_download() as download:
        page.locator("#downloads a").first.click()
    assert download.value.suggested_filename == "a_colorized.mp4"
    page.get_by_text("More downloads").click()
    with page.expect_download() as download:
        page.click("#chroma")
    assert download.value.suggested_filename == "a_chroma.mkv"
    before = page.locator("#parts").inner_text()
    set_number(page, "iteration", 0)
    expect(page.locator("#parts")).not_to_have_text(before)

    page.reload()
    other = open_page(browser.new_context(viewport={"width": 390, "height": 844}), page.url)
    for shown in (page, other):
        expect(shown.locator("#heading")).to_contain_text("6 frames", timeout=60 * SECOND)
        expect(shown.locator("#film video")).to_be_in_viewport()
        expect(shown.locator("#step1")).to_contain_text("a.mp4, 6 frames")
        expect(shown.locator("#step2")).to_contain_text("frame 0")
        expect(shown.locator("#step3")).to_contain_text("draft, 6 frames")
        expect(status(shown)).to_contain_text("Finished in")
    other.get_by_role("tab", name="Compare").click()
    expect(other.locator("#compared img").first).to_be_visible(timeout=30 * SECOND)
    assert small_targets(other) == []
    other.context.close()


def test_what_is_given_during_a_run_is_what_the_next_run_takes(
    page: sync_api.Page, server: Server, clips: Path
) -> None:
    """A frame, then another clip with its frame, each while an earlier run goes on."""
    give_clip(page, clips / "long.mp4", "72 frames")
    take_time(page)
    give_frame(page, clips / "long0.png", 0)
    page.click("#run")
    expect(page.locator("#cancel")).to_be_visible(timeout=60 * SECOND)
    give_frame(page, clips / "long35.png", 35)
    expect(page.locator("#run")).to_be_disabled()
    first = token_of(page)
    give_clip(page, clips / "b.mp4", "5 frames")
    give_frame(page, clips / "b0.png", 0)
    expect(page.locator("#film")).to_contain_text("b.mp4, not colorized yet")
    assert token_of(page) == first, "the run that goes on keeps its address"
    expect(page.locator("#link")).to_contain_text("Link to the run of long.mp4")
    expect(page.locator("#progress")).to_contain_text("long.mp4: ", timeout=RUN)
    page.click("#cancel")
    expect(status(page)).to_contain_text("long.mp4 is finished", timeout=RUN)
    expect(page.locator("#film")).to_contain_text("b.mp4, not colorized yet")
    expect(page.locator("#outcome")).not_to_be_visible()
    expect(page.locator("#step1")).to_contain_text("b.mp4")
    asked = report_of(server, first)["asked"]
    assert asked["exemplars"] == [0] and asked["name"] == "long.mp4"
    report = report_of(server, colorize(page))
    assert report["asked"]["name"] == "b.mp4" and report["exemplars"] == [0] and report["frames"] == 5
    give_frame(page, clips / "b4.png", 4)
    assert report_of(server, colorize(page))["exemplars"] == [0, 4]
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#runs")).to_contain_text("colored frames 0, 4")
    expect(page.locator("#compared img").first).to_be_visible(timeout=30 * SECOND)
    page.get_by_role("tab", name="Color", exact=True).click()
    give_clip(page, clips / "a.mp4", "6 frames")
    expect(page.locator("#step3")).to_contain_text("standard, 6 frames")  # not as many as the clip before had
    expect(page.locator("#link")).not_to_be_visible()
    page.wait_for_function("() => !location.search")


def test_cancel_keeps_what_is_done_and_a_second_visitor_waits_and_may_cancel_by_the_link(
    page: sync_api.Page, browser: sync_api.Browser, server: Server, clips: Path
) -> None:
    context = browser.new_context()
    second = open_page(context, server.url)
    give_clip(second, clips / "one.mp4", "1 frame")
    give_clip(page, clips / "long.mp4", "72 frames")
    take_time(page)
    give_frame(page, clips / "long0.png", 0)
    page.click("#run")
    expect(page.locator("#after img")).to_be_visible(timeout=RUN)
    expect(page.locator("#mask img")).to_be_visible()
    second.click("#run")
    expect(second.locator("#progress")).to_contain_text("1 run ahead of yours", timeout=30 * SECOND)
    again = open_page(context, page.url)
    expect(again.locator("#step1")).to_contain_text("long.mp4", timeout=60 * SECOND)
    again.click("#cancel")
    for shown in (page, again):
        expect(status(shown)).to_contain_text("Stopped", timeout=RUN)
        expect(shown.locator("#heading")).to_contain_text("stopped early")
        expect(shown.locator("#run")).to_be_enabled()
    assert not report_of(server, token_of(page))["complete"]
    expect(status(second)).to_contain_text("Finished in", timeout=RUN)
    assert report_of(server, token_of(second))["frames"] == 1
    context.close()


def test_controls_say_whether_they_count(page: sync_api.Page, clips: Path) -> None:
    give_clip(page, clips / "a.mp4", "6 frames")
    page.locator("#step3 > button.label-wrap").click()
    expect(page.locator("#preset")).to_contain_text("Draft, about")
    expect(page.locator("#prior input")).to_be_enabled()
    give_frame(page, clips / "a0.png", 0)
    expect(page.locator("#prior input")).to_be_disabled()
    expect(page.locator("#unused")).to_contain_text("Not used by this run")
    page.click("#everywhere")
    expect(page.locator("#prior input")).to_be_enabled()
    for name, reason in (("steps", "the built-in model takes one step"), ("eta", "the built-in model always does")):
        expect(page.locator(f"#{name}")).to_contain_text(reason)
        expect(page.locator(f"#{name} input")).to_be_disabled()
    expect(page.locator("#unused")).not_to_be_visible()
    page.locator("#preset").get_by_label("Paper").check()
    expect(page.locator("#steps input")).to_be_enabled()
    expect(page.locator("#eta input")).to_be_enabled()
    expect(page.locator("#estimate")).to_contain_text("over this page's limit")
    page.click("#fit")
    expect(page.locator("#fit")).not_to_be_visible()
    expect(page.locator("#preset").get_by_label("Paper")).not_to_be_checked()


def test_what_ends_late_overwrites_nothing_that_was_set_since(page: sync_api.Page, clips: Path) -> None:
    give_clip(page, clips / "long.mp4", "72 frames")
    page.locator("#step3 > button.label-wrap").click()
    expect(page.locator("#frames input[type=number]")).to_have_attribute("max", "72")
    held: list[sync_api.Route] = []
    page.route("**/gradio_api/run/**", lambda route: held.append(route))
    give_frame(page, clips / "long0.png", 0)
    page.wait_for_timeout(SECOND)
    assert held, "the estimate is under way"
    page.locator("#preset").get_by_label("Standard").check()
    set_number(page, "frames", 12)
    page.locator("#eta input").evaluate("eta => { eta.value = 9; eta.dispatchEvent(new Event('input')) }")
    for route in held:
        route.continue_()
    page.unroute("**/gradio_api/run/**")
    expect(page.locator("#step3")).to_contain_text("standard, 12 frames")
    page.wait_for_timeout(SECOND)
    expect(page.locator("#frames input[type=number]")).to_have_value("12")
    expect(page.locator("#eta input")).to_have_value("9")
    give_clip(page, clips / "b.mp4", "5 frames")
    expect(page.locator("#frames input[type=number]")).to_have_value("5")


def draw(page: sync_api.Page, paint: int | str, *path: tuple[float, float], brush: str = "brush") -> None:
    """A stroke with a paint (one of the palette's, or by name) through points, as shares of the picture."""
    tools = page.locator(f"#{brush} .of-tools")
    chosen = (
        tools.locator(f'[data-paint="{paint}"]') if isinstance(paint, str) else tools.locator("[data-paint]").nth(paint)
    )
    chosen.click()
    box = page.locator(f"#{brush} canvas").bounding_box()
    assert box is not None
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in path]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def painted_pixels(page: sync_api.Page, brush: str) -> int:
    """How many pixels of the canvas are painted."""
    count = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter(v => v).length"
    )
    return int(page.locator(f"#{brush} canvas").evaluate(count))


@pytest.mark.parametrize("width", [1360, 390])
def test_scribbles_survive_and_count(browser: sync_api.Browser, server: Server, clips: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 1000}, has_touch=width < 800)
    page = open_page(context, server.url)
    give_clip(page, clips / "b.mp4", "5 frames")
    page.get_by_role("tab", name="Paint").click()
    page.locator("#brush").evaluate("brush => brush.scrollIntoView()")
    expect(page.locator("#brush input[type=color]")).to_be_visible()
    draw(page, 5, (0.1, 0.1), (0.4, 0.1))
    expect(page.locator("#spread img")).to_be_visible(timeout=30 * SECOND)
    drawn = painted_pixels(page, "brush")
    set_number(page, "frame", 3)
    page.wait_for_timeout(2 * SECOND)
    assert painted_pixels(page, "brush") == 0
    page.locator("#brush").evaluate("brush => brush.scrollIntoView()")
    draw(page, 0, (0.1, 0.8), (0.9, 0.8))
    set_number(page, "frame", 0)
    page.wait_for_function("() => document.querySelector('#spread img')")
    page.wait_for_timeout(2 * SECOND)
    assert painted_pixels(page, "brush") == drawn > 0, "scribbles are kept by frame"
    assert report_of(server, colorize(page))["exemplars"] == [0, 3], "the button takes what was painted"
    context.close()


def test_a_result_is_fixed_by_scribbles_and_the_fix_undone(page: sync_api.Page, server: Server, clips: Path) -> None:
    give_clip(page, clips / "a.mp4", "6 frames")
    give_frame(page, clips / "a0.png", 0)
    first = colorize(page)
    page.get_by_text("4 · Fix").click()
    page.click("#advise")
    expect(page.locator("#advice")).to_contain_text("would help most", timeout=60 * SECOND)
    places = page.locator("#places button")
    places.last.click()
    expect(page.locator("#fixframe input[type=number]")).to_have_value(places.last.inner_text().split()[-1])
    set_number(page, "fixframe", 2)
    page.locator("#fixbrush").evaluate("brush => brush.scrollIntoView()")
    page.wait_for_timeout(2 * SECOND)
    draw(page, 1, (0.3, 0.5), (0.45, 0.5), brush="fixbrush")
    expect(page.locator("#fixed img")).to_be_visible(timeout=30 * SECOND)
    set_number(page, "fixframe", 4)
    page.wait_for_timeout(SECOND)
    page.click("#run")
    expect(status(page)).to_contain_text("not applied yet")
    assert token_of(page) == first, "scribbles are not dropped"
    page.click("#fixit")
    expect(status(page)).to_contain_text("Fixed in", timeout=RUN)
    fixed = token_of(page)
    (correction,) = report_of(server, fixed)["corrections"]
    assert fixed != first and correction["patches"] == [2] and "corrections" not in report_of(server, first)
    expect(page.locator("#iteration input[type=number]")).to_have_value(str(correction["iteration"]))
    set_number(page, "shown", 2)
    page.wait_for_timeout(2 * SECOND)
    shares = [
        float(part) for part in page.locator("#parts li").all_inner_texts() for part in part.split() if "." in part
    ]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    page.click("#unfix")
    expect(status(page)).to_contain_text("undone")
    expect(page.locator("#link input, #link textarea")).to_have_value(f"{server.url}/?run={first}")
    page.wait_for_function("first => location.search.includes(first)", arg=first)


def test_a_shipped_example_is_run_here_to_be_fixed(page: sync_api.Page, server: Server) -> None:
    page.get_by_text("4 · Fix").click()
    expect(page.locator("#advice")).to_contain_text("cannot be edited yet")
    expect(page.locator("#fixit")).not_to_be_visible()
    page.locator("#examples button").first.click()
    expect(page.locator("#step1")).to_contain_text("toy train", timeout=60 * SECOND)
    colorize(page)
    expect(page.locator("#fixit")).to_be_visible()


def test_the_built_in_model_suggests_colors(page: sync_api.Page, clips: Path) -> None:
    give_clip(page, clips / "b.mp4", "5 frames")
    page.get_by_role("tab", name="Suggest").click()
    page.click("#guess")
    versions = page.locator("#versions button")
    expect(versions).to_have_count(3, timeout=RUN)
    versions.nth(1).click()
    expect(page.locator("#step2")).to_contain_text("frame 0", timeout=30 * SECOND)


def test_an_unknown_link_says_one_sentence_and_changes_nothing(browser: sync_api.Browser, server: Server) -> None:
    context = browser.new_context()
    opened = open_page(context, f"{server.url}/?run=nonsense&preset=standard")
    expect(status(opened)).to_contain_text("This link has expired", timeout=60 * SECOND)
    expect(opened.locator(".toast-body")).to_have_count(0)
    opened.get_by_text("3 · Settings").click()
    expect(opened.locator("#preset").get_by_label("Draft")).to_be_checked()
    expect(opened.locator("#film")).to_contain_text("toy train")
    context.close()


def test_the_form_is_usable_after_a_picture_that_cannot_be_read_and_a_double_click(
    page: sync_api.Page, clips: Path, tmp_path: Path
) -> None:
    give_clip(page, clips / "b.mp4", "5 frames")
    (tmp_path / "photo.png").write_bytes(b"this is no picture")
    give_frame(page, tmp_path / "photo.png", 0, wait=False)
    expect(page.locator(".toast-body")).to_be_visible(timeout=30 * SECOND)
    wait_for_form(page)
    page.locator("#step1 button.label-wrap").click()
    page.locator("#examples button").nth(1).dblclick()
    expect(page.locator("#step1")).to_contain_text("painted houses", timeout=60 * SECOND)
    page.wait_for_timeout(2 * SECOND)
    wait_for_form(page)


def test_a_file_that_is_no_video_is_a_sentence(page: sync_api.Page, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"this is not a video")
    page.locator("#clip input[type=file]").set_input_files(tmp_path / "broken.mp4")
    expect(status(page)).to_contain_text("broken.mp4", timeout=30 * SECOND)
    assert "/" not in status(page).inner_text() and "Traceback" not in status(page).inner_text()
    give_clip(page, clips / "b.mp4", "5 frames")


def small_targets(page: sync_api.Page) -> list[str]:
    """What is too small for a finger; radio buttons and lists have labels around them."""
    found: list[str] = page.evaluate("""() => [...document.querySelectorAll(".tabitem :is(button, input, a)")]
      .filter((part) => part.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
      .filter((part) => !part.matches("[tabindex='-1'], [type=radio], [role=combobox]"))
      .map((part) => [part.outerHTML.slice(0, 120), part.getBoundingClientRect()])
      .filter(([html, box]) => box.width && Math.min(box.width, box.height) < 23.5)
      .map(([html]) => html)""")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width(browser: sync_api.Browser, server: Server, scheme: str, clips: Path) -> None:
    size = {"width": 390, "height": 844}
    context = browser.new_context(viewport=size, color_scheme=scheme, is_mobile=True, has_touch=True)
    opened = open_page(context, server.url)
    give_clip(opened, clips / "b.mp4", "5 frames")
    assert opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 1
    assert opened.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    assert small_targets(opened) == []
    contrast = opened.evaluate("""() => {
      const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
      const light = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const tab = document.querySelector("button[role=tab].selected");
      const [a, b] = [getComputedStyle(tab).color, getComputedStyle(document.body).backgroundColor].map(light);
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }""")
    assert contrast >= 4.5
    context.close()


def test_a_run_killed_with_its_server_goes_on_after_a_restart(
    browser: sync_api.Browser, clips: Path, tmp_path: Path
) -> None:
    context = browser.new_context()
    with serve(tmp_path) as first:
        page = open_page(context, first.url)
        give_clip(page, clips / "long.mp4", "72 frames")
        take_time(page)
        give_frame(page, clips / "long0.png", 0)
        set_number(page, "frames", 12)
        page.click("#run")
        expect(page.locator("#after img")).to_be_visible(timeout=RUN)
        token = token_of(page)
        os.kill(first.pid, 9)
    with serve(tmp_path) as second:
        again = open_page(context, f"{second.url}/?run={token}")
        expect(status(again)).to_contain_text("Finished in", timeout=RUN)
        expect(again.locator("#heading")).to_contain_text("12 frames")
        report = report_of(second, token)
        assert report["complete"] and report["exemplars"] == [0]
    context.close()
