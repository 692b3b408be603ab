"""A first guess at a frame's missing colour, our own addition to the paper: the diffusion starts from it.

Three witnesses are heard, each with its own confidence: the most alike pixels of coloured frames (by grey features),
direct optical flow to coloured frames, and uncertain tracks. Levin 2004's equations join what they say to the known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from omnifusion.flow import dis, to_bytes
from omnifusion.geometry import inside, pixel_grid, warp
from omnifusion.levin import levin
from omnifusion.state import Hint

__all__ = ["Reference", "along_flow", "levin", "lookup", "make_hint"]

NEIGHBOURS = 8
"""How many alike pixels vote on a colour."""

SLACK = 0.7
"""How much farther than the nearest a neighbour may be: 3.6 times as fast as exact ones, to the same error."""

MAX_QUERIES = 24_000
MAX_CANDIDATES = 24_000
"""At most so many pixels ask (the others are reached by Levin's equations) and so many per reference answer."""

MAX_TESTS, TEST_WINDOW, LONELY = 3000, 15, 0.2
"""Known pixels are tested (so many of each kind) where a window of this side holds unknown ones; they are lonely where
it is known on less than this share."""

CONTRADICTION_SIGMA = 6.0
"""Error in ab, at known pixels around, at which what the witnesses say falls to 0.6."""

SCALES = (0.004, 0.012, 0.035, 0.1)
"""Radii of the grey features' Gaussian windows, as fractions of the frame's longer side."""

POSITION_WEIGHT = (0.2, 0.6)
"""Weight of x and y (in units of the longer side) beside luminance (in units of 100): sky is up."""

DATA_WEIGHT = 0.15
"""Pull of a wholly trusted colour beside Levin's equations, whose weights sum to 1."""

DISTANCE_SIGMA = 0.08
"""Feature distance at which the confidence of a looked-up colour falls to 0.6."""

SPREAD_SIGMA = 8.0
"""Disagreement (standard deviation in ab) of the neighbours at which the confidence falls to 0.6."""

FLOW_WEIGHT = 4.0
"""Say of a colour fetched along a flow that agrees in everything, beside one looked up."""

AGREEMENT_SIGMA, WINDOW_SIGMA = 6.0, 2.0
"""L* difference at which a flow's confidence falls to 0.6, and the Gaussian window (pixels) in which it is averaged."""

CYCLE_SIGMA = 1.0
"""The same for the gap, in pixels, between a flow and the way back."""


@dataclass(frozen=True)
class Reference:
    """A frame to look colours up in: L ``(1, H, W)``, ab ``(2, H, W)``, mask ``(H, W)`` bool, true where coloured."""

    L: Tensor
    ab: Tensor
    mask: Tensor


def make_hint(L: Tensor, ab: Tensor, mask: Tensor, references: Sequence[Reference], guess: Hint | None = None) -> Hint:
    """The colour that the references, the frame's own known pixels and uncertain tracks suggest for the unknown pixels.

    Args:
        L: ``(1, H, W)`` in [0, 100], ab: ``(2, H, W)``, mask: ``(H, W)`` bool, true where ``ab`` is known.
        references: coloured frames, of any size; the frame itself is added.
        guess: colours fetched along uncertain tracks, with a confidence per pixel in [0, 1].

    Returns:
        ``ab``: known pixels bit for bit, elsewhere Levin's equations pulled towards the suggestions;
        ``confidence``: in [0, 1], 1 at known pixels.
    """
    tested = _test_pixels(mask)
    asked = torch.from_numpy(_subset(~mask.numpy(), MAX_QUERIES))
    witnesses = [lookup(L, asked, [*references, Reference(L, ab, mask)])]
    witnesses += [lookup(L, tested, [*references, Reference(L, ab, mask & ~tested)])]
    witnesses += [along_flow(L, r) for r in references if r.mask.shape == mask.shape]
    if guess is not None:
        witnesses.append(guess)
    weight = torch.stack([w.confidence for w in witnesses]).sum(0)
    colour = torch.stack([w.ab * w.confidence for w in witnesses]).sum(0) / weight.clamp_min(1e-6)
    weight = weight * torch.exp(-0.5 * (_contradiction(L, ab, mask, colour, weight) / CONTRADICTION_SIGMA) ** 2)
    filled = levin(L, ab, mask, colour, DATA_WEIGHT * weight)
    return Hint(filled, torch.where(mask, torch.ones(()), 1 - torch.exp(-weight)))


def _test_pixels(mask: Tensor) -> Tensor:
    """Known pixels ``(H, W)`` bool at which the witnesses are put to the test: near the hole, above all lonely ones."""
    known = mask.numpy()
    share = cv2.blur(known.astype(np.float32), (TEST_WINDOW, TEST_WINDOW))
    lonely = _subset(known & (share < LONELY), MAX_TESTS)
    return torch.from_numpy(lonely | _subset(known & (share >= LONELY) & (share < 1), MAX_TESTS))


def _contradiction(L: Tensor, ab: Tensor, mask: Tensor, colour: Tensor, weight: Tensor) -> Tensor:
    """How far ``(H, W)`` the witnesses' ``colour`` is off: seen where it is known, carried on by Levin's equations."""
    heard = mask & (weight > 0)
    return levin(L, colour - ab, heard).norm(dim=0) if bool(heard.any()) else torch.zeros(mask.shape)


def along_flow(L: Tensor, reference: Reference) -> Hint:
    """Colour fetched from a reference of the same size along optical flow, trusted where luminance and cycle agree.

    Confidence reaches ``FLOW_WEIGHT`` and is 0 where the reference has no colour.
    """
    H, W = reference.mask.shape
    here, source = to_bytes(L[0]), to_bytes(reference.L[0])
    there, back = (torch.from_numpy(dis(*way)).permute(2, 0, 1) for way in ((here, source), (source, here)))
    fetched = warp(torch.cat([reference.L, reference.ab, reference.mask[None].float()]), there)
    square = ((fetched[:1] - L) ** 2)[0].numpy()
    difference = torch.from_numpy(cv2.GaussianBlur(square, (0, 0), WINDOW_SIGMA)) / AGREEMENT_SIGMA**2
    gap = ((there + warp(back, there)) ** 2).sum(0) / CYCLE_SIGMA**2
    seen = inside(pixel_grid(H, W) + there.permute(1, 2, 0), H, W) & (fetched[3] > 0.99)
    return Hint(fetched[1:3], FLOW_WEIGHT * torch.exp(-0.5 * (difference + gap)) * seen)


def lookup(L: Tensor, asked: Tensor, references: Sequence[Reference]) -> Hint:
    """For the pixels ``asked``, the mean colour of the most alike coloured pixels; zero confidence elsewhere.

    The nearest neighbours (to within a factor of 1 + ``SLACK``) among grey features on a regular subset of each
    reference's pixels.

    Args:
        L: ``(1, H, W)``, asked: ``(H, W)`` bool.
    """
    H, W = asked.shape
    result = Hint(torch.zeros(2, H, W), torch.zeros(H, W))
    candidates = [_candidates(r) for r in references if bool(r.mask.any())]
    queries = asked.numpy()
    if not candidates or not queries.any():
        return result
    features, colours = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
    k = min(NEIGHBOURS, len(features))
    distance, index = cKDTree(features).query(_features(L)[queries], k=k, eps=SLACK, workers=torch.get_num_threads())
    distance, index = distance.reshape(-1, k), index.reshape(-1, k)
    weights = 1.0 / (distance**2 + 1e-4)
    weights /= weights.sum(1, keepdims=True)
    votes = colours[index]
    mean = (weights[..., None] * votes).sum(1)
    spread = np.sqrt((weights[..., None] * (votes - mean[:, None]) ** 2).sum(1).mean(1))
    nearest = distance.mean(1)
    trust = np.exp(-0.5 * (nearest / DISTANCE_SIGMA) ** 2 - 0.5 * (spread / SPREAD_SIGMA) ** 2)
    result.ab[:, asked] = torch.from_numpy(mean.T).float()
    result.confidence[asked] = torch.from_numpy(trust).float()
    return result


def _features(L: Tensor) -> np.ndarray:
    """Grey features ``(H, W, F)``: luminance's mean, deviation and gradient at each scale, and position."""
    Y = L[0].numpy().astype(np.float32) / 100.0
    H, W = Y.shape
    side = max(H, W)
    layers = []
    for scale in SCALES:
        sigma = scale * side
        mean, square = (cv2.GaussianBlur(v, (0, 0), sigma) for v in (Y, Y * Y))
        layers += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
        layers += [sigma / 8 * cv2.Sobel(mean, -1, 1, 0), sigma / 8 * cv2.Sobel(mean, -1, 0, 1)]
    y, x = np.mgrid[:H, :W].astype(np.float32) / side
    return np.stack([*layers, POSITION_WEIGHT[0] * x, POSITION_WEIGHT[1] * y], axis=-1)


def _subset(where: np.ndarray, limit: int) -> np.ndarray:
    """At most about ``limit`` of the pixels ``where``, on a regular lattice."""
    stride = int(np.ceil(np.sqrt(max(1.0, where.sum() / limit))))
    lattice = np.zeros_like(where)
    lattice[stride // 2 :: stride, stride // 2 :: stride] = True
    return where & lattice if (where & lattice).any() else where


def _candidates(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(N, F)`` and colours ``(N, 2)`` of a reference's coloured pixels."""
    chosen = _subset(reference.mask.numpy(), MAX_CANDIDATES)
    return _features(reference.L)[chosen], reference.ab.permute(1, 2, 0).numpy()[chosen]
