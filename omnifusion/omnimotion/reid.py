"""Re-identification: what was hidden and comes back, found by its features rather than by following it."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np

from omnifusion import flow as of
from omnifusion.flow import features
from omnifusion.omnimotion.flows import Flows, Pair
from omnifusion.omnimotion.units import to_pixels, to_volume

Array = np.ndarray
MIN_INTERVAL = 3
MIN_MATCHES = 6
HYPOTHESES = 3
RATIO = 0.8
AGREES = 3.0
"""A match within this many pixels of trusted flow tells nothing new."""
RADIUS = 12
"""A hypothesis holds within this distance of its matches, in pixels of the fit size."""


def described(image: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Features of ``image`` ``(H, W)`` uint8, enlarged where small: positions in pixels of a frame of ``size``, and
    RootSIFT descriptors (Arandjelovic & Zisserman 2012)."""
    factor = max(1, round(320 / max(image.shape)))
    large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image
    at, descriptors = features.describe(large, 800, contrast=0.02)
    root = np.sqrt(descriptors / (descriptors.sum(1, keepdims=True) + 1e-6))
    return to_pixels(to_volume(at, large.shape), size), root


def unexplained(flows: Flows, pair: Pair, p: Array, q: Array) -> tuple[Array, Array]:
    """Those matches that trusted flow does not already explain."""
    x, y = np.clip(np.rint(p).astype(int).T, 0, np.array(flows.size[::-1])[:, None] - 1)
    k = flows.pairs[pair]
    known = np.isfinite(flows.error[k, y, x])
    off = np.linalg.norm(p + flows.flow[k, y, x].astype(np.float32) - q, axis=1)
    new = ~known | (off > AGREES)
    return p[new], q[new]


def hypotheses(p: Array, q: Array) -> list[tuple[Array, Array]]:
    """Affine maps ``(2, 3)`` found one after another in matches, each with its inliers' positions in the first
    frame."""
    found: list[tuple[Array, Array]] = []
    while len(p) >= MIN_MATCHES and len(found) < HYPOTHESES:
        affine, inside = features.affine_motion(p, q, 2.5, partial=True)
        if affine is None or inside.sum() < MIN_MATCHES or not _plausible(affine):
            break
        if inside.sum() >= 2 * MIN_MATCHES:
            full, _ = features.affine_motion(p[inside], q[inside], 2.5)
            affine = full if full is not None and _plausible(full) else affine
        found.append((affine, p[inside]))
        p, q = p[~inside], q[~inside]
    return found


def _plausible(affine: Array) -> bool:
    return 0.25 < np.linalg.det(affine[:, :2]) < 4


def start_from(affine: Array, around: Array, flow: Array) -> Array:
    """``flow`` ``(H, W, 2)`` with the affine motion put in near the points ``around``."""
    height, width = flow.shape[:2]
    region = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(region, cv2.convexHull(np.rint(around).astype(np.int32)), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RADIUS + 1, 2 * RADIUS + 1))
    grid = of.grid(height, width)
    moved = grid @ affine[:, :2].T.astype(np.float32) + affine[:, 2].astype(np.float32)
    return np.where(cv2.dilate(region, disc)[..., None] > 0, moved - grid, flow).astype(np.float32)


def reidentify(flows: Flows, images: Array, large: Array) -> None:
    """Adds to ``flows`` (of ``images`` ``(T, h, w)``) what features of ``large`` ``(T, H, W)`` find."""
    seen = of.parallel(partial(described, size=flows.size), list(large))

    def one(pair: Pair) -> None:
        i, j = pair
        matched = features.matches(seen[i], seen[j], RATIO, mutual=True)
        for affine, around in hypotheses(*unexplained(flows, pair, *matched)):
            landed = around @ affine[:, :2].T + affine[:, 2]
            there = start_from(affine, around, flows.of(pair))
            back = start_from(cv2.invertAffineTransform(affine), landed, flows.of(pair[::-1]))
            flows.improve(images, i, j, of.dis(images[i], images[j], there), of.dis(images[j], images[i], back))

    of.parallel(
        one, [p for p in flows.forward if p[1] - p[0] >= MIN_INTERVAL and min(map(flows.coverage, (p, p[::-1]))) < 0.9]
    )
