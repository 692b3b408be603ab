"""Units that are done, each in a file under the hash of all it depends on, code and versions included."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from omnifusion import __version__
from omnifusion.algorithm import Result
from omnifusion.omnimotion import OmniMotion
from omnifusion.stages import device
from omnifusion.state import COLORS, ColorState, Iteration, Tracker

Colors = Callable[[Sequence[str]], Iterator[dict[str, Tensor]]]
"""Frame after frame of a clip the fields of ``ColorState`` that are asked for, each of one frame."""

DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged file ends in."""

NOT_DECISIVE = frozenset({
    "ui", "commands", "evaluation", "terminal", "store", "delivery", "cache", "workers", "correction",
    "__main__",
})  # fmt: skip
"""Rooms and modules whose code decides no color."""


def fingerprint(path: Path) -> str:
    """A hash of a clip's file, or of the pictures of its folder and their names."""
    found = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file()):
        found.update(file.name.encode() if file != path else b"")
        with open(file, "rb") as opened:
            while block := opened.read(2**20):
                found.update(block)
    return found.hexdigest()


@dataclass(frozen=True)
class Cache:
    """Units that are done, each in a file under its key: checked when it is read, complete or not there."""

    folder: Path

    def keep(self, key: str, result: Result, first: int, notes: Sequence[str] = (), fit: str | None = None) -> None:
        """Write what was found for the task ``key``; its frames are counted from ``first`` on, its tracker is ``fit``.

        Raises:
            OSError: the disk refuses.
        """
        rounds = [asdict(replace(done, frame=done.frame - first)) for done in result.iterations]
        costs = {"seconds": result.seconds, "peak_mib": result.peak_mib}
        told = {"key": key, "fit": fit, "rounds": rounds, "notes": list(notes), **costs}
        with (
            _replacing(self._path(key)) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            archive.writestr("told.json", json.dumps(told))
            for name in COLORS:
                values = getattr(result.state, name)
                write_array(archive, name, len(values), (row[None] for row in values))
        self._path(key).with_suffix(".progress").unlink(missing_ok=True)

    def keep_tracker(self, key: str, tracker: Tracker) -> None:
        """Write a fitted tracker; see ``keep``."""
        with _replacing(self.folder / f"{key}.fit") as file:
            torch.save({"key": key, "state": tracker.state_dict()}, file)  # type: ignore[attr-defined]

    def tracker(self, key: str) -> Tracker | None:
        """The fitted tracker ``key``; None where there is none, or a damaged one."""
        path = self.folder / f"{key}.fit"
        try:
            with zipfile.ZipFile(path) as archive:
                found = None if archive.testzip() else torch.load(path, weights_only=True)
            return OmniMotion.from_state(found["state"], device()) if found and found["key"] == key else None
        except (*DAMAGE, RuntimeError, pickle.UnpicklingError):
            return None

    def tell(self, key: str, done: float) -> None:
        """Say how far a unit is, in [0, 1], about once a second."""
        path = self._path(key).with_suffix(".progress")
        with suppress(OSError):
            if not path.exists() or time.time() - path.stat().st_mtime > 1:
                path.write_text(f"{done:.3f}")

    def progress(self, key: str) -> float:
        """How far a unit is said to be."""
        try:
            return float(self._path(key).with_suffix(".progress").read_text())
        except (OSError, ValueError):
            return 0.0

    def holds(self, key: str) -> bool:
        """Whether the task ``key`` is done; a file that is damaged, or another's under this name, is removed."""
        try:
            for _ in self.frames(key):
                pass
            return self.told(key)["key"] == key
        except FileNotFoundError:
            return False
        except DAMAGE:
            self._path(key).unlink(missing_ok=True)
            return False

    def told(self, key: str) -> dict[str, Any]:
        """What is known of a unit: its key, rounds (``Iteration``), seconds and peak_mib by stage."""
        with zipfile.ZipFile(self._path(key)) as archive:
            return json.loads(archive.read("told.json"))

    def rounds(self, key: str) -> list[Iteration]:
        """Its rounds; frames are counted from its first one on."""
        return [Iteration(**row) for row in self.told(key)["rounds"]]

    def frames(self, key: str, names: Sequence[str] = COLORS) -> Iterator[dict[str, Tensor]]:
        """Frame after frame the colors ``names`` of a unit, each as in ``ColorState`` with one frame."""
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self._path(key)))
            entries = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in names}
            heads = {name: _head(entry) for name, entry in entries.items()}
            for _ in range(next(iter(heads.values()))[0][0]):
                rows = {}
                for name, (shape, kind) in heads.items():
                    row = np.frombuffer(_exactly(entries[name], kind.itemsize * int(np.prod(shape[1:]))), kind)
                    rows[name] = torch.from_numpy(row.reshape(1, *shape[1:]).copy())
                yield rows
            for entry in entries.values():
                entry.read()  # to its end, where its checksum is compared

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.unit"


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name once it is complete and on the disk."""
    scratch = path.with_suffix(f".{platform.node()}-{os.getpid()}")
    try:
        with open(scratch, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_array(archive: zipfile.ZipFile, name: str, count: int, rows: Iterator[Tensor]) -> None:
    """Add an array to an .npz file, of which the ``count`` rows come one by one, ``(1, ...)`` each."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
        for k, row in enumerate(rows):
            data = row.contiguous().numpy()
            if k == 0:
                head = np.lib.format.header_data_from_array_1_0(data) | {"shape": (count, *data.shape[1:])}
                np.lib.format.write_array_header_1_0(entry, head)
            entry.write(data.data)


def _head(entry: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array file that is being read."""
    np.lib.format.read_magic(entry)
    shape, _, kind = np.lib.format.read_array_header_1_0(entry)
    return shape, kind


def _exactly(entry: Any, size: int) -> bytes:
    data = entry.read(size)
    if len(data) < size:
        raise EOFError("an array that ends early")
    return data


def frames_of(state: ColorState, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A state as ``Colors``."""
    return ({name: getattr(state, name)[t][None] for name in names} for t in range(len(state)))


def save_state(folder: Path, frames: int, colors: Colors, trackers: Mapping[int, Tracker]) -> None:
    """Write what the pictures do not hold: the origins, the colors unrounded, and the fitted trackers."""
    for file, names in (("origin.npz", ["origin"]), ("ab.npz", [name for name in COLORS if name != "origin"])):
        with zipfile.ZipFile(folder / file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in names:
                write_array(archive, name, frames, (row[name] for row in colors([name])))
    if trackers:
        states = {start: tracker.state_dict() for start, tracker in trackers.items()}  # type: ignore[attr-defined]
        torch.save(states, folder / "tracker.pt")


@cache
def code() -> str:
    """A hash of the code that decides colors."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if NOT_DECISIVE.isdisjoint(path.relative_to(root).with_suffix("").parts):
            found.update(path.read_bytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Of all that decides a result."""
    packages = ("torch", "diffusers", "opencv-python-headless", "numpy")
    return {"omnifusion": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}
