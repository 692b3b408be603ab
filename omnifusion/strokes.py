"""From strokes to an exemplar: colours spread inside a frame along its luminance; a thing is found and recoloured."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, label
from torch import Tensor

from omnifusion.color import compose, from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.levin import levin
from omnifusion.state import InputError

SIDE = 320
"""Longest side in pixels at which strokes are spread; chroma is smooth, and grows to full size as a run's does."""

FADING = 2e-4
"""Share of a stroke's say that is lost from pixel to pixel: on even ground it falls to a third in some fifty pixels."""

VOUCHED = 0.2
"""Least say that is left of the strokes where a pixel is still coloured by them."""

NEAREST, FARTHEST = 4.0, 60.0
"""How unlike (in L*a*b*, luminance halved) a thing's pixels may be at the ends of the slider."""


def spread(picture: np.ndarray, strokes: np.ndarray, restraint: bool = True) -> np.ndarray:
    """The strokes' colours carried along a frame's luminance by Levin's equations: ``(4, H, W)`` uint8, an exemplar.

    The strokes' say fades on the way, fast across edges: what none of them vouches for stays open (transparent).

    Args:
        picture: the frame, ``(3, H, W)`` uint8; only its luminance counts.
        strokes: ``(4, H, W)`` uint8; what is opaque is painted.
        restraint: whether anything may stay open.

    Raises:
        InputError: there is no stroke, or it is of another size.
    """
    if strokes.shape[1:] != picture.shape[1:]:
        raise InputError("The strokes are of another size than their frame; paint over the frame itself.")
    painted = torch.from_numpy(strokes[3] >= 128)
    if not bool(painted.any()):
        raise InputError("There is no stroke; paint some colour over the frame.")
    size, full = fit_size(picture.shape[1:], SIDE), painted.shape
    L = luminance(from_uint8(picture))
    ab = torch.where(painted, rgb_to_lab(from_uint8(strokes[:3]))[1:], 0)
    small = resize(torch.cat([ab, painted[None].float(), L])[None], size)[0]
    share, mask = small[2], small[2] > 0  # a thin stroke counts wherever it touches a pixel
    told = torch.cat([small[:2] / share.clamp_min(1e-6), torch.ones(1, *size)])
    found = levin(small[3:], told, mask, torch.zeros_like(told), FADING)
    say = found[2].clamp_min(1e-6)
    grown = resize(torch.cat([found[:2] / say, say[None]])[None], (full[0], full[1]))[0]
    colored = to_uint8(compose(L, torch.where(painted, ab, grown[:2])))
    vouched = (grown[2] > VOUCHED) | painted if restraint else torch.ones_like(painted)
    return torch.cat([colored, vouched[None].to(torch.uint8) * 255]).numpy()


def region(picture: np.ndarray, x: int, y: int, reach: float = 0.3) -> np.ndarray:
    """The thing at a point of a coloured or grey frame: the like pixels around it, holes filled, ``(H, W)`` bool.

    Args:
        picture: ``(3, H, W)`` uint8.
        x, y: the point, in pixels.
        reach: how unlike the point its pixels may be, in [0, 1].

    Raises:
        InputError: the point is outside the frame.
    """
    H, W = picture.shape[1:]
    if not (0 <= x < W and 0 <= y < H):
        raise InputError(f"The point ({x}, {y}) is outside the frame of {W}x{H}; choose one inside.")
    lab = rgb_to_lab(from_uint8(picture)) * torch.tensor([0.5, 1.0, 1.0])[:, None, None]
    around = lab[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean((1, 2))
    like = (lab - around[:, None, None]).norm(dim=0) <= NEAREST + (FARTHEST - NEAREST) * float(
        np.clip(reach, 0, 1)
    ) ** 2
    like[y, x] = True
    parts, _ = label(like.numpy())
    return binary_fill_holes(parts == parts[y, x])


def recolored(picture: np.ndarray, where: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """A region of a frame in another colour, ``(4, H, W)`` uint8 with the rest transparent: an exemplar.

    The region's mean chroma becomes that of ``color`` (sRGB); luminance and the texture of its chroma stay.

    Args:
        picture: ``(3, H, W)`` uint8.
        where: ``(H, W)`` bool.
    """
    lab, chosen = rgb_to_lab(from_uint8(picture)), torch.from_numpy(where)
    target = rgb_to_lab(from_uint8(np.array(color, np.uint8).reshape(3, 1, 1)))[1:]
    mean = _mean(lab[1:], chosen)
    image = to_uint8(compose(lab[:1], lab[1:] + target - mean))
    return torch.cat([image, chosen[None].to(torch.uint8) * 255]).numpy()


def _mean(ab: Tensor, where: Tensor) -> Tensor:
    return ab[:, where].mean(1)[:, None, None] if bool(where.any()) else torch.zeros(2, 1, 1)
