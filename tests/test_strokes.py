"""Strokes spread along luminance and stop; a thing is found at a point and recoloured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnifusion.color import from_uint8, luminance, rgb_to_lab
from omnifusion.state import InputError
from omnifusion.strokes import recolored, region, spread


def halves(height: int = 90, width: int = 160) -> np.ndarray:
    """A dark and a light half with some grain, grey."""
    level = np.where(np.arange(width) < width // 2, 70, 180)[None].repeat(height, 0)
    grain = np.random.default_rng(0).integers(-4, 5, (height, width))
    return (level + grain)[None].repeat(3, 0).astype(np.uint8)


def stroke(size: tuple[int, int], at: tuple[slice, slice], color: tuple[int, int, int]) -> np.ndarray:
    strokes = np.zeros((4, *size), np.uint8)
    strokes[(slice(None), *at)] = np.array([*color, 255], np.uint8)[:, None, None]
    return strokes


def test_strokes_fill_what_is_alike_and_stop_at_its_edge() -> None:
    picture = halves()
    strokes = stroke((90, 160), (slice(40, 44), slice(30, 50)), (200, 60, 60))
    found = spread(picture, strokes)
    lab = rgb_to_lab(from_uint8(found[:3]))
    assert (found[3][:, :70] == 255).mean() > 0.95 and not found[3][:, 90:].any(), "the other half stays open"
    assert lab[1, :, 10:60].min() > 20
    assert (luminance(from_uint8(found[:3])) - luminance(from_uint8(picture))).abs().mean() < 1
    assert (spread(picture, strokes, restraint=False)[3] == 255).all()


def test_each_half_takes_its_own_stroke() -> None:
    strokes = stroke((90, 160), (slice(40, 44), slice(30, 50)), (200, 60, 60))
    strokes |= stroke((90, 160), (slice(40, 44), slice(110, 130)), (60, 160, 60))
    a = rgb_to_lab(from_uint8(spread(halves(), strokes)[:3]))[1]
    assert a[:, :76].mean() > 15 and a[:, 84:].mean() < -15


def test_a_thing_is_found_and_recoloured() -> None:
    picture = halves()
    dark = np.zeros((90, 160), bool)
    dark[:, :80] = True
    found = region(picture, 20, 20)
    assert (found == dark).mean() > 0.99
    assert region(picture, 20, 20, reach=1.0).all() and region(picture, 20, 20, reach=0.0).sum() <= found.sum()
    patch = recolored(picture, found, (60, 90, 200))
    assert np.array_equal(patch[3] > 0, found)
    ab = rgb_to_lab(from_uint8(patch[:3]))[1:, torch.from_numpy(found)]
    wanted = rgb_to_lab(from_uint8(np.array([60, 90, 200], np.uint8).reshape(3, 1, 1)))[1:, 0, 0]
    assert torch.nn.functional.cosine_similarity(ab.mean(1), wanted, dim=0) > 0.95


def test_texture_stays_where_colour_changes() -> None:
    picture = np.random.default_rng(1).integers(90, 140, (3, 20, 20)).astype(np.uint8)
    before, after = (
        rgb_to_lab(from_uint8(x)) for x in (picture, recolored(picture, np.ones((20, 20)) > 0, (140, 110, 90))[:3])
    )
    assert (before[0] - after[0]).abs().max() < 1.5
    difference = (after - before)[1:]
    assert (difference - difference.mean((1, 2), keepdim=True)).abs().max() < 2


def test_what_cannot_be_spread_is_told() -> None:
    with pytest.raises(InputError, match="no stroke"):
        spread(halves(), np.zeros((4, 90, 160), np.uint8))
    with pytest.raises(InputError, match="another size"):
        spread(halves(), np.zeros((4, 9, 16), np.uint8))
    with pytest.raises(InputError, match="outside"):
        region(halves(), 160, 3)
