"""A visitor: a folder of their own, what they have given and made, and whether their run is waiting or going on."""

from __future__ import annotations

import secrets
import shutil
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from omnifusion.color import from_uint8, grey, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.state import InputError, Video

PREVIEW = 512
"""Longest side of the frames behind the slider."""


@dataclass(frozen=True)
class Visit:
    """What one visitor has given and made; small, the data lies in ``folder``.

    Attributes:
        folder: theirs alone, removed when they are gone.
        clip: the clip's file in it.
        name: what the visitor calls the clip.
        frames, size: of the clip as read, (H, W).
        color: whether the clip holds colours.
        pictures: frame -> file of its exemplar, in ``folder``.
        token: the run that is shown (an example's result goes by the example's name).
        runs: tokens of all runs of this visit, oldest first.
    """

    folder: Path | None = None
    clip: Path | None = None
    name: str = ""
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    color: bool = False
    pictures: dict[int, Path] = field(default_factory=dict)
    token: str = ""
    runs: tuple[str, ...] = ()

    def require_clip(self) -> Path:
        """The clip.

        Raises:
            InputError: none was given.
        """
        if self.clip is None or not self.clip.is_file():
            raise InputError("There is no clip yet: upload one, or click an example.")
        return self.clip

    def with_run(self, token: str) -> Visit:
        """The same visit, showing a run."""
        return replace(self, token=token, runs=(*(r for r in self.runs if r != token), token))

    def preview(self, frame: int) -> np.ndarray:
        """A frame of the clip without its colours, ``(h, w, 3)`` uint8."""
        assert self.folder is not None
        frames = np.load(self.folder / "preview.npy", mmap_mode="r")
        return np.array(frames[min(frame, len(frames) - 1)])

    def close(self) -> None:
        """Remove the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def receive(visit: Visit, file: Path, name: str, video: Video, color: bool, home: Path) -> Visit:
    """A visit with another clip: the file is copied to the visitor's folder under a name of our own."""
    folder = visit.folder or home / secrets.token_urlsafe(16)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    suffix = file.suffix.lower() if file.suffix[1:].isalnum() and len(file.suffix) <= 5 else ".mp4"
    clip = folder / f"clip{suffix}"
    shutil.copyfile(file, clip)
    size = fit_size(video.size, PREVIEW)
    frames = [to_uint8(grey(resize(from_uint8(f)[None], size))[0]) for f in video.frames]
    np.save(folder / "preview.npy", torch.stack(frames).permute(0, 2, 3, 1).numpy())
    return Visit(folder, clip, name, len(video), video.size, color, token=visit.token, runs=visit.runs)


class Turns:
    """Who waits, who runs and who wants to stop; by Gradio's session hash."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stops: dict[str, str] = {}
        self._begun: set[str] = set()

    def announce(self, session: str) -> int:
        """Queue for a run; returns how many other visitors come first.

        Raises:
            InputError: this visitor has one already.
        """
        with self._lock:
            if session in self._stops:
                raise InputError("Your run is still going on; cancel it first, or wait for its end.")
            self._stops[session] = ""
            return len(self._stops) - 1

    def begin(self, session: str) -> bool:
        """The run's turn has come; returns whether it is still wanted."""
        with self._lock:
            self._begun.add(session)
            return self._stops.get(session, "drop") == ""

    def cancel(self, session: str) -> bool:
        """Ask a run to stop and to keep what is done; returns whether there was one."""
        with self._lock:
            if session not in self._stops:
                return False
            self._stops[session] = "keep"
            return True

    def leave(self, session: str) -> None:
        """The visitor is gone: a run that goes on stops and keeps nothing, one that waits gives up its place."""
        with self._lock:
            if session in self._begun:
                self._stops[session] = "drop"
            else:
                self._stops.pop(session, None)

    def stopping(self, session: str) -> str:
        """ "", "keep" or "drop"."""
        with self._lock:
            return self._stops.get(session, "drop")

    def end(self, session: str) -> None:
        """The run is over."""
        with self._lock:
            self._stops.pop(session, None)
            self._begun.discard(session)
