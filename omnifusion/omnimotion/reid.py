"""Re-identification: what was hidden and comes back, found by its features rather than by following it."""

from __future__ import annotations

import cv2
import numpy as np

from omnifusion import flow as of
from omnifusion.omnimotion.supervision import Flows, Pair, to_pixels, to_volume

Array = np.ndarray
MIN_GAP = 3
MIN_MATCHES = 6
HYPOTHESES = 3
RATIO = 0.8
AGREES = 3.0
"""A match within this many pixels of trusted flow tells nothing new."""
RADIUS = 12
"""A hypothesis holds within this distance of its matches, in pixels of the fit size."""


def features(image: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """SIFT of ``image`` ``(H, W)`` uint8: positions ``(N, 2)`` in pixels of a frame of ``size``, and descriptors
    ``(N, 128)``."""
    factor = max(1, round(320 / max(image.shape)))
    large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image
    points, descriptors = cv2.SIFT.create(800, contrastThreshold=0.02).detectAndCompute(large, None)
    if not points:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    at = np.array([p.pt for p in points], np.float32)
    return to_pixels(to_volume(at, large.shape), size), np.sqrt(
        descriptors / (descriptors.sum(1, keepdims=True) + 1e-6)
    )


def matches(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Positions of mutual nearest neighbours that pass the ratio test, ``(M, 2)`` each."""
    if len(a[0]) < 2 or len(b[0]) < 2:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    likeness = a[1] @ b[1].T
    best = likeness.argmax(1)
    rows = np.arange(len(best))
    first = likeness[rows, best]
    likeness[rows, best] = -1
    distance, rival = (np.sqrt(np.maximum(2 - 2 * v, 1e-9)) for v in (first, likeness.max(1)))
    likeness[rows, best] = first
    good = (likeness.argmax(0)[best] == rows) & (distance < RATIO * rival)
    return a[0][good], b[0][best[good]]


def news(flows: Flows, pair: Pair, p: Array, q: Array) -> tuple[Array, Array]:
    """Those matches that trusted flow does not already explain."""
    k = flows.pairs[pair]
    x, y = np.clip(np.rint(p).astype(int).T, 0, np.array(flows.size[::-1])[:, None] - 1)
    known = np.isfinite(flows.error[k, y, x])
    off = np.linalg.norm(p + flows.flow[k, y, x].astype(np.float32) - q, axis=1)
    new = ~known | (off > AGREES)
    return p[new], q[new]


def hypotheses(p: Array, q: Array) -> list[tuple[Array, Array]]:
    """Affine maps ``(2, 3)`` found one after another in matches, each with its inliers' positions in the first
    frame."""
    found: list[tuple[Array, Array]] = []
    while len(p) >= MIN_MATCHES and len(found) < HYPOTHESES:
        cv2.setRNGSeed(0)
        affine, inlier = cv2.estimateAffinePartial2D(p, q, ransacReprojThreshold=2.5)
        inside = inlier[:, 0].astype(bool) if affine is not None else np.zeros(len(p), bool)
        if inside.sum() < MIN_MATCHES or not 0.25 < np.linalg.det(affine[:, :2]) < 4:
            break
        if inside.sum() >= 2 * MIN_MATCHES:
            full, _ = cv2.estimateAffine2D(p[inside], q[inside], ransacReprojThreshold=2.5)
            affine = full if full is not None and 0.25 < np.linalg.det(full[:, :2]) < 4 else affine
        found.append((affine, p[inside]))
        p, q = p[~inside], q[~inside]
    return found


def start_from(affine: Array, around: Array, flow: Array) -> Array:
    """``flow`` ``(H, W, 2)`` with the affine motion put in near the points ``around``."""
    height, width = flow.shape[:2]
    grid = of.grid(height, width)
    region = np.zeros((height, width), np.uint8)
    hull = cv2.convexHull(np.rint(around).astype(np.int32))
    cv2.fillConvexPoly(region, hull, 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RADIUS + 1, 2 * RADIUS + 1))
    region = cv2.dilate(region, disc)[..., None]
    moved = grid @ affine[:, :2].T.astype(np.float32) + affine[:, 2].astype(np.float32)
    return np.where(region > 0, moved - grid, flow).astype(np.float32)


def reidentify(flows: Flows, images: Array, large: Array) -> int:
    """Adds to ``flows`` (of ``images`` ``(T, h, w)``) what features of ``large`` ``(T, H, W)`` find; the number of
    hypotheses tried."""
    seen = of.parallel(lambda image: features(image, flows.size), list(large))

    def one(pair: Pair) -> int:
        i, j = pair
        found = hypotheses(*news(flows, pair, *matches(seen[i], seen[j])))
        for affine, around in found:
            back = cv2.invertAffineTransform(affine)
            landed = around @ affine[:, :2].T + affine[:, 2]
            held = [flows.flow[flows.pairs[p]].astype(np.float32) for p in (pair, pair[::-1])]
            there = of.raw_dis(images[i], images[j], start_from(affine, around, held[0]))
            flows.improve(images, i, j, there, of.raw_dis(images[j], images[i], start_from(back, landed, held[1])))
        return len(found)

    far = [p for p in flows.pairs if p[1] - p[0] >= MIN_GAP and min(flows.coverage(p), flows.coverage(p[::-1])) < 0.9]
    return sum(of.parallel(one, far))
