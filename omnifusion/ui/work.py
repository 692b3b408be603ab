"""A visitor's run from the clip on disk to the finished folder, as a generator of Steps; knows nothing of the page."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from omnifusion.clip.prepare import Clip, prepare
from omnifusion.driver import Result, colorize
from omnifusion.errors import CalledOff
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import Exemplar, Fitted, Followed, InputError, Step, Steps, Tracker, Video
from omnifusion.store import Request, RunFolder, Stored
from omnifusion.ui.archive import Archive
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import tracks
from omnifusion.video import count_frames, read, read_image


@dataclass(frozen=True)
class Job:
    """A run to be done.

    Attributes:
        clip: the clip's file.
        request: what was asked.
        pictures: frame -> file of its exemplar; the frames of ``request.exemplars``.
        earlier: a run on the same clip whose fitted tracker may be used again, or None.
    """

    clip: Path
    request: Request
    pictures: Mapping[int, Path]
    earlier: Stored | None = None


def open_clip(path: Path, limits: Limits, frames: int | None = None) -> Video:
    """Read as much of a clip as the limits allow; sizes are looked at before anything is decoded.

    Raises:
        InputError: too large, or not a video.
    """
    limits.check_file(path)
    if frames is not None and frames < 1:
        raise InputError(f"frames is {frames}; give at least 1.")
    return read(path, min(limits.frames, frames or limits.frames), max_pixels=limits.pixels)


def probe(path: Path, limits: Limits, frames: int | None = None) -> tuple[int, tuple[int, int]]:
    """How many frames of a clip a run would take, and their size (H, W); decodes one frame.

    Raises:
        InputError: as ``open_clip``.
    """
    most = min(limits.frames, frames or limits.frames)
    first = open_clip(path, limits, 1 if frames is None else min(frames, 1))
    return count_frames(path, most, limits.pixels), first.size


def ready(job: Job, limits: Limits) -> Clip:
    """The clip of a job, ready to be coloured.

    Raises:
        InputError: the clip or an exemplar cannot be used.
    """
    video = open_clip(job.clip, limits, job.request.frames)
    exemplars = [Exemplar(frame, read_image(path, limits.pixels)) for frame, path in sorted(job.pictures.items())]
    return prepare(video, exemplars, job.request.settings.max_side, job.request.force)


def job_of(run: Stored) -> Job:
    """The job that a finished run came from."""
    return Job(run.clip, run.request, {frame: run.exemplar(frame) for frame in run.request.exemplars})


def reusable(job: Job) -> Mapping[int, Tracker]:
    """The fitted trackers that still hold: same clip, frames, working size and kind of fit; empty otherwise."""
    if job.earlier is None:
        return {}
    same = same_fit(job.earlier.request, job.request) and digest(job.earlier.clip) == digest(job.clip)
    return job.earlier.trackers() if same else {}


def same_fit(old: Request, new: Request) -> bool:
    """Whether two runs on one clip can share their tracker."""
    a, b = old.settings, new.settings
    return (old.frames, a.max_side, a.fit) == (new.frames, b.max_side, b.fit)


def digest(path: Path) -> str:
    """What tells two files apart."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(
    job: Job,
    archive: Archive,
    limits: Limits,
    stopped: Callable[[], bool] = lambda: False,
    stages: Stages | None = None,
) -> Steps[Stored]:
    """Colour a clip into a folder of the archive.

    When ``stopped`` turns true the run ends after its next step, or within one that asks ``errors.go_on``; what is
    coloured by then is kept and written. A run that fails, or whose generator is closed, leaves nothing behind.

    Raises:
        InputError: the clip or an exemplar cannot be used, or the disk is full.
    """
    yield Step("load", "reading the clip")
    clip = ready(job, limits)
    _, path = archive.new()
    try:
        folder = RunFolder(path)
        folder.require_space(clip)
        folder.trackers |= reusable(job)
        result = yield from _color(clip, job.request.settings, folder, stopped, stages or Stages())
        yield from folder.finish(clip, job.request.settings, result)
        shutil.copyfile(job.clip, path / f"clip{job.clip.suffix.lower()}")
        return folder.keep(job.request, {frame: read_image(file) for frame, file in job.pictures.items()})
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _color(
    clip: Clip,
    settings: Settings,
    folder: RunFolder,
    stopped: Callable[[], bool],
    stages: Stages,
) -> Steps[Result | None]:
    """The driver's steps, noted in ``folder``; None when stopped."""
    work = Followed(colorize(clip.L, clip.exemplar_ab(), settings, clip.shots, stages, folder.trackers))
    try:
        for step in work:
            folder.watch(step)
            if isinstance(step, Fitted):
                shot = next(shot for shot in clip.shots if shot.start == step.start)
                step = replace(step, picture=tracks(step.tracker, clip.L[shot.tracked]))
            yield step
            if stopped():
                return None
    except CalledOff:
        if not stopped():
            raise
        return None
    return work.result
