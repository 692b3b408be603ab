"""The clips of a data set, in the layouts they are distributed in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from omnifusion.progress import InputError
from omnifusion.video import IMAGES, read

VIDEOS = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"}
# Where the clips are below a set's folder: DAVIS as distributed, the test sets of Lai et al. 2018, any folder
LAYOUTS = ("JPEGImages/480p", "JPEGImages/Full-Resolution", "JPEGImages", "input/DAVIS", "input/videvo", "videvo", "")


def discover(dataset: Path, clips: Sequence[str] | None = None) -> dict[str, Path]:
    """Find the clips of a set by name: folders of frames and video files, of ``dataset`` or of a layout below it.

    ``clips``: which to take; a text file (such as DAVIS' ``ImageSets/2016/val.txt``) stands for the names in it.
    InputError if there is no such folder, no clips in it, or a clip is not there.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset} is not a folder; name one that holds clips.")
    folders = (sorted(filter(_is_clip, (dataset / layout).glob("*"))) for layout in LAYOUTS)
    paths = {clip.stem if clip.is_file() else clip.name: clip for clip in next(filter(None, folders), [])}
    if not paths:
        raise InputError(f"{dataset} holds no clips; it needs folders of frames, or video files.")
    lists = (Path(clip).read_text().split() if Path(clip).is_file() else [clip] for clip in clips or paths)
    wanted = [name for names in lists for name in names]
    if missing := [name for name in wanted if name not in paths]:
        raise InputError(f"{dataset} has no clip {', '.join(missing)}; it has {', '.join(paths)}.")
    return {name: paths[name] for name in wanted}


def _is_clip(path: Path) -> bool:
    files, endings = (path.iterdir(), IMAGES) if path.is_dir() else ([path], VIDEOS)
    return any(file.suffix.lower() in endings for file in files)


def read_clip(path: Path, frames: int | None = None, scale: float = 1.0) -> np.ndarray:
    """Read the first ``frames`` frames of a clip, ``(T, 3, H, W)`` uint8, resized by ``scale`` with area averaging.

    InputError if it is unreadable, or has fewer than two frames.
    """
    clip = np.asarray(read(path, max_frames=frames).frames)
    if len(clip) < 2:
        raise InputError(f"{path} has a single frame; a clip needs two.")
    if scale == 1.0:
        return clip
    height, width = (max(1, round(side * scale)) for side in clip.shape[2:])
    small = [cv2.resize(f.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_AREA) for f in clip]
    return np.stack(small).transpose(0, 3, 1, 2)
