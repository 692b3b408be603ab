"""The folder of a run: which of its files are the run's own, and a run opened again."""

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from omnifusion.clip.prepare import working_luminance
from omnifusion.progress import InputError
from omnifusion.run.files import colors_name, frame_name, link, load_colors, write_text
from omnifusion.settings import Settings
from omnifusion.state import COLORS, ColorState, Video
from omnifusion.video import read, read_image
from omnifusion.video.common import writing

HEADER = "Files that OmniFusion wrote here, which a later run may replace or remove:"
RESULTS = ("report.json", "frames/*", "iterations/*", "colorized.*", "origin.mp4")
PARTS = (*RESULTS, "request.json", "exemplar_*.png", "colors/*", "trackers/*", "segments.json", "corrections/*")
"""Patterns of what the end of a run writes, and of all that a run writes but for the copy of its clip."""


@dataclass(frozen=True)
class RunRequest:
    """The request for a run; enough, with the clip and its exemplars, to run it again."""

    name: str  # of the clip as people know it; only ever shown, never used as a path
    settings: Settings
    frames: int | None = None  # how many are colored at most, None = all
    exemplars: tuple[int, ...] = ()  # the frames of which there is a colored picture; pipeline.begin sets them
    force: bool = False  # accept pictures that do not seem to show their frame
    source: str | None = None  # the clip's file or folder where the run's folder does not hold it
    clip_hash: str = field(default="", compare=False)  # of the content; pipeline.begin sets both hashes
    pictures_hash: str = field(default="", compare=False)


class Manifest:
    """The ``names`` of the files in a folder that runs wrote: these alone are ever replaced or removed.

    A name is noted before its file appears, so that a killed run leaves none that is not noted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self._lock = folder, folder / "manifest.txt", threading.Lock()
        text = self.path.read_text(errors="replace") if self.path.is_file() else ""
        header, *names = text.splitlines() or [""]
        self.is_ours = header == HEADER
        self.names = {name for name in names if self.is_ours and _matches(name, *PARTS, "clip.*")}

    def check(self, source: Path) -> None:
        """Raise InputError where results would replace the clip ``source``, or files that no run wrote, or the clip
        is the folder of a run."""
        place, folder = (Path(os.path.realpath(path)) for path in (source, self.folder))
        if place.is_relative_to(folder):
            inside = place.relative_to(folder).as_posix()
            if inside == "." or inside in self.names or _matches(inside, *PARTS) or _matches(f"{inside}/", *PARTS):
                raise InputError(f"{source} lies where the results would be written; name another folder for them.")
        if source.is_dir() and Manifest(source).is_ours:
            raise InputError(f"{source} holds the results of a run; give its folder {source / 'frames'}, or the clip.")
        parts = () if self.is_ours else (*PARTS, "manifest.txt", "run.lock")
        files = sorted(path for part in parts for path in self.folder.glob(part) if not path.name.startswith("."))
        if files:
            raise InputError(
                f"{files[0]} was not written by a run and would be in the way of its results; move it, or name another "
                "folder."
            )

    def claim(self, *names: str) -> None:
        """Note files that are about to be written, and make their folders; InputError if no run wrote one."""
        new = [name for name in dict.fromkeys(names) if name not in self.names]
        for name in new:
            if os.path.lexists(self.folder / name):
                raise InputError(f"{self.folder / name} was not written by a run; move it and run again.")
        for parent in {(self.folder / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        with self._lock, open(self.path, "a") as file:
            file.writelines(f"{line}\n" for line in ([] if self.is_ours else [HEADER]) + new)
            self.is_ours = True
            self.names.update(new)

    def remove(self, *patterns: str) -> None:
        """Remove the run's files under ``patterns``, the report first, and folders that are empty then."""
        names = {name for name in self.names if _matches(name, *patterns)}
        for name in sorted(names, key="report.json".__ne__):
            (self.folder / name).unlink(missing_ok=True)
        for folder in sorted({str(parent) for name in names for parent in PurePath(name).parents}, reverse=True):
            with suppress(OSError):  # it holds what no run wrote
                (self.folder / folder).rmdir()
        self.names -= names
        self.is_ours = True
        write_text(self.path, "\n".join([HEADER, *sorted(self.names), ""]))

    def discard(self) -> None:
        """Remove all that runs wrote, this file included, and the folder if nothing else is in it."""
        self.remove("*")
        for name in ("manifest.txt", "run.lock"):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def _matches(name: str, *patterns: str) -> bool:
    return ".." not in PurePath(name).parts and any(fnmatchcase(name, pattern) for pattern in patterns)


def lock(folder: Path) -> FileLock:
    """Claim a folder until the lock is released or the process ends; InputError if a run is using it."""
    file_lock = FileLock(folder / "run.lock", timeout=0, thread_local=False)
    try:
        file_lock.acquire()
    except Timeout as error:
        raise InputError(f"{folder} is in use by another run; wait for its end, or name another folder.") from error
    return file_lock


@dataclass(frozen=True)
class RunFolder:
    """A run in its ``folder``: its request, and its report (empty until it is finished)."""

    folder: Path
    request: RunRequest
    report: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None  # the clip's file where neither the folder nor the request has it
    lock: FileLock | None = field(default=None, repr=False, compare=False)  # held from pipeline.begin to color's end

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
        path = self.source or self.request.source or next(self.folder.glob("clip.*"), None)
        if path is None:
            raise InputError(f"{self.folder} does not hold its clip any more; run it anew.")
        return Path(path)

    @property
    def can_correct(self) -> bool:
        """Whether it holds what a correction needs; the shipped examples lack it."""
        return self.finished and (self.folder / colors_name(0)).is_file()

    def video(self) -> Video:
        """The clip as far as it was colored, decoded on demand."""
        return read(self.clip, self.report["frames"])

    def frame(self, index: int) -> np.ndarray:
        """A frame of the result at full size, ``(H, W, 3)`` uint8."""
        path = self.folder / frame_name(index)
        picture = read_image(path) if path.is_file() else _film(self.folder / "colorized.mp4").frames[index]
        return np.ascontiguousarray(picture.transpose(1, 2, 0))

    def first_iteration(self, frame: int) -> int:
        """The number of the first iteration of the segment that holds a frame: files count each segment's from 0."""
        return next((s["first_iteration"] for s in self.report.get("segments", ()) if frame < s["stop"]), 0)

    def colors(self, frame: int) -> dict[str, Tensor]:
        """The ``COLORS`` of a frame as in ``ColorState``; InputError if it ships without, or the file is damaged."""
        if (colors := load_colors(self.folder / colors_name(frame))) is None:
            raise InputError(f"{self.folder} does not hold the colors of frame {frame} unrounded; run it anew.")
        origin, before = colors["origin"], 3 * self.first_iteration(frame)
        return colors | {"origin": torch.where(origin > 0, origin + before, origin)}

    def origin(self) -> np.ndarray:
        """How every pixel got its color, ``(T, h, w)`` integer as in ``ColorState.origin``."""
        if (self.folder / "origin.npz").is_file():  # a shipped example's
            with np.load(self.folder / "origin.npz") as arrays:
                return np.array(arrays["origin"])
        return np.stack([self.colors(t)["origin"].numpy() for t in range(self.report["frames"])])

    def state(self) -> ColorState:
        """The colors of the whole clip."""
        L = working_luminance(self.video().frames, tuple(self.report["working_size"]))
        rows = [self.colors(t) for t in range(self.report["frames"])]
        return ColorState(L, **{name: torch.stack([row[name] for row in rows]) for name in COLORS})


def open_run(folder: Path) -> RunFolder:
    """The run in ``folder``, finished or not, without writing; InputError if there is none."""
    try:
        values, report = json.loads((folder / "request.json").read_text()), folder / "report.json"
        values["settings"], values["exemplars"] = Settings.from_mapping(values["settings"]), tuple(values["exemplars"])
        return RunFolder(folder, RunRequest(**values), json.loads(report.read_text()) if report.is_file() else {})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise InputError(f"{folder} does not hold a run that can be opened again; run it anew.") from error


def copy_run(run: RunFolder, path: Path) -> RunFolder:
    """A copy of a run's own files in the folder ``path``; InputError if it cannot be written."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        names = [name for name in sorted(Manifest(run.folder).names) if (run.folder / name).is_file()]
        Manifest(path).claim(*names)
        for name in names:
            link(run.folder / name, path / name)
    return open_run(path)


@lru_cache(maxsize=4)
def _film(path: Path) -> Video:
    return read(path)
