"""The page's rooms without a browser: limits, what visitors give, results on disk, and what is shown."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from omnifusion.correction.history import Correction, FrameCorrected
from omnifusion.progress import Colored, InputError, Step, run_to_end
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.run.pipeline import begin, color
from omnifusion.settings import PRESETS, choose
from omnifusion.state import ColorEstimate, ColorState, Origin, Video
from omnifusion.ui import make_service, parts, result_tab, settings_tab, zerogpu
from omnifusion.ui.jobs import Live
from omnifusion.ui.parts import ENDPOINT_OPTIONS, EXAMPLES, in_words, message
from omnifusion.ui.service import Service
from omnifusion.ui.store import Limits, Store, Visit, receive_file, receive_run
from omnifusion.video import read, write, write_image


def film(path: Path, frames: int = 3, size: tuple[int, int] = (48, 64), gray: bool = False, seed: int = 0) -> Path:
    """A small clip: a smooth colored pattern that moves one pixel a frame."""
    h, w = size
    y, x = np.mgrid[:h, :w].astype(np.float32)
    waves = np.random.default_rng(seed).uniform(0.05, 0.25, (3, 2))
    pictures = []
    for t in range(frames):
        rgb = np.stack([127 + 100 * np.sin(a * (x + t) + b * y + 2 * k) for k, (a, b) in enumerate(waves)])
        pictures.append((rgb.mean(0, keepdims=True).repeat(3, 0) if gray else rgb).clip(0, 255).astype(np.uint8))
    write(path, Video(np.stack(pictures), Fraction(12)), overwrite=True)
    return path


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(Limits(results=tmp_path / "results"))


ASKER: Any = gr.Request(session_hash="page", client=None)


def finished(service: Service, clip: Path, **request: Any) -> RunFolder:
    """A run as the page has it, done at once."""
    asked = RunRequest(clip.name, choose("draft", max_side=64), **request)
    job = service.color(clip, (48, 64), asked, {}, ASKER, page=True)
    return run_to_end(job.work())


# -- limits and words


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIFUSION_MAX_FRAMES", "7")
    assert Limits.from_environment().frames == 7
    for bad in ("many", "0", "-3", "nan", "inf"):
        monkeypatch.setenv("OMNIFUSION_MAX_FRAMES", bad)
        with pytest.raises(InputError, match="OMNIFUSION_MAX_FRAMES"):
            Limits.from_environment()


def test_no_sentence_on_the_page_names_an_option_or_a_place_on_the_server(tmp_path: Path) -> None:
    bad = tmp_path / "my holiday.mp4"
    bad.write_bytes(b"not a film at all")
    with pytest.raises(InputError) as caught:
        receive_file(bad, Limits(), tmp_path)
    said = in_words(caught.value)
    assert said.startswith("my holiday.mp4 ") and str(tmp_path) not in said
    assert in_words(InputError("red and/or blue, 3/4 of http://a.b/c")) == "red and/or blue, 3/4 of http://a.b/c"
    unlike = InputError("It is unlike", {"": "check the frame index", "force": "use it anyway"})
    assert (
        "Accept any picture" in in_words(unlike)
        and in_words(unlike, ENDPOINT_OPTIONS) == "It is unlike; check the frame index."
    )
    assert "error" in in_words(KeyError("x")) and "x" not in in_words(KeyError("x"))[:30]


def test_caps_on_frame_size_and_length(tmp_path: Path) -> None:
    clip = film(tmp_path / "a.mp4", frames=5)
    with pytest.raises(InputError, match="million pixels"):
        receive_file(clip, Limits(pixels=1000), tmp_path)
    short = receive_file(clip, Limits(frames=4), tmp_path)
    assert short.frames == 4 and "first 4 frames" in short.about(4)


# -- what visitors give


def test_a_clip_has_a_folder_and_uploaded_names_stay_out_of_it(tmp_path: Path) -> None:
    nasty = film(tmp_path / "$(touch hacked); a.mp4")
    clip, other = (receive_file(nasty, Limits(), tmp_path / "visits") for _ in range(2))
    assert clip.file.name == "clip.mp4" and clip.name == nasty.name and clip.name in clip.about(120)
    shown = clip.preview(99)
    assert shown.shape == (48, 64, 3) and np.ptp(shown.astype(int), axis=2).max() <= 1
    assert len(read(clip.film)) == 3 and other.file.parent != clip.file.parent
    visit = Visit(clip)
    visit.exchange(other)
    assert not clip.file.parent.exists() and other.file.exists() and visit.require() is other
    visit.exchange()
    with pytest.raises(InputError, match="no clip yet"):
        visit.require()


def test_a_clip_of_one_frame_is_a_clip(tmp_path: Path) -> None:
    clip = receive_file(film(tmp_path / "one.mp4", frames=1), Limits(), tmp_path)
    assert clip.frames == 1 and clip.cuts == () and "1 frame, 64 x 48" in clip.about(120)
    assert parts.slider(clip.frames).maximum == 1


def test_cuts_are_told(tmp_path: Path) -> None:
    scenes = [np.asarray(read(film(tmp_path / f"{k}.mp4", 12, seed=k)).frames) for k in range(3)]
    write(tmp_path / "cut.mp4", Video(np.concatenate([255 - scenes[0] // 3, scenes[1] // 4, scenes[2]]), Fraction(12)))
    clip = receive_file(tmp_path / "cut.mp4", Limits(), tmp_path)
    assert "There are cuts at frames 12 and 24." in clip.about(120)
    asked = RunRequest("cut", PRESETS["draft"], 36, (3, 13))
    assert settings_tab.lacks_colors(clip, asked) and not settings_tab.lacks_colors(clip, replace(asked, frames=24))


def test_an_exemplar_is_checked_when_it_is_given(tmp_path: Path) -> None:
    clip = receive_file(film(tmp_path / "a.mp4"), Limits(), tmp_path / "visits")
    assert "Frame 2 now has its colors" in clip.attach(2, clip.frame(2))
    mark = Visit(clip).mark
    assert "very well (1.00)" in clip.attach_picture(1, clip.exemplars[2], Limits(), False)
    assert set(clip.exemplars) == {1, 2} and Visit(clip).mark != mark
    write_image(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 255, (3, 48, 64), dtype=np.uint8))
    with pytest.raises(InputError, match="matches at"):
        clip.attach_picture(0, tmp_path / "noise.png", Limits(), False)


def test_a_large_photograph_is_made_smaller(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", np.zeros((3, 300, 400), np.uint8))
    clip = receive_file(film(tmp_path / "a.mp4"), Limits(), tmp_path)
    with pytest.raises(InputError, match="gray"):  # read, and looked at
        clip.attach_picture(0, tmp_path / "photo.png", Limits(pixels=200 * 250), False)


@pytest.mark.parametrize(
    "value",
    ["paint", [1], {"0": [["red", 0.1, [[1, 2]]]]}, {"0": [["#b04030", 0.1, [[1]]]]}, {"0": [["#b04030", 0.1, []]]},
     {"0": [["#b04030", -1, [[1, 2]]]]}, {"0": [["#b04030", 0.1, [[1, 1e9]]]]}, {"x": []},
     {"0": [["#b04030", 0.1, [[1, float("nan")]]]]}, {"-1": [["keep", 0.1, [[0, 0]]]]}, {"0": [["#b04030", 0.1, {}]]},
     {"0": [["#b04030", 0.01, [[0.5, 0.5]] * 60_000]]}],
)  # fmt: skip
def test_what_the_brush_cannot_have_sent_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="paint"):
        parts.read_scribbles(value)


def test_scribbles_are_kept_by_frame_and_drawn_at_any_size() -> None:
    stroke, keep = ["#b04030", 0.05, [[0.1, 0.1], [0.5, 0.1]]], ["keep", 0.05, [[0.4, 0.1]]]
    sent = {"3": [stroke, keep], "5": [["erase", 0.1, [[0.5, 0.1]]]], "7": []}
    scribbles = parts.read_scribbles(sent)
    assert set(scribbles) == {3, 5}
    for height, width in ((48, 64), (96, 128)):
        colors, kept = parts.painted(scribbles[3], (height, width))
        at = int(0.1 * width)
        assert colors[:, at, at].tolist() == [0xB0, 0x40, 0x30, 255] and not colors[3, at, int(0.4 * width)]
        assert kept[at, int(0.4 * width)] and not kept[at, at]
    assert not parts.painted([*scribbles[3], *scribbles[5]], (48, 64))[0][3, 6, 31], "an eraser takes color away"


def test_the_palette_is_the_pictures_own() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :40], picture[:, 40:] = (176, 64, 48), (48, 80, 176)
    assert parts.palette_of(picture, 2) == ["#b04030", "#3050b0"]


# -- runs


def test_a_run_is_kept_opened_compared_corrected_and_its_parent_found(service: Service, tmp_path: Path) -> None:
    run = finished(service, film(tmp_path / "a.mp4"))
    assert run.report["complete"] and service.store.open(run.token) == run and service.store.has(run.token)
    seen = {what: result_tab.compared(run, what, 1) for what in ("", "gray", "original")}
    assert {picture.shape for picture in seen.values()} == {(48, 64, 3)}
    assert np.ptp(seen["gray"].astype(int), axis=2).max() <= 1 < np.ptp(seen[""].astype(int), axis=2).max()
    patch = np.zeros((4, 48, 64), np.uint8)
    patch[:, 10:30, 10:30] = np.array((40, 60, 190, 255))[:, None, None]
    job = service.correct(run, Correction({1: patch}), ASKER)
    steps: list[Step] = []
    fixed = run_to_end(job.work(), steps.append)
    assert any(isinstance(step, FrameCorrected) for step in steps) and fixed.token == job.token
    assert service.parent(fixed) == run.token and service.parent(run) == ""
    last = result_tab.last_iteration(fixed.report)
    assert last > result_tab.last_iteration(run.report), "a fix is an iteration, too"
    _, _, shares = result_tab.at_iteration(fixed, 1, last)
    assert sum(map(float, re.findall(r"([\d.]+) %</li>", shares))) == pytest.approx(100, abs=0.3)
    first, second = result_tab.names([run, fixed])
    assert first == "1: fixes 0" and second == "2: fixes 1", "named by what differs, and by nothing else"
    assert len(result_tab.table([run, fixed])["data"]) == 2
    clip = receive_run(fixed, service.limits, tmp_path)
    assert clip.name == "a.mp4" and clip.frames == 3


def test_the_same_request_by_page_and_pipeline_gives_the_same_frames(service: Service, tmp_path: Path) -> None:
    clip = film(tmp_path / "a.mp4")
    ours = finished(service, clip, frames=3)
    plain = run_to_end(color(begin(tmp_path / "out", RunRequest("a", choose("draft", max_side=64)), {}, clip)))
    assert all((ours.frame(t) == plain.frame(t)).all() for t in range(3))


def test_a_run_that_its_server_did_not_finish_goes_on_and_is_not_tried_for_ever(
    service: Service, tmp_path: Path
) -> None:
    asked = RunRequest("a.mp4", choose("draft", max_side=64))
    page, program = (
        service.color(film(tmp_path / "a.mp4"), (48, 64), asked, {}, ASKER, page) for page in (True, False)
    )
    page.work = program.work = lambda: iter(())  # type: ignore[assignment, return-value]  # the process ends here
    again = make_service(service.limits)
    again.go_on()
    (job,) = again.jobs.unfinished()
    assert job.token == page.token and job.result.result(60).report["complete"] and again.store.has(page.token)
    assert not program.folder.exists(), "nobody waits for a program's run any more"
    assert job.visitor == page.token, "runs that go on count for nobody's places in the queue"
    crashing = service.color(film(tmp_path / "b.mp4"), (48, 64), asked, {}, ASKER, page=True)
    for _ in range(3):
        service.store.attempt(crashing.folder)
    del crashing
    assert list(make_service(service.limits).store.unfinished()) == []


def test_links_expire_and_lead_nowhere_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "results", days=2)
    folder = store.new()
    folder.mkdir()
    (folder / "report.json").write_text("{}")
    assert store.has(folder.name)
    for bad in ("", "../results", "..", folder.name + "/..", "visits", "a" * 22):
        with pytest.raises(InputError, match="expired"):
            store.open(bad)
    past = time.time() - 3 * 86400
    os.utime(folder, (past, past))
    left = store.visits / "somebody"
    left.mkdir(parents=True)
    os.utime(left, (past, past))
    store.keep_expiring()
    end = time.monotonic() + 5
    while (left.exists() or folder.exists()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left.exists() and not store.has(folder.name), "without any visitor"


def test_what_does_not_fit_is_refused_and_told_what_would(service: Service) -> None:
    service = replace(service, limits=service.limits.model_copy(update={"seconds": 300, "mib": 2500}))
    service.require_fit(PRESETS["draft"], 8, (216, 384))
    with pytest.raises(InputError, match=r"would take about .* it would fit with preset (standard|draft)"):
        service.require_fit(choose("paper", steps=1000), 5, (96, 128))
    with pytest.raises(InputError, match="it would fit with steps 4"):
        service.require_fit(choose("draft", diffusion="always", strength="none", steps=1000), 8, (216, 384))
    with pytest.raises(InputError, match=r"it would fit with frames \d+\."):
        service.require_fit(choose("draft", omnimotion="standard"), 2000, (216, 384))
    with pytest.raises(InputError, match="1024 x 16"):
        service.require_fit(PRESETS["draft"], 2, (16, 1024))


def test_stable_diffusion_fits_where_a_gpu_takes_its_weights(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for prior in ("sd15", "sd20"):
        with pytest.raises(InputError, match="it would fit with preset standard, prior bundled"):
            service.require_fit(choose("paper", prior=prior), 120, (240, 427))
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    for preset in ("draft", "standard"):
        service.require_fit(choose(preset, prior="sd15"), 120, (240, 427))


def test_the_page_takes_only_priors_by_name() -> None:
    for bad in ("/etc", "../assets/prior", "someone/model", ""):
        with pytest.raises(InputError, match="no prior"):
            zerogpu.check_prior(bad)
    zerogpu.check_prior("bundled")


# -- what is shown


def test_live_tells_what_a_run_does_and_never_looks_at_the_whole_clip() -> None:
    L = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 100
    gray = ColorState.gray(L)
    gray = replace(gray, **{name: tuple(getattr(gray, name)) for name in ("ab", "origin", "confidence", "source")})
    sure, some, other = torch.ones(8, 8), torch.full((2, 8, 8), 20.0), torch.full((2, 8, 8), 9.0)
    first = gray.paint(0, sure > 0, ColorEstimate(some, sure), 0, Origin.EXEMPLAR)
    half = torch.zeros(8, 8, dtype=torch.bool)
    half[:4] = True
    second = first.paint(2, half, ColorEstimate(other, sure), 0, Origin.PROPAGATED)
    live, seen = Live(), 0
    live.note(Colored("propagate", "in place", 1 / 3, state=first, iteration=0, frames=(4, 5, 6)))
    shown = live.pictures()
    assert shown["before"].shape == (8, 8, 3) and (shown["before"] == shown["after"]).any()
    assert live.caption == "frame 4, iteration 0" and live.number > seen
    live.note(Colored("propagate", "<b>", 0.5, state=second, frame=0, iteration=0, frames=(4, 5, 6)))
    assert live.caption == "frame 6, iteration 0", "the frame that gained is shown, by its number in the clip"
    shown = live.pictures()
    assert (shown["before"] != shown["after"]).any() and (shown["before"][4:] == shown["after"][4:]).all()
    assert live.shares == pytest.approx([1 / 3, 1 / 6, 0.0])
    bars = live.progress("dog: ")
    assert "&lt;b&gt;" in bars and "dog: " in bars and 'value="50"' in bars
    assert live.figures().count("<img") == 3 and live.caption in live.figures()
    began = time.process_time()
    for _ in range(1000):
        live.note(Colored("inpaint", "", 0.5, state=second, frame=0, iteration=0))
    assert time.process_time() - began < 0.5, "half a millisecond a step"


def test_messages_cannot_carry_markup() -> None:
    assert "<script>" not in message("<script>alert(1)</script>")
    run = replace(EXAMPLES["train"], request=replace(EXAMPLES["train"].request, name="<i>.mp4"))
    assert "<i>.mp4" not in result_tab.heading(run) + result_tab.downloads(run) + parts.film(run.clip, "<i>.mp4", True)


def test_downloads_are_named_after_the_clip() -> None:
    run = replace(EXAMPLES["train"], request=replace(EXAMPLES["train"].request, name="dog/1.mp4"))
    assert 'download="dog_1_colorized.mp4"' in result_tab.downloads(run)


def test_every_example_is_small_and_finished_beforehand() -> None:
    for run in EXAMPLES.values():
        assert run.clip.stat().st_size < 1.5e6 and run.clip.with_suffix(".jpg").is_file()
        assert run.report["complete"] and run.report["scores"]
        assert sum(f.stat().st_size for f in run.folder.iterdir()) < 1e6
        last = run.report["frames"] - 1
        then, where, shares = result_tab.at_iteration(run, last, result_tab.last_iteration(run.report))
        assert then.shape == where.shape == run.frame(last).shape and "tracked" in shares
