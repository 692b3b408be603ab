"""Colors of frames and fitted trackers on disk, each in a file that is complete or not there."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from omnifusion.omnimotion import OmniMotion
from omnifusion.stages import device
from omnifusion.state import COLORS, Tracker

DAMAGE = (
    OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What reading a damaged file ends in."""


def colors_name(frame: int) -> str:
    """The file of a frame's colors in the folder of a run."""
    return f"colors/{frame:05d}.npz"


def tracker_name(start: int) -> str:
    """The file of the tracker of the segment that begins at frame ``start``."""
    return f"trackers/{start:05d}.pt"


def save_colors(path: Path, colors: Mapping[str, Tensor], key: str = "") -> None:
    """Write a frame's colors, each as in ``ColorState``, and the ``key`` of their segment; "" = it is not finished."""
    with _replacing(path) as file:
        np.savez(file, key=np.array(key), **{name: colors[name].numpy() for name in COLORS})


def load_colors(path: Path, key: str | None = None) -> dict[str, Tensor] | None:
    """The colors of a frame; None where the file is missing or damaged, or of another ``key``."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if key in (None, str(arrays["key"])):
                return {name: torch.from_numpy(arrays[name]) for name in COLORS}  # checksums are compared here
    except DAMAGE:
        pass
    return None


def save_tracker(path: Path, key: str, tracker: Tracker) -> None:
    """Write a fitted tracker and its ``key``."""
    with _replacing(path) as file:
        torch.save({"key": key, "state": tracker.state_dict()}, file)  # type: ignore[attr-defined]


def load_tracker(path: Path, key: str | None = None) -> Tracker | None:
    """A fitted tracker; None where there is none, or a damaged one, or one of another ``key``."""
    try:
        with zipfile.ZipFile(path) as archive:
            known = None if archive.testzip() else torch.load(path, weights_only=True)
        return OmniMotion.from_state(known["state"], device()) if known and key in (None, known["key"]) else None
    except DAMAGE:
        return None


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
