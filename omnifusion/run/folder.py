"""The folder of a run: which of its files are the run's own, and a run opened again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from omnifusion.progress import InputError
from omnifusion.run.segments import colors_name, load_colors, load_tracker
from omnifusion.settings import Settings
from omnifusion.state import COLORS, ColorState, Tracker, Video
from omnifusion.video import read, read_image

RESULTS = ("report.json", "frames/*", "iterations/*", "colorized.*", "origin.mp4")
"""What the end of a run writes, as patterns; the report first: without it a run is not finished."""

PARTS = (
    *RESULTS, "request.json", "exemplar_*.png", "colors/*", "trackers/*", "segments.json", "corrections/*",
    "manifest.txt", "run.lock",
)  # fmt: skip
"""All that a run writes, but for the copy of its clip."""

OWN = ("manifest.txt", "run.lock")
HEADER = "Files that OmniFusion wrote here, which a later run may replace or remove:"


@dataclass(frozen=True)
class RunRequest:
    """What was asked for; enough, with the clip and its exemplars, to run it again.

    Attributes:
        name: the clip's name as people know it; only ever shown, never used as a path.
        settings: the choices of the run.
        frames: how many frames are colored at most, None = all.
        exemplars: the frames for which a picture was given.
        force: whether pictures that do not seem to show their frame are accepted.
        source: the clip's file or folder where the run's folder does not hold it.
    """

    name: str
    settings: Settings
    frames: int | None = None
    exemplars: tuple[int, ...] = ()
    force: bool = False
    source: str | None = None


class Manifest:
    """The ``names`` of the files in a folder that runs wrote: these alone are ever replaced or removed.

    A name is noted before its file appears, so that a killed run leaves none that is not noted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.names = folder, folder / "manifest.txt", set[str]()
        if self.path.is_file():
            header, *names = self.path.read_text(errors="replace").splitlines() or [""]
            self.names = {name for name in names if header == HEADER and is_part(name, *PARTS, "clip.*")}

    def check_foreign(self) -> None:
        """Raise InputError where a folder without a run has a file that is called as those of a run are."""
        files = sorted(path for part in PARTS for path in self.folder.glob(part) if not path.name.startswith("."))
        if files and not self.names:
            raise InputError(
                f"{files[0]} was not written by a run and would be in the way of its results; move it, or name another "
                "folder."
            )

    def claim(self, *names: str) -> None:
        """Note files that are about to be written, and make their folders.

        Raises:
            InputError: one exists that no run wrote.
        """
        new = [name for name in dict.fromkeys(names) if name not in self.names]
        if other := next((name for name in new if os.path.lexists(self.folder / name)), None):
            raise InputError(f"{self.folder / other} was not written by a run; move it and run again.")
        for folder in {name.split("/")[0] for name in names if "/" in name}:
            (self.folder / folder).mkdir(exist_ok=True)
        if new:
            lines = new if self.names else [HEADER, *OWN, *new]
            with open(self.path, "a") as file:
                file.write("".join(f"{line}\n" for line in lines))
            self.names.update(OWN, new)

    def remove(self, *parts: str) -> None:
        """Remove the run's files under the patterns ``parts``, the report first, and folders that are empty then."""
        names = [name for name in self.names if is_part(name, *parts) and name not in OWN]
        for name in sorted(names, key="report.json".__ne__):
            if (self.folder / name).parent.resolve().is_relative_to(self.folder.resolve()):
                (self.folder / name).unlink(missing_ok=True)
        for folder in sorted({str(parent) for name in names for parent in PurePath(name).parents}, reverse=True):
            with suppress(OSError):  # it holds what no run wrote
                (self.folder / folder).rmdir() if folder != "." else None
        self.names -= set(names)
        write_text(self.path, "\n".join([HEADER, *sorted(self.names), ""]))

    def discard(self) -> None:
        """Remove all that runs wrote, this file included, and the folder if nothing else is in it."""
        self.remove("*")
        for name in OWN:
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def is_part(name: str, *parts: str) -> bool:
    """Whether a name, relative to a folder, is under one of the patterns ``parts``, and in no other folder."""
    return ".." not in PurePath(name).parts and any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}/") for p in parts)


def lock(folder: Path) -> FileLock:
    """Claim a folder for whoever holds what it returns, until it is released or the process ends.

    Raises:
        InputError: a run is using it.
    """
    held = FileLock(folder / "run.lock", timeout=0, thread_local=False)
    try:
        held.acquire()
    except Timeout as error:
        raise InputError(f"{folder} is in use by another run; wait for its end, or name another folder.") from error
    return held


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``lock`` for what is done inside."""
    held = lock(folder)
    try:
        yield
    finally:
        held.release()


@dataclass(frozen=True)
class RunFolder:
    """A run in its ``folder``.

    Attributes:
        request: what was asked for.
        report: what came of it; empty until it is finished.
        source: the clip's file where neither the folder nor the request has it.
        lock: see ``lock``; held from ``pipeline.begin`` to the end of ``pipeline.color``.
    """

    folder: Path
    request: RunRequest
    report: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    lock: FileLock | None = field(default=None, repr=False, compare=False)

    @property
    def token(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether its results are written; where it was canceled, ``report["complete"]`` is false."""
        return bool(self.report)

    @property
    def clip(self) -> Path:
        """The clip as it was given; InputError where the folder has lost it."""
        known = self.source or self.request.source or next(self.folder.glob("clip.*"), None)
        if known is None:
            raise InputError(f"{self.folder} does not hold its clip any more; run it anew.")
        return Path(known)

    @property
    def can_correct(self) -> bool:
        """Whether it holds what a correction needs; the shipped examples are without."""
        return self.finished and (self.folder / colors_name(0)).is_file()

    def exemplar(self, frame: int) -> Path:
        """The picture that was given for a frame."""
        return self.folder / exemplar_name(frame)

    def frame(self, index: int) -> np.ndarray:
        """A frame of the result at full size, ``(H, W, 3)`` uint8."""
        path = self.folder / "frames" / f"{index:05d}.png"
        picture = read_image(path) if path.is_file() else _film(self.folder / "colorized.mp4").frames[index]
        return np.ascontiguousarray(picture.transpose(1, 2, 0))

    def first_iteration(self, frame: int) -> int:
        """The number of the first iteration of the segment that holds a frame: files count each segment's from 0."""
        return next((s["first_iteration"] for s in self.report.get("segments", ()) if frame < s["stop"]), 0)

    def colors(self, frame: int) -> dict[str, Tensor]:
        """What ``ColorState`` says of a frame: ab ``(2, h, w)``, origin, confidence, source ``(h, w)``.

        Raises:
            InputError: it ships without, or the file is damaged.
        """
        if (colors := load_colors(self.folder / colors_name(frame))) is None:
            raise InputError(f"{self.folder} does not hold the colors of frame {frame} unrounded; run it anew.")
        origin, before = colors["origin"], 3 * self.first_iteration(frame)
        return colors | {"origin": torch.where(origin > 0, origin + before, origin)}

    def origin(self) -> np.ndarray:
        """How every pixel came by its color, ``(T, h, w)`` integer as in ``ColorState.origin``."""
        if (self.folder / "origin.npz").is_file():  # a shipped example's
            with np.load(self.folder / "origin.npz") as arrays:
                return np.array(arrays["origin"])
        return np.stack([self.colors(t)["origin"].numpy() for t in range(self.report["frames"])])

    def state(self, L: Tensor) -> ColorState:
        """The colors of the whole clip; ``L`` ``(T, 1, h, w)`` is its luminance at the working size."""
        rows = [self.colors(t) for t in range(self.report["frames"])]
        return ColorState(L, **{name: torch.stack([row[name] for row in rows]) for name in COLORS})

    def trackers(self) -> dict[int, Tracker]:
        """The fitted trackers by the first frame of their segment."""
        found = {int(path.stem): load_tracker(path) for path in sorted(self.folder.glob("trackers/*.pt"))}
        return {start: tracker for start, tracker in found.items() if tracker is not None}


def open_run(folder: Path) -> RunFolder:
    """The run in ``folder``, finished or not; nothing is written.

    Raises:
        InputError: there is none, or a correction of it was interrupted.
    """
    try:
        known = json.loads((folder / "request.json").read_text())
        settings, exemplars = Settings.from_mapping(known.pop("settings")), tuple(known.pop("exemplars"))
        known = {name: value for name, value in known.items() if not name.endswith("_hash")}
        request, report = RunRequest(settings=settings, exemplars=exemplars, **known), folder / "report.json"
        run = RunFolder(folder, request, json.loads(report.read_text()) if report.is_file() else {})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise InputError(f"{folder} does not hold a run that can be opened again; run it anew.") from error
    if any(folder.glob("corrections/[0-9]*/after")):
        raise InputError(f"The last correction of {folder} was interrupted; correct it once more or undo it.")
    return run


def copy_run(run: RunFolder, path: Path) -> RunFolder:
    """A copy of a run's own files in the new folder ``path``; InputError where the disk refuses."""
    with writing(path):
        path.mkdir(parents=True)
        names = [n for n in sorted(Manifest(run.folder).names) if n not in OWN and (run.folder / n).is_file()]
        Manifest(path).claim(*names)
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            link(run.folder / name, path / name)
    return open_run(path)


def link(source: Path, target: Path) -> None:
    """A second name for a file that is only ever replaced, never written to; a copy where the disk has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Replace a file at once."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def exemplar_name(frame: int) -> str:
    """The file of the picture that was given for a frame."""
    return f"exemplar_{frame:05d}.png"


@lru_cache(maxsize=4)
def _film(path: Path) -> Video:
    return read(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"The disk that holds {path} is full; make room and run again.") from error
        raise InputError(f"Cannot write to {path}: {error.strerror or error}; name another folder.") from error
