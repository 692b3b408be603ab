"""Runs in units: they cover a clip, are kept, found again, redone where they have to be, and done by others."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from omnifusion.__main__ import main
from omnifusion.algorithm import colorize
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.clip.shots import Shot
from omnifusion.color import from_uint8, gray, to_uint8
from omnifusion.progress import InputError, run_to_end
from omnifusion.run import segments as units
from omnifusion.run.cache import Cache
from omnifusion.run.segments import Units, windows
from omnifusion.run.workers import color_by, color_here, local, ray_cluster
from omnifusion.settings import Settings, choose
from omnifusion.state import Exemplar, Video
from omnifusion.video import write_image

SIZE, FRAMES = (48, 64), 5
TRUTH = np.concatenate([synthetic.make(name, FRAMES, SIZE, seed=3).video.frames for name in ("two-layers", "demo")])
GRAY = to_uint8(gray(from_uint8(TRUTH))).numpy()
DRAFT = choose("draft", max_side=64)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Two shots, each with an exemplar."""
    made = prepare(Video(GRAY, Fraction(25)), [Exemplar(0, TRUTH[0]), Exemplar(FRAMES, TRUTH[FRAMES])], 64)
    return replace(made, shots=[Shot(0, FRAMES), Shot(FRAMES, 2 * FRAMES)])


def units_of(clip: Clip, folder: Path, longest: int = 99, settings: Settings = DRAFT) -> Units:
    folder.mkdir(exist_ok=True)
    return Units(clip, settings, windows(clip.shots, clip.exemplars, longest), Cache(folder))


def colored(found: Units) -> dict[str, torch.Tensor]:
    rows = list(found.colors())
    return {name: torch.cat([row[name] for row in rows]) for name in units.COLORS}


def begun(clip: Clip, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings = DRAFT) -> int:
    """How many units are done anew."""
    count = 0

    def counted(*given: object) -> object:
        nonlocal count
        count += 1
        return colorize(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("omnifusion.run.segments.colorize", counted)
    run_to_end(color_here(units_of(clip, folder, settings=settings), units.Stages()))
    return count


@pytest.fixture(scope="module")
def done(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Units:
    found = units_of(clip, tmp_path_factory.mktemp("done"))
    run_to_end(color_here(found, units.Stages()))
    return found


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [8, 10, 33, 1000])
@pytest.mark.parametrize("exemplars", [(), (0,), (50,), (3, 90), (99, 120)])
def test_windows_cover_the_shots_and_go_on_from_what_is_done(longest: int, exemplars: tuple[int, ...]) -> None:
    duplicates = {t: t - 1 for t in range(3, 100, 4)}
    shots = [
        Shot(0, 100, duplicates=duplicates),
        Shot(100, 130, reference_frame=None if 120 in exemplars else 7),
        Shot(130, 131),
    ]
    found = windows(shots, exemplars, longest)
    assert sorted(t for window in found for t in range(window.start, window.stop)) == list(range(131))
    seen: set[int] = set()
    for window in found:
        assert len(window) + len(window.anchor_frames) <= longest + 1 and set(window.external_frames) <= seen
        assert all(window.start <= frame < window.stop for frame in window.duplicates.values())
        assert window.external_frames or window.start in (0, 130) or any(e in window for e in exemplars)
        seen |= set(range(window.start, window.stop))
    assert {k: v for window in found for k, v in window.duplicates.items()} == duplicates
    for window in found:  # what its neighbors forgot is looked up in an exemplar, or in what is lent to its shot
        own = [e for e in exemplars if e in next(shot for shot in shots if window.start in shot)]
        known = any(e in window or e in window.anchor_frames for e in own)
        assert window.reference_frame in ([None] if known else own or [7 if 100 <= window.start < 130 else None])
    if longest == 1000:
        assert found == shots


def test_memory_bounds_a_unit() -> None:
    assert units.longest((252, 448), (720, 1280), 4096) == pytest.approx(200, rel=0.5)
    with pytest.raises(InputError, match="--memory"):
        units.longest((252, 448), (720, 1280), 1000)


# --- what units find --------------------------------------------------------------------------------------------------


def test_units_find_what_the_whole_run_finds(clip: Clip, done: Units) -> None:
    whole = run_to_end(colorize(clip.L, clip.exemplar_ab(), DRAFT, clip.shots))
    found = colored(done)
    assert all(found[name].equal(getattr(whole.state, name)) for name in units.COLORS)
    assert done.rounds()[: len(whole.iterations)] == [
        replace(row, remaining=ours.remaining) for row, ours in zip(whole.iterations, done.rounds(), strict=True)
    ]


def test_windows_carry_the_colors_on(clip: Clip, done: Units, tmp_path: Path) -> None:
    parted = units_of(clip, tmp_path, longest=4)
    assert len(parted.shots) == 10
    run_to_end(color_here(parted, units.Stages()))
    ab, whole = colored(parted)["ab"], colored(done)["ab"]
    assert colored(parted)["origin"].min() >= 0
    truth = torch.stack([clip.__class__.exemplar_ab(replace(clip, exemplars={t: TRUTH[t]}))[t] for t in range(10)])
    error, usual = ((found - truth).norm(dim=1).mean() for found in (ab, whole))
    assert error < 1.25 * usual


def test_what_comes_back_windows_later_has_its_colors(tmp_path: Path) -> None:
    scene = synthetic.make("two-layers", 1, SIZE, seed=3).video.frames[0]
    frames = np.stack([scene] * 15)
    for t in [*range(5), *range(10, 15)]:  # a blue disc, out of the picture for a window
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        frames[t][:, np.hypot(y - 24, x - 20 - t) < 9] = np.array([[20], [30], [140]])
    made = prepare(Video(to_uint8(gray(from_uint8(frames))).numpy(), Fraction(25)), [Exemplar(0, frames[0])], 64)
    known = windows([Shot(0, 15)], [0], 8)
    assert [(w.start, w.stop, w.reference_frame, w.anchor_frames) for w in known] == [
        (0, 5, None, ()), (5, 10, 0, (4,)), (10, 15, 0, (9,))]  # fmt: skip
    b = {}
    for name, shots in (("known", known), ("forgotten", [replace(w, reference_frame=None) for w in known])):
        found = replace(units_of(made, tmp_path / name), shots=shots)
        run_to_end(color_here(found, units.Stages()))
        b[name] = colored(found)["ab"][12, 1, 20:28, 28:36].mean()
    assert b["known"] < -30 < b["forgotten"]


def test_what_is_kept_is_not_done_again(
    clip: Clip, done: Units, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = done.cache.folder, {p.name: p.read_bytes() for p in done.cache.folder.glob("*.unit")}
    assert begun(clip, folder, monkeypatch) == 0
    assert begun(clip, folder, monkeypatch, replace(DRAFT, seed=7, steps=2)) == 0, "nobody asks the prior here"
    other = replace(clip, exemplars={**clip.exemplars, FRAMES: TRUTH[FRAMES][::-1]})
    assert begun(other, folder, monkeypatch) == 1, "the other shot depends on nothing that changed"
    assert begun(clip, folder, monkeypatch, replace(DRAFT, order="next")) == 2
    first, second = sorted(before)
    (folder / first).write_bytes(before[first][:-1000])  # cut short
    assert begun(clip, folder, monkeypatch) == 1
    (folder / second).write_bytes(before[first])  # another's
    assert begun(clip, folder, monkeypatch) == 1
    damaged = bytearray(before[first])
    damaged[len(damaged) // 2] ^= 1
    (folder / first).write_bytes(damaged)
    assert begun(clip, folder, monkeypatch) == 1
    again = units_of(clip, folder)
    run_to_end(color_here(again, units.Stages()))
    assert all(colored(again)[name].equal(values) for name, values in colored(done).items())


def test_a_full_disk_leaves_nothing_half_done(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="full"):
        run_to_end(color_here(units_of(clip, tmp_path), units.Stages()))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".progress"}


# --- killed runs and workers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gray_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gray")
    for t, frame in enumerate(GRAY):
        write_image(folder / f"{t}.png", frame)
    return folder


def command(source: Path, first: Path, out: Path, *more: str) -> list[str]:
    write_image(first, TRUTH[0])
    return ["colorize", str(source), "--out", str(out), "--exemplar", f"{first}@0", "--preset", "draft", *more]


def results(out: Path) -> dict[str, bytes]:
    """What a run leaves, but for times and its bookkeeping."""
    report = json.loads((out / "report.json").read_text())
    told = {key: report[key] for key in ("complete", "origin", "iterations", "shots", "notes")}
    files = {p.name: p.read_bytes() for p in [*(out / "frames").iterdir(), *(out / "iterations").iterdir()]}
    arrays = {name: np.load(out / name) for name in ("ab.npz", "origin.npz")}
    kept = {f"{file}/{name}": values[name].tobytes() for file, values in arrays.items() for name in values.files}
    return {"report": json.dumps(told).encode(), **files, **kept}


@pytest.fixture(scope="module")
def unharmed(gray_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("unharmed")
    assert main(command(gray_folder, folder / "first.png", folder / "out")) == 0
    return results(folder / "out")


@pytest.mark.slow
def test_a_run_killed_at_random_ends_with_the_same_frames(
    gray_folder: Path, unharmed: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, seed = tmp_path / "out", random.randrange(1000)
    told, chance = command(gray_folder, tmp_path / "first.png", out), random.Random(seed)
    for _ in range(5):
        run = subprocess.Popen([sys.executable, "-m", "omnifusion", *told], stderr=subprocess.DEVNULL)
        while run.poll() is None and not list((out / "units").glob("*.progress")):
            time.sleep(0.02)
        time.sleep(2 * chance.random())
        run.kill()
        run.wait()
    assert main(told) == 0
    assert results(out) == unharmed, f"seed {seed}"
    assert main([*told, "--seed", "3"]) == 0 and main(told) == 0, "a finished run goes on, too"
    assert results(out) == unharmed
    other = command(gray_folder.parent / "elsewhere", tmp_path / "first.png", out)
    (gray_folder.parent / "elsewhere").mkdir()
    write_image(Path(other[1]) / "0.png", TRUTH[3])
    assert main(other) == 2 and "--overwrite" in capsys.readouterr().err
    assert results(out) == unharmed


def children(name: bytes = b"omnifusion.run.workers", parent: int | None = None) -> Iterator[int]:
    """The processes of a name, of this one's children unless ``parent`` is 0."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent != 0 and found != os.getpid():
                continue
            if name in (folder / "cmdline").read_bytes():
                yield int(folder.name)
        except OSError:
            continue


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are found by Linux's /proc")
def test_two_workers_of_which_one_is_killed(clip: Clip, done: Units, tmp_path: Path) -> None:
    found, killed = units_of(clip, tmp_path), []
    for step in color_by(local(2), found):
        if not killed and (workers := list(children())):
            os.kill(workers[0], signal.SIGKILL)
            killed = workers
        assert 0 <= step.done <= 1
    assert len(killed) >= 1
    assert all(colored(found)[name].equal(values) for name, values in colored(done).items())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_two_ray_workers_of_which_one_is_killed(clip: Clip, done: Units, tmp_path: Path) -> None:
    port, client = (socket.create_server(("127.0.0.1", 0)).getsockname()[1] for _ in range(2))
    quiet = ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=200000000", "--num-cpus=2"]
    there = ["--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client}"]
    start = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *there, *quiet]
    head, killed = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), []
    try:
        found, pool = units_of(clip, tmp_path), None
        for _ in range(6):
            with suppress(InputError):
                pool = pool or ray_cluster(f"ray://127.0.0.1:{client}", 600)
        assert pool is not None
        for _ in color_by(pool, found):
            if not killed and (workers := list(children(b"ray::_there", 0))):
                os.kill(workers[0], signal.SIGKILL)
                killed = workers
        assert killed and all(colored(found)[name].equal(values) for name, values in colored(done).items())
    finally:
        head.terminate()
        head.wait()


def test_an_error_of_a_worker_is_told(clip: Clip, tmp_path: Path) -> None:
    other = replace(units_of(clip, tmp_path).task(clip.shots[0]), by={**units.made_by(), "code": "older"})
    with pytest.raises(InputError, match=r"differs .* \(code\)"):
        run_to_end(units.work(other, Cache(tmp_path), units.Stages()))
    found = units_of(clip, tmp_path / "none")
    (tmp_path / "none").rmdir()
    with pytest.raises(OSError):
        run_to_end(color_by(local(1), found))
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(InputError, match=r"omnifusion\[ray\]"):
            ray_cluster("ray://nowhere:1", 1000)


def test_pointers_at_a_lender_are_counted_through_the_clip() -> None:
    shot = Shot(6, 8, reference_frame=1)  # its unit holds the frames 1, 6 and 7
    source = torch.tensor(
        [[[0, -1], [-4, -8]]], dtype=torch.int32
    )  # of frame 7, at place 2: two of its own, two others
    assert units._from_afar(source, shot, 1).tolist() == [[[0, -1], [-4, -8 - 4 * 4]]]
