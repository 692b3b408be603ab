"""Runs on disk by their tokens: what a link shows, what a restart of the server goes on with, and what expires."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder, lock, open_run
from omnifusion.ui.parts import EXAMPLES

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
"""128 random bits: whoever knows the token of a run may see it, nobody can guess one."""

ATTEMPTS, MOST_ATTEMPTS = "attempts.txt", 2
"""How often a run of the page was begun, in its folder; one that has ended the process so often is not begun again."""


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
        """A finished run, or an example's result by the example's name.

        Raises:
            InputError: no such run, or not any more.
        """
        for example in EXAMPLES:
            if token == example.name:
                return example.result
        if not self.has(token):
            kept = f"results are kept for {self.days:g} days"
            raise InputError(f"This link has expired: {kept}. Upload the clip and run it again.")
        return open_run(self.folder / token)

    def attempt(self, folder: Path) -> None:
        """Note that a run of the page begins, for ``unfinished`` to find where the process ends before it does."""
        (folder / ATTEMPTS).write_text("|" * (_attempts(folder) + 1))

    def unfinished(self) -> Iterator[RunFolder]:
        """The page's runs that an earlier process did not finish, oldest first; all else that it left is removed."""
        folders = [folder for folder in self.folder.glob("*") if TOKEN.fullmatch(folder.stem)]
        for folder in sorted(folders, key=_modified):
            with suppress(InputError, OSError):
                lock(folder).release()  # or another process has it
                if not folder.suffix and 0 < _attempts(folder) < MOST_ATTEMPTS and not self.has(folder.name):
                    yield open_run(folder)
                elif not self.has(folder.name):
                    shutil.rmtree(folder)

    def expire(self) -> int:
        """Remove the runs that are too old, and what visitors have left behind for a day; returns how many folders."""
        runs = [folder for folder in self.folder.glob("*") if TOKEN.fullmatch(folder.stem)]
        old = [folder for folder in runs if _modified(folder) < time.time() - 86400 * self.days]
        old += [folder for folder in self.visits.glob("*") if _modified(folder) < time.time() - 86400]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)

    def keep_expiring(self) -> None:
        """Let runs expire as long as the process lasts, whether anybody visits or not."""

        def expire() -> None:
            while True:
                self.expire()
                time.sleep(min(3600.0, 8640 * self.days))

        threading.Thread(target=expire, daemon=True, name="expire").start()


def _attempts(folder: Path) -> int:
    return (folder / ATTEMPTS).stat().st_size if (folder / ATTEMPTS).is_file() else 0


def _modified(folder: Path) -> float:
    """When a folder was changed; of one that vanishes meanwhile now."""
    with suppress(OSError):
        return folder.stat().st_mtime
    return time.time()
