"""Origin overlays as pictures; images are ``(H, W, 3)`` uint8 sRGB unless stated otherwise."""

from __future__ import annotations

from collections.abc import Sequence

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
