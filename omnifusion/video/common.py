"""What reading and writing share."""

from __future__ import annotations

import errno
from pathlib import Path

from av.video.reformatter import Interpolation

from omnifusion.state import InputError

SWSCALE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Interpolates chroma and rounds it: 7 dB better in colour, there and back, than the default."""


def reason(error: Exception) -> str:
    """The system's words for an error."""
    return str(getattr(error, "strerror", None) or error)


def refused(path: Path, error: Exception) -> InputError:
    """What to tell the user where the disk refuses a file."""
    if getattr(error, "errno", None) == errno.ENOSPC:
        return InputError(f"The disk that is to hold {path} is full; make room and run again.")
    return InputError(f"Cannot write {path} ({reason(error)}); check the folder and run again.")
