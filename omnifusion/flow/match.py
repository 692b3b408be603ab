"""Compiled kernels over lists of pixels: follow flows, compare matches, gather colors along them.

Pixels are numbers ``(N,)`` int64 in row order of a frame ``(H, W)``; points are ``(N, 2)`` float32 (x, y) in
``geometry``'s coordinates. Whatever lies outside a frame repeats its border.
"""

from typing import Any

import numba
import numpy as np

Array = np.ndarray

REACH = 3  # farthest pixel, along each axis, that contributes to a gathered color
WINDOW = 6  # radius in pixels of the window in which luminance is compared, four of its standard deviations

_compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
_inlined: Any = numba.njit(inline="always")


@_inlined
def _corner(x: float, size: int) -> Any:
    """Lower neighbor, its successor, and the share of the latter, of a coordinate clamped to ``size`` pixels."""
    x = min(max(x, np.float32(0)), np.float32(size - 1))
    low = int(x)
    return low, min(low + 1, size - 1), np.float32(x - low)


@_inlined
def _bilinear(image: Array, x: float, y: float) -> Any:
    x0, x1, fx = _corner(x, image.shape[1])
    y0, y1, fy = _corner(y, image.shape[0])
    top = image[y0, x0] + fx * (image[y0, x1] - image[y0, x0])
    bottom = image[y1, x0] + fx * (image[y1, x1] - image[y1, x0])
    return top + fy * (bottom - top)


@_compiled
def follow(flows: Array, first: int, step: int, count: int, points: Array) -> Array:
    """The ends of ``points`` after ``count`` flows, ``flows[first]``, ``flows[first + step]``...; flows are
    ``(n, H, W, 2)`` px."""
    out = points.copy()
    H, W = flows.shape[1:3]
    for n in range(len(out)):
        x, y = out[n, 0], out[n, 1]
        for k in range(count):
            flow = flows[first + k * step]
            x0, x1, fx = _corner(x, W)
            y0, y1, fy = _corner(y, H)
            a, b = (np.float32(1) - fx) * (np.float32(1) - fy), fx * (np.float32(1) - fy)
            c, d = (np.float32(1) - fx) * fy, fx * fy
            dx = a * flow[y0, x0, 0] + b * flow[y0, x1, 0] + c * flow[y1, x0, 0] + d * flow[y1, x1, 0]
            dy = a * flow[y0, x0, 1] + b * flow[y0, x1, 1] + c * flow[y1, x0, 1] + d * flow[y1, x1, 1]
            x, y = x + dx, y + dy
        out[n, 0], out[n, 1] = x, y
    return out


@_compiled
def cycle_error(points: Array, landed: Array, returned: Array, height: int, width: int) -> Array:
    """Distance ``(N,)`` px between ``points`` and where they are ``returned`` to from where they ``landed``; inf where
    that is outside the frame."""
    error = np.empty(len(points), np.float32)
    for n in range(len(points)):
        x, y = landed[n, 0], landed[n, 1]
        inside = -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5
        dx, dy = returned[n, 0] - points[n, 0], returned[n, 1] - points[n, 1]
        error[n] = np.sqrt(dx * dx + dy * dy) if inside else np.float32(np.inf)
    return error


@_compiled
def luminance_residual(pixels: Array, points: Array, L: Array, source_L: Array, weights: Array) -> Array:
    """Difference in luminance ``(N,)`` between ``pixels`` of frame ``L`` and the ``points`` of ``source_L`` that they
    match, averaged by a Gaussian window of one-sided ``weights`` ``(WINDOW + 1,)`` over the pixels of the list."""
    H, W = L.shape
    place = np.full(H * W, -1, np.int32)
    difference = np.empty(len(pixels), np.float32)
    for n in range(len(pixels)):
        place[pixels[n]] = n
        value = _bilinear(source_L, points[n, 0], points[n, 1])
        difference[n] = abs(value - L[pixels[n] // W, pixels[n] % W])
    across, out = np.empty_like(difference), np.empty_like(difference)
    for axis in range(2):
        values, blurred = (difference, across) if axis == 0 else (across, out)
        for n in range(len(pixels)):
            y, x = pixels[n] // W, pixels[n] % W
            total, share = np.float32(0), np.float32(0)
            for d in range(-WINDOW, WINDOW + 1):
                i, size = (x + d, W) if axis == 0 else (y + d, H)
                i = -i if i < 0 else (2 * size - 2 - i if i >= size else i)  # reflected at the border
                i = min(max(i, 0), size - 1)
                m = place[y * W + i] if axis == 0 else place[i * W + x]
                if m >= 0:
                    w = weights[abs(d)]
                    total += w * values[m]
                    share += w
            blurred[n] = total / share
    return out


@_compiled
def gather(
    pixels: Array, points: Array, sigma: Array, L: Array, source_L: Array, source_ab: Array, luminance_sigma: float
) -> Array:
    """Colors ``(N, 2)`` for ``pixels`` of frame ``L``: a joint bilateral mean of ``source_ab`` ``(2, H, W)`` around
    ``points``, ``sigma`` ``(N,)`` px wide; plain bilinear sampling mixes the two sides of an edge."""
    H, W = source_L.shape
    out = np.empty((len(pixels), 2), np.float32)
    across = np.empty(2 * REACH + 1, np.float32)
    per_sigma = np.float32(1 / luminance_sigma)
    for n in range(len(pixels)):
        target = L[pixels[n] // L.shape[1], pixels[n] % L.shape[1]]
        px, py = (
            min(max(points[n, 0], np.float32(-1)), np.float32(W)),
            min(max(points[n, 1], np.float32(-1)), np.float32(H)),
        )
        cx, cy = int(np.rint(px)), int(np.rint(py))
        narrow = np.float32(0.5) / (sigma[n] * sigma[n])
        r = min(max(int(np.rint(1.7 * sigma[n])), 1), REACH)
        for k in range(-r, r + 1):
            across[k + r] = np.exp(-narrow * (cx + k - px) * (cx + k - px))
        a, b, total = np.float32(0), np.float32(0), np.float32(0)
        for ny in range(cy - r, cy + r + 1):
            iy = min(max(ny, 0), H - 1)
            down = np.exp(-narrow * (ny - py) * (ny - py))
            for k in range(-r, r + 1):
                ix = min(max(cx + k, 0), W - 1)
                difference = (source_L[iy, ix] - target) * per_sigma
                w = down * across[k + r] * (np.exp(np.float32(-0.5) * difference * difference) + np.float32(1e-3))
                a += w * source_ab[0, iy, ix]
                b += w * source_ab[1, iy, ix]
                total += w
        out[n, 0], out[n, 1] = a / total, b / total
    return out


@_compiled
def sample(image: Array, points: Array) -> Array:
    """``image`` ``(H, W)`` read bilinearly at ``points``: ``(N,)``."""
    out = np.empty(len(points), np.float32)
    for n in range(len(points)):
        out[n] = _bilinear(image, points[n, 0], points[n, 1])
    return out


@_compiled
def nearest(points: Array, height: int, width: int) -> Array:
    """The numbers ``(N,)`` of the pixels nearest to ``points``, inside the frame."""
    out = np.empty(len(points), np.int64)
    for n in range(len(points)):
        x = min(max(int(np.rint(points[n, 0])), 0), width - 1)
        y = min(max(int(np.rint(points[n, 1])), 0), height - 1)
        out[n] = y * width + x
    return out


def points_of(pixels: Array, width: int) -> Array:
    """The centers ``(N, 2)`` of pixels."""
    return np.stack([pixels % width, pixels // width], -1).astype(np.float32)
