"""The folder of a run: which of its files are the run's own, and a run opened again."""

from __future__ import annotations

import errno
import fcntl
import fnmatch
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.progress import InputError
from omnifusion.run.colors import colors_name, load_colors, load_tracker
from omnifusion.settings import Settings
from omnifusion.state import COLORS, ColorState, Tracker, Video
from omnifusion.video import read, read_image

RESULTS = ("report.json", "frames", "iterations", "colorized.*", "origin.mp4")
"""What the end of a run writes, as patterns; the report first: without it a run is not finished."""

PARTS = (
    *RESULTS, "request.json", "exemplar_*.png", "colors", "trackers", "segments.json", "corrections", "manifest.txt",
    "run.lock",
)  # fmt: skip
"""All that a run writes, as patterns: a folder for a new run may hold none of them, but anything else."""

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
    """The files of a folder that runs wrote: these alone are ever replaced or removed.

    A name is noted before its file appears, so that a killed run leaves none that is not noted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.names = folder, folder / "manifest.txt", set[str]()
        if self.path.is_file():
            header, *names = self.path.read_text(errors="replace").splitlines() or [""]
            self.names = {name for name in names if is_part(name)} if header == HEADER else set()

    def foreign(self, parts: Iterable[str] = PARTS) -> list[Path]:
        """The files under the names of a run's ``parts`` that no run wrote."""
        found = [path for part in parts for path in self.folder.glob(part)]
        files = [file for path in found for file in (path.rglob("*") if path.is_dir() else [path])]
        own = self.names | ({"manifest.txt"} if self.names else set())
        return [
            file
            for file in files
            if not file.is_dir()
            and file.relative_to(self.folder).as_posix() not in own
            and not any(part.startswith(".") for part in file.relative_to(self.folder).parts)
        ]

    def check_foreign(self, parts: Iterable[str] = PARTS) -> None:
        """Raise InputError where ``parts`` hold files that no run wrote."""
        if others := self.foreign(parts):
            raise InputError(
                f"{min(others)} was not written by a run and would be in the way of its results; move it, or name "
                "another folder."
            )

    def claim(self, *names: str) -> None:
        """Note files that are about to be written.

        Raises:
            InputError: one exists that no run wrote.
        """
        new = [name for name in dict.fromkeys(names) if name not in self.names]
        for name in new:
            if os.path.lexists(self.folder / name):
                raise InputError(f"{self.folder / name} was not written by this run; move it and run again.")
            if "/" in name:
                (self.folder / Path(name).parts[0]).mkdir(exist_ok=True)
        if new:
            with open(self.path, "a") as file:
                file.write("".join(f"{line}\n" for line in (new if self.names else [HEADER, "run.lock", *new])))
            self.names |= {"run.lock", *new}

    def of(self, parts: Iterable[str]) -> list[str]:
        """The run's files under ``parts``."""
        return [name for name in self.names if is_part(name, parts)]

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of the run, the report first, and the folders that are empty then."""
        chosen = [name for name in names if name in self.names and name != "run.lock"]
        for name in sorted(chosen, key=lambda name: name != "report.json"):
            path = self.folder / name
            if path.parent.resolve().is_relative_to(self.folder.resolve()):
                for file in (path, *path.parent.glob(f".{path.stem}*.part*"), *path.parent.glob(f".{path.name}.*")):
                    file.unlink(missing_ok=True)
        for name in sorted({str(Path(name).parent) for name in chosen} - {"."}, key=len, reverse=True):
            try:
                (self.folder / name).rmdir()
            except OSError:
                continue  # it holds what no run wrote
        self.names -= set(chosen)
        rest = self.path.with_name(".manifest.part")
        rest.write_text("".join(f"{line}\n" for line in [HEADER, *sorted(self.names)]))
        os.replace(rest, self.path)

    def discard(self) -> None:
        """Remove all that runs wrote, this file included, and the folder if nothing else is in it."""
        self.remove(list(self.names))
        for path in (self.path, self.folder / "run.lock"):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def is_part(name: str, parts: Iterable[str] = (*PARTS, "clip.*")) -> bool:
    """Whether a name, relative to a folder, is one that runs give to ``parts``; one outside the folder is none."""
    first, *others = Path(name).parts or [".."]
    return ".." not in others and any(fnmatch.fnmatchcase(first, part) for part in parts)


def lock(folder: Path) -> IO[str]:
    """Claim a folder for this process until the file that it returns is closed, or the process ends.

    Raises:
        InputError: a run is using it.
    """
    file = open(folder / "run.lock", "a+")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        number = file.read().strip()
        file.close()
        raise InputError(
            f"{folder} is in use by a run (process {number}); wait for its end, or name another folder."
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


@dataclass(frozen=True)
class RunFolder:
    """A run in its folder.

    Attributes:
        folder: where it is.
        request: what was asked for.
        report: what came of it; empty until it is finished.
        source: the clip's file where neither the folder nor the request has it.
        lock: see ``lock``; held from ``pipeline.begin`` to the end of ``pipeline.color``.
    """

    folder: Path
    request: RunRequest
    report: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    lock: IO[str] | None = field(default=None, repr=False, compare=False)

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
        """The clip as it was given.

        Raises:
            InputError: the folder is to hold it, but does not.
        """
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
        """The number in the clip of the first iteration of the segment that holds a frame."""
        return next((s["first_iteration"] for s in self.report.get("segments", ()) if frame < s["stop"]), 0)

    def colors(self, frame: int) -> dict[str, Tensor]:
        """What ``ColorState`` says of a frame of the result: ab ``(2, h, w)``, origin, confidence, source ``(h, w)``.

        Raises:
            InputError: it ships without, or the file is damaged.
        """
        colors = load_colors(self.folder / colors_name(frame), first_iteration=self.first_iteration(frame))
        if colors is None:
            raise InputError(f"{self.folder} does not hold the colors of frame {frame} unrounded; run it anew.")
        return colors

    def origin(self) -> np.ndarray:
        """How every pixel came by its color, ``(T, h, w)`` integer as in ``ColorState.origin``."""
        if (self.folder / "origin.npz").is_file():  # a shipped example's
            with np.load(self.folder / "origin.npz") as arrays:
                return np.array(arrays["origin"])
        return np.stack([self.colors(t)["origin"].numpy() for t in range(self.report["frames"])])

    def chroma(self) -> Iterator[Tensor]:
        """Frame after frame its a*, b* at the working size, unrounded, ``(2, h, w)``.

        Raises:
            InputError: it ships without them.
        """
        return (self.colors(t)["ab"] for t in range(self.report["frames"]))

    def state(self, L: Tensor) -> ColorState:
        """The colors of the whole clip; ``L`` ``(T, 1, h, w)`` is its luminance at the working size."""
        rows = [self.colors(t) for t in range(self.report["frames"])]
        return ColorState(L, **{name: torch.stack([row[name] for row in rows]) for name in COLORS})

    def trackers(self) -> dict[int, Tracker]:
        """The fitted trackers by the first frame of their segment."""
        found = {int(path.stem): load_tracker(path) for path in (self.folder / "trackers").glob("*.pt")}
        return {start: tracker for start, tracker in sorted(found.items()) if tracker is not None}


def open_run(folder: Path) -> RunFolder:
    """The run in ``folder``, finished or not; nothing is written.

    Raises:
        InputError: there is none, or a correction of it was interrupted.
    """
    try:
        known = json.loads((folder / "request.json").read_text())
        settings = Settings.from_mapping(known.pop("settings"))
        known = {name: value for name, value in known.items() if name != "input"}
        request = RunRequest(**known | {"settings": settings, "exemplars": tuple(known["exemplars"])})
        report = folder / "report.json"
        run = RunFolder(folder, request, json.loads(report.read_text()) if report.is_file() else {})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise InputError(f"{folder} does not hold a run that can be opened again; run it anew.") from error
    if any((folder / "corrections").glob("[0-9][0-9][0-9][0-9]/after")):
        raise InputError(
            f"The last correction of {folder} was interrupted at its end; correct it once more or undo it."
        )
    return run


def save_request(folder: Path, request: RunRequest, input_hash: str = "") -> None:
    """Write what was asked, and a hash of the clip's content."""
    text = json.dumps(asdict(request) | {"input": input_hash}, indent=2) + "\n"
    part = folder / ".request.part"
    part.write_text(text)
    os.replace(part, folder / "request.json")


def copy_run(run: RunFolder, path: Path) -> RunFolder:
    """A copy of a run's own files in the new folder ``path``; those that are only ever replaced get a second name.

    Raises:
        InputError: the disk refuses.
    """
    with writing(path):
        path.mkdir(parents=True)
        manifest, copy = Manifest(run.folder), Manifest(path)
        names = [name for name in sorted(manifest.names) if (run.folder / name).is_file() and name != "run.lock"]
        copy.claim(*names)
        for name in names:
            link(run.folder / name, path / name)
    return open_run(path)


def link(source: Path, target: Path) -> None:
    """A second name for a file that is only ever replaced, never written to; a copy where the disk has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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
