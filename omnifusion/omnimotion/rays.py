"""The rays that a volume learns from, drawn from checked flows."""

from __future__ import annotations

import numpy as np
import torch

from omnifusion.omnimotion.flows import Flows
from omnifusion.omnimotion.units import to_volume
from omnifusion.omnimotion.volume import Rays

Array = np.ndarray


class Sampler:
    """Draws rays: pairs by (trusted pixels) interval^1/2 up to the curriculum's interval, pixels stratified over the
    raster.

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
        self.interval = np.abs(self.ij[:, 0] - self.ij[:, 1])
        self.weight = self.count * self.interval**0.5
        self.error = np.zeros((frames, -(-H // self.CELL), -(-W // self.CELL)), np.float32)

    def draw(self, rng: np.random.Generator, largest: float, pairs: int, rays: int) -> tuple[Rays, Array]:
        """``pairs`` times ``rays`` rays of interval <= ``largest``, and the cells of ``error`` that they begin in."""
        H, W = self.flows.size
        weight = np.where(self.interval <= max(largest, 1), self.weight, 0.0)
        if weight.sum() == 0:
            weight = self.weight
        k = rng.choice(len(self.count), pairs, p=weight / weight.sum())[:, None]
        strata = (np.arange(rays) + rng.random((2, pairs, rays))) * (self.count[k] / rays)
        two = self.where[self.offset[k] + np.minimum(strata.astype(np.int64), self.count[k] - 1)]
        i, j = (np.broadcast_to(self.ij[k, n], (pairs, rays)).ravel() for n in (0, 1))
        cell = np.ravel_multi_index(
            (i.reshape(pairs, rays), two // W // self.CELL, two % W // self.CELL), self.error.shape
        )
        hard = self.error.ravel()[cell]
        second = (hard[1] > hard[0]) & (rng.random((pairs, rays)) < 0.5)
        y, x = np.divmod(np.where(second, two[1], two[0]), W)
        p = np.stack([x, y], -1).astype(np.float32)
        q = p + self.flows.flow[k, y, x].astype(np.float32)
        confidence = np.exp(-((self.flows.error[k, y, x].astype(np.float32) / 0.5) ** 2))
        xy, q = (to_volume(v.reshape(-1, 2), (H, W)) for v in (p, q))
        drawn = Rays(*(torch.from_numpy(v) for v in (xy, i.copy(), j.copy(), q, confidence.ravel())))
        return drawn, np.where(second, cell[1], cell[0]).ravel()

    def learn(self, cell: Array, each: Array) -> None:
        """Remember the flow losses ``each`` of rays that begin in the cells ``cell``."""
        flat = self.error.reshape(-1)
        flat[cell] = self.MEMORY * flat[cell] + (1 - self.MEMORY) * each
