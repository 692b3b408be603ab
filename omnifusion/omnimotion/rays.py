"""The rays that a volume learns from, drawn from checked flows."""

from __future__ import annotations

import numpy as np
import torch

from omnifusion.omnimotion.coordinates import to_volume
from omnifusion.omnimotion.flows import Flows
from omnifusion.omnimotion.volume import Rays


class Sampler:
    """Draws rays: pairs by (trusted pixels) interval^1/2 up to the curriculum's interval, pixels stratified over the
    raster."""

    def __init__(self, flows: Flows) -> None:
        self.flows = flows
        self.ij = np.array(list(flows.pairs), np.int64).reshape(-1, 2)
        finite = np.isfinite(flows.error).reshape(len(self.ij), -1)
        self.count = finite.sum(1)
        self.where = np.concatenate([np.flatnonzero(of_pair).astype(np.int32) for of_pair in finite])
        self.offset = np.concatenate([[0], np.cumsum(self.count)[:-1]])
        self.interval = np.abs(self.ij[:, 0] - self.ij[:, 1])
        self.weight = self.count * self.interval**0.5

    def draw(self, rng: np.random.Generator, largest: float, pairs: int, rays: int) -> Rays:
        """``pairs`` times ``rays`` rays of interval <= ``largest``."""
        weight = np.where(self.interval <= max(largest, 1), self.weight, 0.0)
        if weight.sum() == 0:
            weight = self.weight
        k = rng.choice(len(self.count), pairs, p=weight / weight.sum()).repeat(rays)
        strata = (np.tile(np.arange(rays), pairs) + rng.random(pairs * rays)) * (self.count[k] / rays)
        at = self.where[self.offset[k] + np.minimum(strata.astype(np.int64), self.count[k] - 1)]
        y, x = np.divmod(at, self.flows.size[1])
        p = np.stack([x, y], -1).astype(np.float32)
        q = p + self.flows.flow[k, y, x].astype(np.float32)
        confidence = np.exp(-((self.flows.error[k, y, x].astype(np.float32) / 0.5) ** 2))
        xy, q = (to_volume(v, self.flows.size) for v in (p, q))
        return Rays(*(torch.from_numpy(v) for v in (xy, *self.ij[k].T.copy(), q, confidence)))
