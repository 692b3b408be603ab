"""The page's rooms without a browser: limits, visitors, results on disk, and pictures."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnifusion import omnimotion
from omnifusion.progress import Colored, InputError, Step, is_canceled, run_to_end
from omnifusion.run.folder import RunRequest, open_run, save_request
from omnifusion.settings import PRESETS, Settings, choose
from omnifusion.state import ColorEstimate, ColorState, Origin, Video
from omnifusion.ui import gpu, live, paint, results, work
from omnifusion.ui.archive import Archive
from omnifusion.ui.assets import EXAMPLES, FOLDER
from omnifusion.ui.estimate import Rates
from omnifusion.ui.limits import Limits
from omnifusion.ui.page import make_service
from omnifusion.ui.service import in_words
from omnifusion.ui.visit import Visit, receive_file, tie, tie_made
from omnifusion.video import Writer, read, reader, write_image


def film(path: Path, frames: int = 3, size: tuple[int, int] = (48, 64), gray: bool = False, seed: int = 0) -> Path:
    """A small clip: a smooth colored pattern that moves one pixel a frame."""
    h, w = size
    y, x = np.mgrid[:h, :w].astype(np.float32)
    waves = np.random.default_rng(seed).uniform(0.05, 0.25, (3, 2))
    pictures = []
    for t in range(frames):
        rgb = np.stack([127 + 100 * np.sin(a * (x + t) + b * y + 2 * k) for k, (a, b) in enumerate(waves)])
        pictures.append((rgb.mean(0, keepdims=True).repeat(3, 0) if gray else rgb).clip(0, 255).astype(np.uint8))
    with Writer(path, Video(np.stack(pictures), Fraction(12))) as writer:
        for picture in pictures:
            writer.add(picture)
    return path


QUICK = replace(omnimotion.PRESETS["draft"], iterations=30)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit of a few iterations: the page does not care how good it is."""
    monkeypatch.setitem(omnimotion.PRESETS, "draft", QUICK)


def finished(archive: Archive, clip: Path, settings: Settings | None = None, **request: Any) -> Any:
    asked = RunRequest(clip.name, settings or choose("draft", max_side=64), **request)
    return run_to_end(work.run(work.Job(clip, asked, {}), archive.new()[1], Limits()))


# -- limits


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIFUSION_MAX_FRAMES", "7")
    assert Limits.from_environment().frames == 7
    for bad in ("many", "0", "-3", "nan", "inf"):
        monkeypatch.setenv("OMNIFUSION_MAX_FRAMES", bad)
        with pytest.raises(InputError, match="OMNIFUSION_MAX_FRAMES"):
            Limits.from_environment()


def test_a_clip_is_probed_by_its_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, decoded = film(tmp_path / "a.mp4", frames=6), []
    true = reader.to_rgb
    monkeypatch.setattr(reader, "to_rgb", lambda frame: decoded.append(frame) or true(frame))
    assert work.probe(clip, Limits()) == (6, (48, 64))
    assert work.probe(clip, Limits(frames=4)) == (4, (48, 64)) and work.probe(clip, Limits(), 2) == (2, (48, 64))
    assert len(decoded) == 3


def test_caps_on_file_size_frame_size_and_length(tmp_path: Path) -> None:
    clip = film(tmp_path / "a.mp4", frames=5)
    with pytest.raises(InputError, match="million pixels"):
        work.open_clip(clip, Limits(pixels=1000))
    with pytest.raises(InputError, match="frames is 0"):
        work.open_clip(clip, Limits(), 0)
    assert len(work.open_clip(clip, Limits(frames=4))) == 4
    assert len(work.open_clip(clip, Limits(frames=4), 2)) == 2
    big = tmp_path / "big.mp4"
    with big.open("wb") as file:
        file.truncate(3 * 2**20)
    with pytest.raises(InputError, match="3 MiB; this page takes at most 2"):
        work.open_clip(big, Limits(megabytes=2))


# -- visitors


def test_a_visitor_has_a_folder_and_uploaded_names_stay_out_of_it(tmp_path: Path) -> None:
    nasty = film(tmp_path / "$(touch hacked); a.mp4")
    visit, notes = receive_file(Visit(), nasty, Limits(), tmp_path / "visits")
    assert visit.folder is not None and visit.clip == visit.folder / "clip.mp4"
    assert visit.name == nasty.name and nasty.name in notes[0]
    other, _ = receive_file(Visit(), nasty, Limits(), tmp_path / "visits")
    assert other.folder != visit.folder
    preview = visit.preview(99)
    assert preview.shape == (48, 64, 3) and np.ptp(preview.astype(int), axis=2).max() == 0
    make_service(Limits(results=tmp_path / "results")).close(visit)
    assert not visit.folder.exists() and other.folder is not None and other.folder.exists()


def test_messages_name_the_upload_not_its_place(tmp_path: Path) -> None:
    bad = tmp_path / "my holiday.mp4"
    bad.write_bytes(b"not a film at all")
    with pytest.raises(InputError) as caught:
        receive_file(Visit(), bad, Limits(), tmp_path)
    said = in_words(caught.value, endpoint=False)
    assert said.startswith("my holiday.mp4 ") and str(tmp_path) not in said
    said = "red and/or blue, 3/4 of http://a.b/c"
    assert in_words(InputError(said), True) == said
    unlike = InputError("It does not match", {"": "check the frame index", "force": "use it anyway"})
    assert in_words(unlike, True) == "It does not match; check the frame index."
    assert in_words(unlike, False).startswith('It does not match; check the frame index, or use it anyway with "')
    assert str(unlike) == "It does not match; check the frame index, or use it anyway with --force."


def test_an_exemplar_is_checked_when_it_is_given(tmp_path: Path) -> None:
    visit, _ = receive_file(Visit(), film(tmp_path / "a.mp4"), Limits(), tmp_path / "visits")
    visit, note = tie_made(visit, 2, visit.frame(2), "")
    own = visit.pictures[2]
    again, note = tie(visit, 1, own, Limits(), False)
    assert "correlates" in note and "64 x 48" in note and set(again.pictures) == {1, 2}
    noise = tmp_path / "noise.png"
    write_image(noise, np.random.default_rng(0).integers(0, 255, (3, 48, 64), dtype=np.uint8))
    with pytest.raises(InputError, match="correlates at"):
        tie(visit, 0, noise, Limits(), False)


# -- scribbles


def ramp(size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Two even halves, dark and bright, ``(3, H, W)`` uint8."""
    return np.where(np.arange(size[1]) < size[1] // 2, 70, 180).astype(np.uint8) * np.ones((3, size[0], 1), np.uint8)


def test_scribbles_become_a_picture_of_their_things_whatever_the_size_shown() -> None:
    scribbles = [("#b04030", 3, [8, 8]), ("#3050b0", 2, [50, 10, 55, 40])]
    made = paint.patch(ramp(), scribbles, (48, 64))
    gray, sure = results.gray(made[:3].transpose(1, 2, 0)).astype(int), made[3] > 127
    assert np.abs(gray - ramp().transpose(1, 2, 0)).max() <= 2
    red, blue = made[0].astype(int) - made[2], made[2].astype(int) - made[0]
    assert sure[4:12, 4:12].all() and sure[10:40, 50:56].all()
    assert (red[:, :30] > 20)[sure[:, :30]].all() and (blue[:, 34:] > 20)[sure[:, 34:]].all()
    twice = paint.patch(ramp(), [(ink, 2 * r, [2 * at for at in path]) for ink, r, path in scribbles], (96, 128))
    assert np.abs(twice.astype(int) - made).mean() < 3, "scribbles are in the shown picture's own pixels"


def test_an_eraser_takes_color_away_and_no_paint_is_no_picture() -> None:
    stroke = ("#b04030", 3, [8.0, 8.0, 30.0, 8.0])
    drawn = paint.painted([stroke], (48, 64), (48, 64))
    assert drawn[:, 8, 8].tolist() == drawn[:, 8, 29].tolist() == [0xB0, 0x40, 0x30, 255] and not drawn[:, 20, 8].any()
    erased = paint.painted([stroke, ("erase", 5, [25.0, 8.0])], (48, 64), (48, 64))
    assert erased[3, 8, 8] == 255 and erased[3, 8, 26] == 0
    with pytest.raises(InputError, match="no stroke"):
        paint.patch(ramp(), [stroke, ("erase", 60, [20.0, 8.0])], (48, 64))


@pytest.mark.parametrize(
    "given",
    ["paint", [1], [["red", 3, [1, 2]]], [["#b04030", 3, [1]]], [["#b04030", -1, [1, 2]]], [["#b04030", 3, [1, 1e9]]],
     [["#b04030", 3, [1, float("nan")]]], [["#b04030", float("nan"), [1, 2]]], [["#b04030", 3, {}]],
     [["#b04030", 3, [1.0, 2.0] * 60_000]]],
)  # fmt: skip
def test_what_the_brush_cannot_have_sent_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="paint"):
        paint.read_scribbles(given)


def test_the_palette_is_the_pictures_own() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :40], picture[:, 40:] = (176, 64, 48), (48, 80, 176)
    assert paint.inks_of(picture, 2) == ["#b04030", "#3050b0"]


# -- results on disk


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_run_is_stored_whole_and_its_tracker_used_again(tmp_path: Path) -> None:
    archive, clip = Archive(tmp_path / "results"), film(tmp_path / "a.mp4")
    first = finished(archive, clip)
    assert (
        first.report["complete"]
        and open_run(first.folder) == first
        and Archive(archive.folder).open(first.token) == first
    )
    assert first.frame(1).shape == (48, 64, 3) and first.origin().shape == (3, 48, 64)
    assert (first.origin() >= 0).all()
    asked = RunRequest("a", choose("draft", max_side=64, eta=0.3, seed=3))
    steps = work.run(work.Job(clip, asked, {}, first), archive.new()[1], Limits())
    stages = set()
    second = run_to_end(steps, lambda step: stages.add(step.stage))
    assert not {"flow", "fit"} & stages and second.report["complete"]
    assert [s["name"] for s in second.report["stages"]].count("fit") == 0
    seen = {what: results.compared(second, what, 1, Limits()) for what in ("", "gray", "truth", "classical")}
    assert {picture.shape for picture in seen.values()} == {(48, 64, 3)}
    assert np.ptp(seen["gray"].astype(int), axis=2).max() == 0 < np.ptp(seen[""].astype(int), axis=2).max()
    assert np.abs(seen["truth"].astype(int) - seen["classical"]).mean() < 12
    rows = results.table([first, second])
    assert [row[0] for row in rows] == ["1: a.mp4", "2: a", "2: classical"]
    assert all(len(row) == len(results.HEADERS) for row in rows)


def test_a_stopped_run_keeps_what_is_done_and_a_closed_one_leaves_nothing(tmp_path: Path) -> None:
    archive, clip = Archive(tmp_path / "results"), film(tmp_path / "a.mp4")
    job = work.Job(clip, RunRequest("a", choose("draft", max_side=64)), {})
    seen: list[Step] = []

    def stopped() -> bool:
        return any(step.stage == "propagate" for step in seen)

    token = is_canceled.set(stopped)  # as a run's context has it: the frames are decoded all the same
    kept = run_to_end(work.run(job, archive.new()[1], Limits()), seen.append)
    is_canceled.reset(token)
    assert not kept.report["complete"] and (kept.origin()[0] == 0).all() and (kept.origin()[2] == -1).all()
    assert len(read(kept.folder / "colorized.mp4")) == 3
    steps = work.run(job, archive.new()[1], Limits())
    for step in steps:
        if step.stage == "propagate":
            break
    steps.close()
    assert [f.name for f in archive.folder.iterdir()] == [kept.token]


def test_links_expire_and_lead_nowhere_else(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "results", days=2)
    token, folder = archive.new()
    folder.mkdir()
    save_request(folder, RunRequest("a", Settings()))
    assert archive.open(token).request.name == "a"
    for bad in ("", "../results", "..", token + "/..", "visits", "a" * 22):
        with pytest.raises(InputError, match="expired"):
            archive.open(bad)
    past = time.time() - 3 * 86400
    os.utime(folder, (past, past))
    left = archive.folder / "visits" / "somebody"
    left.mkdir(parents=True)
    os.utime(left, (past, past))
    assert archive.expire() == 2 and not left.exists()
    assert archive.expire() == 0 and not archive.has(token)


def test_the_page_takes_only_priors_by_name() -> None:
    for bad in ("/etc", "../assets/prior", "someone/model", ""):
        with pytest.raises(InputError, match="no prior"):
            gpu.check_prior(bad)
    gpu.check_prior("bundled")


# -- what is shown


def state() -> ColorState:
    L = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 100
    gray = ColorState.gray(L)
    return gray.paint(0, torch.ones(8, 8, dtype=torch.bool), ColorEstimate(torch.full((2, 8, 8), 20.0), torch.ones(8, 8)), 0, Origin.EXEMPLAR)


def test_live_follows_a_run() -> None:
    follow, first = live.Live(), state()
    shown = follow.show(Colored("propagate", "exemplars in place", 1 / 3, state=first, iteration=0))
    assert shown is not None and shown["before"].shape == (8, 8, 3)
    assert (shown["before"] != shown["after"]).any() and "33.3 %" in shown["coverage"]
    half = torch.zeros(8, 8, dtype=torch.bool)
    half[:4] = True
    second = first.paint(2, half, ColorEstimate(torch.zeros(2, 8, 8), torch.ones(8, 8)), 0, Origin.PROPAGATED)
    shown = follow.show(Colored("propagate", "", 0.5, state=second, frame=0, iteration=0))
    assert shown is not None and shown["caption"] == "frame 2, iteration 0", "the frame that gained most is shown"
    assert "propagated 16.7 %" in shown["coverage"]
    assert follow.show(Step("fit", "again", done=0.1)) is not None, "another stage is shown at once"
    follow.stage, follow.last = "color", time.monotonic()
    assert follow.show(Step("inpaint", "denoising", done=0.2)) is None, "the next one too soon"


def test_every_example_is_small_and_finished_beforehand() -> None:
    for example in EXAMPLES:
        assert example.clip.stat().st_size < 1.5e6 and (FOLDER / f"{example.name}.jpg").is_file()
        run = example.result
        assert run is not None and run.report["complete"] and run.report["scores"]
        assert sum(f.stat().st_size for f in run.folder.iterdir()) < 1e6
        last = run.report["frames"] - 1
        then, where, parts = results.at_iteration(run, last, len(run.report["iterations"]))
        assert then.shape == where.shape == run.frame(last).shape and "propagated" in parts


def test_messages_cannot_carry_markup() -> None:
    assert "<script>" not in live.message("<script>alert(1)</script>")
    assert "<b>" not in live.progress({}, "fit", Step("fit", "<b>"))


def test_estimates_grow_with_the_work_and_learn(tmp_path: Path) -> None:
    rates, draft = Rates(tmp_path / "rates.json"), PRESETS["draft"]
    size = (216, 384)
    short, long = rates.estimate(draft, 8, size), rates.estimate(draft, 80, size)
    assert 4 * short.seconds < long.seconds and short.mib < long.mib
    for more in (
        {"preset": "paper"},
        {"omnimotion": "standard"},
        {"diffusion": "always"},
        {"max_side": 512},
        {"prior": "sd15"},
    ):
        assert rates.estimate(choose(**{"preset": "draft", **more}), 8, size).seconds > 1.2 * short.seconds, more
    fit = choose("draft", omnimotion="standard")
    assert rates.estimate(fit, 8, size, fitted=True).seconds < rates.estimate(fit, 8, size).seconds
    report = {"complete": True, "frames": 8, "size": [216, 384], "stages": [{"name": "propagate", "seconds": 800.0}]}
    rates.learn(report, draft)
    assert rates.estimate(draft, 8, size).seconds > 800
    rates.path.write_text("[]")
    assert rates.estimate(draft, 8, size) == short, "a broken file is no file"


def test_what_does_not_fit_is_refused_and_told_what_would(tmp_path: Path) -> None:
    service = make_service(Limits(results=tmp_path, seconds=300, mib=2500))
    bound = service.bound(PRESETS["draft"], 8, (216, 384))
    assert 0 < bound.seconds <= 300
    with pytest.raises(InputError, match=r"would take about .* it would fit with preset (standard|draft)"):
        service.bound(choose("paper", steps=1000), 5, (96, 128))
    with pytest.raises(InputError, match="it would fit with steps 4"):
        service.bound(choose("draft", diffusion="always", steps=1000), 8, (216, 384))
    with pytest.raises(InputError, match=r"it would fit with frames \d+\."):
        service.bound(choose("draft", omnimotion="standard"), 400, (216, 384))
    with pytest.raises(InputError, match="1024 x 16"):
        service.bound(PRESETS["draft"], 2, (16, 1024))


def test_another_clip_replaces_the_earlier(tmp_path: Path) -> None:
    visit, _ = receive_file(Visit(), film(tmp_path / "a.mp4"), Limits(), tmp_path / "visits")
    visit, _ = tie_made(visit, 1, visit.frame(1), "")
    second, _ = receive_file(visit, film(tmp_path / "b.mp4", frames=1), Limits(), tmp_path / "visits")
    assert second.folder != visit.folder, "a run may still read the earlier"
    assert second.frames == 1 and second.pictures == {}
