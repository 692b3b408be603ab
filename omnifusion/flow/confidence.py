"""The one judge: the probability that a color fetched along a flow is right.

A logistic of three logarithms, fitted on four real clips; docs/propagation.md has its reliability on four others, which
``benchmarks/judge.py`` measures again. A color is right if it is within ``RIGHT`` of the truth in a* and b*.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray

RIGHT = 6.0
"""Distance in a*, b* up to which a color counts as right."""

FLOOR = 0.1
"""What is added to each of the three figures before its logarithm is taken."""

WEIGHTS = (-1.154, -0.383, -1.087)
"""Of the logarithms of residual (L*), cycle error (px) and chroma spread (a*, b*)."""

BIAS = 5.505

RESIDUAL_SIGMA, SPREAD_SIGMA = 1.5, 5.0
"""Radii in pixels of the windows in which luminance is compared and chroma varies."""


def probability(residual: Array, cycle: Array, spread: Array) -> Array:
    """That the color is right, in [0, 1]; 0 where ``cycle`` is inf.

    Args:
        residual: difference in luminance between a pixel and its match, L*, averaged over the surroundings.
        cycle: forward-backward error of the flow in pixels.
        spread: standard deviation of chroma around the match: where all is of one color, a pixel more or less does not
            matter.
    """
    figures = (residual, np.minimum(cycle, 1e6), spread)
    logit = BIAS + sum(w * np.log(x + FLOOR) for w, x in zip(WEIGHTS, figures, strict=True))
    return np.where(np.isfinite(cycle), 1 / (1 + np.exp(-logit)), 0).astype(np.float32)


def chroma_spread(ab: Array) -> Array:
    """Standard deviation ``(H, W)`` of the chroma ``ab`` ``(H, W, 2)`` in a window around each pixel."""
    mean = cv2.GaussianBlur(ab, (0, 0), SPREAD_SIGMA)
    square = cv2.GaussianBlur((ab**2).sum(-1), (0, 0), SPREAD_SIGMA)
    return np.sqrt(np.maximum(square - (mean**2).sum(-1), 0))


def residual(L: Array, fetched: Array) -> Array:
    """Mean difference ``(H, W)`` of luminance ``L`` and ``fetched``, both ``(H, W)`` L*, in a window."""
    return cv2.GaussianBlur(np.abs(fetched - L), (0, 0), RESIDUAL_SIGMA)


def odds(p: Array) -> Array:
    """p / (1 - p): the weight of a witness that is right with probability p."""
    return p / (1 - np.minimum(p, 0.999))
