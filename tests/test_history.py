"""Corrections on disk: frames, several in a row, and crashes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from omnifusion import video
from omnifusion.cli import main
from omnifusion.correction import history as corrections
from omnifusion.correction.history import Correction, FrameCorrected, correct_run, provenance
from omnifusion.geometry import pixel_grid, stretch
from omnifusion.progress import Canceled, is_canceled, run_to_end
from omnifusion.run.folder import RunFolder, open_run

SIZE, FRAMES = (96, 160), 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A finished run at a working size below its own, and where the foreground is, ``(T, H, W)`` bool."""
    folder = tmp_path_factory.mktemp("corrections")
    made = synthetic.make("two-layers", frames=FRAMES, size=SIZE, seed=1)
    for t, frame in enumerate(made.video.frames):
        (folder / "clip").mkdir(exist_ok=True)
        video.write_image(folder / "clip" / f"{t}.png", frame)
    arguments = ["colorize", str(folder / "clip"), "--out", str(folder / "run"), "--preset", "draft"]
    assert main([*arguments, "--max-side", "96"]) == 0
    points = pixel_grid(*SIZE).reshape(-1, 2)
    return folder / "run", np.stack([made.layer_of(points, t).reshape(SIZE).numpy() == 0 for t in range(FRAMES)])


@pytest.fixture
def run(finished: tuple[Path, np.ndarray]) -> Iterator[RunFolder]:
    """The run itself, which a correction never changes."""
    before = hashes(finished[0])
    yield open_run(finished[0])
    assert hashes(finished[0]) == before


@pytest.fixture
def asked(finished: tuple[Path, np.ndarray]) -> Correction:
    return Correction({3: painted(finished[1][3], (60, 160, 40))})


def painted(where: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.where(where, np.array([*color, 255], np.uint8)[:, None, None], np.uint8(0))


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in ("run.lock", "manifest.txt"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_frames_change_where_the_state_does_and_nowhere_else(run: RunFolder, asked: Correction, tmp_path: Path) -> None:
    before, old = run.state(), [run.frame(t) for t in range(FRAMES)]
    steps: list[FrameCorrected] = []
    work = correct_run(run, asked, tmp_path / "new")
    new = run_to_end(work, lambda s: steps.append(s) if isinstance(s, FrameCorrected) else None)
    after = new.state()
    changed = after.origin != before.origin
    for t in range(FRAMES):
        here = stretch(changed[t].numpy(), SIZE) | ((asked.patches[3][3] > 0) & (t == 3))
        assert np.array_equal(new.frame(t)[~here], old[t][~here])
        assert (new.frame(t)[here] != old[t][here]).any(-1).mean() > 0.9
    assert steps[0].frame == 3
    assert all(np.array_equal(step.picture.transpose(1, 2, 0), new.frame(step.frame)) for step in steps)
    film = video.read(new.folder / "colorized.mp4").frames
    assert np.abs(film[3].astype(int) - new.frame(3).transpose(2, 0, 1)).mean() < 4
    (told,) = new.report["corrections"]
    assert new.report["iterations"][told["iteration"]]["propagated"] == int(changed.sum())
    assert int(after.iteration.max()) == told["iteration"] == len(new.report["iterations"]) - 1
    assert told["changed_pixels"] == int(changed.sum()) and told["patches"] == [3]
    owner = provenance(after, new.report)
    assert torch.equal(owner == -1, changed) and (owner[~changed] == 0).all()
    assert new.report["provenance"] == {"correction 1": int(changed.sum()), "frame 0": int((~changed).sum())}


def test_what_is_locked_stays_at_full_size(
    run: RunFolder, asked: Correction, finished: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    mask = finished[1][3].copy()
    mask[:, 80:] = False
    old = run.frame(3)
    locked = Correction(asked.patches, {3: painted(mask, (255, 255, 255))}, (2, 4))
    new = run_to_end(correct_run(run, locked, tmp_path / "new"))
    assert np.array_equal(new.frame(3)[mask], old[mask])
    assert new.report["corrections"][0]["changed_frames"] == [2, 3, 4]


def test_a_correction_of_a_correction_leaves_the_first_one_as_it_is(
    run: RunFolder, asked: Correction, tmp_path: Path
) -> None:
    once = run_to_end(correct_run(run, asked, tmp_path / "once"))
    before = hashes(once.folder)
    more = Correction({1: painted(np.ones(SIZE, bool), (200, 30, 30))})
    twice = run_to_end(correct_run(once, more, tmp_path / "twice"))
    assert [row["number"] for row in twice.report["corrections"]] == [1, 2]
    assert set(hashes(twice.folder)) == {*before, "corrections/0002/patch_00001.png"}
    assert hashes(once.folder) == before


def test_a_correction_can_be_canceled_and_leaves_nothing(run: RunFolder, asked: Correction, tmp_path: Path) -> None:
    canceled: list[bool] = []
    token = is_canceled.set(lambda: bool(canceled))
    try:
        for stage in ("correct", "finish"):
            canceled.clear()
            steps = correct_run(run, asked, tmp_path / "out")
            with pytest.raises(Canceled):
                run_to_end(steps, lambda step, stage=stage: canceled.append(True) if step.stage == stage else None)
            assert not (tmp_path / "out").exists()
    finally:
        is_canceled.reset(token)


def test_a_crash_leaves_no_finished_run(
    run: RunFolder, asked: Correction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    new = tmp_path / "new"
    for place in ("_report", "write_report"):
        with monkeypatch.context() as broken:
            broken.setattr(corrections, place, crash)
            with pytest.raises(KeyboardInterrupt):
                run_to_end(correct_run(run, asked, new))
            assert not new.exists()
            broken.setattr("omnifusion.run.export.shutil.rmtree", crash)  # killed, with no chance to clean up
            with pytest.raises(KeyboardInterrupt):
                run_to_end(correct_run(run, asked, new))
        assert not open_run(new).finished
        shutil.rmtree(new)


def test_the_command_line_corrects_a_copy(
    run: RunFolder, asked: Correction, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video.write_image(tmp_path / "patch.png", asked.patches[3])
    copy, correct, patch = tmp_path / "copy", ["correct", str(run.folder)], f"{tmp_path / 'patch.png'}@3"
    assert main([*correct, "--exemplar", patch, "--frames", "2:4", "--out", str(copy)]) == 0
    assert open_run(copy).report["corrections"][0]["frames"] == [2, 4]
    capsys.readouterr()
    other = str(tmp_path / "other")
    wrong = (
        (["--out", other], "what to correct"),
        (["--exemplar", patch], "--out"),
        (["--exemplar", patch, "--frames", "2", "--out", other], "4:20"),
        (["--exemplar", f"{tmp_path / 'patch.png'}@77", "--out", other], "frames 0 to 5"),
        (["--exemplar", patch, "--out", str(copy)], "exists"),
    )
    for arguments, word in wrong:
        assert main([*correct, *arguments]) == 2
        assert word in capsys.readouterr().err
    assert not Path(other).exists()
