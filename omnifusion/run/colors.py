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


def save_colors(path: Path, colors: Mapping[str, Tensor], key: str = "", first_iteration: int = 0) -> None:
    """Write a frame's colors, each as in ``ColorState``.

    Args:
        key: of the segment that they are of; "" where that is not finished.
        first_iteration: number in the clip of the segment's first iteration; in the file its iterations count from 0.

    Raises:
        OSError: the disk refuses.
    """
    origin = colors["origin"]
    colors = {**colors, "origin": torch.where(origin > 0, origin - 3 * first_iteration, origin)}
    with _replacing(path) as file:
        np.savez(file, key=np.array(key), **{name: colors[name].numpy() for name in COLORS})


def load_colors(path: Path, key: str | None = None, first_iteration: int = 0) -> dict[str, Tensor] | None:
    """The colors of a frame; None where the file is missing or damaged, or of another ``key``.

    Origins are int32, with iterations counted from ``first_iteration`` on.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if key is not None and str(arrays["key"]) != key:
                return None
            colors = {name: torch.from_numpy(arrays[name]) for name in COLORS}  # checksums are compared here
    except DAMAGE:
        return None
    origin = colors["origin"].int()
    return colors | {"origin": torch.where(origin > 0, origin + 3 * first_iteration, origin)}


def save_tracker(path: Path, key: str, tracker: Tracker) -> None:
    """Write a fitted tracker; see ``save_colors``."""
    with _replacing(path) as file:
        torch.save({"key": key, "state": tracker.state_dict()}, file)  # type: ignore[attr-defined]


def load_tracker(path: Path, key: str | None = None) -> Tracker | None:
    """A fitted tracker; None where there is none, or a damaged one, or one of another ``key``."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                return None
        known = torch.load(path, weights_only=True)
        return OmniMotion.from_state(known["state"], device()) if key in (None, known["key"]) else None
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
