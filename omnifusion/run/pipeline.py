"""The one way from a request to a result, for the page, the endpoints and the command line.

``begin`` claims a folder and writes the request, so that a run can always be resumed; ``color`` reads the clip, colors
it segment by segment, and writes frames, films and the report.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from omnifusion.clip.prepare import Clip, prepare
from omnifusion.pool import cores
from omnifusion.progress import Canceled, InputError, Step, Steps, count, is_canceled
from omnifusion.run.coloring import Coloring, LocalPool, RayPool
from omnifusion.run.estimate import BASE_MIB, disk_mib, estimate, longest, parallel_frames
from omnifusion.run.export import export, film_names
from omnifusion.run.files import exemplar_name, frame_name, hash_of, link, write_report, write_text
from omnifusion.run.folder import RESULTS, Manifest, RunFolder, RunRequest, lock, open_run
from omnifusion.run.segments import versions, windows
from omnifusion.settings import Settings
from omnifusion.stages import Stages, device
from omnifusion.video import read, read_image, write_image
from omnifusion.video.common import MAX_PIXELS, writing

REPLACE = {"": "name another folder", "overwrite": "have the run replaced"}


@dataclass(frozen=True)
class Resources:
    """The resources and limits of a run, and the format of its film."""

    mib: float = 4096.0  # of memory, of all its processes together
    threads: int = 0  # of all its processes together; 0 = as many as this process may use
    workers: int | str = 1  # processes that color segments side by side, or the address of a Ray cluster ("ray://...")
    format: str = "h264"  # see export.film_names
    max_frames: int | None = None  # most frames that are read
    max_pixels: int = MAX_PIXELS  # of the largest frame or picture that is read


def begin(
    path: Path, request: RunRequest, exemplars: Mapping[int, np.ndarray], clip: Path | None = None,
    overwrite: bool = False,
) -> RunFolder:  # fmt: skip
    """Claim a folder for a run and write the request, before any work; the folder is locked for ``color``.

    A run on the same clip in the folder is resumed; if the request differs, only what depends on that is done again.

    Args:
        exemplars: frame -> picture ``(3 or 4, H, W)`` uint8.
        clip: a file of which the folder gets a copy; None = the clip stays at ``request.source``.
        overwrite: replace a run on another clip, or a corrected one; files that no run wrote are never touched.

    Raises:
        InputError: the folder holds files that no run wrote, another run, one at work, or the clip; or it cannot be
            written.
    """
    source = Path(clip or request.source or "")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder for the results.")
    request = replace(request, exemplars=tuple(sorted(exemplars)), source=None if clip else request.source)
    request = replace(request, clip_hash=_hash_clip(source), pictures_hash=hash_of(dict(exemplars)))
    with writing(path):
        Manifest(path).check(source)
        path.mkdir(parents=True, exist_ok=True)
        file_lock = lock(path)
        try:
            _write_request(Manifest(path), request, exemplars, clip, overwrite)
        except BaseException:
            file_lock.release()
            raise
    return replace(open_run(path), lock=file_lock)


def _write_request(
    manifest: Manifest, request: RunRequest, exemplars: Mapping[int, np.ndarray], clip: Path | None, overwrite: bool
) -> None:
    """Write the request, unless it is the same as before."""
    path, outdated = manifest.folder, ["*"]
    if (path / "request.json").is_file() and not overwrite:
        earlier = open_run(path)
        if earlier.request.clip_hash != request.clip_hash:
            raise InputError(f"{path} holds a run of another clip", REPLACE)
        if asdict(earlier.request) == asdict(request):
            return
        if earlier.report.get("corrections"):
            raise InputError(f"{path} holds a corrected run", REPLACE)
        outdated = [*RESULTS, "request.json", "exemplar_*", "clip.*"]
    manifest.remove(*outdated)
    copy = [] if clip is None else [f"clip{clip.suffix.lower()}" if clip.suffix[1:].isalnum() else "clip.film"]
    manifest.claim("request.json", *map(exemplar_name, exemplars), *copy)
    for frame, picture in exemplars.items():
        write_image(path / exemplar_name(frame), picture)
    if clip is not None:
        link(clip, path / copy[0])
    write_text(path / "request.json", json.dumps(asdict(request), indent=2) + "\n")


def color(
    run: RunFolder | Path, resources: Resources | None = None, stages: Stages | None = None, reuse: Sequence[Path] = ()
) -> Steps[RunFolder]:
    """Color what is missing of a run, export it, and write its report last; a finished run is returned at once.

    Canceled (``progress.is_canceled``, Ctrl-C), it writes what is colored by then, and the report says
    ``"complete": false``; called again, it resumes.

    Args:
        run: the result of ``begin``, or its folder.
        reuse: folders of other runs on the same clip, whose segments are reused if their keys are the same.

    Raises:
        Canceled: before anything is colored.
        InputError: the clip or an exemplar cannot be used, memory or disk do not suffice, or the prior is not there;
            where nothing is colored yet, the run's files are removed.
    """
    folder, held = (run, None) if isinstance(run, Path) else (run.folder, run.lock)
    with writing(folder):
        file_lock = held if held is not None and held.is_locked else lock(folder)
        try:
            run = open_run(folder)
            if not run.report.get("complete"):
                yield from _color(run, resources or Resources(), stages or Stages(), reuse)
        finally:
            file_lock.release()
    return open_run(folder)


def _color(run: RunFolder, resources: Resources, stages: Stages, reuse: Sequence[Path]) -> Steps[None]:
    yield Step("load", "reading the clip")
    manifest, workers, threads = Manifest(run.folder), resources.workers, resources.threads or cores()
    processes = workers if isinstance(workers, int) else 1
    try:
        clip = prepared(run, resources)
        yield Step("load", _expected(run.request.settings, clip, resources.mib), 1.0)
        _require_space(run.folder, clip)
        share = resources.mib if processes == 1 else (resources.mib - BASE_MIB) / processes
        shots = windows(clip.shots, clip.exemplars, longest(clip.size, clip.video.size, share))
        coloring = Coloring(clip, _hash_clip(run.clip), run.request.settings, shots, manifest, reuse)
    except InputError:
        if not (run.finished or (run.folder / "segments.json").is_file()):
            manifest.discard()
        raise
    manifest.remove(*RESULTS)
    frames = map(frame_name, range(len(clip.video)))
    manifest.claim("report.json", "origin.mp4", *film_names(resources.format), *frames)
    complete = True
    try:
        if workers == 1:
            yield from coloring.color_here(replace(stages, threads=threads))
        else:
            pool = LocalPool(workers, max(1, threads // workers)) if isinstance(workers, int) else None
            yield from coloring.color_by(pool or RayPool(str(workers), resources.mib))
    except (Canceled, KeyboardInterrupt):
        complete = False
        coloring.leave_gray()
        yield Step("finish", "stopped; writing what is colored so far")
    settings, segments = run.request.settings, coloring.report()
    report = {
        "frames": len(clip.video),
        "size": list(clip.video.size),
        "working_size": list(clip.size),
        "exemplars": sorted(clip.exemplars),
        **clip.report(),
        "settings": asdict(settings),
        "seed": settings.seed,
        "versions": versions() | {"device": device()},
        **segments,
        "warnings": list(dict.fromkeys([*clip.notes, *segments["warnings"]])),
        "complete": complete,
    }
    token = is_canceled.set(lambda: False)  # export is not canceled; a caller who wants no results closes the generator
    try:
        threads = parallel_frames(clip.video.size, resources.mib, threads)
        report |= yield from export(replace(run, report=report), clip, resources.format, threads)
    finally:
        with suppress(ValueError):  # closed in another context
            is_canceled.reset(token)
    write_report(run.folder, report)


def _expected(settings: Settings, clip: Clip, mib: float) -> str:
    """The expected costs of a run in words."""
    (height, width), cost = clip.video.size, estimate(settings, len(clip.video), clip.video.size)
    time = f"{cost.seconds:.0f} s" if cost.seconds < 100 else f"{cost.seconds / 60:.0f} min"
    memory = f"up to {min(cost.mib, mib):.0f} MiB of memory and {cost.disk_mib} MiB of disk"
    return f"{count(len(clip.video), 'frame')} of {width}x{height}: about {time} on two cores, {memory}."


def prepared(run: RunFolder, resources: Resources) -> Clip:
    """The clip of a run, ready to be colored; InputError if the clip or an exemplar cannot be used."""
    request, pixels = run.request, resources.max_pixels
    most = min([n for n in (request.frames, resources.max_frames) if n is not None], default=None)
    exemplars = {t: read_image(run.folder / exemplar_name(t), pixels, alpha=True) for t in request.exemplars}
    return prepare(read(run.clip, most, pixels), exemplars, request.settings.max_side, request.force)


def _hash_clip(path: Path) -> str:
    """A hash of a clip's file, or of the files of its folder and their names."""
    digest = hashlib.sha256()
    with suppress(OSError):  # reported when the clip is read
        for file in sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]:
            digest.update(os.fsencode(file.name) if file != path else b"")
            with open(file, "rb") as opened:
                while block := opened.read(2**20):
                    digest.update(block)
    return digest.hexdigest()


def _require_space(folder: Path, clip: Clip) -> None:
    """Raise InputError if the results do not fit on the disk, beside what is written already."""
    written = sum((folder / n).stat().st_size for n in Manifest(folder).names if (folder / n).is_file()) >> 20
    needed = disk_mib(len(clip.video), clip.video.size, clip.size) - written
    free = shutil.disk_usage(folder).free >> 20
    if free < needed:
        raise InputError(
            f"About {needed} MiB are needed in {folder}, but only {free} MiB are free",
            {"": "make room", "frames": "take fewer frames"},
        )
