"""Files of a run: written whole or not at all, and checked when they are read."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.omnimotion import OmniMotion
from omnifusion.progress import InputError
from omnifusion.stages import device
from omnifusion.state import COLORS, Tracker

# Names of a run's files by frame; of a tracker by the first frame of its segment
frame_name = "frames/{:05d}.png".format
exemplar_name = "exemplar_{:05d}.png".format
colors_name = "colors/{:05d}.npz".format
tracker_name = "trackers/{:05d}.pt".format


def save_colors(path: Path, colors: Mapping[str, Tensor], key: str = "") -> None:
    """Write a frame's ``COLORS`` and the ``key`` of their segment; "" = it is not finished."""
    with _replacing(path) as file:
        np.savez(file, key=np.array(key), **{name: colors[name].numpy() for name in COLORS})


def load_colors(path: Path, key: str | None = None) -> dict[str, Tensor] | None:
    """The colors of a frame; None where the file is missing or damaged, or of another ``key``."""
    with suppress(Exception), np.load(path, allow_pickle=False) as arrays:  # a damaged file raises almost anything
        if key in (None, str(arrays["key"])):
            return {name: torch.from_numpy(arrays[name]) for name in COLORS}  # checksums are compared here
    return None


def save_tracker(path: Path, key: str, tracker: Tracker) -> None:
    """Write a fitted tracker and its ``key``."""
    with _replacing(path) as file:
        torch.save({"key": key, "state": tracker.state_dict()}, file)  # type: ignore[attr-defined]


def load_tracker(path: Path, key: str) -> Tracker | None:
    """A fitted tracker; None where there is none, or a damaged one, or one of another ``key``."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        if archive.testzip() is None and (content := torch.load(path, weights_only=True))["key"] == key:
            return OmniMotion.from_state(content["state"], device())
    return None


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically."""
    with _replacing(path) as file:
        file.write(text.encode())


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the report of a run; its warnings and reference frames also under the names that 0.2 had."""
    shots = [{**shot, "lender": shot["reference_frame"]} for shot in report["shots"]]
    old = {"notes": report["warnings"], "shots": shots}
    write_text(folder / "report.json", json.dumps({**report, **old}, indent=2) + "\n")


def link(source: Path, target: Path) -> None:
    """Replace ``target`` by a hard link to ``source``, which is never changed; by a copy if the disk has none."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name once it is complete."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn errors of the disk into an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"The disk that holds {path} is full; make room and run again.") from error
        raise InputError(f"Cannot write to {path}: {error.strerror or error}; name another folder.") from error
