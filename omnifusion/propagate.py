"""The inter-frame propagation step (paper, section 3.1, eq. 1): a colored frame gives its colors to gray pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.flow import confidence, match
from omnifusion.state import ColorEstimate, ColorState, Tracker

Array = np.ndarray

ACCEPT_THRESHOLD = 0.9
"""Match confidence above which a warped color is accepted for good; else it is one color candidate among others."""

LUMINANCE_SIGMA = 10.0  # L* difference at which a neighbor's weight in the gathered color falls to 0.6
STILL_SIGMA = 0.3  # the same for its distance in pixels where nothing moves (almost a copy)
STILL, MOVING = 0.25, 0.75  # motion in pixels up to which a point is still and from which on it moves
MOVING_SIGMA, WIDEST = 1.6, 1.5  # the sigma of a moving point where chroma varies by 1, and the largest, in pixels


@dataclass(frozen=True)
class SourceFrame:
    """A frame that colors are taken from, and what is computed of it once for all targets.

    Attributes:
        L: ``(H, W)`` L*, ab: ``(2, H, W)``, colored: ``(H, W)`` 1 where it has color, confidence: ``(H, W)``, spread:
            its ``confidence.chroma_spread``; float32.
        first: the number of its first pixel, counted through the clip.
    """

    L: Array
    ab: Array
    colored: Array
    confidence: Array
    spread: Array
    first: int

    @classmethod
    def of(cls, state: ColorState, frame: int) -> SourceFrame:
        """Frame ``frame`` of a clip."""
        L, ab, colored = state.L[frame, 0].numpy(), state.ab[frame].numpy(), state.colored(frame).numpy()
        sure, spread = state.confidence[frame].float().numpy(), confidence.chroma_spread(ab)
        return cls(L, ab, colored.astype(np.float32), sure, spread, frame * L.size)


def gather_sigma(motion: Array, spread: Array) -> Array:
    """The radius (sigma), in pixels, in which a color is gathered around its match.

    The more chroma varies there, the narrower; wider averages noise. Measured (docs/experiments.md); still pixels have
    the same noise in both frames and are copied.

    Args:
        motion: length of the flow in pixels.
        spread: standard deviation of chroma around the match, of the same shape.
    """
    moving = np.minimum(MOVING_SIGMA * (spread + 0.2) ** -0.3, WIDEST)
    share = np.clip((motion - STILL) / (MOVING - STILL), 0, 1)
    return (STILL_SIGMA + (moving - STILL_SIGMA) * share).astype(np.float32)


def warp(
    tracker: Tracker, state: ColorState, source: SourceFrame, i: int, j: int, trust_tracker: bool = False
) -> tuple[ColorEstimate, Tensor]:
    """The colors that frame ``j`` has for the gray pixels of frame ``i``, eq. (1).

    Args:
        tracker: of several answers for a pixel, the one most likely right is taken.
        source: frame ``j``; its gray pixels give no color.
        trust_tracker: accept every visible match, as in the paper.

    Returns:
        the colors, with the probability that each is right (that of the match times that of its source), 0 where
        nothing is known; and ``(H, W)`` bool: whose match is accepted.
    """
    H, W = source.L.shape
    gray = np.ascontiguousarray(~state.colored(i).numpy())
    side = 2 * match.WINDOW + 1
    compared = gray if trust_tracker else cv2.dilate(gray.view(np.uint8), np.ones((side, side), np.uint8)) > 0
    marked = np.flatnonzero(compared)
    target_L = state.L[i, 0].numpy()
    answers = tracker.matches(marked, i, j)
    spread = None if trust_tracker else source.spread
    points, p = confidence.most_likely(marked, answers, target_L, source.L, spread)
    wanted = gray.ravel()[marked]
    pixels, points, p = marked[wanted], points[wanted], p[wanted]
    p = p * (match.sample(source.colored, points) > 0.99)
    motion = np.hypot(*(points - match.points_of(pixels, W)).T)
    sigma = gather_sigma(motion, match.sample(source.spread, points))
    ab, sure = np.zeros((2, H * W), np.float32), np.zeros(H * W, np.float32)
    names, accepted = np.full(H * W, -1), np.zeros(H * W, bool)
    ab[:, pixels] = match.gather(pixels, points, sigma, target_L, source.L, source.ab, LUMINANCE_SIGMA).T
    sure[pixels] = p * match.sample(source.confidence, points)
    names[pixels] = source.first + match.nearest(points, H, W)
    accepted[pixels] = p > ACCEPT_THRESHOLD
    estimate = ColorEstimate(
        *(torch.from_numpy(v) for v in (ab.reshape(2, H, W), sure.reshape(H, W), names.reshape(H, W)))
    )
    return estimate, torch.from_numpy(accepted.reshape(H, W))


def blend_exemplars(
    one: tuple[ColorEstimate, Tensor], other: tuple[ColorEstimate, Tensor], way: float
) -> tuple[ColorEstimate, Tensor]:
    """Blend the colors from two exemplars for a frame at a share ``way`` of the way from one to the other: by time
    where both are accepted, so that there is no seam; else take the accepted one."""
    (a, accepted_a), (b, accepted_b) = one, other
    weight_a, weight_b = (1 - way) * a.confidence * accepted_a, way * b.confidence * accepted_b
    share = weight_b / (weight_a + weight_b).clamp_min(1e-6)
    source = None
    if a.source is not None and b.source is not None:
        source = torch.where(share > 0.5, b.source, a.source)
    return ColorEstimate(
        a.ab.lerp(b.ab, share), a.confidence.lerp(b.confidence, share), source
    ), accepted_a | accepted_b
