"""Features of gray pictures (SIFT), their matches, and the affine motion that most matches share (RANSAC)."""

import cv2
import numpy as np

Array = np.ndarray


def describe(image: Array, most: int) -> tuple[Array, Array]:
    """Positions ``(N, 2)`` px and descriptors ``(N, 128)`` of about ``most`` features of ``image`` ``(H, W)`` uint8."""
    points, descriptors = cv2.SIFT.create(most).detectAndCompute(image, None)
    if not points:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    return np.array([p.pt for p in points], np.float32), descriptors


def matches(a: tuple[Array, Array], b: tuple[Array, Array], ratio: float, mutual: bool) -> tuple[Array, Array]:
    """Positions ``(M, 2)`` each of nearest neighbors, nearer than ``ratio`` times the second nearest (Lowe 2004).

    Args:
        a, b: positions and descriptors of two pictures; for each feature of ``a`` one of ``b`` is sought.
        mutual: each must be the other's nearest.
    """
    if len(a[0]) < 2 or len(b[0]) < 2:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    square = (a[1] ** 2).sum(1)[:, None] + (b[1] ** 2).sum(1) - 2 * a[1] @ b[1].T
    rows, best = np.arange(len(square)), square.argmin(1)
    good = square.argmin(0)[best] == rows if mutual else np.ones(len(rows), bool)
    nearest = square[rows, best]
    square[rows, best] = np.inf
    good &= np.sqrt(np.maximum(nearest, 0)) < ratio * np.sqrt(np.maximum(square.min(1), 0))
    return a[0][good], b[0][best[good]]


def affine_motion(p: Array, q: Array, within: float, partial: bool = False) -> tuple[Array | None, Array]:
    """The affine map ``(2, 3)`` from most of the points ``p`` to ``q`` ``(N, 2)``, and which agree ``(N,)`` bool.

    None where there is none. With ``partial`` it only turns, scales and shifts. The same points give the same map.
    """
    if len(p) < 3:
        return None, np.zeros(len(p), bool)
    estimate = cv2.estimateAffinePartial2D if partial else cv2.estimateAffine2D
    motion, agree = estimate(p, q, ransacReprojThreshold=within)
    return motion, np.zeros(len(p), bool) if motion is None else agree[:, 0].astype(bool)
