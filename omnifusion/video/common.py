"""Common parts of reading and writing, and frames that are decoded on demand."""

import errno
import math
import operator
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from omnifusion.progress import InputError

SWSCALE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Interpolates chroma and rounds it: 7 dB better in color, there and back, than the default."""

MAX_PIXELS = 2**25  # largest frame and picture that is decoded: a little more than 8K (7680 x 4320)

DEMUXERS = (
    "amv,asf,av1,avi,cavsvideo,cine,dirac,dnxhd,dv,evc,film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,ivf,kux,live_flv,"
    "lxf,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,mxf,nsv,nut,nuv,obu,ogg,r3d,rm,roq,smjpeg,smk,swf,ty,"
    "vc1,vc1test,vvc,wtv,yuv4mpegpipe,"
    "aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,w64,wav,wv"
)
"""FFmpeg's readers of films, then of sound (to be told from films), that open no other file.

FFmpeg asks the list once it has guessed a file's kind and before it reads more: playlists, lists of files, numbered
pictures, session descriptions and scripts, which may name any file or themselves, get no further.
"""

OPENING = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
"""Options with which FFmpeg opens a user's file, here and in the ffmpeg program."""


def check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Raise InputError for a picture too large for the memory, before a pixel is decoded."""
    if width * height > max_pixels:
        raise too_large(path, f"is {width}x{height},", max_pixels)


def too_large(path: Path, what: str, max_pixels: int) -> InputError:
    """The error for a picture or film of too many pixels."""
    return InputError(f"{path} {what} more than {max_pixels / 1e6:.1f} million pixels; make it smaller.")


def reason(error: Exception) -> str:
    """The system's words for an error."""
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write a file or a folder into an InputError."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise InputError(f"The disk that holds {path} is full; make room and run again.") from error
        raise InputError(f"Cannot write {path} ({reason(error)}); check its folder, or name another.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to be written, which then appears as ``path``, whole or not at all."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class Frames(ABC):
    """Frames ``(T, 3, H, W)`` uint8 sRGB in place of an array; the latest one is kept. Safe for several threads."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.size = path, shape, math.prod(shape)
        self._last: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int]) -> np.ndarray:
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        if isinstance(index, Sequence | np.ndarray):
            return np.stack([self[i] for i in index]) if len(index) else np.zeros((0, *self.shape[1:]), np.uint8)
        i = range(len(self))[operator.index(index)]
        with self._lock:
            if self._last is None or self._last[0] != i:
                frame = self._frame(i)
                if frame is None or frame.shape != self.shape[1:]:
                    raise InputError(f"{self.path} has changed while it was read; run again.")
                self._last = i, frame
            return self._last[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_lock"} | {"_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @abstractmethod
    def _frame(self, i: int) -> np.ndarray | None:
        """Decode a frame; None where it is not there any more."""
