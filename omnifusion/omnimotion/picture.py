"""A picture of tracks: points of a grid, drawn with the path they took over the last frames."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import torch

from omnifusion.omnimotion.supervision import to_pixels, to_volume
from omnifusion.omnimotion.tracker import OmniMotion
from omnifusion.omnimotion.volume import trace

TAIL = 8
SPACING = 14
"""Number of grid points along the longer side."""


def draw(tracker: OmniMotion, images: np.ndarray, frame: int) -> np.ndarray:
    """Frame ``frame`` of ``images`` ``(T, H, W)`` with the volume's tracks of the last ``TAIL`` frames: ``(H, W,
    3)`` uint8."""
    H, W = images.shape[1:]
    step = max(H, W) / SPACING
    points = np.stack(np.meshgrid(np.arange(step / 2, W, step), np.arange(step / 2, H, step)), -1).reshape(-1, 2)
    xy = torch.from_numpy(to_volume(points.astype(np.float32), (H, W)))
    times = range(max(0, frame - TAIL), frame + 1)
    paths = np.stack([to_pixels(trace(tracker.volume, xy, frame, t)[0].numpy(), (H, W)) for t in times], axis=1)
    return lines(images[frame], paths)


def lines(image: np.ndarray, paths: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """``image`` ``(H, W)`` uint8 dimmed, with ``paths`` ``(N, t, 2)`` px drawn on it, hollow ends where not
    ``visible`` ``(N,)``."""
    out = cv2.cvtColor((image * 0.75).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    for n, path in enumerate(paths):
        colour = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(n / len(paths), 0.9, 1.0))
        cv2.polylines(
            out, [np.rint(np.clip(path, -1e4, 1e4) * 8).astype(np.int32)], False, colour, 1, cv2.LINE_AA, shift=3
        )
        seen = visible is None or visible[n]
        end = tuple(int(v) for v in np.rint(np.clip(path[-1], -1e4, 1e4) * 8))
        cv2.circle(out, end, 16, colour, -1 if seen else 1, cv2.LINE_AA, shift=3)
    return out
