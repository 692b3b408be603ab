"""The checked flows that a volume is fitted to, the rays that are drawn from them, and the layers that move apart."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from omnifusion.flow import dis as of
from omnifusion.flow.features import affine_motion
from omnifusion.omnimotion.volume import Rays, to_pixels, to_volume
from omnifusion.pool import parallel

Array = np.ndarray
Pair = tuple[int, int]
BATCH = 8  # pairs of frames that are searched at once, there and back
LOOKS_ALIKE = 20.0
"""A flow is trusted where its cycle closes and gray levels (of 255) around its ends differ by at most this."""
MOVES_APART, LEAST_LAYER, LAYERS = 2.0, 0.015, 3
"""Least pixels by which another layer leaves the known motions, least share of the middle frame that it covers, and
most layers."""
COVERED = 0.5
"""A hop of the dominant motion needs trusted flow on this share of the frame, if any pair of frames has it."""


@dataclass(frozen=True)
class Flows:
    """Checked flows at the fit size."""

    pairs: dict[Pair, int]  # the index of each ordered pair of frames
    flow: Array  # (P, H, W, 2) float16, in pixels
    error: Array  # (P, H, W) float16, cycle error in pixels; inf where the flow is not trusted

    @classmethod
    def unknown(cls, images: Array, intervals: list[int]) -> Flows:
        """The flows of all pairs of ``images`` ``(T, H, W)`` at these intervals, none trusted yet."""
        ways = [way for n in intervals for i in range(len(images) - n) for way in ((i, i + n), (i + n, i))]
        shape = (len(ways), *images.shape[1:])
        pairs = {way: k for k, way in enumerate(ways)}
        return cls(pairs, np.zeros((*shape, 2), np.float16), np.full(shape, np.inf, np.float16))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.flow.shape[1:3]

    @property
    def forward(self) -> list[Pair]:
        """The pairs whose first frame is the earlier one."""
        return [pair for pair in self.pairs if pair[0] < pair[1]]

    def of(self, pair: Pair) -> Array:
        """Flow ``(H, W, 2)`` float32 of one pair."""
        return self.flow[self.pairs[pair]].astype(np.float32)

    def trusted(self, pair: Pair) -> Array:
        """Pixels ``(H, W)`` bool of the source frame whose flow is trusted."""
        return np.isfinite(self.error[self.pairs[pair]])

    def improve(self, images: Array, i: int, j: int, there: Array, back: Array) -> None:
        """Take the flows ``there`` (i to j) and ``back`` where they cost less than present ones, or none is trusted."""
        for pair, f, b in (((i, j), there, back), ((j, i), back, there)):
            k, held = self.pairs[pair], self.trusted(pair)
            costs = [of.appearance_error(images[pair[0]], images[pair[1]], flow) for flow in (f, self.of(pair))]
            error = of.cycle_error(f, b)
            trusted = (error < of.CYCLE) & (costs[0] < LOOKS_ALIKE)
            better = ~held | (trusted & (costs[0] + error < costs[1] + self.error[k]))
            self.error[k][better] = np.where(trusted, error, np.inf)[better]
            self.flow[k][better] = f[better]


def collect(images: Array, intervals: list[int]) -> Flows:
    """Checked flows of ``images`` ``(T, H, W)`` uint8 over all ``intervals`` (``flow.dis.intervals``): between
    neighbors without a start, each longer one started by two shorter ones in sequence."""
    flows = Flows.unknown(images, intervals)
    for shorter, interval in pairwise([0, *intervals]):

        def answer(i: int, j: int, shorter: int = shorter) -> Array:
            middle = i + shorter if i < j else i - shorter
            start = of.compose(flows.of((i, middle)), flows.of((middle, j))) if shorter else None
            return of.dis(images[i], images[j], start)

        def one(pair: Pair) -> None:
            flows.improve(images, *pair, answer(*pair), answer(*pair[::-1]))

        parallel(one, [pair for pair in flows.forward if pair[1] - pair[0] == interval])
    return flows


def collect_at_once(images: Array, intervals: list[int], search: of.SearchMany) -> Flows:
    """``collect`` with a search that needs no start, many pairs at once, there and back."""
    flows = Flows.unknown(images, intervals)
    for n in range(0, len(flows.forward), BATCH):
        part = flows.forward[n : n + BATCH]
        i, j = (images[[pair[k] for pair in part]] for k in (0, 1))
        results = search(np.concatenate([i, j]), np.concatenate([j, i]))
        for pair, there, back in zip(part, results[: len(part)], results[len(part) :], strict=True):
            flows.improve(images, *pair, there, back)
    return flows


class Sampler:
    """Draws rays from trusted flow: pairs by their weight (trusted pixels) interval^1/2, pixels stratified."""

    def __init__(self, flows: Flows) -> None:
        self.flows = flows
        self.ij = np.array(list(flows.pairs), np.int64).reshape(-1, 2)
        trusted = np.isfinite(flows.error).reshape(len(self.ij), -1)
        self.count = trusted.sum(1)
        self.where = np.concatenate([np.flatnonzero(of_pair).astype(np.int32) for of_pair in trusted])
        self.offset = np.concatenate([[0], np.cumsum(self.count)[:-1]])
        self.interval = np.abs(self.ij[:, 0] - self.ij[:, 1])
        self.weight = self.count * self.interval**0.5

    def draw(self, rng: np.random.Generator, largest: float, pairs: int, rays: int) -> Rays:
        """``rays`` rays of each of ``pairs`` pairs whose interval is at most ``largest``."""
        weight = np.where(self.interval <= max(largest, 1), self.weight, 0.0)
        if weight.sum() == 0:
            weight = self.weight
        k = rng.choice(len(self.count), pairs, p=weight / weight.sum())
        strata = (np.arange(rays) + rng.random((pairs, rays))) * (self.count[k, None] / rays)
        at = self.where[self.offset[k, None] + np.minimum(strata.astype(np.int64), self.count[k, None] - 1)]
        y, x = np.divmod(at, self.flows.size[1])
        p = np.stack([x, y], -1).astype(np.float32)
        q = p + self.flows.flow[k[:, None], y, x].astype(np.float32)
        confidence = np.exp(-((self.flows.error[k[:, None], y, x].astype(np.float32) / 0.5) ** 2))
        xy, q = (to_volume(v, self.flows.size) for v in (p, q))
        return Rays(*(torch.from_numpy(v) for v in (*self.ij[k].T.copy(), xy, q, confidence)))


def affine_starts(flows: Flows, frames: int) -> Array:
    """Affine maps ``(layers, T, 2, 3)`` in volume units from each frame to the middle one, the largest layer last.

    The largest layer is the dominant motion (RANSAC over trusted flow); each further one is the dominant motion of what
    moves apart from all before it in most frames.
    """
    nearest = sorted(range(frames), key=lambda t: abs(t - frames // 2))
    layers = [_to_middle(flows, nearest, None)]
    while len(layers) < LAYERS and (apart := _apart(flows, frames // 2, layers)).mean() >= LEAST_LAYER:
        layers.append(_to_middle(flows, nearest, apart))
    return np.stack(layers[::-1]).astype(np.float32)


def affine_flow(source: Array, target: Array, size: tuple[int, int]) -> Array:
    """The flow ``(H, W, 2)`` between two frames whose affine maps ``(2, 3)`` lead to the same middle one."""
    whole = np.linalg.inv(_square(target)) @ _square(source)
    here = of.grid(*size)
    return _moved(here, whole.astype(np.float32), size) - here


def _moved(points: Array, affine: Array, size: tuple[int, int]) -> Array:
    return to_pixels(to_volume(points, size) @ affine[:2, :2].T + affine[:2, 2], size)


def _square(affine: Array) -> Array:
    return np.vstack([affine, [0, 0, 1]])


def _to_middle(flows: Flows, nearest: list[int], where: Array | None) -> Array:
    """Maps ``(T, 2, 3)`` to the first of ``nearest``, of its pixels ``where``; by a hop where no flow is direct."""
    middle = nearest[0]
    out = np.tile(np.eye(3), (len(nearest), 1, 1))
    for n, t in enumerate(nearest[1:], 1):
        nearer = [m for m in nearest[:n] if (m, t) in flows.pairs and abs(m - middle) < abs(t - middle)]
        closest = min(nearer, key=lambda m: abs(m - t))
        hop = next((m for m in nearer if where is not None or flows.trusted((m, t)).mean() > COVERED), closest)
        motion = _dominant(flows, (hop, t), where if hop == middle else None)
        whole = out[nearest[max(n - 2, 0)]] if motion is None else out[hop] @ np.linalg.inv(_square(motion))
        out[t] = whole if 0.1 < np.linalg.det(whole[:2, :2]) < 10 else np.eye(3)
    return out[:, :2]


def _apart(flows: Flows, middle: int, layers: list[Array]) -> Array:
    """Pixels ``(H, W)`` bool of the middle frame that leave all layers in most frames where they are trusted."""
    here = of.grid(*flows.size)
    apart, trusted = np.zeros(flows.size), np.zeros(flows.size)
    for t in range(len(layers[0])):
        if (middle, t) in flows.pairs:
            there, sound = here + flows.of((middle, t)), flows.trusted((middle, t))
            off = np.min(
                [np.linalg.norm(_moved(there, maps[t], flows.size) - here, axis=-1) for maps in layers], axis=0
            )
            trusted += sound
            apart += sound & (off > MOVES_APART)
    return (apart > 0.5 * trusted) & (trusted > 0)


def _dominant(flows: Flows, pair: Pair, where: Array | None) -> Array | None:
    """The affine motion ``(2, 3)`` in volume units of the trusted pixels ``where`` of ``pair[0]``, or None."""
    sound = flows.trusted(pair)
    y, x = np.nonzero(sound if where is None else sound & where)
    if len(x) < 50:
        return None
    pick = np.linspace(0, len(x) - 1, 2000).astype(int)
    p = np.stack([x[pick], y[pick]], -1).astype(np.float32)
    q = p + flows.of(pair)[y[pick], x[pick]]
    motion, _ = affine_motion(to_volume(p, flows.size), to_volume(q, flows.size), within=1.5 / (max(flows.size) / 2))
    return None if motion is None or not 0.2 < np.linalg.det(motion[:, :2]) < 5 else motion
