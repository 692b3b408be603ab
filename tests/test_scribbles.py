"""A scribble colors the thing that it lies in and stops at its edges; scribbles compete, and "keep" takes back."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.morphology import skeletonize

from omnifusion.color import from_uint8, luminance, rgb_to_lab
from omnifusion.correction.scribbles import spread
from omnifusion.progress import InputError
from omnifusion.video import read_image

RED, GREEN = (200, 60, 60), (60, 160, 60)


def disc(height: int = 120, width: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc on light ground, gray with some grain, and where it is."""
    y, x = np.mgrid[:height, :width]
    inside = (y - 60) ** 2 + (x - 70) ** 2 < 40**2
    grain = np.random.default_rng(0).integers(-4, 5, (height, width))
    return (np.where(inside, 70, 180) + grain)[None].repeat(3, 0).astype(np.uint8), inside


def stroke(size: tuple[int, int], at: tuple[slice, slice], color: tuple[int, int, int]) -> np.ndarray:
    scribbles = np.zeros((4, *size), np.uint8)
    scribbles[(slice(None), *at)] = np.array([*color, 255], np.uint8)[:, None, None]
    return scribbles


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_stroke_colors_its_thing_and_keeps_luminance() -> None:
    picture, inside = disc()
    scribbles = stroke(inside.shape, (slice(57, 63), slice(36, 104)), RED)
    colored = spread(picture, scribbles)
    assert overlap(colored[3] > 0, inside) > 0.7
    assert rgb_to_lab(from_uint8(colored[:3]))[1].numpy()[(colored[3] > 0) & inside].min() > 10
    assert (luminance(from_uint8(colored[:3])) - luminance(from_uint8(picture))).abs().mean() < 1
    assert np.array_equal(colored, spread(picture, scribbles)), "the same scribbles give the same picture"


def test_scribbles_of_two_colors_share_the_picture_and_keep_takes_back() -> None:
    picture, inside = disc()
    red = stroke(inside.shape, (slice(58, 62), slice(50, 90)), RED)
    both = red | stroke(inside.shape, (slice(58, 62), slice(140, 180)), GREEN)
    a = rgb_to_lab(from_uint8(spread(picture, both)[:3]))[1].numpy()
    assert a[45:75, 50:90].mean() > 10 and a[45:75, 140:180].mean() < -10
    keep = np.zeros(inside.shape, bool)
    keep[58:62, 140:180] = True
    reached = spread(picture, red, keep)[3] > 0
    assert not reached[keep].any() and reached[55:65, 50:90].mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("gray", [False, True])
def test_one_stroke_along_the_middle_of_a_real_thing(gray: bool) -> None:
    if not (home := os.environ.get("OMNIFUSION_CLIPS")):
        pytest.skip("OMNIFUSION_CLIPS does not name the folder of the real clips")
    overlaps = []
    for clip in ("camel", "dog", "scooter-black", "blackswan"):
        picture = read_image(Path(home) / "davis" / clip / "00010.jpg")
        mask = read_image(Path(home) / "masks" / clip / "00010.png")[0] > 127
        depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
        middle = (skeletonize(mask) & (depth > 0.35 * depth.max())).astype(np.uint8)
        _, parts, sizes, _ = cv2.connectedComponentsWithStats(middle, connectivity=8)
        line = cv2.dilate((parts == 1 + sizes[1:, 4].argmax()).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        scribbles = np.where(line & mask, np.array([*RED, 255], np.uint8)[:, None, None], 0).astype(np.uint8)
        shown = cv2.cvtColor(picture.transpose(1, 2, 0), cv2.COLOR_RGB2GRAY)[None].repeat(3, 0) if gray else picture
        overlaps.append(overlap(spread(shown, scribbles)[3] > 0, mask))
    assert np.mean(overlaps) > (0.6 if gray else 0.65), overlaps


def test_what_cannot_be_spread_is_refused() -> None:
    picture, inside = disc()
    with pytest.raises(InputError, match="no stroke"):
        spread(picture, np.zeros((4, *inside.shape), np.uint8))
    with pytest.raises(InputError, match="another size"):
        spread(picture, np.zeros((4, 9, 16), np.uint8))
