"""What one visitor may ask of the machine, and where results live; each by an environment variable."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from omnifusion.state import InputError

PERSISTENT = Path("/data")
"""Where a Hugging Face Space mounts its persistent disk."""


@dataclass(frozen=True)
class Limits:
    """Caps and places.

    Attributes:
        megabytes: largest upload.
        frames: most frames of a clip that are read; the rest is left out, and the page says so.
        pixels: largest frame.
        runs: how many run at once; the others queue.
        results: folder of the finished runs.
        days: how long a finished run is kept.
    """

    megabytes: int = 200
    frames: int = 120
    pixels: int = 3840 * 2160
    runs: int = 1
    results: Path = Path("results")
    days: float = 7.0

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits that the machine's owner has chosen.

        Raises:
            InputError: a variable that is not a number.
        """
        base = PERSISTENT if PERSISTENT.is_dir() and os.access(PERSISTENT, os.W_OK) else Path(tempfile.gettempdir())
        return cls(
            megabytes=int(_number("OMNIFUSION_MAX_MEGABYTES", cls.megabytes)),
            frames=int(_number("OMNIFUSION_MAX_FRAMES", cls.frames)),
            pixels=int(_number("OMNIFUSION_MAX_PIXELS", cls.pixels)),
            runs=int(_number("OMNIFUSION_RUNS", cls.runs)),
            results=Path(os.environ.get("OMNIFUSION_RESULTS", base / "omnifusion-results")).resolve(),
            days=_number("OMNIFUSION_RESULT_DAYS", cls.days),
        )

    def check_file(self, path: Path) -> None:
        """Raise InputError for a file that is too large."""
        if not path.is_file():
            raise InputError("The clip is no longer on this machine; upload it again.")
        size = path.stat().st_size / 2**20
        if size > self.megabytes:
            raise InputError(f"The clip has {size:.0f} MiB; this page takes at most {self.megabytes}. Trim it.")

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for frames that are too large."""
        if height * width > self.pixels:
            raise InputError(
                f"The clip's frames are {width} x {height}; this page takes at most "
                f"{self.pixels / 1e6:.1f} megapixels. Make them smaller."
            )


def _number(name: str, default: float) -> float:
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        number = float(value)
    except ValueError:
        raise InputError(f"{name} is {value!r}; give a number.") from None
    if number <= 0:
        raise InputError(f"{name} is {value}; give a number above zero.")
    return number
