"""Corrections on disk: frames, undoing, doing again, and crashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from omnifusion import video
from omnifusion.cli import main
from omnifusion.correction import history as corrections
from omnifusion.correction.history import (
    Correction,
    FrameCorrected,
    correct_run,
    provenance,
    recover,
    undo,
)
from omnifusion.geometry import pixel_grid
from omnifusion.progress import InputError, run_to_end
from omnifusion.run.folder import RunFolder, copy_run, open_run
from omnifusion.visualize import stretch

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
def run(finished: tuple[Path, np.ndarray], tmp_path: Path) -> RunFolder:
    return copy_run(open_run(finished[0]), tmp_path / "run")


@pytest.fixture
def asked(finished: tuple[Path, np.ndarray]) -> Correction:
    return Correction({3: painted(finished[1][3], (60, 160, 40))})


def painted(where: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.where(where, np.array([*color, 255], np.uint8)[:, None, None], np.uint8(0))


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in ("run.lock", "manifest.txt"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def states(run: RunFolder) -> tuple[torch.Tensor, ...]:
    state = run.state()
    return state.ab, state.origin, state.confidence, state.source


def test_frames_change_where_the_state_does_and_nowhere_else(run: RunFolder, asked: Correction) -> None:
    before, old = run.state(), [run.frame(t) for t in range(FRAMES)]
    steps: list[FrameCorrected] = []
    new = run_to_end(correct_run(run, asked), lambda s: steps.append(s) if isinstance(s, FrameCorrected) else None)
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
    owner = provenance(after, new)
    assert torch.equal(owner == -1, changed) and (owner[~changed] == 0).all()
    assert new.report["provenance"] == {"correction 1": int(changed.sum()), "frame 0": int((~changed).sum())}


def test_what_is_locked_stays_at_full_size(
    run: RunFolder, asked: Correction, finished: tuple[Path, np.ndarray]
) -> None:
    mask = finished[1][3].copy()
    mask[:, 80:] = False
    old = run.frame(3)
    locked = Correction(asked.patches, {3: painted(mask, (255, 255, 255))}, (2, 4))
    new = run_to_end(correct_run(run, locked))
    assert np.array_equal(new.frame(3)[mask], old[mask])
    assert new.report["corrections"][0]["changed_frames"] == [2, 3, 4]


def test_undoing_gives_the_run_before_bit_for_bit(run: RunFolder, asked: Correction) -> None:
    first = hashes(run.folder)
    once = run_to_end(correct_run(run, asked))
    second = hashes(run.folder)
    twice = run_to_end(correct_run(once, Correction({1: painted(np.ones(SIZE, bool), (200, 30, 30))})))
    assert [told["number"] for told in twice.report["corrections"]] == [1, 2]
    assert hashes(undo(twice).folder) == second
    assert hashes(undo(open_run(run.folder)).folder) == first
    with pytest.raises(InputError, match="no correction"):
        undo(open_run(run.folder))


def test_a_chain_is_done_again(run: RunFolder, asked: Correction, tmp_path: Path) -> None:
    other = copy_run(run, tmp_path / "other")
    for correction in (asked, Correction({0: painted(np.eye(*SIZE) > 0, (9, 9, 200))}, frames=(0, 3))):
        run = run_to_end(correct_run(run, correction))
    for correction in corrections.history(run):
        other = run_to_end(correct_run(other, correction))
    assert all(torch.equal(a, b) for a, b in zip(states(run), states(other), strict=True))
    assert run.report == other.report


def test_a_crash_costs_nothing(run: RunFolder, asked: Correction, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(run.folder)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(corrections, "_report", crash)
        with pytest.raises(KeyboardInterrupt):
            run_to_end(correct_run(run, asked))
    assert hashes(open_run(run.folder).folder) == before
    run = run_to_end(correct_run(run, Correction({1: painted(np.ones(SIZE, bool), (200, 30, 30))})))
    before = hashes(run.folder)
    for place in ("_report", "write_report"):  # killed, with no chance to put anything back
        with monkeypatch.context() as broken:
            broken.setattr(corrections, place, crash)
            broken.setattr(corrections, "_restore", crash)
            with pytest.raises(KeyboardInterrupt):
                run_to_end(correct_run(run, asked))
        with pytest.raises(InputError, match="interrupted"):
            open_run(run.folder)
        stray = run.folder / "corrections/0002/.patch_00003.part.png"
        stray.write_bytes(b"half of a picture")
        assert hashes(run.folder) != before and recover(run.folder).report == run.report
        stray.unlink()
        assert hashes(run.folder) == before
    new = run_to_end(correct_run(run, asked))
    with monkeypatch.context() as broken:
        broken.setattr(corrections.Manifest, "remove", crash)
        with pytest.raises(KeyboardInterrupt):
            undo(new)
    with pytest.raises(InputError, match="interrupted"):
        open_run(run.folder)
    assert hashes(recover(run.folder).folder) == before


def test_the_command_line_corrects_a_copy_and_undoes(
    run: RunFolder, asked: Correction, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video.write_image(tmp_path / "patch.png", asked.patches[3])
    before, copy = hashes(run.folder), tmp_path / "copy"
    patch = f"{tmp_path / 'patch.png'}@3"
    assert main(["correct", str(run.folder), "--exemplar", patch, "--frames", "2:4", "--out", str(copy)]) == 0
    assert hashes(run.folder) == before
    assert open_run(copy).report["corrections"][0]["frames"] == [2, 4]
    assert main(["correct", str(run.folder), "--replay", str(copy)]) == 0
    assert main(["correct", str(run.folder), "--undo"]) == 0
    assert hashes(run.folder) == before
    capsys.readouterr()
    wrong = (
        ([], "what to do"),
        (["--exemplar", patch, "--frames", "2"], "4:20"),
        (["--exemplar", f"{tmp_path / 'patch.png'}@77"], "frames 0 to 5"),
        (["--exemplar", patch, "--out", str(copy)], "exists"),
    )
    for arguments, word in wrong:
        assert main(["correct", str(run.folder), *arguments]) == 2
        assert word in capsys.readouterr().err
    assert hashes(run.folder) == before
