"""The flows that a volume is fitted to, and the rays drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from omnifusion import flow as of

Array = np.ndarray
Pair = tuple[int, int]
UNLIKE = 20.0
"""A flow is trusted where its cycle closes and the grey levels (of 255) around both ends differ no more."""


@dataclass(frozen=True)
class Flows:
    """Checked flows at the fit size.

    Attributes:
        pairs: index of each ordered pair of frames.
        flow: ``(P, H, W, 2)`` float16 pixels.
        error: ``(P, H, W)`` float16 cycle error in pixels; inf where the flow is not trusted.
    """

    pairs: dict[Pair, int]
    flow: Array
    error: Array

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.flow.shape[1:3]

    def coverage(self, pair: Pair) -> float:
        """Share of the source frame whose flow is trusted."""
        return float(np.isfinite(self.error[self.pairs[pair]]).mean())

    def improve(self, images: Array, i: int, j: int, there: Array, back: Array) -> None:
        """Takes the flows ``there`` (i to j) and ``back`` where they are trusted and less doubtful than those held."""
        for pair, f, b in (((i, j), there, back), ((j, i), back, there)):
            k = self.pairs[pair]
            source, target = images[pair[0]], images[pair[1]]
            held = of.appearance_error(source, target, self.flow[k].astype(np.float32))
            error, unlike = of.cycle_error(f, b), of.appearance_error(source, target, f)
            less = of.doubt(error, unlike) < of.doubt(self.error[k], held)
            better = (error < of.CYCLE) & (unlike < UNLIKE) & (~np.isfinite(self.error[k]) | less)
            self.error[k][better] = error[better]
            self.flow[k][better] = f[better]


def chains(step: dict[Pair, Array], frames: int, wanted: list[int]) -> dict[Pair, Array]:
    """Flows over all ``wanted`` gaps, ascending, composed of the gap-1 flows ``step`` alone."""
    out = dict(step)
    for before, g in pairwise(wanted):
        for i in range(frames - g):
            j, rest = i + g, g - before
            out[i, j] = of.compose(out[i, i + before], out[i + before, j])
            out[j, i] = of.compose(out[j, i + rest], out[i + rest, i])
    return out


def collect(images: Array, wanted: list[int], search: of.Search = of.raw_dis) -> Flows:
    """Checked flows of ``images`` ``(T, H, W)`` uint8 over all ``wanted`` gaps: gap 1 cold, the rest started from
    its chain."""
    frames = len(images)
    ones = [(i, j) for i in range(frames) for j in (i - 1, i + 1) if 0 <= j < frames]
    step = dict(zip(ones, of.parallel(lambda p: search(images[p[0]], images[p[1]], None), ones), strict=True))
    start = chains(step, frames, wanted)
    pairs = {p: k for k, p in enumerate(start)}
    shape = (len(pairs), *images.shape[1:])
    flows = Flows(pairs, np.zeros((*shape, 2), np.float16), np.full(shape, np.inf, np.float16))
    refine(flows, images, start.__getitem__, search, cold=False)
    return flows


def refine(
    flows: Flows, images: Array, start: Callable[[Pair], Array], search: of.Search = of.raw_dis, cold: bool = True
) -> None:
    """``search`` from each pair's ``start``, forward and back; ``flows`` takes what is better. Gap 1 is kept as it is
    unless ``cold``."""

    def one(pair: Pair) -> None:
        i, j = pair
        both = start((i, j)), start((j, i))
        if cold or j - i > 1:
            both = of.search_both(images[i], images[j], *both, search)
        flows.improve(images, i, j, *both)

    of.parallel(one, [p for p in flows.pairs if p[0] < p[1]])


def steady(flows: Flows, images: Array, search: of.Search = of.raw_dis) -> None:
    """``search`` for what is left once the dominant affine motion has warped one frame onto the other, for every pair;
    ``flows`` takes what is better: along chains, smooth regions drift and settle on a wrong answer."""
    maps = affine_starts(flows, len(images))[-1]

    def one(pair: Pair) -> None:
        i, j = pair
        starts = affine_flow(maps[i], maps[j], flows.size), affine_flow(maps[j], maps[i], flows.size)
        there, back = (
            of.through_warp(search, images[a], images[b], s) for a, b, s in ((i, j, starts[0]), (j, i, starts[1]))
        )
        flows.improve(images, i, j, there, back)

    of.parallel(one, [p for p in flows.pairs if p[0] < p[1]])


class Sampler:
    """Draws rays: pairs by (trusted pixels) gap^1/2 up to the curriculum's gap, pixels stratified over the raster.

    Hard examples: of two candidates in each stratum the one with the larger error so far is taken half of the time;
    the errors of what was drawn are remembered per source frame and cell of ``CELL`` pixels.
    """

    CELL = 4
    MEMORY = 0.8

    def __init__(self, flows: Flows) -> None:
        self.flows = flows
        P, H, W = flows.error.shape
        frames = max((max(p) for p in flows.pairs), default=0) + 1
        self.ij = np.array(list(flows.pairs), np.int64).reshape(-1, 2)
        finite = np.isfinite(flows.error).reshape(P, -1)
        self.count = finite.sum(1)
        self.where = np.concatenate([np.flatnonzero(of_pair).astype(np.int32) for of_pair in finite])
        self.offset = np.concatenate([[0], np.cumsum(self.count)[:-1]])
        self.gap = np.abs(self.ij[:, 0] - self.ij[:, 1])
        self.weight = self.count * self.gap**0.5
        self.error = np.zeros((frames, -(-H // self.CELL), -(-W // self.CELL)), np.float32)

    def draw(self, rng: np.random.Generator, largest: float, pairs: int, rays: int) -> tuple[Array, ...]:
        """``pairs`` times ``rays`` rays of gap <= ``largest``: xy, i, j, q, confidence as ``Volume.loss`` takes
        them, and pixels."""
        H, W = self.flows.size
        weight = np.where(self.gap <= max(largest, 1), self.weight, 0.0)
        if weight.sum() == 0:
            weight = self.weight
        k = rng.choice(len(self.count), pairs, p=weight / weight.sum())[:, None]
        strata = (np.arange(rays) + rng.random((2, pairs, rays))) * (self.count[k] / rays)
        two = self.where[self.offset[k] + np.minimum(strata.astype(np.int64), self.count[k] - 1)]
        i, j = (np.broadcast_to(self.ij[k, n], (pairs, rays)).ravel() for n in (0, 1))
        hard = self._errors(i, two, W)
        second = (hard[1] > hard[0]) & (rng.random((pairs, rays)) < 0.5)
        at = np.where(second, two[1], two[0])
        y, x = np.divmod(at, W)
        p = np.stack([x, y], -1).astype(np.float32)
        q = p + self.flows.flow[k, y, x].astype(np.float32)
        confidence = np.exp(-((self.flows.error[k, y, x].astype(np.float32) / 0.5) ** 2))
        xy, q = (to_volume(v.reshape(-1, 2), (H, W)) for v in (p, q))
        return xy, i.copy(), j.copy(), q, confidence.ravel(), at.ravel()

    def _errors(self, i: Array, at: Array, W: int) -> Array:
        flat = at.reshape(2, -1)
        return self.error[i, flat // W // self.CELL, flat % W // self.CELL].reshape(at.shape)

    def learn(self, i: Array, at: Array, each: Array) -> None:
        """Remember the flow losses ``each`` of rays at pixels ``at`` of frames ``i``."""
        W = self.flows.size[1]
        cell = (i, at // W // self.CELL, at % W // self.CELL)
        self.error[cell] = self.MEMORY * self.error[cell] + (1 - self.MEMORY) * each


def to_volume(points: Array, size: tuple[int, int]) -> Array:
    """Pixels ``(N, 2)`` of a frame of ``size`` (H, W) to volume units: centre 0, longer side [-1, 1]."""
    H, W = size
    return ((points + 0.5 - np.array([W / 2, H / 2], np.float32)) / (max(H, W) / 2)).astype(np.float32)


def to_pixels(points: Array, size: tuple[int, int]) -> Array:
    """The inverse of ``to_volume``."""
    H, W = size
    return (points * (max(H, W) / 2) + np.array([W / 2, H / 2], np.float32) - 0.5).astype(np.float32)


MOVES_APART = 2.0
"""Pixels by which something must leave the motions known so far to be another layer."""
LEAST_LAYER = 0.015
"""Share of the middle frame that another layer covers at least."""
LAYERS = 3
COVERED = 0.5
"""A hop of the dominant motion needs trusted flow on this share of the frame, if any pair of frames has it."""


def affine_starts(flows: Flows, frames: int) -> Array:
    """Affine maps ``(layers, T, 2, 3)`` in volume units from each frame to the middle one, the largest layer last.

    The largest layer is the dominant motion (RANSAC over trusted flow); each further one is the dominant motion of what
    moves apart from all before it in most frames. At most ``LAYERS``.
    """
    nearest = sorted(range(frames), key=lambda t: abs(t - frames // 2))
    layers = [_to_middle(flows, nearest, None)]
    while len(layers) < LAYERS:
        apart = _apart(flows, frames // 2, layers)
        if apart.mean() < LEAST_LAYER:
            break
        layers.append(_to_middle(flows, nearest, apart))
    return np.stack(layers[::-1]).astype(np.float32)


def affine_flow(source: Array, target: Array, size: tuple[int, int]) -> Array:
    """The flow ``(H, W, 2)`` between two frames whose affine maps ``(2, 3)`` lead to the same middle one."""
    whole = np.linalg.inv(np.vstack([target, [0, 0, 1]])) @ np.vstack([source, [0, 0, 1]])
    start = of.grid(*size)
    p = to_volume(start.reshape(-1, 2), size)
    return to_pixels((p @ whole[:2, :2].T + whole[:2, 2]).astype(np.float32), size).reshape(start.shape) - start


def _to_middle(flows: Flows, nearest: list[int], where: Array | None) -> Array:
    """Maps ``(T, 2, 3)`` to the first of ``nearest``, of its pixels ``where``; through a hop where there is no
    direct flow."""
    middle = nearest[0]
    out = np.tile(np.eye(3), (len(nearest), 1, 1))
    for n, t in enumerate(nearest[1:], 1):
        nearer = [m for m in nearest[:n] if (m, t) in flows.pairs and abs(m - middle) < abs(t - middle)]
        closest = min(nearer, key=lambda m: abs(m - t))
        hop = next((m for m in nearer if where is not None or flows.coverage((m, t)) > COVERED), closest)
        found = _affine(flows, (hop, t), where if hop == middle else None)
        before = nearest[max(n - 2, 0)]
        whole = out[before] if found is None else out[hop] @ np.linalg.inv(np.vstack([found, [0, 0, 1]]))
        out[t] = whole if 0.1 < np.linalg.det(whole[:2, :2]) < 10 else np.eye(3)
    return out[:, :2]


def _apart(flows: Flows, middle: int, layers: list[Array]) -> Array:
    """Pixels ``(H, W)`` bool of the middle frame that leave the motions of all layers in most frames where they are
    trusted."""
    H, W = flows.size
    grid = of.grid(H, W)
    left, trusted_in = np.zeros((H, W)), np.zeros((H, W))
    for t in range(len(layers[0])):
        if (middle, t) not in flows.pairs:
            continue
        k = flows.pairs[middle, t]
        there = to_volume((grid + flows.flow[k].astype(np.float32)).reshape(-1, 2), (H, W))
        homes = [to_pixels(there @ m[t, :, :2].T + m[t, :, 2], (H, W)).reshape(H, W, 2) for m in layers]
        off = np.min([np.linalg.norm(home - grid, axis=-1) for home in homes], axis=0)
        good = np.isfinite(flows.error[k])
        trusted_in += good
        left += good & (off > MOVES_APART)
    return (left > 0.5 * trusted_in) & (trusted_in > 0)


def _affine(flows: Flows, pair: Pair, where: Array | None) -> Array | None:
    """The affine motion ``(2, 3)`` in volume units of the trusted pixels ``where`` of ``pair[0]``; None where it is
    not found."""
    k = flows.pairs[pair]
    good = np.isfinite(flows.error[k])
    y, x = np.nonzero(good if where is None else good & where)
    if len(x) < 50:
        return None
    pick = np.linspace(0, len(x) - 1, 2000).astype(int)
    p = np.stack([x[pick], y[pick]], -1).astype(np.float32)
    q = p + flows.flow[k][y[pick], x[pick]].astype(np.float32)
    ends = to_volume(p, flows.size), to_volume(q, flows.size)
    cv2.setRNGSeed(0)
    found, _ = cv2.estimateAffine2D(*ends, ransacReprojThreshold=1.5 / (max(flows.size) / 2))
    return None if found is None or not 0.2 < np.linalg.det(found[:, :2]) < 5 else found
