"""Scribbles spread along luminance and stop, in a colored frame also where the color changes."""

from __future__ import annotations

import numpy as np
import pytest

from omnifusion.color import from_uint8, luminance, rgb_to_lab
from omnifusion.correction.scribbles import spread
from omnifusion.progress import InputError


def halves(height: int = 90, width: int = 160) -> np.ndarray:
    """A dark and a light half with some grain, gray."""
    level = np.where(np.arange(width) < width // 2, 70, 180)[None].repeat(height, 0)
    grain = np.random.default_rng(0).integers(-4, 5, (height, width))
    return (level + grain)[None].repeat(3, 0).astype(np.uint8)


def stroke(size: tuple[int, int], at: tuple[slice, slice], color: tuple[int, int, int]) -> np.ndarray:
    scribbles = np.zeros((4, *size), np.uint8)
    scribbles[(slice(None), *at)] = np.array([*color, 255], np.uint8)[:, None, None]
    return scribbles


def test_scribbles_fill_what_is_alike_and_stop_at_its_edge() -> None:
    picture = halves()
    scribbles = stroke((90, 160), (slice(40, 44), slice(30, 50)), (200, 60, 60))
    found = spread(picture, scribbles)
    lab = rgb_to_lab(from_uint8(found[:3]))
    assert (found[3][:, :70] == 255).mean() > 0.95 and not found[3][:, 90:].any(), "the other half stays open"
    assert lab[1, :, 10:60].min() > 20
    assert (luminance(from_uint8(found[:3])) - luminance(from_uint8(picture))).abs().mean() < 1
    assert (spread(picture, scribbles, restraint=False)[3] == 255).all()


def test_each_half_takes_its_own_stroke() -> None:
    scribbles = stroke((90, 160), (slice(40, 44), slice(30, 50)), (200, 60, 60))
    scribbles |= stroke((90, 160), (slice(40, 44), slice(110, 130)), (60, 160, 60))
    a = rgb_to_lab(from_uint8(spread(halves(), scribbles)[:3]))[1]
    assert a[:, :76].mean() > 15 and a[:, 84:].mean() < -15


def test_in_a_colored_frame_what_has_another_color_stays() -> None:
    picture = np.full((3, 90, 160), 120, np.uint8)
    picture[:, :, 80:] = np.array([150, 100, 100], np.uint8)[:, None, None]  # as light, in another color
    found = spread(picture, stroke((90, 160), (slice(40, 44), slice(60, 70)), (60, 60, 200)))
    assert (found[3][20:70, 40:78] == 255).mean() > 0.95 and not found[3][:, 84:].any()


def test_what_cannot_be_spread_is_told() -> None:
    with pytest.raises(InputError, match="no stroke"):
        spread(halves(), np.zeros((4, 90, 160), np.uint8))
    with pytest.raises(InputError, match="another size"):
        spread(halves(), np.zeros((4, 9, 16), np.uint8))
