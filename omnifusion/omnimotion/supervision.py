"""The flows that a volume is fitted to, and batches of rays drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion import flow as of

Array = np.ndarray
Pair = tuple[int, int]
CYCLE = 1.0
"""A flow is trusted where going there and back ends within this many pixels."""


@dataclass(frozen=True)
class Flows:
    """Checked flows at the fit size: pair -> flow ``(H, W, 2)`` float32 and cycle error ``(H, W)`` float32 (inf = failed)."""

    size: tuple[int, int]
    flow: dict[Pair, Array]
    error: dict[Pair, Array]


def chains(step: dict[Pair, Array], frames: int, wanted: list[int]) -> dict[Pair, Array]:
    """Flows over all ``wanted`` gaps, ascending, composed of the gap-1 flows ``step`` alone."""
    out = dict(step)
    for before, g in zip(wanted, wanted[1:], strict=False):
        for i in range(frames - g):
            j, rest = i + g, g - before
            out[i, j] = of.compose(out[i, i + before], out[i + before, j])
            out[j, i] = of.compose(out[j, i + rest], out[i + rest, i])
    return out


def collect(images: Array, wanted: list[int]) -> Flows:
    """Refined flows of ``images`` ``(T, H, W)`` uint8: gap 1 cold, every longer gap started from its chain."""
    frames = len(images)
    ones = [(i, j) for i in range(frames) for j in (i - 1, i + 1) if 0 <= j < frames]
    step = dict(zip(ones, of.parallel(lambda p: of.raw_dis(images[p[0]], images[p[1]]), ones), strict=True))
    start = chains(step, frames, wanted)
    long = [p for p in start if abs(p[0] - p[1]) > 1]
    flow = step | dict(
        zip(long, of.parallel(lambda p: of.raw_dis(images[p[0]], images[p[1]], start[p]), long), strict=True)
    )
    return check(images, flow)


def check(images: Array, flow: dict[Pair, Array]) -> Flows:
    """Flows with their forward-backward error."""
    error = {}
    for (i, j), f in flow.items():
        e = of.cycle_error(f, flow[j, i])
        error[i, j] = np.where(e < CYCLE, e, np.float32(np.inf))
    return Flows(images.shape[1:], flow, error)


@dataclass
class Rays:
    """One batch: positions and targets ``(R, 2)`` in volume units, frames ``(R,)``, confidences ``(R,)``."""

    xy: Tensor
    i: Tensor
    j: Tensor
    q: Tensor
    confidence: Tensor


class Sampler:
    """Draws rays: pairs by (trusted pixels) gap^1/2 up to the curriculum's gap, pixels stratified over the raster."""

    def __init__(self, flows: Flows) -> None:
        self.flows = flows
        self.pairs = list(flows.flow)
        self.where = [np.flatnonzero(np.isfinite(flows.error[p])).astype(np.int32) for p in self.pairs]
        self.gap = np.array([abs(i - j) for i, j in self.pairs])
        self.weight = np.array([len(w) for w in self.where]) * self.gap**0.5

    def draw(self, rng: np.random.Generator, largest: float, pairs: int, rays: int) -> Rays:
        """``pairs`` times ``rays`` rays from pairs of gap <= ``largest``."""
        weight = np.where(self.gap <= max(largest, 1), self.weight, 0.0)
        chosen = rng.choice(len(self.pairs), pairs, p=weight / weight.sum())
        H, W = self.flows.size
        xy, q, c = [], [], []
        for k in chosen:
            where = self.where[k]
            at = where[((np.arange(rays) + rng.random(rays)) * (len(where) / rays)).astype(np.int64)]
            y, x = np.divmod(at, W)
            p = np.stack([x, y], -1).astype(np.float32)
            xy.append(p)
            q.append(p + self.flows.flow[self.pairs[k]][y, x])
            c.append(np.exp(-((self.flows.error[self.pairs[k]][y, x] / 0.5) ** 2)))
        ij = np.repeat(np.array([self.pairs[k] for k in chosen]), rays, axis=0)
        points = [torch.from_numpy(to_volume(np.concatenate(v), (H, W))) for v in (xy, q)]
        return Rays(
            points[0],
            torch.from_numpy(ij[:, 0]),
            torch.from_numpy(ij[:, 1]),
            points[1],
            torch.from_numpy(np.concatenate(c)),
        )


def to_volume(points: Array, size: tuple[int, int]) -> Array:
    """Pixels ``(N, 2)`` of a frame of ``size`` (H, W) to volume units: centre 0, longer side [-1, 1]."""
    H, W = size
    half = max(H, W) / 2
    return ((points + 0.5 - np.array([W / 2, H / 2], np.float32)) / half).astype(np.float32)


def to_pixels(points: Array, size: tuple[int, int]) -> Array:
    """The inverse of ``to_volume``."""
    H, W = size
    return (points * (max(H, W) / 2) + np.array([W / 2, H / 2], np.float32) - 0.5).astype(np.float32)


def affine_starts(flows: Flows, frames: int) -> Array:
    """Affine maps ``(T, 2, 3)`` in volume units from each frame to the middle one, by RANSAC over trusted flow.

    Frames without a direct pair to the middle go through their nearest neighbour that has a start.
    """
    middle = frames // 2
    out = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float64), (frames, 1, 1))
    for t in sorted(range(frames), key=lambda t: abs(t - middle))[1:]:
        hop = next(
            (m for m in sorted(range(frames), key=lambda m: abs(m - middle)) if abs(m - middle) < abs(t - middle)
             and (t, m) in flows.flow),
            middle,
        )
        step = _affine(flows, (t, hop))
        full = np.vstack([out[hop], [0, 0, 1]]) @ np.vstack([step, [0, 0, 1]])
        out[t] = full[:2]
    return out.astype(np.float32)


def _affine(flows: Flows, pair: Pair) -> Array:
    identity = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
    y, x = np.nonzero(np.isfinite(flows.error[pair]))
    if len(x) < 50:
        return identity
    pick = np.linspace(0, len(x) - 1, 2000).astype(int)
    p = np.stack([x[pick], y[pick]], -1).astype(np.float32)
    q = p + flows.flow[pair][y[pick], x[pick]]
    cv2.setRNGSeed(0)
    found, _ = cv2.estimateAffine2D(to_volume(p, flows.size), to_volume(q, flows.size), ransacReprojThreshold=0.02)
    if found is None or np.linalg.det(found[:, :2]) < 0.2 or np.linalg.det(found[:, :2]) > 5:
        return identity
    return found
