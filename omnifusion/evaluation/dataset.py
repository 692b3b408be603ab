"""Sets of clips to measure on, in the layouts they are distributed in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from omnifusion.progress import InputError
from omnifusion.video import IMAGES, read

VIDEOS = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"}

LAYOUTS = ("JPEGImages/480p", "JPEGImages/Full-Resolution", "JPEGImages", "input/DAVIS", "input/videvo", "videvo")
"""Where a set's clips are below its folder: DAVIS as distributed, then the test sets of Lai et al. 2018 (Videvo)."""


def discover(dataset: Path, clips: Sequence[str] | None = None) -> dict[str, Path]:
    """The clips of a set by name: folders of frames and video files, of ``dataset`` itself or of a layout below it.

    Args:
        dataset: a folder.
        clips: which to take; a name that is a text file (as DAVIS' ``ImageSets/2016/val.txt``) stands for its lines.

    Raises:
        InputError: no such folder, no clips in it, or a clip that is not there.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset} is not a folder; name one that holds clips.")
    places = [dataset / layout for layout in LAYOUTS if (dataset / layout).is_dir()]
    found: dict[str, Path] = {}
    for place in [*places, dataset]:
        found = {clip.stem if clip.is_file() else clip.name: clip for clip in sorted(place.iterdir()) if is_clip(clip)}
        if found:
            break
    if not found:
        raise InputError(f"{dataset} holds no clips; it needs folders of frames, or video files.")
    if clips is None:
        return found
    wanted = [name for clip in clips for name in (Path(clip).read_text().split() if Path(clip).is_file() else [clip])]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(f"{dataset} has no clip {', '.join(missing)}; it has {', '.join(found)}.")
    return {name: found[name] for name in wanted}


def is_clip(path: Path) -> bool:
    """Whether ``path`` is a video file or a folder with pictures."""
    if path.is_dir():
        return any(p.suffix.lower() in IMAGES for p in path.iterdir())
    return path.suffix.lower() in VIDEOS


def read_clip(path: Path, frames: int | None = None, scale: float = 1.0) -> np.ndarray:
    """The first ``frames`` frames of a clip, ``(T, 3, H, W)`` uint8, resized by ``scale`` with area averaging.

    Raises:
        InputError: unreadable, or fewer than two frames.
    """
    clip = read(path, max_frames=frames).frames
    if len(clip) < 2:
        raise InputError(f"{path} has a single frame; a clip needs two.")
    if scale == 1.0:
        return np.asarray(clip)
    height, width = (max(1, round(side * scale)) for side in clip.shape[2:])
    small = [cv2.resize(f.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_AREA) for f in clip]
    return np.stack(small).transpose(0, 3, 1, 2)
