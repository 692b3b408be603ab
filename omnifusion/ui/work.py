"""A visitor's run from the clip on disk to the finished folder, as a generator of Steps; knows nothing of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omnifusion.progress import InputError, Steps
from omnifusion.run.folder import RunFolder, RunRequest, copy_run, open_run
from omnifusion.run.pipeline import Resources, begin, color
from omnifusion.stages import Stages
from omnifusion.state import Video
from omnifusion.ui.limits import Limits
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
    request: RunRequest
    pictures: Mapping[int, Path]
    earlier: RunFolder | None = None


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


def job_of(run: RunFolder) -> Job:
    """The job that a finished run came from."""
    return Job(run.clip, run.request, {frame: run.exemplar(frame) for frame in run.request.exemplars})


def same_fit(old: RunRequest, new: RunRequest) -> bool:
    """Whether two runs on one clip can share their tracker."""
    a, b = old.settings, new.settings
    return (old.frames, a.max_side, a.omnimotion) == (new.frames, b.max_side, b.omnimotion)


def run(job: Job, path: Path, limits: Limits, stages: Stages | None = None) -> Steps[RunFolder]:
    """Color a clip into the folder ``path``, which is made; see ``pipeline``.

    A run that fails, or whose generator is closed, leaves nothing behind.

    Raises:
        InputError: the clip or an exemplar cannot be used, or the disk is full.
    """
    limits.check_file(job.clip)
    pictures = {frame: read_image(file, limits.pixels, alpha=True) for frame, file in job.pictures.items()}
    resources = Resources(limits.mib, max_frames=limits.frames, max_pixels=limits.pixels)
    try:
        begun = begin(path, job.request, pictures, job.clip)
        return (yield from color(begun, resources, stages, [job.earlier.folder] if job.earlier else []))
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def mend(run: RunFolder, path: Path, ask: Callable[[RunFolder], Steps[RunFolder]]) -> Steps[RunFolder]:
    """Correct a copy of a run, made in the folder ``path``: whoever has a link finds what it always showed.

    Args:
        run: the run.
        path: a folder to be made, only once all is done.
        ask: what is done to the copy, as ``corrections.correct_run``.
    """
    part = path.with_suffix(".part")
    try:
        yield from ask(copy_run(run, part))
        os.utime(part)
        os.replace(part, path)
        return open_run(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
