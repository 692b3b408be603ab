"""Match confidence: the probability that a color warped along a flow is right.

A logistic regression on three logarithms, fitted on four real clips; docs/experiments.md has its reliability on four
others, which ``benchmarks/confidence.py`` measures. A color is right if it is within ``RIGHT`` of the ground truth in
a* and b*.
"""

import cv2
import numpy as np

from omnifusion.flow import match

Array = np.ndarray

RIGHT = 6.0  # distance in a*, b* up to which a color counts as right
FLOOR = 0.1  # added to each of the three quantities before its logarithm is taken
WEIGHTS = (-1.154, -0.383, -1.087)  # of the logarithms of residual (L*), cycle error (px) and chroma spread (a*, b*)

BIAS = 5.505

RESIDUAL_SIGMA, SPREAD_SIGMA = 1.5, 5.0
"""Radii in pixels of the windows in which luminance is compared and chroma varies."""

RESIDUAL_WINDOW = np.exp(-0.5 * (np.arange(match.WINDOW + 1) / RESIDUAL_SIGMA) ** 2).astype(np.float32)


def probability(residual: Array, cycle: Array, spread: Array) -> Array:
    """The probability in [0, 1] that a matched color is right; 0 where ``cycle`` is inf.

    Args:
        residual: difference in luminance between a pixel and its match, L*, averaged over its surroundings.
        cycle: forward-backward error of the flow in pixels.
        spread: standard deviation of chroma around the match: in a uniform color, an error of a pixel does not matter.
    """
    figures = (residual, np.minimum(cycle, 1e6), spread)
    logit = BIAS + sum(w * np.log(x + FLOOR) for w, x in zip(WEIGHTS, figures, strict=True))
    return np.where(np.isfinite(cycle), 1 / (1 + np.exp(-logit)), 0).astype(np.float32)


def chroma_spread(ab: Array) -> Array:
    """Standard deviation ``(H, W)`` of the chroma ``ab`` ``(2, H, W)`` in a window around each pixel."""
    a, b, square = (cv2.GaussianBlur(x, (0, 0), SPREAD_SIGMA) for x in (*ab, ab[0] ** 2 + ab[1] ** 2))
    return np.sqrt(np.maximum(square - a**2 - b**2, 0))


def most_likely(
    pixels: Array, answers: list[tuple[Array, Array]], L: Array, source_L: Array, spread: Array | None
) -> tuple[Array, Array]:
    """For each pixel, the most probable of a tracker's answers.

    Args:
        pixels: ``(N,)`` of the frame ``L`` ``(H, W)``, with all pixels of their surroundings that shall be compared.
        answers: at least one (points ``(N, 2)`` px in the source frame, cycle error ``(N,)`` px, inf = not visible).
        source_L: L* ``(H, W)`` of the source frame.
        spread: its chroma spread ``(H, W)``; None = whatever is visible is right (the paper).

    Returns:
        the points ``(N, 2)``, and the probability ``(N,)`` that each is right.
    """
    best: tuple[Array, Array] | None = None
    for points, cycle in answers:
        if spread is None:
            p = np.isfinite(cycle).astype(np.float32)
        else:
            residual = match.luminance_residual(pixels, points, L, source_L, RESIDUAL_WINDOW)
            p = probability(residual, cycle, match.sample(spread, points))
        if best is None:
            best = points, p
        else:
            better = p >= best[1]
            best = np.where(better[:, None], points, best[0]), np.maximum(p, best[1])
    assert best is not None
    return best


def odds(p: Array) -> Array:
    """p / (1 - p): the weight of a color candidate that is right with probability p."""
    return p / (1 - np.minimum(p, 0.999))
