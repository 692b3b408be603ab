"""The owner's limits for visitors, and runs on disk by their tokens."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder, lock, open_run
from omnifusion.ui.parts import EXAMPLES

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
"""128 random bits: whoever knows the token of a run may see it, nobody can guess one."""

ATTEMPTS, MOST_ATTEMPTS = "attempts.txt", 2
"""How often a run of the page was begun, in its folder; one that has ended the process so often is not begun again."""


def _limit(standard: float, variable: str, least: float = 1) -> Any:
    """A limit: its value unless the environment ``variable`` is set, and the least that this may be."""
    return field(default=standard, metadata={"variable": variable, "least": least})


@dataclass(frozen=True)
class Limits:
    """Limits and folders; the defaults suit a small Space (two cores, 16 GB)."""

    megabytes: int = _limit(200, "OMNIFUSION_MAX_MEGABYTES")  # largest upload
    frames: int = _limit(120, "OMNIFUSION_MAX_FRAMES")  # of a clip, from its start
    pixels: int = _limit(3840 * 2160, "OMNIFUSION_MAX_PIXELS")  # of a frame or picture
    runs: int = _limit(1, "OMNIFUSION_RUNS")  # at once
    queue: int = _limit(10, "OMNIFUSION_QUEUE")  # most runs of one visitor, waiting or at work
    seconds: float = _limit(900.0, "OMNIFUSION_MAX_SECONDS")  # longest run
    mib: float = _limit(4096.0, "OMNIFUSION_MAX_MIB")  # most memory of the page during a run
    vanished: float = _limit(900.0, "OMNIFUSION_VANISHED", 0)  # seconds for which a run continues that nobody has open
    days: float = _limit(7.0, "OMNIFUSION_RESULT_DAYS", 0.001)  # for which a finished run is kept
    results: Path = Path("results")  # folder of the finished runs

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits that the machine's owner has chosen.

        Raises:
            InputError: a variable that is not a number, or too small.
        """
        data = Path("/data")  # where a Hugging Face Space mounts its persistent disk
        base = data if data.is_dir() and os.access(data, os.W_OK) else Path(tempfile.gettempdir())
        values: dict[str, Any] = {
            "results": Path(os.environ.get("OMNIFUSION_RESULTS", base / "omnifusion-results")).resolve()
        }
        for limit in fields(cls):
            if (value := os.environ.get(limit.metadata.get("variable", ""))) is not None:
                variable, least = limit.metadata["variable"], limit.metadata["least"]
                try:
                    values[limit.name] = type(getattr(cls, limit.name))(float(value))
                    if not least <= values[limit.name] < 1e15:
                        raise ValueError
                except (ValueError, OverflowError):
                    raise InputError(f"{variable} is {value}; give a number of at least {least}.") from None
        return cls(**values)


class Store:
    """The folder of all runs and of what visitors have given.

    Args:
        folder: made if needed.
        days: how long a run is kept.
    """

    def __init__(self, folder: Path, days: float = 7.0) -> None:
        self.folder, self.visits, self.days = folder, folder / "visits", days
        folder.mkdir(parents=True, exist_ok=True)

    def new(self) -> Path:
        """The folder of a new run, still to be made; its name is the token."""
        return self.folder / secrets.token_urlsafe(16)

    def has(self, token: str) -> bool:
        """Whether a visitor's finished run is (still) there."""
        return bool(TOKEN.fullmatch(token)) and (self.folder / token / "report.json").is_file()

    def open(self, token: str) -> RunFolder:
        """A finished run, one of a visitor or of ``EXAMPLES``.

        Raises:
            InputError: no such run, or not any more.
        """
        if token in EXAMPLES:
            return EXAMPLES[token]
        if not self.has(token):
            kept = f"results are kept for {self.days:g} days"
            raise InputError(f"This link has expired: {kept}. Upload the clip and run it again.")
        return open_run(self.folder / token)

    def attempt(self, folder: Path) -> None:
        """Record that a run of the page begins, so that ``unfinished`` finds it if the process ends first."""
        (folder / ATTEMPTS).write_text("|" * (_attempts(folder) + 1))

    def unfinished(self) -> Iterator[RunFolder]:
        """The page's runs that an earlier process did not finish, oldest first; all else that it left is removed."""
        for folder in sorted(self._runs(), key=_modified):
            with suppress(InputError, OSError):
                lock(folder).release()  # or another process has it
                if not folder.suffix and 0 < _attempts(folder) < MOST_ATTEMPTS and not self.has(folder.name):
                    yield open_run(folder)
                elif not self.has(folder.name):
                    shutil.rmtree(folder)

    def keep_expiring(self) -> None:
        """As long as the process lasts, remove runs that are too old, and what visitors have left behind for a day."""

        def expire() -> None:
            while True:
                now = time.time()
                old = [folder for folder in self._runs() if _modified(folder) < now - 86400 * self.days]
                old += [folder for folder in self.visits.glob("*") if _modified(folder) < now - 86400]
                for folder in old:
                    shutil.rmtree(folder, ignore_errors=True)
                time.sleep(min(3600.0, 8640 * self.days))

        threading.Thread(target=expire, daemon=True, name="expire").start()

    def _runs(self) -> list[Path]:
        return [folder for folder in self.folder.glob("*") if TOKEN.fullmatch(folder.stem)]


def _attempts(folder: Path) -> int:
    return (folder / ATTEMPTS).stat().st_size if (folder / ATTEMPTS).is_file() else 0


def _modified(folder: Path) -> float:
    """The time a folder was last changed; now, if it vanishes meanwhile."""
    with suppress(OSError):
        return folder.stat().st_mtime
    return time.time()
