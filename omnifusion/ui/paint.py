"""Strokes on a frame: the brush, what it sends, and the picture that the strokes spread to."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import cv2
import gradio as gr
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from omnifusion.color import compose, from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.levin import levin
from omnifusion.state import InputError
from omnifusion.ui.assets import ASSETS

INKS = ["#b5483a", "#d9894a", "#d8b45c", "#6f9a4a", "#3f7f6d", "#4f86b8", "#6f9fd0", "#7a5c8f", "#d6a88f", "#8a6242"]
"""Colours that films need, for clips of which no colour is known: brick to sky, skin and wood."""

MOST_POINTS = 50_000
"""Of all strokes on a frame."""

SPREAD_SIDE = 320
"""Longest side in pixels at which strokes are spread: a quarter of a second; chroma is smooth."""

COLOR = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)

TEMPLATE = """<div class="of-tools"><span class="of-swatches"></span>
<input type="color" value="#b5483a" aria-label="another colour"><button data-ink="erase">eraser</button>
<label>size <input type="range" min="2" max="60" value="14" aria-label="size of the brush"></label>
<button name="undo">undo</button><button name="clear">clear</button></div>
<div class="of-canvas"><img alt="the frame to paint on"><canvas></canvas></div>
"""

Strokes = Sequence[tuple[str, float, Sequence[float]]]


def painter(name: str) -> gr.HTML:
    """A brush over a picture; its value is the strokes, its props are ``picture`` (an address) and ``palette``."""
    script = (ASSETS / "paint.js").read_text(encoding="utf-8")
    return gr.HTML([], html_template=TEMPLATE, js_on_load=script, elem_id=name, picture="", palette=INKS)


def on_picture(picture: np.ndarray, inks: Sequence[str] = INKS) -> gr.HTML:
    """The brush over another picture, ``(H, W, 3)`` uint8, without strokes."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "webp", quality=90)
    address = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return gr.HTML([], picture=address, palette=list(inks))


def inks_of(picture: np.ndarray, count: int = 8) -> list[str]:
    """The colours of a picture ``(H, W, 3)`` uint8, most frequent first."""
    reduced = Image.fromarray(picture).convert("RGB").resize((160, 120), Image.Resampling.NEAREST).quantize(count)
    palette = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    most = np.argsort(-np.bincount(np.asarray(reduced).ravel(), minlength=count))[:count]
    return [f"#{palette[k].tobytes().hex()}" for k in most]


def read_strokes(given: Any) -> Strokes:
    """The strokes that the brush sent.

    Raises:
        InputError: it is something else, or too much.
    """
    try:
        strokes = [(str(ink), float(radius), [float(at) for at in points]) for ink, radius, points in given or []]
    except (TypeError, ValueError):
        raise InputError("These are no strokes; paint on the frame.") from None
    for ink, radius, points in strokes:
        sound = np.isfinite(points).all() and len(points) >= 2 and len(points) % 2 == 0 and 0 < radius < 1e4
        if not sound or np.abs(points).max() > 1e5 or not (ink == "erase" or COLOR.fullmatch(ink)):
            raise InputError("These are no strokes; paint on the frame.")
    if sum(len(points) for _, _, points in strokes) > 2 * MOST_POINTS:
        raise InputError("That is too much paint for one frame; a few strokes in each region are enough.")
    return strokes


def painted(strokes: Strokes, size: Sequence[int], at: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where strokes on a picture of ``size`` (H, W) leave colour at another size ``at`` (h, w), and which.

    Returns:
        mask ``(h, w)`` bool and ab ``(2, h, w)``, 0 outside it.
    """
    scale = at[1] / size[1]
    rgb, mask = np.zeros((*at, 3), np.uint8), np.zeros(tuple(at), np.uint8)
    for ink, radius, points in strokes:
        path = [np.rint(np.reshape([*points[:2], *points], (-1, 2)) * scale * 8).astype(np.int32)]
        width = max(1, round(2 * radius * scale))
        cv2.polylines(mask, path, False, 0 if ink == "erase" else 1, width, shift=3)
        if ink != "erase":
            cv2.polylines(rgb, path, False, [int(ink[k : k + 2], 16) for k in (1, 3, 5)], width, shift=3)
    known = torch.from_numpy(mask).bool()
    return known, rgb_to_lab(from_uint8(rgb.transpose(2, 0, 1)))[1:] * known


def spread(frame: np.ndarray, strokes: Strokes, size: Sequence[int]) -> np.ndarray:
    """A frame with the colours of strokes spread over it along its luminance (Levin 2004).

    Args:
        frame: ``(3, H, W)`` uint8, only its luminance is read.
        strokes: on a picture of it of ``size`` (h, w).

    Returns:
        ``(3, H, W)`` uint8.

    Raises:
        InputError: no stroke leaves colour.
    """
    L = luminance(from_uint8(frame))
    small = fit_size(frame.shape[1:], SPREAD_SIDE)
    mask, ab = painted(strokes, size, small)
    if not bool(mask.any()):
        raise InputError("There is no paint yet: choose a colour and draw on the frame.")
    found = levin(resize(L[None], small)[0], ab, mask)
    return to_uint8(compose(L, resize(found[None], frame.shape[1:])[0])).numpy()


def patch(frame: np.ndarray, strokes: Strokes, size: Sequence[int]) -> np.ndarray:
    """The things that strokes mark on a frame, in the strokes' colours, as a picture that is open elsewhere.

    Args:
        frame, strokes, size: as in ``spread``.

    Returns:
        ``(4, H, W)`` uint8, the last channel 255 where a stroke vouches for the colour.
    """
    picture, small = spread(frame, strokes, size), fit_size(frame.shape[1:], SPREAD_SIDE)
    mask, _ = painted(strokes, size, small)
    L = resize(luminance(from_uint8(frame))[None], small)[0]
    near = levin(L, mask.float().expand(2, *small), mask, torch.zeros(2, *small), 0.01)[:1]
    inside = resize(near[None], frame.shape[1:])[0] > 0.5
    return np.concatenate([picture, inside.numpy().astype(np.uint8) * 255])
