"""Scribbles on a frame: the brush, what it sends, and the picture that the scribbles spread to."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import cv2
import gradio as gr
import numpy as np
from PIL import Image

from omnifusion.correction.scribbles import spread
from omnifusion.progress import InputError
from omnifusion.ui.assets import ASSETS

INKS = ["#b5483a", "#d9894a", "#d8b45c", "#6f9a4a", "#3f7f6d", "#4f86b8", "#6f9fd0", "#7a5c8f", "#d6a88f", "#8a6242"]
"""Colors that films need, for clips of which no color is known: brick to sky, skin and wood."""

MOST_POINTS = 50_000
"""Of all scribbles on a frame."""

COLOR = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)

TEMPLATE = """<div class="of-tools"><span class="of-swatches"></span>
<input type="color" value="#b5483a" aria-label="another color"><button data-ink="erase">eraser</button>
<label>size <input type="range" min="2" max="60" value="14" aria-label="size of the brush"></label>
<button name="undo">undo</button><button name="clear">clear</button></div>
<div class="of-canvas"><img alt="the frame to paint on"><canvas></canvas></div>
"""

Scribbles = Sequence[tuple[str, float, Sequence[float]]]


def painter(name: str) -> gr.HTML:
    """A brush over a picture; its value is the scribbles, its props are ``picture`` (an address) and ``palette``."""
    script = (ASSETS / "paint.js").read_text(encoding="utf-8")
    return gr.HTML([], html_template=TEMPLATE, js_on_load=script, elem_id=name, picture="", palette=INKS)


def on_picture(picture: np.ndarray, inks: Sequence[str] = INKS) -> gr.HTML:
    """The brush over another picture, ``(H, W, 3)`` uint8, without scribbles."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "webp", quality=90)
    address = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return gr.HTML([], picture=address, palette=list(inks))


def inks_of(picture: np.ndarray, count: int = 8) -> list[str]:
    """The colors of a picture ``(H, W, 3)`` uint8, most frequent first."""
    reduced = Image.fromarray(picture).convert("RGB").resize((160, 120), Image.Resampling.NEAREST).quantize(count)
    palette = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    most = np.argsort(-np.bincount(np.asarray(reduced).ravel(), minlength=count))[:count]
    return [f"#{palette[k].tobytes().hex()}" for k in most]


def read_scribbles(given: Any) -> Scribbles:
    """The scribbles that the brush sent.

    Raises:
        InputError: it is something else, or too much.
    """
    try:
        scribbles = [(str(ink), float(radius), [float(at) for at in points]) for ink, radius, points in given or []]
    except (TypeError, ValueError):
        raise InputError("These are no scribbles; paint on the frame.") from None
    for ink, radius, points in scribbles:
        sound = np.isfinite(points).all() and len(points) >= 2 and len(points) % 2 == 0 and 0 < radius < 1e4
        if not sound or np.abs(points).max() > 1e5 or not (ink == "erase" or COLOR.fullmatch(ink)):
            raise InputError("These are no scribbles; paint on the frame.")
    if sum(len(points) for _, _, points in scribbles) > 2 * MOST_POINTS:
        raise InputError("That is too much paint for one frame; a few scribbles in each region are enough.")
    return scribbles


def painted(scribbles: Scribbles, size: Sequence[int], at: Sequence[int]) -> np.ndarray:
    """Scribbles on a picture of ``size`` (H, W) drawn at another size ``at`` (h, w): ``(4, h, w)`` uint8, else open."""
    scale, canvas = at[1] / size[1], np.zeros((*at, 4), np.uint8)
    for ink, radius, points in scribbles:
        path = [np.rint(np.reshape([*points[:2], *points], (-1, 2)) * scale * 8).astype(np.int32)]
        color = (0, 0, 0, 0) if ink == "erase" else (*bytes.fromhex(ink[1:]), 255)
        cv2.polylines(canvas, path, False, color, max(1, round(2 * radius * scale)), shift=3)
    return canvas.transpose(2, 0, 1)


def patch(frame: np.ndarray, scribbles: Scribbles, size: Sequence[int]) -> np.ndarray:
    """What scribbles make of a frame: see ``scribbles.spread``.

    Args:
        frame: ``(3, H, W)`` uint8, gray, or in the colors that are to be mended.
        scribbles: on a picture of it of ``size`` (h, w).

    Returns:
        ``(4, H, W)`` uint8, open where no stroke vouches for the color.
    """
    return spread(frame, painted(scribbles, size, frame.shape[1:]))


def shown(frame: np.ndarray, scribbles: Scribbles) -> np.ndarray | None:
    """A shown frame ``(H, W, 3)`` uint8 with what scribbles on it make of it; None without scribbles."""
    if not scribbles:
        return None
    found = patch(frame.transpose(2, 0, 1), scribbles, frame.shape[:2]).transpose(1, 2, 0)
    return np.where(found[..., 3:] > 127, found[..., :3], frame)
