"""A visitor's run from the clip on disk to the finished folder, as a generator of Steps; knows nothing of the page."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from omnifusion.algorithm import Result, colorize
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.flow.dis import to_bytes
from omnifusion.flow.tracker import DirectFlow
from omnifusion.progress import Canceled, Fitted, InputError, Step, StepIterator, Steps, is_canceled
from omnifusion.run.folder import Request, RunFolder, Stored, open_run
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import Exemplar, Tracker, Video
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import tracks
from omnifusion.video import count_frames, read, read_image

Flows = dict[int, DirectFlow]


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
    """The clip of a job, ready to be colored.

    Raises:
        InputError: the clip or an exemplar cannot be used.
    """
    video = open_clip(job.clip, limits, job.request.frames)
    exemplars = [
        Exemplar(frame, read_image(path, limits.pixels, alpha=True)) for frame, path in sorted(job.pictures.items())
    ]
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
    return (old.frames, a.max_side, a.omnimotion) == (new.frames, b.max_side, b.omnimotion)


def digest(path: Path) -> str:
    """What tells two files apart."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Kept:
    """The flows of the clip that was colored last, for another run on it; at rest no more than that run had needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: object = None
        self._flows: Flows = {}

    def take(self, key: object) -> Flows:
        """The flows of a clip, by the first frame of each shot, empty where they are not known; others are dropped."""
        with self._lock:
            flows = self._flows if key == self._key else {}
            self._flows = {}
            return flows

    def keep(self, key: object, flows: Flows) -> None:
        """Keep the flows of a clip for later."""
        with self._lock:
            self._key, self._flows = key, flows


def run(
    job: Job,
    path: Path,
    limits: Limits,
    stopped: Callable[[], bool] = lambda: False,
    stages: Stages | None = None,
    kept: Kept | None = None,
) -> Steps[Stored]:
    """Color a clip into the folder ``path``, which is made.

    When ``stopped`` turns true the run ends after its next step, or within one that asks ``errors.check_canceled``; what is
    colored by then is kept and written. A run that fails, or whose generator is closed, leaves nothing behind.

    Raises:
        InputError: the clip or an exemplar cannot be used, or the disk is full.
    """
    yield Step("load", "reading the clip")
    clip = ready(job, limits)
    try:
        folder = RunFolder(path)
        folder.require_space(clip)
        folder.trackers |= reusable(job)
        key, kept = (digest(job.clip), len(clip.L), clip.L.shape[-2:]), kept or Kept()
        flows = (kept.take(key) or _flows(clip)) if job.request.settings.omnimotion == "off" else {}
        result = yield from _color(clip, job.request.settings, folder, flows, stopped, stages or Stages())
        kept.keep(key, flows)
        is_canceled.set(lambda: False)  # what is done is written; who wants nothing of it closes the generator
        yield from folder.finish(clip, job.request.settings, result)
        shutil.copyfile(job.clip, path / f"clip{job.clip.suffix.lower()}")
        return folder.keep(job.request, {frame: read_image(file, alpha=True) for frame, file in job.pictures.items()})
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def mend(run: Stored, path: Path, ask: Callable[[Stored], Steps[Stored]]) -> Steps[Stored]:
    """Correct a copy of a run, made in the folder ``path``: whoever has a link finds what it always showed.

    Args:
        run: the run.
        path: a folder to be made, only once all is done.
        ask: what is done to the copy, as ``corrections.correct_run``.
    """
    part = path.with_suffix(".part")
    try:
        shutil.copytree(run.folder, part, copy_function=_link)
        yield from ask(open_run(part))
        os.utime(part)
        os.replace(part, path)
        return open_run(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _link(source: Path | str, target: Path | str) -> None:
    """A second name for a file, which is never written to, only replaced; a copy where there can be none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _flows(clip: Clip) -> Flows:
    """Optical flow of each shot, searched as it is asked for."""
    return {shot.start: DirectFlow(to_bytes(clip.L[shot.tracker_frames][:, 0])) for shot in clip.shots}


def _color(
    clip: Clip,
    settings: Settings,
    folder: RunFolder,
    flows: Flows,
    stopped: Callable[[], bool],
    stages: Stages,
) -> Steps[Result | None]:
    """The driver's steps, noted in ``folder``; None when stopped."""
    trackers = {**folder.trackers, **flows}
    work = StepIterator(colorize(clip.L, clip.exemplar_ab(), settings, clip.shots, stages, trackers))
    try:
        for step in work:
            folder.watch(step)
            if isinstance(step, Fitted):
                shot = next(shot for shot in clip.shots if shot.start == step.start)
                step = replace(step, picture=tracks(step.tracker, clip.L[shot.tracker_frames]))
            yield step
            if stopped():
                return None
    except Canceled:
        if not stopped():
            raise
        return None
    return work.result
