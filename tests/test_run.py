"""Runs: segments cover a clip, are kept, found again, redone where they have to be; folders are nobody else's."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import synthetic
import torch

from omnifusion.algorithm import colorize
from omnifusion.cli import main
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.clip.shots import Shot
from omnifusion.color import from_uint8, gray, to_uint8
from omnifusion.progress import Canceled, Colored, InputError, Round, Step, is_canceled, run_to_end
from omnifusion.run import estimate, export, pipeline, segments
from omnifusion.run.coloring import Coloring, LocalPool, RayPool
from omnifusion.run.files import colors_name, load_colors, save_colors
from omnifusion.run.folder import RESULTS, Manifest, RunFolder, RunRequest, copy_run, open_run
from omnifusion.run.pipeline import Resources, begin, color
from omnifusion.run.segments import Segment, windows
from omnifusion.settings import Settings, choose
from omnifusion.stages import Stages
from omnifusion.state import COLORS, Video
from omnifusion.video import Writer, read, write_image

SIZE, FRAMES = (48, 64), 5
TRUTH = np.concatenate([synthetic.make(name, FRAMES, SIZE, seed=3).video.frames for name in ("two-layers", "demo")])
GRAY = to_uint8(gray(from_uint8(TRUTH))).numpy()
DRAFT = choose("draft", max_side=64)
color_segment = Segment.color
TWO = {0: TRUTH[0], FRAMES: TRUTH[FRAMES]}


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Two shots, each with an exemplar."""
    made = prepare(Video(GRAY, Fraction(25)), {0: TRUTH[0], FRAMES: TRUTH[FRAMES]}, 64)
    return replace(made, shots=[Shot(0, FRAMES), Shot(FRAMES, 2 * FRAMES)])


def coloring_of(clip: Clip, folder: Path, longest: int = 99, settings: Settings = DRAFT, **known: Any) -> Coloring:
    folder.mkdir(exist_ok=True)
    shots = known.pop("shots", None) or windows(clip.shots, clip.exemplars, longest)
    return Coloring(clip, "hash", settings, shots, Manifest(folder), **known)


def colored(coloring: Coloring) -> dict[str, torch.Tensor]:
    run = RunFolder(coloring.folder, RunRequest("", DRAFT), coloring.report())
    rows = [run.colors(t) for t in range(len(coloring.clip.video))]
    return {name: torch.stack([row[name] for row in rows]) for name in COLORS}


def begun(coloring: Coloring, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many segments are colored anew."""
    count = 0

    def counted(*known: Any) -> Any:
        nonlocal count
        count += 1
        return color_segment(*known)

    with monkeypatch.context() as counting:
        counting.setattr(Segment, "color", counted)
        run_to_end(coloring.color_here(Stages()))
    return count


@pytest.fixture(scope="module")
def done(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Coloring:
    coloring = coloring_of(clip, tmp_path_factory.mktemp("done"))
    run_to_end(coloring.color_here(Stages()))
    return coloring


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [8, 10, 33, 1000])
@pytest.mark.parametrize("exemplars", [(), (0,), (1,), (50,), (2, 33), (3, 90), (99, 120)])
def test_windows_cover_the_shots_and_go_on_from_what_is_done(longest: int, exemplars: tuple[int, ...]) -> None:
    repeats = {t + k: t for t in range(0, 100, 4) for k in (1, 2)}
    shots = [
        Shot(0, 100, duplicates=repeats).with_processed(exemplars),
        Shot(100, 130, reference_frame=None if 120 in exemplars else 7),
        Shot(130, 131),
    ]
    parts = windows(shots, exemplars, longest)
    assert sorted(t for window in parts for t in range(window.start, window.stop)) == list(range(131))
    seen: set[int] = set()
    for window in parts:
        assert len(window) + len(window.anchor_frames) <= longest + 1 and set(window.external_frames) <= seen
        assert all(window.start <= frame < window.stop for frame in window.duplicates.values())
        assert window.external_frames or window.start in (0, 130) or any(e in window for e in exemplars)
        seen |= set(range(window.start, window.stop))
    assert {k: v for window in parts for k, v in window.duplicates.items()} == shots[0].duplicates
    for window in parts:  # what its neighbors forgot is matched in an exemplar, or in its shot's reference frame
        own = [e for e in exemplars if e in next(shot for shot in shots if window.start in shot)]
        known = any(e in window or e in window.anchor_frames for e in own)
        assert window.reference_frame in ([None] if known else own or [7 if 100 <= window.start < 130 else None])
    if longest == 1000:
        assert parts == shots


def test_memory_bounds_a_segment() -> None:
    assert estimate.longest((252, 448), (720, 1280), 4096) == pytest.approx(340, rel=0.2)
    with pytest.raises(InputError, match="--memory"):
        estimate.longest((252, 448), (720, 1280), 900)


# --- what segments find -----------------------------------------------------------------------------------------------


def test_segments_find_what_the_whole_run_finds(clip: Clip, done: Coloring) -> None:
    whole = run_to_end(colorize(clip.L, clip.exemplar_ab(), DRAFT, clip.shots))
    found = colored(done)
    assert all(torch.equal(found[name], getattr(whole.state, name).to(found[name].dtype)) for name in COLORS)
    ours = done.report()["iterations"]
    assert [row | {"remaining": 0} for row in ours] == [vars(row) | {"remaining": 0} for row in whole.iterations]


def test_windows_carry_the_colors_on(clip: Clip, done: Coloring, tmp_path: Path) -> None:
    parted = coloring_of(clip, tmp_path, longest=4)
    assert len(parted.segments) == 10
    run_to_end(parted.color_here(Stages()))
    ab, whole = colored(parted)["ab"], colored(done)["ab"]
    assert colored(parted)["origin"].min() >= 0
    truth = torch.stack([Clip.exemplar_ab(replace(clip, exemplars={t: TRUTH[t]}))[t] for t in range(10)])
    error, usual = ((found - truth).norm(dim=1).mean() for found in (ab, whole))
    assert error < 1.25 * usual


def test_what_comes_back_windows_later_has_its_colors(tmp_path: Path) -> None:
    scene = synthetic.make("two-layers", 1, SIZE, seed=3).video.frames[0]
    frames = np.stack([scene] * 15)
    for t in [*range(5), *range(10, 15)]:  # a green disc, out of the picture for a window
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        frames[t][:, np.hypot(y - 24, x - 20 - t) < 9] = np.array([[20], [120], [30]])
    made = prepare(Video(to_uint8(gray(from_uint8(frames))).numpy(), Fraction(25)), {0: frames[0]}, 64)
    known = windows([Shot(0, 15)], [0], 8)
    assert [(w.start, w.stop, w.reference_frame, w.anchor_frames) for w in known] == [
        (0, 5, None, ()), (5, 10, 0, (4,)), (10, 15, 0, (9,))]  # fmt: skip
    a = {}
    for name, shots in (("known", known), ("forgotten", [replace(w, reference_frame=None) for w in known])):
        coloring = coloring_of(made, tmp_path / name, shots=shots)
        run_to_end(coloring.color_here(Stages()))
        a[name] = colored(coloring)["ab"][12, 0, 20:28, 28:36].mean()
        source = colored(coloring)["source"].long()
        at = torch.arange(source.numel()).reshape(source.shape) + source
        assert int(at.min()) >= 0 and int(at.max()) < source.numel(), "sources are counted through the clip"
    assert a["known"] < -30 < a["forgotten"]


def test_sources_in_a_reference_frame_are_counted_through_the_clip() -> None:
    state = segments.ColorState.gray(torch.zeros(3, 1, 2, 2))  # frames 1, 6 and 7 of a clip
    state.source[2] = torch.tensor([[0, -1], [-4, -8]])  # of frame 7: two of its own, one of frame 6, one of frame 1
    assert segments.frame_colors(state, 2, [1, 6, 7])["source"].tolist() == [[0, -1], [-4, -8 - 4 * 4]]


def test_what_is_kept_is_not_done_again(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    assert begun(coloring_of(clip, folder), monkeypatch) == 2
    before = {p.name: p.read_bytes() for p in (folder / "colors").iterdir()}
    assert begun(coloring_of(clip, folder), monkeypatch) == 0
    seeds = replace(DRAFT, seed=7, steps=2)
    assert begun(coloring_of(clip, folder, settings=seeds), monkeypatch) == 0, "nobody asks the prior here"
    for damage in ("short", "foreign", "flipped"):
        path = folder / "colors" / "00002.npz"
        data = bytearray(before[path.name])
        data[len(data) // 2] ^= 1
        path.write_bytes({"short": before[path.name][:-99], "foreign": before["00007.npz"], "flipped": data}[damage])
        assert begun(coloring_of(clip, folder), monkeypatch) == 1, damage
        assert {p.name: p.read_bytes() for p in (folder / "colors").iterdir()} == before
    other = replace(clip, exemplars={**clip.exemplars, FRAMES: TRUTH[FRAMES][::-1]})
    assert begun(coloring_of(other, tmp_path / "new", reuse=[folder]), monkeypatch) == 1, "one segment is the same"
    coloring_of(other, folder).leave_gray()  # canceled before it began: what an earlier run colored stays
    for again in (1, 0):
        assert {name: data for name, data in before.items() if name < "00005"} == {
            p.name: p.read_bytes() for p in (folder / "colors").iterdir() if p.name < "00005"
        }
        assert begun(coloring_of(other, folder), monkeypatch) == again
    assert begun(coloring_of(clip, folder, settings=replace(DRAFT, order="next")), monkeypatch) == 2


def test_other_weights_of_a_prior_are_another_segment(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, keys = replace(clip, exemplars={}), []
    for weights in ("one", "two"):
        monkeypatch.setattr(segments, "prior_fingerprint", lambda settings, weights=weights: weights)
        keys.append([Segment.of(c, "hash", clip.shots[0], DRAFT, []).key for c in (clip, bare)])
    assert keys[0][0] == keys[1][0], "it does not ask the prior"
    assert keys[0][1] != keys[1][1]


# --- whole runs -------------------------------------------------------------------------------------------------------


def write_clip(folder: Path, frames: np.ndarray = GRAY) -> Path:
    folder.mkdir()
    for t, frame in enumerate(frames):
        write_image(folder / f"{t}.png", frame)
    return folder


@pytest.fixture(scope="module")
def gray_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "gray")


def request_of(source: Path, *exemplars: int, **changes: Any) -> RunRequest:
    return RunRequest("clip", replace(DRAFT, **changes), exemplars=exemplars, source=str(source))


def run_in(folder: Path, source: Path, exemplars: dict[int, np.ndarray], **known: Any) -> RunFolder:
    run = begin(folder, request_of(source, *exemplars), exemplars)
    return run_to_end(color(run, **known))


def results(run: Path, report: dict[str, Any] | None = None) -> dict[str, bytes]:
    """What a run leaves, but for times and its bookkeeping."""
    report = report or json.loads((run / "report.json").read_text())
    kept = ("complete", "origin", "iterations", "shots", "segments", "warnings", "scores")
    files = [p for name in ("frames", "iterations", "colors") for p in (run / name).iterdir()]
    arrays = {
        f"{p.name}/{name}": values.tobytes()
        for p in files
        if p.suffix == ".npz"
        for name, values in np.load(p).items()
        if name != "key"
    }
    pictures = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in files if p.suffix == ".png"}
    return {"report": json.dumps({name: report[name] for name in kept}).encode(), **pictures, **arrays}


@pytest.fixture(scope="module")
def unharmed(gray_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("unharmed") / "out", gray_folder, {0: TRUTH[0]}).folder


def test_an_exemplar_more_redoes_its_shot_alone_and_equals_a_fresh_run(
    gray_folder: Path, unharmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = results(run_in(tmp_path / "fresh", gray_folder, TWO).folder)
    starts: list[int] = []

    def noted(segment: Segment, *known: Any) -> Any:
        starts.append(segment.shot.start)
        return color_segment(segment, *known)

    monkeypatch.setattr(Segment, "color", noted)
    beside = run_in(tmp_path / "beside", gray_folder, TWO, reuse=[unharmed])
    assert results(beside.folder) == fresh and starts == [FRAMES]
    again = run_in(copy_run(open_run(unharmed), tmp_path / "again").folder, gray_folder, TWO)
    assert results(again.folder) == fresh and starts == [FRAMES, FRAMES]
    shutil.rmtree(again.folder / "frames")  # by a person
    (again.folder / "report.json").unlink()
    assert results(run_in(again.folder, gray_folder, TWO).folder) == fresh
    before = {p: p.stat().st_mtime_ns for p in again.folder.rglob("*") if p.name != "run.lock"}
    assert run_in(again.folder, gray_folder, TWO).report["complete"], "a finished run is returned at once"
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_canceled_run_keeps_what_is_colored_and_goes_on(gray_folder: Path, unharmed: Path, tmp_path: Path) -> None:
    canceled, frames = threading.Event(), list[int]()
    token = is_canceled.set(canceled.is_set)

    def show(step: Step) -> None:
        if isinstance(step, Colored) and step.frame is not None:
            frames.append(step.frames[step.frame])
            if len(frames) == 3:
                canceled.set()

    try:
        run = begin(tmp_path / "out", request_of(gray_folder, 0), {0: TRUTH[0]})
        part = run_to_end(color(run), show)
    finally:
        is_canceled.reset(token)
    assert not part.report["complete"] and part.report["origin"]["propagated"] > 0
    assert part.finished and len(part.report["iterations"]) < len(open_run(unharmed).report["iterations"])
    assert part.origin().shape == (2 * FRAMES, *SIZE) and part.frame(9).shape == (*SIZE, 3)
    whole = run_to_end(color(part.folder))
    assert whole.report["complete"] and results(whole.folder) == results(unharmed)


def test_duplicates_of_a_canceled_run_have_the_colors_of_what_they_repeat(clip: Clip, tmp_path: Path) -> None:
    shots = [Shot(0, FRAMES, duplicates={2: 1}), Shot(FRAMES, 2 * FRAMES)]
    coloring, canceled = coloring_of(clip, tmp_path / "run", shots=shots), threading.Event()
    token = is_canceled.set(canceled.is_set)
    try:
        with pytest.raises(Canceled):
            run_to_end(coloring.color_here(Stages()), lambda step: canceled.set() if isinstance(step, Round) else None)
    finally:
        is_canceled.reset(token)
    rows = [load_colors(coloring.folder / colors_name(t)) for t in (1, 2)]
    assert rows[0] is not None and rows[1] is not None and (rows[0]["ab"] == rows[1]["ab"]).all()
    assert (rows[1]["origin"] >= 0).any()


def test_a_run_is_found_again_after_its_process_and_its_clip_have_gone(
    gray_folder: Path, unharmed: Path, tmp_path: Path
) -> None:
    film = tmp_path / "upload.mkv"
    with Writer(film, Video(GRAY, Fraction(24)), format="ffv1") as writer:
        for frame in GRAY:
            writer.add(frame)
    run = begin(tmp_path / "out", RunRequest("clip", DRAFT), {0: TRUTH[0]}, film)
    film.unlink()
    steps = color(run)
    while not isinstance(next(steps), Colored):
        pass
    with pytest.raises(InputError, match="in use"):
        begin(tmp_path / "out", RunRequest("clip", DRAFT), {0: TRUTH[0]}, film)
    steps.close()
    with pytest.raises(InputError, match="lies where the results would be written"):
        begin(tmp_path / "out", RunRequest("clip", DRAFT, frames=2), {0: TRUTH[0]}, run.clip)
    assert run.clip.is_file()
    del run  # and its lock
    again = open_run(tmp_path / "out")
    assert not again.finished and again.request == RunRequest("clip", DRAFT, exemplars=(0,))
    assert results(run_to_end(color(again.folder)).folder) == results(unharmed)


def command(source: Path, first: Path, out: Path, *more: str) -> list[str]:
    write_image(first, TRUTH[0])
    words = ["colorize", source, "--out", out, "--exemplar", f"{first}@0", "--preset", "draft", "--max-side", 64, *more]
    return [str(word) for word in words]


@pytest.mark.slow
def test_a_run_killed_at_random_ends_with_the_same_frames(
    gray_folder: Path, unharmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, seed = tmp_path / "out", random.randrange(1000)
    words, chance = command(gray_folder, tmp_path / "first.png", out), random.Random(seed)
    for _ in range(5):
        run = subprocess.Popen([sys.executable, "-m", "omnifusion", *words], stderr=subprocess.DEVNULL)
        while run.poll() is None and not (out / "request.json").exists():
            time.sleep(0.02)
        time.sleep(6 * chance.random())
        run.kill()
        run.wait()
    assert main(words) == 0
    assert results(out) == results(unharmed), f"seed {seed}"
    assert main([*words, "--seed", "3"]) == 0 and main(words) == 0, "a finished run goes on, too"
    assert results(out) == results(unharmed)
    other = write_clip(tmp_path / "elsewhere", GRAY[3:5])
    assert main(command(other, tmp_path / "first.png", out)) == 2 and "--overwrite" in capsys.readouterr().err
    assert results(out) == results(unharmed)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed(clip: Clip, done: Coloring, tmp_path: Path) -> None:
    coloring, killed = coloring_of(clip, tmp_path / "run"), []

    def kill_one(step: Step) -> None:
        if not killed and (
            children := [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
        ):
            children[0].kill()
            killed.append(children[0])
        assert 0 <= step.done <= 1

    with pytest.raises(InputError, match="A worker has died"):
        run_to_end(coloring.color_by(LocalPool(2, 1)), kill_one)
    coloring = coloring_of(clip, tmp_path / "run")
    run_to_end(coloring.color_by(LocalPool(2, 1)))
    assert all(colored(coloring)[name].equal(values) for name, values in colored(done).items())


@pytest.mark.slow
def test_canceled_workers_keep_what_they_have(clip: Clip, done: Coloring, tmp_path: Path) -> None:
    """A worker that is in the midst of a segment writes its part."""
    coloring, started = coloring_of(clip, tmp_path / "run"), threading.Event()
    token = is_canceled.set(started.is_set)

    def show(step: Step) -> None:
        if any("spawn_main" in " ".join(p.cmdline()) for p in psutil.Process().children()):
            time.sleep(0.5)
            started.set()

    try:
        with pytest.raises(Canceled):
            run_to_end(coloring.color_by(LocalPool(1, 1)), show)
    finally:
        is_canceled.reset(token)
    coloring.leave_gray()
    assert set(coloring.records) <= {0} and (colored(coloring)["origin"][FRAMES:] == -1).all()
    again = coloring_of(clip, tmp_path / "run")
    run_to_end(again.color_here(Stages()))
    assert all(colored(again)[name].equal(values) for name, values in colored(done).items())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_two_ray_workers_of_which_one_is_killed(clip: Clip, done: Coloring, tmp_path: Path) -> None:
    port, client = (socket.create_server(("127.0.0.1", 0)).getsockname()[1] for _ in range(2))
    quiet = ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=200000000", "--num-cpus=2"]
    there = ["--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={client}"]
    start = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *there, *quiet]
    head, killed = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), []
    try:
        coloring, pool = coloring_of(clip, tmp_path / "run"), None
        for _ in range(6):
            with suppress(InputError):
                pool = pool or RayPool(f"ray://127.0.0.1:{client}", 600)
        assert pool is not None
        for _ in coloring.color_by(pool):
            known = [p for p in psutil.process_iter(["cmdline"]) if "ray::_color" in " ".join(p.info["cmdline"] or [])]
            if not killed and known:
                os.kill(known[0].pid, signal.SIGKILL)
                killed = known
        assert killed and all(colored(coloring)[name].equal(values) for name, values in colored(done).items())
    finally:
        head.terminate()
        head.wait()


def test_an_error_of_a_worker_is_told(clip: Clip, tmp_path: Path) -> None:
    segment = coloring_of(clip, tmp_path).segments[0]
    other = replace(segment, environment={**segment.environment, "code": "older"})
    with pytest.raises(InputError, match=r"differs .* \(code\)"):
        run_to_end(other.color(tmp_path, Stages()))
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(InputError, match=r"omnifusion\[ray\]"):
            RayPool("ray://nowhere:1", 1000)


@pytest.mark.parametrize("place", ["colors", "film"])
def test_a_full_disk_costs_a_sentence_and_the_run_goes_on(
    gray_folder: Path, unharmed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(path: Path, *known: Any, **more: Any) -> None:
        if path.name == "00003.npz":
            raise OSError(errno.ENOSPC, "No space left on device")
        save_colors(path, *known, **more)

    class Full(Writer):
        def __exit__(self, *known: Any) -> None:
            super().__exit__(OSError, OSError(errno.ENOSPC, ""), None)
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(*(("omnifusion.run.files.save_colors", full) if place == "colors" else (export, "Writer", Full)))
        with pytest.raises(InputError, match="full; make room"):
            run_in(tmp_path / "out", gray_folder, {0: TRUTH[0]})
    if place == "film":
        assert (
            len(list((tmp_path / "out" / "frames").iterdir())) == 2 * FRAMES and not open_run(tmp_path / "out").finished
        )
    assert results(run_in(tmp_path / "out", gray_folder, {0: TRUTH[0]}).folder) == results(unharmed)


def test_what_a_film_could_not_take_over_is_told(
    gray_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(Writer):
        def __exit__(self, *known: Any) -> None:
            super().__exit__(*known)
            self.warnings.append("The sound is lost.")

    monkeypatch.setattr(export, "Writer", Deaf)
    run = begin(tmp_path / "out", replace(request_of(gray_folder), frames=2), {0: TRUTH[0]})
    assert run_to_end(color(run)).report["warnings"].count("The sound is lost.") == 1


# --- export -----------------------------------------------------------------------------------------------------------


def test_frames_made_side_by_side_are_those_made_one_after_another(unharmed: Path, tmp_path: Path) -> None:
    run = open_run(unharmed)
    clip = pipeline.prepared(run, Resources())
    made = {}
    for threads in (1, 3):
        copy = copy_run(run, tmp_path / str(threads))
        Manifest(copy.folder).remove(*RESULTS)
        Manifest(copy.folder).claim("frames/00000.png")
        written = run_to_end(export.export(replace(copy, report=run.report), clip, "ffv1", threads))
        made[threads] = results(copy.folder, run.report) | {"origin": (copy.folder / "origin.mp4").read_bytes()}
        assert sum(written["origin"].values()) == 10 * 48 * 64 and written["origin"] == run.report["origin"]
        assert np.array_equal(read(copy.folder / "colorized.mkv").frames[3].transpose(1, 2, 0), run.frame(3))
    assert made[1] == made[3] and results(unharmed).items() <= made[1].items()


def test_memory_bounds_what_is_made_at_once() -> None:
    assert estimate.parallel_frames((4320, 7680), 4096, 16) == 1
    assert estimate.parallel_frames((72, 128), 1e6, 16) == 16


# --- nobody else's files ----------------------------------------------------------------------------------------------


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.parametrize(
    "name",
    ["frames/reel_0001.png", "frames/00003.png", "exemplar_start.png", "colorized.mp4", "colorized.srt", "request.json",
     "report.json", "manifest.txt", "run.lock", "origin.mp4", "colors/palette.txt", "iterations/a"],
)  # fmt: skip
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_persons_own_files_cost_a_sentence_and_stay(
    gray_folder: Path, tmp_path: Path, name: str, overwrite: bool
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = hashes(tmp_path)
    with pytest.raises(InputError) as error:
        begin(tmp_path, request_of(gray_folder), {}, overwrite=overwrite)
    assert name in str(error.value) and "overwrite" not in str(error.value)
    assert hashes(tmp_path) == before


def test_overwriting_removes_what_the_run_wrote_and_nothing_else(
    gray_folder: Path, unharmed: Path, tmp_path: Path
) -> None:
    run = copy_run(open_run(unharmed), tmp_path / "run")
    mine = ["notes.txt", "frames.zip", "sub/report.json", "frames_old/00000.png"]
    for name in mine:
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text("mine")
    (tmp_path / "outside.txt").write_text("mine")
    with open(run.folder / "manifest.txt", "a") as manifest:
        manifest.write(f"../outside.txt\n{tmp_path}/outside.txt\nframes/../../outside.txt\nnotes.txt\n")
    begin(run.folder, request_of(gray_folder), {}, overwrite=True)
    assert set(hashes(run.folder)) == {*mine, "request.json", "manifest.txt", "run.lock"}
    assert (tmp_path / "outside.txt").read_text() == "mine"


def test_what_is_read_is_never_where_results_are_written(unharmed: Path, tmp_path: Path) -> None:
    frames = write_clip(tmp_path / "reel")
    run = copy_run(open_run(unharmed), tmp_path / "run").folder
    before = hashes(tmp_path)
    for source, out in ((frames, frames), (run / "frames", run), (run / "colorized.mp4", run), (frames / ".", frames)):
        for overwrite in (False, True):
            with pytest.raises(InputError, match="name another folder"):
                begin(out, request_of(source), {}, overwrite=overwrite)
    with pytest.raises(InputError, match="results of a run"):
        begin(tmp_path / "new", request_of(run), {})
    assert hashes(tmp_path) == before
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="Cannot write"):
        begin(tmp_path / "loop", request_of(frames), {})
    inside = run_in(frames / "colored", frames, {0: TRUTH[0]})
    assert results(run_in(inside.folder, frames, {0: TRUTH[0]}).folder) == results(unharmed), "its frames are no input"


@pytest.mark.slow
def test_no_command_touches_what_no_run_wrote(
    gray_folder: Path, unharmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, run, first = tmp_path / "mine", copy_run(open_run(unharmed), tmp_path / "run").folder, tmp_path / "first.png"
    names = ("frames/00000.png", "colorized.mp4", "notes.txt", "00000.png", "report.json", "scores.json")
    for folder, name in [(mine, name) for name in names] + [(run, "notes.txt"), (run, "frames/notes.txt")]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    patch = write_patch(tmp_path / "patch.png")
    before, kept = hashes(mine), [run / "notes.txt", run / "frames/notes.txt"]
    for words in (
        command(gray_folder, first, mine),
        command(gray_folder, first, mine, "--overwrite"),
        ["correct", run, "--exemplar", f"{patch}@3", "--out", mine],
        ["correct", mine, "--exemplar", f"{patch}@3", "--out", tmp_path / "new"],
        ["export", run, "--out", mine],
        ["export", run, "--chroma", "--out", mine],
        ["export", run, "--chroma", "--out", mine / "colorized.mp4"],
        ["suggest", run, "--out", mine],
    ):
        assert main([str(word) for word in words]) == 2, words
        assert "Traceback" not in capsys.readouterr().err and hashes(mine) == before, words
    for words in (
        ["correct", run, "--exemplar", f"{patch}@3", "--out", tmp_path / "corrected"],
        command(gray_folder, first, run, "--seed", "3"),
    ):
        assert main([str(word) for word in words]) == 0, words
        assert all(file.read_text() == "mine" for file in kept)
    assert results(run) == results(unharmed)


def write_patch(path: Path) -> Path:
    picture = np.zeros((4, *SIZE), np.uint8)
    picture[:, 10:30, 10:30] = np.array([[[60]], [[160]], [[40]], [[255]]])
    write_image(path, picture)
    return path


def test_a_folder_in_use_is_refused(gray_folder: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "out", request_of(gray_folder), {})
    with pytest.raises(InputError, match="in use"):
        begin(tmp_path / "out", request_of(gray_folder), {}, overwrite=True)
    with pytest.raises(InputError, match="in use"):
        next(color(tmp_path / "out"))
    assert run.lock is not None
    run.lock.release()  # as when its process dies
    assert begin(tmp_path / "out", request_of(gray_folder), {}).request == run.request


def test_opening_a_run_writes_nothing(unharmed: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in [unharmed, *unharmed.rglob("*")]}
    run = open_run(unharmed)
    assert run.finished and run.can_correct and run.frame(0).shape == (*SIZE, 3) and run.clip.is_dir()
    assert run.state().ab.shape == (2 * FRAMES, 2, *SIZE)
    assert {p: p.stat().st_mtime_ns for p in before} == before
