"""Finished runs on disk by their tokens: what a link restores, what Recolor and Compare start from."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from pathlib import Path

from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder, open_run

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
"""128 random bits: whoever knows the token of a run may see it, nobody can guess one."""

EXPIRED = "This link has expired: results are kept for {days:g} days. Upload the clip and run it again."


class Archive:
    """The folder of all runs.

    Args:
        folder: made if needed.
        days: how long a run is kept.
    """

    def __init__(self, folder: Path, days: float = 7.0) -> None:
        self.folder, self.days = folder, days
        folder.mkdir(parents=True, exist_ok=True)

    def new(self) -> tuple[str, Path]:
        """A token and its folder, still to be made."""
        token = secrets.token_urlsafe(16)
        return token, self.folder / token

    def open(self, token: str) -> RunFolder:
        """A finished run.

        Raises:
            InputError: no such run, or not any more.
        """
        if not self.has(token):
            raise InputError(EXPIRED.format(days=self.days))
        return open_run(self.folder / token)

    def has(self, token: str) -> bool:
        """Whether a run is (still) there."""
        return bool(TOKEN.fullmatch(token)) and (self.folder / token / "request.json").is_file()

    def expire(self) -> int:
        """Remove the runs that are too old, and what visitors have left behind for a day; returns how many folders."""
        now = time.time()
        old = [f for f in self.folder.glob("*") if TOKEN.fullmatch(f.stem) and _age(f, now) > self.days]
        old += [f for f in self.folder.glob("visits/*") if _age(f, now) > 1]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)


def _age(folder: Path, now: float) -> float:
    """In days."""
    return (now - folder.stat().st_mtime) / 86400
