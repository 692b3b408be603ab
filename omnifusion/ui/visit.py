"""A visitor: a folder of their own, and what they give, checked as soon as it is given: clips, exemplars, links."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnifusion.clip.register import register
from omnifusion.clip.shots import find_shots
from omnifusion.color import from_uint8, gray, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.progress import InputError
from omnifusion.run.folder import exemplar_name
from omnifusion.state import Video
from omnifusion.ui.limits import Limits
from omnifusion.ui.work import Job, open_clip
from omnifusion.video import is_gray, read, read_image, write_image

PREVIEW = 512
"""Longest side of the frames behind the slider."""


@dataclass(frozen=True)
class Visit:
    """What one visitor has given and made; small, the data lies in ``folder``.

    Attributes:
        folder: of this clip alone, removed when it is gone.
        clip: the clip's file in it.
        name: what the visitor calls the clip.
        frames, size: of the clip as read, (H, W).
        color: whether the clip holds colors.
        pictures: frame -> file of its exemplar, in ``folder``.
        versions: a frame, and the files of what the prior makes of it.
        advised: frames of the run that is shown that are worth coloring next.
        token: the run that is shown (an example's result goes by the example's name).
        going: the run that is waited for.
        runs: tokens of all runs of this visit, oldest first.
    """

    folder: Path | None = None
    clip: Path | None = None
    name: str = ""
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    color: bool = False
    pictures: dict[int, Path] = field(default_factory=dict)
    versions: tuple[Any, ...] = ()
    advised: tuple[int, ...] = ()
    token: str = ""
    going: str = ""
    runs: tuple[str, ...] = ()

    def require_clip(self) -> Path:
        """The clip.

        Raises:
            InputError: none was given.
        """
        if self.clip is None or not self.clip.is_file():
            raise InputError("There is no clip yet: upload one, or click an example.")
        return self.clip

    def with_run(self, token: str) -> Visit:
        """The same visit, showing a run."""
        return replace(self, token=token, going="", runs=(*(r for r in self.runs if r != token), token))

    def frame(self, frame: int) -> np.ndarray:
        """A frame of the clip as it was given, ``(3, H, W)`` uint8.

        Raises:
            InputError: there is no clip.
        """
        return np.array(read(self.require_clip(), frame + 1).frames[frame])

    def preview(self, frame: int) -> np.ndarray:
        """A frame of the clip without its colors, ``(h, w, 3)`` uint8."""
        assert self.folder is not None
        frames = np.load(self.folder / "preview.npy", mmap_mode="r")
        return np.array(frames[min(frame, len(frames) - 1)])


def receive_file(visit: Visit, path: Path, limits: Limits, home: Path, title: str = "") -> tuple[Visit, list[str]]:
    """Take in a clip; returns the visit and what its owner should know at once.

    Raises:
        InputError: not a video, or too large.
    """
    name = title or path.name
    video = open_clip(path, limits)
    color = not is_gray(video)
    h, w = video.size
    notes = [f"**{name}**: {len(video)} frames, {w} x {h}, {float(video.fps):g} per second."]
    if len(video) == limits.frames:
        notes.append(f"Longer clips are cut: this page takes the first {limits.frames} frames.")
    if color:
        notes.append("The clip is in color: it is made gray, its first frame is the exemplar unless you give others, "
                     "and the result is scored.")  # fmt: skip
    else:
        notes.append("Add a colored picture of one of its frames below; without one the prior invents the colors.")
    if len(shots := find_shots(video)) > 1:
        cuts = ", ".join(str(shot.start) for shot in shots[1:])
        notes.append(f"**There are cuts** at frame {cuts}: each part is best with an exemplar of its own.")
    return _received(visit, path, name, video, color, home), notes


def receive_job(visit: Visit, job: Job, limits: Limits, home: Path) -> tuple[Visit, list[str]]:
    """Take in the clip and exemplars of a run."""
    visit, notes = receive_file(visit, job.clip, limits, home, job.request.name)
    assert visit.folder is not None
    pictures = {frame: visit.folder / exemplar_name(frame) for frame in job.pictures}
    for frame, path in pictures.items():
        shutil.copyfile(job.pictures[frame], path)
    return replace(visit, pictures=pictures), notes


def tie(visit: Visit, frame: int, path: Path, limits: Limits, force: bool) -> tuple[Visit, str]:
    """Tie a colored picture to a frame, and say how well the two agree.

    Raises:
        InputError: no clip yet, not a picture, or it does not seem to show this frame.
    """
    shown = to_uint8(gray(from_uint8(visit.frame(frame)))).numpy()
    image = read_image(path, limits.pixels, alpha=True)
    if len(image) == 4:
        return tie_made(visit, frame, image, "where your picture is opaque")
    found = register(image, shown, force=force)
    visit, _ = tie_made(visit, frame, image, "")
    h, w = image.shape[1:]
    note = (
        f"Frame {frame} has its exemplar, {w} x {h}: its brightness correlates with the frame's by {found.before:.2f}, "
        f"in its place by {found.after:.2f}."
    )
    return visit, f"{note} {found.warning or ''}"


def tie_made(visit: Visit, frame: int, image: np.ndarray, how: str) -> tuple[Visit, str]:
    """Tie a picture that was made here of the frame itself to it, ``(3, H, W)`` uint8; ``how``, in words."""
    assert visit.folder is not None
    target = visit.folder / exemplar_name(frame)
    target.unlink(missing_ok=True)
    write_image(target, image)
    return replace(visit, pictures={**visit.pictures, frame: target}), f"Frame {frame} is an exemplar {how}."


def _received(visit: Visit, file: Path, name: str, video: Video, color: bool, home: Path) -> Visit:
    """A visit with another clip: the file is copied to a folder of its own under a name of our own."""
    folder = home / secrets.token_urlsafe(16)
    folder.mkdir(parents=True)
    suffix = file.suffix.lower() if file.suffix[1:].isalnum() and len(file.suffix) <= 5 else ".mp4"
    clip = folder / f"clip{suffix}"
    shutil.copyfile(file, clip)
    size = fit_size(video.size, PREVIEW)
    frames = [to_uint8(gray(resize(from_uint8(f)[None], size))[0]) for f in video.frames]
    np.save(folder / "preview.npy", torch.stack(frames).permute(0, 2, 3, 1).numpy())
    return Visit(folder, clip, name, len(video), video.size, color, token=visit.token, runs=visit.runs)
