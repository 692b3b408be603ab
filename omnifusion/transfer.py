"""Nearest-neighbor color transfer: a gray pixel takes the colors of the most similar pixels of colored frames.

Similarity is that of hand-made gray features: luminance's mean, deviation and gradient at four scales, and position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from omnifusion.pool import parallel

Array = np.ndarray

NEIGHBORS = 8  # how many similar pixels vote on a color

SLACK = 1.5
"""Factor by which a neighbor may be farther than the nearest: several times as fast as exact search, same error."""

MAX_QUERIES, MAX_CANDIDATES = 24_000, 8_000
"""Most queries of a frame (Levin's equations reach its other pixels), and most candidates of each frame."""

SCALES = (0.004, 0.012, 0.035, 0.1)  # radii of the features' Gaussian windows, as fractions of the frame's longer side

POSITION_WEIGHT = (0.2, 0.6)
"""Weight of x and y (in units of the longer side) beside luminance (in units of 100): sky is up."""

BIAS, WEIGHTS = 2.90, (-10.6, -0.375)
"""Logistic of the probability that a transferred color is right (``flow.confidence.RIGHT``), of the mean distance of
its neighbors in features and their standard deviation in a*, b*; fitted by ``benchmarks/confidence.py``."""

CHUNK = 2_000  # queries that are answered together


@dataclass(frozen=True)
class Candidates:
    """Pixels whose colors may be transferred: features ``(N, F)``, colors ab ``(N, 2)``, and their numbers ``(N,)``,
    counted through the clip (-1 = not of this clip)."""

    features: Array
    ab: Array
    names: Array


@dataclass(frozen=True)
class Transfer:
    """The answers to a frame's queries: ab ``(N, 2)``, the probability ``(N,)`` that each is right, and the number
    ``(N,)`` of the pixel nearest in features."""

    ab: Array
    confidence: Array
    names: Array


class Transferrer:
    """Answers queries from the candidates of some frames."""

    def __init__(self, candidates: Sequence[Candidates]) -> None:
        parts = [c for c in candidates if len(c.names)]
        self.features, self.ab, self.names = (
            np.concatenate([getattr(c, name) for c in parts]) if parts else np.zeros((0, 2), np.float32)
            for name in ("features", "ab", "names")
        )
        self._tree = cKDTree(self.features, leafsize=32, balanced_tree=False)

    def __call__(self, queries: Array) -> Transfer:
        """Transfer colors to the pixels with the features ``queries`` ``(N, F)``."""
        N, k = len(queries), min(NEIGHBORS, len(self.features))
        if not N or not k:
            return Transfer(np.zeros((N, 2), np.float32), np.zeros(N, np.float32), np.full(N, -1))
        parts = [queries[n : n + CHUNK] for n in range(0, N, CHUNK)]
        nearest = parallel(lambda part: self._tree.query(part, k=range(1, k + 1), eps=SLACK), parts)
        distance, index = (np.concatenate(values) for values in zip(*nearest, strict=True))
        votes = self.ab[index]
        weights = 1 / (distance**2 + 1e-4)
        weights /= weights.sum(1, keepdims=True)
        mean = np.einsum("nk,nkc->nc", weights, votes)
        spread = np.sqrt(np.einsum("nk,nkc->nc", weights, (votes - mean[:, None]) ** 2).mean(1))
        logit = BIAS + WEIGHTS[0] * distance.mean(1) + WEIGHTS[1] * spread
        sure = 1 / (1 + np.exp(-logit))
        return Transfer(mean.astype(np.float32), sure.astype(np.float32), self.names[index[:, 0]])


def gray_features(L: Array) -> Array:
    """Features ``(H, W, F)`` float32 of luminance ``(H, W)``, L* in [0, 100]. Wide windows are taken of a smaller
    picture."""
    Y = L.astype(np.float32) / 100
    H, W = Y.shape
    side = max(H, W)
    out = np.empty((H, W, 4 * len(SCALES) + 2), np.float32)
    for n, scale in enumerate(SCALES):
        sigma = scale * side
        shrink = 2 ** max(0, int(np.log2(max(sigma / 4, 1))))
        small = Y if shrink == 1 else cv2.resize(Y, (-(-W // shrink), -(-H // shrink)), interpolation=cv2.INTER_AREA)
        mean, square = (cv2.GaussianBlur(v, (0, 0), sigma / shrink) for v in (small, small * small))
        layers = [mean, np.sqrt(np.maximum(square - mean**2, 0))]
        layers += [sigma / shrink / 8 * cv2.Sobel(mean, -1, *way) for way in ((1, 0), (0, 1))]
        for k, layer in enumerate(layers):
            out[..., 4 * n + k] = layer if shrink == 1 else cv2.resize(layer, (W, H), interpolation=cv2.INTER_LINEAR)
    out[..., -2] = POSITION_WEIGHT[0] / side * np.arange(W, dtype=np.float32)
    out[..., -1] = POSITION_WEIGHT[1] / side * np.arange(H, dtype=np.float32)[:, None]
    return out


def subset(where: Array, limit: int) -> Array:
    """At most about ``limit`` of the pixels ``where`` ``(H, W)`` bool, on a regular lattice."""
    stride = int(np.ceil(np.sqrt(max(1.0, where.sum() / limit))))
    lattice = np.zeros_like(where)
    lattice[stride // 2 :: stride, stride // 2 :: stride] = True
    return where & lattice if (where & lattice).any() else where
