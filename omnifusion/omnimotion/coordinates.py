"""Volume units: the frame's center is 0, its longer side spans [-1, 1]; depths go from 0, nearest, to DEPTH."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
DEPTH = 2.0


def to_volume(points: Array, size: tuple[int, int]) -> Array:
    """Pixels ``(N, 2)`` of a frame of ``size`` (H, W) to volume units."""
    H, W = size
    return ((points + 0.5 - np.array([W / 2, H / 2], np.float32)) / (max(H, W) / 2)).astype(np.float32)


def to_pixels(points: Array, size: tuple[int, int]) -> Array:
    """The inverse of ``to_volume``."""
    H, W = size
    return (points * (max(H, W) / 2) + np.array([W / 2, H / 2], np.float32) - 0.5).astype(np.float32)
