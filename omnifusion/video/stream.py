"""Clips of any length: each frame is decoded when it is asked for, and nothing is kept."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from omnifusion.progress import InputError, check_canceled
from omnifusion.state import Video
from omnifusion.video.common import MAX_PIXELS
from omnifusion.video.pictures import PICTURES, read_image
from omnifusion.video.reader import Film, natural_sort, read, to_rgb

NEAR = 48
"""Frames up to which going on is quicker than searching the film again."""


def stream(path: Path | str, max_frames: int | None = None, max_pixels: int = MAX_PIXELS) -> Video:
    """What ``read`` reads, without keeping it; a film is decoded once to learn how many frames it has, and when.

    Raises:
        InputError: as ``read``; of a folder's pictures, where they are asked for.
    """
    path = Path(path)
    frames: Any  # indexed and iterated like the array that ``Video`` asks for
    if not path.is_file() or path.suffix.lower() in PICTURES:
        first = read(path, 1, max_pixels=max_pixels)
        files = (natural_sort(path) if path.is_dir() else [path])[:max_frames]
        frames = _Pictures((len(files), *first.frames.shape[1:]), files, max_pixels)
        return Video(frames, first.fps)
    film, shape = Film(path, max_pixels), None
    for frame in islice(film.frames(), max_frames):
        check_canceled()
        upright = (frame.height, frame.width)[:: -1 if round(frame.rotation / 90) % 2 else 1]
        if upright != (shape or upright):
            raise InputError(f"{path} changes its frame size at frame {len(film.times) - 1}; convert it first.")
        shape = upright
    if shape is None:
        raise InputError(f"{path} holds no frame; choose another.")
    frames = _Decoded((len(film.times), 3, *shape), path, film.times, max_pixels)
    return film.video(frames)


class _Frames(ABC):
    """Frames ``(T, 3, H, W)`` uint8 sRGB; the one asked for last is kept."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.size = shape, math.prod(shape)
        self._held: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if isinstance(index, slice):
            return np.stack([self[i] for i in range(*index.indices(len(self)))])
        i = range(len(self))[operator.index(index)]
        if self._held is None or self._held[0] != i:
            self._held = i, self._frame(i)
        return self._held[1]

    @abstractmethod
    def _frame(self, i: int) -> np.ndarray: ...


class _Pictures(_Frames):
    def __init__(self, shape: tuple[int, ...], files: list[Path], max_pixels: int) -> None:
        super().__init__(shape)
        self.files, self.max_pixels = files, max_pixels

    def _frame(self, i: int) -> np.ndarray:
        picture = read_image(self.files[i], self.max_pixels)
        if picture.shape != self.shape[1:]:
            (h, w), (H, W) = picture.shape[1:], self.shape[2:]
            raise InputError(f"{self.files[i]} is {w}x{h}, the frames before it {W}x{H}; make them equal.")
        return picture


class _Decoded(_Frames):
    """The frames of a film that are shown at ``times``; travels to another process by its path."""

    def __init__(self, shape: tuple[int, ...], path: Path, times: list[Fraction], max_pixels: int) -> None:
        super().__init__(shape)
        self.path, self.times, self.max_pixels = path, times, max_pixels
        self._next, self._coming = 0, iter(())  # type: tuple[int, Iterator[av.VideoFrame]]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_held": None, "_next": 0, "_coming": iter(())}

    def _frame(self, i: int) -> np.ndarray:
        ahead = i - self._next
        frame = next(islice(self._coming, ahead, None), None) if 0 <= ahead < NEAR else None
        if frame is None:
            frame = self._search(i)
        self._next = i + 1
        return to_rgb(frame)

    def _search(self, i: int) -> av.VideoFrame:
        film = Film(self.path, self.max_pixels)
        if i >= NEAR:
            self._coming = film.since(self.times[i])
            frame = next(self._coming, None)
            if frame is not None and frame.pts is not None and frame.pts * film.time_base == self.times[i]:
                return frame
            film = Film(self.path, self.max_pixels)  # its time stamps do not lead there: from its beginning, then
        self._coming = film.frames()
        frame = next(islice(self._coming, i, None), None)
        if frame is None:
            raise InputError(f"{self.path} has changed while it was read; run again.")
        return frame
