"""What the machine's owner lets visitors take, and where results live; each by an environment variable."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from omnifusion.progress import InputError

PERSISTENT = Path("/data")
"""Where a Hugging Face Space mounts its persistent disk."""


@dataclass(frozen=True)
class Limits:
    """Caps and places; the defaults suit a small Space (two cores, 16 GB).

    Attributes:
        megabytes: largest upload.
        frames: most frames of a clip that are read; the rest is left out, and the page says so.
        pixels: largest frame or picture.
        runs: how many run at once; the others wait.
        queue: most runs of one visitor, waiting or going on.
        seconds: longest run.
        mib: most memory that the page may hold during a run, MiB.
        vanished: seconds for which a run of the page goes on when all who had it open have gone.
        results: folder of the finished runs.
        days: how long a finished run is kept.
    """

    megabytes: int = 200
    frames: int = 120
    pixels: int = 3840 * 2160
    runs: int = 1
    queue: int = 10
    seconds: float = 900.0
    mib: float = 4096.0
    vanished: float = 900.0
    results: Path = Path("results")
    days: float = 7.0

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits that the machine's owner has chosen.

        Raises:
            InputError: a variable that is not a number, or too small.
        """
        base = PERSISTENT if PERSISTENT.is_dir() and os.access(PERSISTENT, os.W_OK) else Path(tempfile.gettempdir())
        return cls(
            megabytes=int(_number("OMNIFUSION_MAX_MEGABYTES", cls.megabytes, 1)),
            frames=int(_number("OMNIFUSION_MAX_FRAMES", cls.frames, 1)),
            pixels=int(_number("OMNIFUSION_MAX_PIXELS", cls.pixels, 1)),
            runs=int(_number("OMNIFUSION_RUNS", cls.runs, 1)),
            queue=int(_number("OMNIFUSION_QUEUE", cls.queue, 1)),
            seconds=_number("OMNIFUSION_MAX_SECONDS", cls.seconds, 1),
            mib=_number("OMNIFUSION_MAX_MIB", cls.mib, 1),
            vanished=_number("OMNIFUSION_VANISHED", cls.vanished, 0),
            results=Path(os.environ.get("OMNIFUSION_RESULTS", base / "omnifusion-results")).resolve(),
            days=_number("OMNIFUSION_RESULT_DAYS", cls.days, 0.001),
        )

    def check_file(self, path: Path) -> None:
        """Raise InputError for a file that is too large."""
        if not path.is_file():
            raise InputError("The clip is no longer on this machine; upload it again.")
        size = path.stat().st_size / 2**20
        if size > self.megabytes:
            raise InputError(f"The clip has {size:.0f} MiB; this page takes at most {self.megabytes}. Trim it.")


def _number(name: str, default: float, least: float) -> float:
    value = os.environ.get(name)
    if value is None:
        return default
    try:
        number = float(value)
    except ValueError:
        raise InputError(f"{name} is {value!r}; give a number.") from None
    if not least <= number < math.inf:
        raise InputError(f"{name} is {value}; give a number of at least {least:g}.")
    return number
