"""Finished runs on disk: what a link restores, what Recolour and Compare start from."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnifusion.settings import Settings
from omnifusion.state import ColorState, InputError, Tracker
from omnifusion.video import read, read_image

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
"""128 random bits: whoever knows the token of a run may see it, nobody can guess one."""

EXPIRED = "This link has expired: results are kept for {days:g} days. Upload the clip and run it again."


@dataclass(frozen=True)
class Request:
    """What a visitor asked for; enough to run it again.

    Attributes:
        name: the clip's name as people know it; only ever shown, never used as a path.
        settings: the choices of the run.
        frames: how many frames were coloured at most, None = all that the page takes.
        exemplars: the frames for which the visitor gave a picture; the first is 0.
        force: whether pictures that do not seem to show their frame were accepted.
    """

    name: str
    settings: Settings
    frames: int | None = None
    exemplars: tuple[int, ...] = ()
    force: bool = False


@dataclass(frozen=True)
class Stored:
    """A run in its folder; ``source`` is the clip's file where the folder does not hold it."""

    token: str
    folder: Path
    request: Request
    report: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @property
    def clip(self) -> Path:
        """The clip as it was given."""
        return self.source or next(self.folder.glob("clip.*"))

    def exemplar(self, frame: int) -> Path:
        """The picture that was given for a frame."""
        return self.folder / exemplar_name(frame)

    def frame(self, index: int) -> np.ndarray:
        """A frame of the result at full size, ``(H, W, 3)`` uint8."""
        path = self.folder / "frames" / f"{index:05d}.png"
        picture = read_image(path) if path.is_file() else _decoded(self.folder / "colorized.mp4")[index]
        return np.ascontiguousarray(picture.transpose(1, 2, 0))

    def origin(self) -> np.ndarray:
        """How every pixel came by its colour, ``(T, h, w)`` int16 as in ``ColorState.origin``."""
        with np.load(self.folder / "origin.npz") as arrays:
            return np.array(arrays["origin"])

    def trackers(self) -> dict[int, Tracker]:
        """The fitted trackers by the first frame of their shot; empty where there was none yet."""
        from omnifusion.omnimotion import OmniMotion

        path = self.folder / "tracker.pt"
        if not path.is_file():
            return {}
        states = torch.load(path, weights_only=True)
        return {int(start): OmniMotion.from_state(state) for start, state in states.items()}


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

    def open(self, token: str) -> Stored:
        """A finished run.

        Raises:
            InputError: no such run, or not any more.
        """
        if not self.has(token):
            raise InputError(EXPIRED.format(days=self.days))
        return load(self.folder / token)

    def has(self, token: str) -> bool:
        """Whether a run is (still) there."""
        return bool(TOKEN.fullmatch(token)) and (self.folder / token / "request.json").is_file()

    def expire(self) -> int:
        """Remove the runs that are too old, and what visitors have left behind for a day; returns how many folders."""
        now = time.time()
        old = [f for f in self.folder.glob("*") if TOKEN.fullmatch(f.name) and _age(f, now) > self.days]
        old += [f for f in self.folder.glob("visits/*") if _age(f, now) > 1]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)


def _age(folder: Path, now: float) -> float:
    """In days."""
    return (now - folder.stat().st_mtime) / 86400


def load(folder: Path) -> Stored:
    """The run in ``folder``, wherever it lies (the examples' results lie in the repository)."""
    given = json.loads((folder / "request.json").read_text())
    given["settings"], given["exemplars"] = Settings(**given["settings"]), tuple(given["exemplars"])
    report = folder / "report.json"
    return Stored(folder.name, folder, Request(**given), json.loads(report.read_text()) if report.is_file() else {})


@lru_cache(maxsize=4)
def _decoded(path: Path) -> np.ndarray:
    return np.array(read(path).frames)


def save_state(folder: Path, state: ColorState, trackers: Mapping[int, Tracker]) -> None:
    """Write what the pictures do not hold: the origins and the fitted trackers."""
    np.savez_compressed(folder / "origin.npz", origin=state.origin.numpy())
    if trackers:
        states = {start: tracker.state_dict() for start, tracker in trackers.items()}  # type: ignore[attr-defined]
        torch.save(states, folder / "tracker.pt")


def save_request(folder: Path, request: Request) -> None:
    """Write what was asked; the last file of a run, so that a folder without it is not a run."""
    (folder / "request.json").write_text(json.dumps(asdict(request), indent=2) + "\n")


def exemplar_name(frame: int) -> str:
    """The file of the picture that was given for a frame."""
    return f"exemplar_{frame:05d}.png"
