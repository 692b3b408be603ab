"""A visitor's inputs: a clip and colored frames of it, checked as soon as they arrive."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from omnifusion.clip.prepare import without_color
from omnifusion.clip.register import register
from omnifusion.clip.shots import find_shots
from omnifusion.geometry import fit_size
from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder, exemplar_name
from omnifusion.state import Video
from omnifusion.ui.parts import count
from omnifusion.ui.store import Limits
from omnifusion.video import is_gray, read, read_image, write, write_image

PREVIEW = 512
"""Longest side of the frames that the page shows of a clip before it is colorized."""


@dataclass(eq=False)
class VisitorClip:
    """A visitor's clip, and its exemplars.

    Attributes:
        file: the clip, in a folder of its own.
        frames, size: of the clip as far as it is used, (H, W).
        color: whether it holds colors.
        cuts: the frames at which shots begin.
        exemplars: frame -> file of its colored picture.
        versions: a frame, and files of what the built-in model suggests for it.
        runs: the tokens of the runs that were begun on it.
    """

    file: Path
    name: str
    frames: int
    size: tuple[int, int]
    color: bool
    cuts: tuple[int, ...]
    exemplars: dict[int, Path] = field(default_factory=dict)
    versions: tuple[int, tuple[Path, ...]] = (0, ())
    runs: set[str] = field(default_factory=set)

    @property
    def film(self) -> Path:
        """The clip without its colors, small, as every browser plays it."""
        return self.file.with_name("preview.mp4")

    def frame(self, index: int) -> np.ndarray:
        """A frame as it was given, ``(3, H, W)`` uint8."""
        return np.array(read(self.file).frames[index])

    def preview(self, index: int) -> np.ndarray:
        """A small frame without its colors, ``(h, w, 3)`` uint8."""
        frames = np.load(self.file.with_name("preview.npy"), mmap_mode="r")
        return without_color(np.array(frames[min(index, len(frames) - 1)])).transpose(1, 2, 0)

    def about(self, most: int) -> str:
        """Facts that its visitor should know at once; at most ``most`` frames of a clip are used."""
        (h, w), places = self.size, " and ".join(", ".join(map(str, self.cuts)).rsplit(", ", 1))
        parts = [f"{self.name}: {count(self.frames, 'frame')}, {w} x {h}."]
        if self.frames == most:
            parts.append(f"Only the first {most} frames of longer clips are used.")
        if self.color:
            parts.append("It is in color: it is made gray, its first frame gives the colors unless you choose others, "
                         "and the result is compared with the original.")  # fmt: skip
        else:
            parts.append("Add one of its frames in color in step 2; without one the colors are guessed.")
        if places:
            cuts = "are cuts at frames" if len(self.cuts) > 1 else "is a cut at frame"
            parts.append(f"There {cuts} {places}. Each shot works best with its own colored frame.")
        return " ".join(parts)

    def attach(self, frame: int, image: np.ndarray, comment: str = "") -> str:
        """Take a picture of a frame itself, ``(3 or 4, H, W)`` uint8, as its exemplar; returns that in words."""
        path = self.file.with_name(exemplar_name(frame))
        write_image(path, image)
        self.exemplars[frame] = path
        return f"Frame {frame} now has its colors. {comment}"

    def attach_picture(self, frame: int, path: str | Path, limits: Limits, force: bool) -> str:
        """Take a colored picture as exemplar of a frame; returns how well the two agree, in words.

        Raises:
            InputError: not a picture, or it does not seem to show this frame.
        """
        image = read_image(path, limits.pixels, alpha=True)
        if len(image) == 4:
            return self.attach(frame, image, "Where your picture is opaque, it gives the colors.")
        video = read(self.file)
        match = register(image, without_color(np.array(video.frames[frame])), force, float(video.pixel_aspect))
        how = "very well" if match.after >= 0.95 else "well" if match.after >= 0.8 else "only roughly"
        more = f"; {match.warning}" if match.warning else "."
        comment = f"The picture matches the frame {how} ({match.after:.2f}){more}"
        return self.attach(frame, image, comment)


@dataclass(eq=False)
class Visit:
    """A visitor's inputs, changed in place, so that every handler sees the newest, however late it ends."""

    clip: VisitorClip | None = None

    @property
    def name(self) -> str:
        """A name that identifies the clip; "" without one."""
        return self.clip.file.parent.name if self.clip else ""

    @property
    def mark(self) -> str:
        """Changes with the clip and its exemplars."""
        return f"{self.name} {sorted(self.clip.exemplars) if self.clip else ''}"

    def began(self, token: str) -> bool:
        """Whether a run was begun on the clip."""
        return self.clip is not None and token in self.clip.runs

    def require(self) -> VisitorClip:
        """The clip.

        Raises:
            InputError: none was given, or it is gone.
        """
        if self.clip is None or not self.clip.file.is_file():
            raise InputError("There is no clip yet. Upload one, or click an example.")
        return self.clip

    def exchange(self, clip: VisitorClip | None = None) -> None:
        """Replace the clip by another one, or none."""
        old, self.clip = self.clip, clip
        if old is not None:
            shutil.rmtree(old.file.parent, ignore_errors=True)


def receive_file(path: Path, limits: Limits, home: Path, title: str = "") -> VisitorClip:
    """Take in a clip under a name of our own.

    Raises:
        InputError: not a video, or its frames are too large.
    """
    video = read(path, limits.frames, max_pixels=limits.pixels)
    h, w = fit_size(video.size, PREVIEW)
    pictures = [
        cv2.resize(np.ascontiguousarray(np.asarray(frame).transpose(1, 2, 0)), (w, h), interpolation=cv2.INTER_AREA)
        for frame in video.frames
    ]
    small = Video(np.stack(pictures).transpose(0, 3, 1, 2), video.fps, video.times)
    folder = home / secrets.token_urlsafe(16)
    folder.mkdir(parents=True)
    suffix = path.suffix.lower() if path.suffix[1:].isalnum() and len(path.suffix) <= 5 else ".mp4"
    cuts = tuple(shot.start for shot in find_shots(small)[1:])
    clip = VisitorClip(folder / f"clip{suffix}", title or path.name, len(small), video.size, not is_gray(small), cuts)
    shutil.copyfile(path, clip.file)
    np.save(folder / "preview.npy", small.frames)
    grays = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])
    write(clip.film, Video(np.repeat(grays[:, None], 3, 1), video.fps, video.times))
    return clip


def receive_run(run: RunFolder, limits: Limits, home: Path) -> VisitorClip:
    """Take in the clip and the exemplars of a run, finished or not.

    Raises:
        InputError: as ``receive_file``.
    """
    clip = receive_file(run.clip, limits, home, run.request.name)
    for frame in run.request.exemplars:
        clip.exemplars[frame] = clip.file.with_name(exemplar_name(frame))
        shutil.copyfile(run.exemplar(frame), clip.exemplars[frame])
    return clip
