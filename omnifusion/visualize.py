"""Origin overlays and tracks as pictures; images are ``(H, W, 3)`` uint8 sRGB unless stated otherwise."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from omnifusion.state import Origin

TINTS: dict[Origin, tuple[int, int, int]] = {
    Origin.EXEMPLAR: (0, 158, 115),
    Origin.PROPAGATED: (0, 114, 178),
    Origin.INPAINTED: (230, 159, 0),
}
"""Bluish green, blue and orange of Okabe and Ito's palette, which people with any color vision tell apart."""


def overlay(image: np.ndarray, kind: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """Tint ``image`` by where each pixel's color came from; pixels that are still gray stay as they are.

    Args:
        image: ``(H, W, 3)`` uint8.
        kind: ``(H, W)`` integer, an ``Origin`` or -1 (``ColorState.kind`` of one frame); of another size it is
            stretched by nearest neighbor.
    """
    kind = stretch(kind, image.shape[:2])
    result, values = np.array(image, order="C"), np.arange(256, dtype=np.float32)[:, None, None]
    for origin, tint in TINTS.items():
        table = (values + opacity * (np.array(tint, np.float32) - values) + 0.5).astype(np.uint8)
        cv2.copyTo(cv2.LUT(image, table), np.uint8(kind == int(origin)), result)
    return result


def stretch(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """``values`` ``(..., h, w)`` at another ``size`` (H, W), each taken from its nearest neighbor."""
    rows, columns = (np.arange(n) * k // n for n, k in zip(size, values.shape[-2:], strict=True))
    return np.asarray(values)[..., rows[:, None], columns[None]]


TAIL, SPACING = 8, 14  # frames over which a track is drawn, and tracks along the longer side


def recent_tracks(image: np.ndarray, frame: int, follow: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """A dimmed frame with the tracks of a lattice of its points over the frames before it.

    Args:
        image: ``(H, W)`` uint8, the frame.
        frame: its index.
        follow: where points ``(N, 2)`` px of that frame are in another one.
    """
    H, W = image.shape
    step = max(H, W) / SPACING
    lattice = np.stack(np.meshgrid(np.arange(step / 2, W, step), np.arange(step / 2, H, step)), -1).reshape(-1, 2)
    points = lattice.astype(np.float32)
    paths = np.stack([follow(points, t) for t in range(max(0, frame - TAIL), frame + 1)], axis=1)
    out = cv2.cvtColor((image * 0.75).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    for n, path in enumerate(np.rint(np.clip(paths, -1e4, 1e4) * 8).astype(np.int32, order="C")):
        color = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(n / len(paths), 0.9, 1.0))
        cv2.polylines(out, [path], False, color, 1, cv2.LINE_AA, shift=3)
        cv2.circle(out, path[-1].tolist(), 16, color, -1, cv2.LINE_AA, shift=3)
    return out
