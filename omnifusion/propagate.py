"""The inter-frame propagation step (paper, section 3.1, eq. 1): a colored frame colors every pixel that sees it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numba
import numpy as np
import torch
from torch import Tensor

from omnifusion.flow import confidence as judge
from omnifusion.flow import dis as of
from omnifusion.flow.tracker import Correspondence, most_likely
from omnifusion.geometry import pixel_grid
from omnifusion.state import ColorEstimate, ColorState, Origin, Tracker, pixel_numbers

BELIEVED = 0.9
"""Probability from which a fetched color is taken for good; else it is one witness among others."""

LUMINANCE_SIGMA = 10.0
"""L* difference at which a neighbor's say in the fetched color falls to 0.6."""

STILL_SIGMA = 0.3
"""The same for its distance in pixels where nothing moves (almost a copy)."""

STILL, MOVING = 0.25, 0.75
"""Motion in pixels up to which a point is still and from which on it moves."""

MOVING_SIGMA, WIDEST, REACH = 1.6, 1.5, 3
"""The sigma of a moving point where chroma varies by 1, the largest, and how far is looked, in pixels."""


def fetch_sigma(flow: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """How wide ``(H, W)``, in pixels, a color is to be gathered around its match.

    The more chroma varies there, the narrower; wider means noise off. Measured (docs/propagation.md); what stands still
    has the same noise in both frames and is copied.

    Args:
        flow: ``(H, W, 2)`` px.
        spread: standard deviation of chroma around the match (``flow.judge.chroma_spread``).
    """
    moving = np.minimum(MOVING_SIGMA * (spread + 0.2) ** -0.3, WIDEST)
    motion = np.clip((np.linalg.norm(flow, axis=-1) - STILL) / (MOVING - STILL), 0, 1)
    return (STILL_SIGMA + (moving - STILL_SIGMA) * motion).astype(np.float32)


def fetch(ab: Tensor, L: Tensor, flow: np.ndarray, sigma: np.ndarray, target_L: Tensor, where: Tensor) -> Tensor:
    """The color of a frame along a flow into it, for the pixels of another.

    A joint bilateral mean around a point: plain bilinear sampling mixes the two sides of an edge.

    Args:
        ab: ``(2, H, W)``, L: ``(1, H, W)`` of the frame that is colored.
        flow: ``(H, W, 2)`` px from the asking frame, whose luminance is ``target_L`` ``(1, H, W)``.
        sigma: ``(H, W)`` px, see ``fetch_sigma``.
        where: ``(H, W)`` bool, its pixels that ask; the others stay gray.

    Returns:
        ``(2, H, W)``.
    """
    colors = np.ascontiguousarray(ab.permute(1, 2, 0).numpy())
    fetched = _bilateral(colors, L[0].numpy(), np.ascontiguousarray(flow), sigma, target_L[0].numpy(), where.numpy())
    return torch.from_numpy(fetched).permute(2, 0, 1).contiguous()


@numba.njit(cache=True, fastmath=True, nogil=True)
def _bilateral(
    ab: np.ndarray, L: np.ndarray, flow: np.ndarray, sigma: np.ndarray, target_L: np.ndarray, where: np.ndarray
) -> np.ndarray:
    H, W = L.shape
    out = np.zeros((H, W, 2), np.float32)
    across = np.empty(2 * REACH + 1, np.float32)
    for y in range(H):
        for x in range(W):
            if not where[y, x]:
                continue
            px, py = min(max(x + flow[y, x, 0], -1.0), float(W)), min(max(y + flow[y, x, 1], -1.0), float(H))
            cx, cy = int(np.rint(px)), int(np.rint(py))
            narrow = np.float32(0.5) / sigma[y, x] ** 2
            r = min(max(int(np.rint(1.7 * sigma[y, x])), 1), REACH)
            for n in range(-r, r + 1):
                across[n + r] = np.exp(-narrow * np.float32(cx + n - px) ** 2)
            a, b, total = np.float32(0), np.float32(0), np.float32(0)
            for ny in range(cy - r, cy + r + 1):
                iy = min(max(ny, 0), H - 1)
                down = np.exp(-narrow * np.float32(ny - py) ** 2)
                for n in range(-r, r + 1):
                    ix = min(max(cx + n, 0), W - 1)
                    difference = (L[iy, ix] - target_L[y, x]) / np.float32(LUMINANCE_SIGMA)
                    alike = np.exp(np.float32(-0.5) * difference * difference) + np.float32(1e-3)
                    w = down * across[n + r] * alike
                    a += w * ab[iy, ix, 0]
                    b += w * ab[iy, ix, 1]
                    total += w
            out[y, x, 0], out[y, x, 1] = a / total, b / total
    return out


def fetched(
    tracker: Tracker, state: ColorState, i: int, j: int, near: bool = False, literal: bool = False
) -> tuple[ColorEstimate, Tensor]:
    """What frame ``j`` says of the colors of frame ``i``, eq. (1).

    Args:
        tracker: asked for all pixels; of several answers the one most likely right is taken.
        state: what is gray in frame ``j`` says nothing.
        near: the frames are near each other: a cheap answer will do.
        literal: believe the tracker alone, as the paper does.

    Returns:
        the colors, with the probability that each is right (that of the match times that of its source), and
        ``(H, W)`` bool: whose match is believed.
    """
    L, target_L = state.L[j, 0].numpy(), state.L[i, 0].numpy()
    spread = _spread(state.ab[j])
    best, p = most_likely(correspondences(tracker, i, j, L.shape, near), target_L, L, None if literal else spread)
    points = of.grid(*L.shape) + best.flow
    sigma = fetch_sigma(best.flow, of.remap(spread, points))
    ab = fetch(state.ab[j], state.L[j], best.flow, sigma, state.L[i], ~state.colored(i))
    p = p * (of.remap(state.colored(j).float().numpy(), points) > 0.99)
    sure = torch.from_numpy(p * of.remap(state.confidence[j].float().numpy(), points))
    return ColorEstimate(ab, sure, nearest(pixel_numbers(j, L.shape), points)), torch.from_numpy(p > BELIEVED)


def between(
    one: tuple[ColorEstimate, Tensor], other: tuple[ColorEstimate, Tensor], way: float
) -> tuple[ColorEstimate, Tensor]:
    """What two exemplars say of a frame at a share ``way`` of the way from one to the other: where both are believed,
    their colors pass into each other in time, so that there is no seam; else the one that is."""
    (a, sure_a), (b, sure_b) = one, other
    weight_a, weight_b = (1 - way) * a.confidence * sure_a, way * b.confidence * sure_b
    share = weight_b / (weight_a + weight_b).clamp_min(1e-6)
    source = None
    if a.source is not None and b.source is not None:
        source = torch.where(share > 0.5, b.source, a.source)
    return ColorEstimate(a.ab.lerp(b.ab, share), a.confidence.lerp(b.confidence, share), source), sure_a | sure_b


def nearest(values: Tensor, points: np.ndarray) -> Tensor:
    """``values`` ``(H, W)`` at the pixels nearest to ``points`` ``(h, w, 2)``, the border repeated."""
    x, y = (np.rint(points[..., k]).clip(0, values.shape[1 - k] - 1).astype(np.int64) for k in (0, 1))
    return values[torch.from_numpy(y), torch.from_numpy(x)]


@lru_cache(maxsize=8)
def _spread(ab: Tensor) -> np.ndarray:
    """``judge.chroma_spread`` of a frame's ab ``(2, H, W)``; many frames ask one, and a state's frames never change."""
    return judge.chroma_spread(np.ascontiguousarray(ab.permute(1, 2, 0).numpy()))


def correspondences(tracker: Tracker, i: int, j: int, size: tuple[int, ...], near: bool) -> list[Correspondence]:
    """The tracker's answers for all pixels of frame ``i``; one that knows only points is asked for each."""
    if hasattr(tracker, "pairs"):
        return tracker.pairs(i, j, near)
    grid = pixel_grid(size[0], size[1])
    points, visible = tracker.correspond(grid.reshape(-1, 2), i, j)
    cycle = np.where(visible.numpy(), np.float32(0), np.float32(np.inf)).reshape(size)
    return [Correspondence((points.reshape(grid.shape) - grid).numpy(), cycle)]


def propagate(
    tracker: Tracker,
    state: ColorState,
    i: int,
    iteration: int,
    frames: Iterable[int] | None = None,
    near: bool = False,
    literal: bool = False,
    beside: int | None = None,
) -> ColorState:
    """X, M = InterFramePropagationStep(x_i, X, M, i): color the gray pixels that are visible in frame ``i``.

    A departure from the paper, which trusts the tracker alone (``literal``): a pixel is colored for good, so its
    color must be believed to be right, too (``flow.judge``).

    Args:
        tracker: correspondence at the working size.
        state: what is gray in frame ``i`` colors nothing.
        i: the exemplar frame.
        iteration: Algorithm 1's iteration.
        frames: those that may be colored; None = all.
        near, literal: see ``fetched``.
        beside: an exemplar on the other side of ``frames``, which has its say, too.
    """
    updates, sure, sources = {}, {}, {}
    for j in range(len(state)) if frames is None else frames:
        if j != i and not state.whole(j):
            found, believed = fetched(tracker, state, j, i, near, literal)
            if beside is not None:
                other = fetched(tracker, state, j, beside, near, literal)
                found, believed = between((found, believed), other, abs(j - i) / abs(beside - i))
            updates[j], sure[j] = (believed, found.ab), found.confidence
            if found.source is not None:
                sources[j] = found.source
    return state.paint(updates, iteration, Origin.PROPAGATED, sure, sources)
