"""The one way from a request to a result, for the page, the endpoints and the command line.

``begin`` claims a folder and writes what is asked, so that a run is found again after anything; ``color`` reads the
clip, colors it segment by segment, and writes frames, films and the report.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from omnifusion.clip.prepare import Clip, prepare
from omnifusion.progress import Canceled, InputError, Step, Steps, is_canceled
from omnifusion.run.coloring import Coloring
from omnifusion.run.estimate import disk_mib
from omnifusion.run.export import export, mean_scores, parallel_frames
from omnifusion.run.folder import (
    PARTS,
    RESULTS,
    Manifest,
    RunFolder,
    RunRequest,
    exemplar_name,
    is_part,
    link,
    lock,
    open_run,
    save_request,
    writing,
)
from omnifusion.run.segments import BASE_MIB, longest, versions, windows
from omnifusion.run.workers import LocalPool, RayPool, color_by
from omnifusion.settings import Settings
from omnifusion.stages import Stages, device
from omnifusion.state import Exemplar, Origin
from omnifusion.video import read, read_image, write_image
from omnifusion.video.common import MAX_PIXELS

REPLACE = {"": "name another folder", "overwrite": "have the run replaced"}


@dataclass(frozen=True)
class Resources:
    """What a run may use, and what it writes.

    Attributes:
        mib: memory of all its processes together.
        threads: of all its processes together; 0 = as many as this process may use.
        workers: how many processes color segments side by side, or the address of a Ray cluster ("ray://...").
        format: of the film, see ``export``.
        max_frames, max_pixels: most frames that are read, and the largest frame or picture.
    """

    mib: float = 4096.0
    threads: int = 0
    workers: int | str = 1
    format: str = "h264"
    max_frames: int | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def cores(self) -> int:
        """How many threads may be at work at once."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Loaded(Step):
    """The clip of a run is read: ``frames`` frames of ``size`` (H, W)."""

    frames: int
    size: tuple[int, int]
    fps: Fraction


def begin(
    path: Path,
    request: RunRequest,
    exemplars: Mapping[int, np.ndarray],
    clip: Path | None = None,
    overwrite: bool = False,
) -> RunFolder:
    """Claim a folder for a run and write what is asked, before any work; the folder is locked for ``color``.

    A run on the same clip in the folder goes on, or is replaced by what is asked now as far as that differs.

    Args:
        path: empty, not there yet, or the folder of an earlier run.
        request: its ``exemplars`` need not be told.
        exemplars: frame -> picture ``(3 or 4, H, W)`` uint8.
        clip: a file of which the folder gets a copy; None = the clip stays at ``request.source``.
        overwrite: replace a run on another clip, or a corrected one; files that no run wrote are never touched.

    Raises:
        InputError: the folder holds what no run wrote, another run, or one that is going on, or what would be read; or
            it cannot be written.
    """
    request, source = replace(request, exemplars=tuple(sorted(exemplars))), Path(clip or request.source or "")
    _check_apart(path, source)
    digest = _hash_clip(source)
    with writing(path):
        if path.is_dir():
            Manifest(path).check_foreign()
        path.mkdir(parents=True, exist_ok=True)
        held = lock(path)
        manifest = Manifest(path)
        manifest.check_foreign(part for part in PARTS if part != "run.lock")
        earlier, known = _earlier(path)
        if earlier is not None and not overwrite:
            if known != digest:
                raise InputError(f"{path} holds a run of another clip", REPLACE)
            if earlier.request == request and _same_pictures(earlier, exemplars):
                return replace(earlier, lock=held)
            if earlier.report.get("corrections"):
                raise InputError(f"{path} holds a corrected run", REPLACE)
        stays = not overwrite and earlier is not None
        manifest.remove(manifest.of((*RESULTS, "exemplar_*.png", "clip.*")) if stays else list(manifest.names))
        names = {frame: exemplar_name(frame) for frame in exemplars}
        copy = [] if clip is None else [f"clip{clip.suffix.lower()}"]
        manifest.claim("request.json", *names.values(), *copy)
        for frame, picture in exemplars.items():
            write_image(path / names[frame], picture)
        if clip is not None:
            link(clip, path / copy[0])
        save_request(path, request, digest)
    return replace(open_run(path), lock=held)


def color(
    run: RunFolder | Path, resources: Resources | None = None, stages: Stages | None = None, reuse: Sequence[Path] = ()
) -> Steps[RunFolder]:
    """Color what is missing of a run, export it, and write its report last; a finished run is returned at once.

    Canceled (``progress.is_canceled``, Ctrl-C), it writes what is colored by then, and the report says
    ``"complete": false``; called again, it goes on.

    Args:
        run: as ``begin`` gave it, or its folder.
        resources: what may be used.
        stages: where the heavy stages run; None = here.
        reuse: folders of other runs on the same clip, whose segments are taken where they are what is asked.

    Raises:
        Canceled: before anything is colored.
        InputError: the clip or an exemplar cannot be used, memory or disk do not suffice, or the prior is not there;
            where nothing is colored yet, the run's files are removed.
    """
    folder, resources = run if isinstance(run, Path) else run.folder, resources or Resources()
    held = (run.lock if isinstance(run, RunFolder) else None) or lock(folder)
    try:
        run = open_run(folder)
        if not run.report.get("complete"):
            with writing(folder):
                yield from _color(run, resources, stages or Stages(), reuse)
    finally:
        held.close()
    return open_run(folder)


def _color(run: RunFolder, resources: Resources, stages: Stages, reuse: Sequence[Path]) -> Steps[None]:
    yield Step("load", "reading the clip")
    settings, manifest = run.request.settings, Manifest(run.folder)
    count = resources.workers if isinstance(resources.workers, int) else 1
    share = resources.mib if count == 1 else (resources.mib - BASE_MIB) / count
    try:
        clip = prepared(run, resources)
        yield Loaded("load", "the clip is read", 1.0, frames=len(clip.video), size=clip.video.size, fps=clip.video.fps)
        _require_space(run.folder, clip)
        shots = windows(clip.shots, clip.exemplars, longest(clip.size, clip.video.size, share))
        coloring = Coloring(clip, settings, shots, manifest, reuse)
        coloring.claim()
    except InputError:
        if not (run.finished or "segments.json" in manifest.names):
            manifest.discard()
        raise
    manifest.remove(manifest.of(RESULTS))
    complete = True
    try:
        if resources.workers == 1:
            yield from coloring.color_here(stages)
        else:
            pool: LocalPool | RayPool
            if isinstance(resources.workers, int):
                pool = LocalPool(count, max(1, resources.cores // count))
            else:
                pool = RayPool(resources.workers, resources.mib)
            yield from color_by(pool, coloring)
    except (Canceled, KeyboardInterrupt):
        complete = False
        coloring.keep_begun()
        yield Step("finish", "stopped; writing what is colored so far")
    token = is_canceled.set(lambda: False)  # what is colored is written; who wants nothing of it closes the generator
    try:
        threads = parallel_frames(clip.video.size, resources.mib, resources.cores)
        kinds, rows = yield from export(manifest, clip, coloring.colors, resources.format, threads)
    finally:
        with suppress(ValueError):  # closed elsewhere than it was begun
            is_canceled.reset(token)
    report = {**_report(clip, settings, coloring), "complete": complete, "scores": mean_scores(rows)}
    report["format"] = resources.format
    report["origin"] = {origin.name.lower(): kinds[origin] for origin in Origin}
    manifest.claim("report.json")
    part = run.folder / ".report.part"
    part.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(part, run.folder / "report.json")


def prepared(run: RunFolder, resources: Resources) -> Clip:
    """The clip of a run, ready to be colored.

    Raises:
        InputError: the clip or an exemplar cannot be used.
    """
    most = [n for n in (run.request.frames, resources.max_frames) if n is not None]
    video = read(run.clip, min(most, default=None), max_pixels=resources.max_pixels)
    exemplars = [
        Exemplar(frame, read_image(run.exemplar(frame), resources.max_pixels, alpha=True))
        for frame in run.request.exemplars
    ]
    return prepare(video, exemplars, run.request.settings.max_side, force=run.request.force)


def _report(clip: Clip, settings: Settings, coloring: Coloring) -> dict[str, Any]:
    costs, first = coloring.costs(), coloring.first_iterations()
    return {
        "frames": len(clip.video),
        "size": list(clip.video.size),
        "working_size": list(clip.size),
        "exemplars": sorted(clip.exemplars),
        **clip.report(),
        "segments": [
            {"start": shot.start, "stop": shot.stop, "first_iteration": first.get(shot.start, 0)}
            for shot in sorted(coloring.shots, key=lambda shot: shot.start)
        ],
        "settings": asdict(settings),
        "seed": settings.seed,
        "versions": versions() | {"device": device()},
        "iterations": coloring.iterations(),
        "stages": [
            {"name": name, "seconds": round(seconds, 2), "peak_mib": round(costs.peak_mib[name])}
            for name, seconds in costs.seconds.items()
        ],
        "notes": [*clip.notes, *coloring.notes()],
    }


def _check_apart(path: Path, source: Path) -> None:
    """Raise InputError where a run in ``path`` would write what it is to read from ``source``."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder for the results.")
    out, there = path.resolve(), source.resolve()
    if there == out:
        raise InputError(f"{path} holds the frames that are to be colored; name another folder for the results.")
    if there.is_relative_to(out) and is_part(there.relative_to(out).as_posix(), PARTS):
        raise InputError(f"{source} lies where the results would be written; name another folder for them.")


def _hash_clip(path: Path) -> str:
    """A hash of a clip's file, or of the files of its folder and their names.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        digest = hashlib.sha256()
        for file in [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file()):
            digest.update(file.name.encode(errors="surrogateescape") if file != path else b"")
            with open(file, "rb") as opened:
                while block := opened.read(2**20):
                    digest.update(block)
        return digest.hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"There is no file or folder {path}; check the name.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _earlier(path: Path) -> tuple[RunFolder | None, str]:
    """The run that a folder holds, and the hash of its clip."""
    if not (path / "request.json").is_file():
        return None, ""
    return open_run(path), str(json.loads((path / "request.json").read_text()).get("input", ""))


def _same_pictures(run: RunFolder, exemplars: Mapping[int, np.ndarray]) -> bool:
    try:
        return all(np.array_equal(read_image(run.exemplar(f), alpha=True), image) for f, image in exemplars.items())
    except InputError:
        return False


def _require_space(folder: Path, clip: Clip) -> None:
    """Raise InputError where the results would not fit the disk."""
    needed, free = disk_mib(len(clip.video), clip.video.size, clip.size), shutil.disk_usage(folder).free >> 20
    if free < needed:
        raise InputError(
            f"About {needed} MiB are needed in {folder}, but only {free} MiB are free",
            {"": "make room", "frames": "take fewer frames"},
        )
