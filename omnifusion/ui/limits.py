"""What the machine's owner lets visitors take, and where results live; each by an environment variable."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from omnifusion.progress import InputError

VARIABLES = {
    "megabytes": ("OMNIFUSION_MAX_MEGABYTES", 1),
    "frames": ("OMNIFUSION_MAX_FRAMES", 1),
    "pixels": ("OMNIFUSION_MAX_PIXELS", 1),
    "runs": ("OMNIFUSION_RUNS", 1),
    "queue": ("OMNIFUSION_QUEUE", 1),
    "seconds": ("OMNIFUSION_MAX_SECONDS", 1),
    "mib": ("OMNIFUSION_MAX_MIB", 1),
    "vanished": ("OMNIFUSION_VANISHED", 0),
    "days": ("OMNIFUSION_RESULT_DAYS", 0.001),
}
"""Limit -> its variable and the least value."""


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
        chosen: dict[str, float] = {}
        for name, (variable, least) in VARIABLES.items():
            if (text := os.environ.get(variable)) is not None:
                try:
                    chosen[name] = type(getattr(cls, name))(float(text))
                    if not least <= chosen[name] < 1e15:
                        raise ValueError
                except (ValueError, OverflowError):
                    raise InputError(f"{variable} is {text}; give a number of at least {least}.") from None
        data = Path("/data")  # where a Hugging Face Space mounts its persistent disk
        base = data if data.is_dir() and os.access(data, os.W_OK) else Path(tempfile.gettempdir())
        results = Path(os.environ.get("OMNIFUSION_RESULTS", base / "omnifusion-results")).resolve()
        return cls(**chosen, results=results)  # type: ignore[arg-type]

    def check_file(self, path: Path) -> None:
        """Raise InputError for a file that is too large."""
        if not path.is_file():
            raise InputError("The clip is no longer on this machine; upload it again.")
        size = path.stat().st_size / 2**20
        if size > self.megabytes:
            raise InputError(f"The clip has {size:.0f} MiB; this page takes at most {self.megabytes}. Trim it.")
