"""Pictures about pictures: origin overlays, tracks and contact sheets. Images are ``(H, W, 3)`` uint8 sRGB if not said
otherwise."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from omnifusion.state import Origin

TINTS: dict[Origin, tuple[int, int, int]] = {
    Origin.EXEMPLAR: (0, 158, 115),
    Origin.PROPAGATED: (0, 114, 178),
    Origin.INPAINTED: (230, 159, 0),
}
"""Bluish green, blue and orange of Okabe and Ito's palette, which people with any color vision tell apart."""

INK, PAPER = (34, 34, 34), (255, 255, 255)


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


TAIL, SPACING = 8, 14
"""Tracks are drawn over so many frames, and so many along the longer side."""


def recent_tracks(image: np.ndarray, frame: int, follow: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """``draw_tracks`` of a lattice of points over the frames up to ``frame``.

    Args:
        image: ``(H, W)`` uint8, that frame.
        follow: where points ``(N, 2)`` px of that frame are in another one.
    """
    H, W = image.shape
    step = max(H, W) / SPACING
    lattice = np.stack(np.meshgrid(np.arange(step / 2, W, step), np.arange(step / 2, H, step)), -1).reshape(-1, 2)
    points = lattice.astype(np.float32)
    return draw_tracks(image, np.stack([follow(points, t) for t in range(max(0, frame - TAIL), frame + 1)], axis=1))


def draw_tracks(image: np.ndarray, paths: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """``image`` ``(H, W)`` uint8 dimmed, with ``paths`` ``(N, t, 2)`` px drawn on it; ends that are not ``visible``
    ``(N,)`` are hollow."""
    out = cv2.cvtColor((image * 0.75).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    for n, path in enumerate(np.rint(np.clip(paths, -1e4, 1e4) * 8).astype(np.int32, order="C")):
        color = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(n / len(paths), 0.9, 1.0))
        cv2.polylines(out, [path], False, color, 1, cv2.LINE_AA, shift=3)
        filled = -1 if visible is None or visible[n] else 1
        cv2.circle(out, path[-1].tolist(), 16, color, filled, cv2.LINE_AA, shift=3)
    return out


def resize(image: np.ndarray, width: int) -> np.ndarray:
    """``image`` at another width, its aspect ratio kept (area averaging down, bicubic up)."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    how = Image.Resampling.BOX if width < image.shape[1] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((width, height), how))


def sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    width: int = 240,
    gap: int = 4,
) -> np.ndarray:
    """A contact sheet: ``rows`` of images, each cell ``width`` pixels wide; None leaves a cell empty.

    Returns:
        ``(H, W, 3)`` uint8, labels to the left of the rows and above the columns.
    """
    font = ImageFont.load_default(size=14)
    cells = [[None if cell is None else resize(cell, width) for cell in row] for row in rows]
    heights = [max((cell.shape[0] for cell in row if cell is not None), default=0) for row in cells]
    left = gap + (round(max(font.getlength(label) for label in row_labels)) + gap if row_labels else 0)
    top = gap + (18 if column_labels else 0)
    columns = max((len(row) for row in cells), default=0)
    picture = Image.new("RGB", (left + columns * (width + gap), top + sum(h + gap for h in heights)), PAPER)
    draw = ImageDraw.Draw(picture)
    for c, label in enumerate(column_labels):
        draw.text((left + c * (width + gap), 2), label, INK, font)
    y = top
    for r, row in enumerate(cells):
        if r < len(row_labels):
            draw.text((gap, y), row_labels[r], INK, font)
        for c, cell in enumerate(row):
            if cell is not None:
                picture.paste(Image.fromarray(cell), (left + c * (width + gap), y))
        y += heights[r] + gap
    return np.asarray(picture)
