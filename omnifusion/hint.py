"""What is known of a frame's missing color, our own addition to the paper: the fill, and where the diffusion starts.

Two kinds of witnesses are heard, each by the odds that it is right: colors fetched from colored frames along the
tracker's answers, and the colors of the most alike pixels (by gray features) of colored frames and of the frame
itself. Levin 2004's equations join what they say to the known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from omnifusion.flow.confidence import odds
from omnifusion.flow.dis import parallel
from omnifusion.levin import levin
from omnifusion.state import ColorEstimate

__all__ = ["Reference", "estimate_color", "levin", "lookup"]

NEIGHBORS = 8
"""How many alike pixels vote on a color."""

SLACK = 1.5
"""How much farther than the nearest a neighbor may be: several times as fast as exact ones, to the same error."""

ASKED, MOST = 24_000, 8_000
"""At most so many pixels ask (the others are reached by Levin's equations), and so many per reference answer."""

SCALES = (0.004, 0.012, 0.035, 0.1)
"""Radii of the gray features' Gaussian windows, as fractions of the frame's longer side."""

POSITION_WEIGHT = (0.2, 0.6)
"""Weight of x and y (in units of the longer side) beside luminance (in units of 100): sky is up."""

LOOKUP_BIAS, LOOKUP_WEIGHTS = 2.90, (-10.6, -0.375)
"""Logistic of the probability that a looked-up color is right (``flow.judge.RIGHT``), of the mean distance of its
neighbors in features and their standard deviation in a*, b*; fitted by ``benchmarks/judge.py``."""

LONELY, LONELY_WINDOW = 0.2, 15
"""A known pixel is lonely where in a window of this side so small a share is known: there lookups are tested."""

CONTRADICTION_SIGMA = 6.0
"""Error in a*, b* of lookups at lonely known pixels at which their say falls to 0.6."""

DATA_WEIGHT = 0.15
"""Pull of a witness at even odds beside Levin's equations, whose weights sum to 1."""


@dataclass(frozen=True)
class Reference:
    """A frame to look colors up in; what is computed of it is kept.

    Attributes:
        L: ``(1, H, W)``, ab: ``(2, H, W)``, mask: ``(H, W)`` bool, true where colored.
        numbers: ``(H, W)`` int64, what its pixels are called as a source of color; None = -1.
    """

    L: Tensor
    ab: Tensor
    mask: Tensor
    numbers: Tensor | None = None

    @property
    def names(self) -> Tensor:
        """What its pixels are called, ``(H, W)`` int64."""
        return torch.full(self.mask.shape, -1) if self.numbers is None else self.numbers

    @cached_property
    def features(self) -> np.ndarray:
        """Gray features ``(H, W, F)`` of the frame."""
        return features(self.L)

    @cached_property
    def candidates(self) -> tuple[cKDTree, np.ndarray, np.ndarray] | None:
        """A search tree of the features of some colored pixels, their colors ``(N, 2)`` and their names."""
        chosen = subset(self.mask.numpy(), MOST)
        if not chosen.any():
            return None
        return cKDTree(self.features[chosen]), self.ab.permute(1, 2, 0).numpy()[chosen], self.names.numpy()[chosen]


def lookup(frame: Reference, asked: Tensor, references: Sequence[Reference]) -> ColorEstimate:
    """For the pixels ``asked`` ``(H, W)`` bool of a frame, the mean color of the most alike colored pixels.

    The nearest neighbors (to within a factor of 1 + ``SLACK``) among gray features on a regular subset of each
    reference's pixels. The confidence is the probability that the color is right, 0 where none was asked.
    """
    names = torch.full(asked.shape, -1)
    result = ColorEstimate(torch.zeros(2, *asked.shape), torch.zeros(asked.shape), names)
    candidates = [c for r in references if (c := r.candidates) is not None]
    if not candidates or not bool(asked.any()):
        return result
    queries = frame.features[asked.numpy()]

    def nearest_in(candidate: tuple[cKDTree, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tree, colors, numbers = candidate
        k = min(NEIGHBORS, tree.n)
        distance, index = tree.query(queries, k=k, eps=SLACK)
        index = index.reshape(-1, k)
        return distance.reshape(-1, k), colors[index], numbers[index]

    found = parallel(nearest_in, candidates)  # not SciPy's own threads: an interruption would leave them behind
    distance, votes, numbers = (np.concatenate(parts, 1) for parts in zip(*found, strict=True))
    nearest = np.argsort(distance, 1)[:, :NEIGHBORS]
    names[asked] = torch.from_numpy(np.take_along_axis(numbers, nearest[:, :1], 1)[:, 0])
    distance, votes = np.take_along_axis(distance, nearest, 1), np.take_along_axis(votes, nearest[..., None], 1)
    weights = 1.0 / (distance**2 + 1e-4)
    weights /= weights.sum(1, keepdims=True)
    mean = (weights[..., None] * votes).sum(1)
    spread = np.sqrt((weights[..., None] * (votes - mean[:, None]) ** 2).sum(1).mean(1))
    logit = LOOKUP_BIAS + LOOKUP_WEIGHTS[0] * distance.mean(1) + LOOKUP_WEIGHTS[1] * spread
    result.ab[:, asked] = torch.from_numpy(mean.T).float()
    result.confidence[asked] = torch.from_numpy(1 / (1 + np.exp(-logit))).float()
    return result


def features(L: Tensor) -> np.ndarray:
    """Gray features ``(H, W, F)``: luminance's mean, deviation and gradient at each scale, and position."""
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


def subset(where: np.ndarray, limit: int) -> np.ndarray:
    """At most about ``limit`` of the pixels ``where``, on a regular lattice."""
    stride = int(np.ceil(np.sqrt(max(1.0, where.sum() / limit))))
    lattice = np.zeros_like(where)
    lattice[stride // 2 :: stride, stride // 2 :: stride] = True
    return where & lattice if (where & lattice).any() else where


def estimate_color(
    frame: Reference,
    references: Sequence[Reference],
    fetched: Sequence[ColorEstimate] = (),
) -> ColorEstimate:
    """The color that references, the frame's own known pixels and fetched colors suggest for its unknown pixels.

    Args:
        frame: the frame; its unknown pixels are those outside its mask.
        references: colored frames, of any size; the frame itself is added.
        fetched: colors fetched from other frames, with the probability that they are right.

    Returns:
        ``ab``: known pixels bit for bit, elsewhere Levin's equations pulled toward the suggestions;
        ``confidence``: that the best of the witnesses is right, 1 at known pixels; ``source``: of the strongest one.
    """
    asked = torch.from_numpy(subset(~frame.mask.numpy(), ASKED))
    seen = lookup(frame, asked, [*references, frame])
    seen = replace(seen, confidence=seen.confidence * _credit(frame, references))
    witnesses = [seen, *fetched]
    weights = torch.stack([torch.from_numpy(odds(w.confidence.numpy())) for w in witnesses])
    weight = weights.sum(0)
    color = (torch.stack([w.ab for w in witnesses]) * weights[:, None]).sum(0) / weight.clamp_min(1e-6)
    filled = levin(frame.L, frame.ab, frame.mask, color, DATA_WEIGHT * weight)
    sure = torch.where(frame.mask, torch.ones(()), torch.stack([w.confidence for w in witnesses]).amax(0))
    return ColorEstimate(filled, sure, _strongest(frame, witnesses, weights))


def _strongest(frame: Reference, witnesses: Sequence[ColorEstimate], weights: Tensor) -> Tensor:
    """The source ``(H, W)`` of the witness of most weight ``(witnesses, H, W)``; where only Levin's equations speak,
    that of the nearest pixel where more does."""
    unknown = torch.full(frame.mask.shape, -1)
    told = torch.stack([unknown if w.source is None else w.source for w in witnesses])
    most, first = weights.max(0)  # several times as fast as argmax
    source = torch.where(frame.mask, frame.names, told.gather(0, first[None])[0])
    silent = ~frame.mask & (most <= 0)
    if not bool(silent.any()) or bool(silent.all()):
        return torch.where(silent, unknown, source)
    y, x = torch.from_numpy(distance_transform_edt(silent.numpy(), return_distances=False, return_indices=True)).long()
    return source[y, x]


def _credit(frame: Reference, references: Sequence[Reference]) -> Tensor:
    """How much ``(H, W)`` lookups are still heard after a test at lonely known pixels, such as a few given colors of a
    thing that the references show in others: their error there is carried into the hole by Levin's equations."""
    share = cv2.blur(frame.mask.float().numpy(), (LONELY_WINDOW, LONELY_WINDOW))
    lonely = frame.mask & torch.from_numpy(share < LONELY)
    if not bool(lonely.any()):
        return torch.ones(frame.mask.shape)
    found = lookup(frame, lonely, [*references, replace(frame, mask=frame.mask & ~lonely)])
    distance, nearest = distance_transform_edt(~lonely.numpy(), return_indices=True)
    y, x = torch.from_numpy(nearest).long()
    beside = (found.ab - frame.ab)[:, y, x] * torch.from_numpy(distance < LONELY_WINDOW)
    error = levin(frame.L, beside.float(), frame.mask).norm(dim=0)
    return torch.exp(-0.5 * (error / CONTRADICTION_SIGMA) ** 2)
