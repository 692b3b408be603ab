"""From scribbles to an exemplar: colors spread inside a frame along its luminance, within what looks the same."""

from __future__ import annotations

import numpy as np
import torch

from omnifusion.color import compose, from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.levin import levin
from omnifusion.progress import InputError

SIDE = 320
"""Longest side in pixels at which scribbles are spread; chroma is smooth, and grows to full size as a run's does."""

FADING = 2e-4
"""Share of a stroke's say that is lost from pixel to pixel: on even ground it falls to a third in some fifty pixels."""

VOUCHED = 0.2
"""Least say that is left of the scribbles where a pixel is still colored by them."""

ALIKE = 12.0
"""Distance in a*, b* within which pixels of a colored frame are of the color that a stroke covers."""


def spread(picture: np.ndarray, scribbles: np.ndarray, restraint: bool = True) -> np.ndarray:
    """The scribbles' colors carried along a frame's luminance by Levin's equations: ``(4, H, W)`` uint8, an exemplar.

    The scribbles' say fades on the way, fast across edges: what none of them vouches for stays open (transparent), and
    so does what has another color than they cover.

    Args:
        picture: the frame, ``(3, H, W)`` uint8, gray or in the colors that are to be mended.
        scribbles: ``(4, H, W)`` uint8; what is opaque is painted.
        restraint: whether anything may stay open.

    Raises:
        InputError: there is no stroke, or it is of another size.
    """
    if scribbles.shape[1:] != picture.shape[1:]:
        raise InputError("The scribbles are of another size than their frame; paint over the frame itself.")
    painted = torch.from_numpy(scribbles[3] >= 128)
    if not bool(painted.any()):
        raise InputError("There is no stroke; paint some color over the frame.")
    size, full = fit_size(picture.shape[1:], SIDE), painted.shape
    L, present = luminance(from_uint8(picture)), rgb_to_lab(from_uint8(picture))[1:]
    ab = rgb_to_lab(from_uint8(scribbles[:3]))[1:]
    small = resize(torch.cat([torch.cat([ab, present]) * painted, painted[None].float(), L])[None], size)[0]
    share, mask = small[4], small[4] > 0  # a thin stroke counts wherever it touches a pixel
    told = torch.cat([small[:4] / share.clamp_min(1e-6), torch.ones(1, *size)])
    found = levin(small[5:], told, mask, torch.zeros_like(told), FADING)
    say = found[4].clamp_min(1e-6)
    grown = resize(torch.cat([found[:4] / say, say[None]])[None], (full[0], full[1]))[0]
    colored = to_uint8(compose(L, torch.where(painted, ab, grown[:2])))
    alike = (grown[2:4] - present).norm(dim=0) < ALIKE
    vouched = ((grown[4] > VOUCHED) & alike) | painted if restraint else torch.ones_like(painted)
    return torch.cat([colored, vouched[None].to(torch.uint8) * 255]).numpy()
