"""Files of a run: written whole or not at all, and checked when they are read."""

import hashlib
import json
import logging
import os
import shutil
import threading
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.omnimotion import OmniMotion
from omnifusion.stages import device
from omnifusion.state import COLORS, Tracker
from omnifusion.video.common import replacing

log = logging.getLogger(__name__)
heads = threading.Lock()  # held where NumPy parses the head of a file: in Python 3.11 two threads at once may fail

# Names of a run's files by frame; of a tracker by the first frame of its segment
frame_name = "frames/{:05d}.png".format
exemplar_name = "exemplar_{:05d}.png".format
colors_name = "colors/{:05d}.npz".format
tracker_name = "trackers/{:05d}.pt".format


def hash_of(*values: Any) -> str:
    """A hash of values that JSON can hold, mappings, and arrays."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.shape, hashlib.sha256(value.tobytes()).hexdigest()
        return dict(value)

    return hashlib.sha256(json.dumps(values, default=plain, sort_keys=True).encode()).hexdigest()[:40]


def save_colors(path: Path, colors: Mapping[str, Tensor], key: str = "") -> None:
    """Write a frame's ``COLORS`` and the ``key`` of their segment; "" = it is not finished."""
    with replacing(path) as part:
        np.savez(part, key=np.array(key), **{name: colors[name].numpy() for name in COLORS})


def load_colors(path: Path, key: str | None = None) -> dict[str, Tensor] | None:
    """The colors of a frame; None where the file is missing or damaged, or of another ``key``."""
    try:
        with heads, np.load(path, allow_pickle=False) as arrays:
            if key in (None, str(arrays["key"])):
                return {name: torch.from_numpy(arrays[name]) for name in COLORS}  # checksums are compared here
    except Exception as error:  # a damaged file raises almost anything
        log.info("%s cannot be used: %r", path, error)
    return None


def save_tracker(path: Path, key: str, tracker: Tracker) -> None:
    """Write a fitted tracker and its ``key``."""
    with replacing(path) as part:
        torch.save({"key": key, "state": tracker.state_dict()}, part)  # type: ignore[attr-defined]


def load_tracker(path: Path, key: str) -> Tracker | None:
    """A fitted tracker; None where there is none, or a damaged one, or one of another ``key``."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:
        if archive.testzip() is None and (content := torch.load(path, weights_only=True))["key"] == key:
            return OmniMotion.from_state(content["state"], device())
    return None


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically."""
    with replacing(path) as part:
        part.write_bytes(text.encode())


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
