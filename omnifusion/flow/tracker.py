"""Correspondence by optical flow alone: every pair is searched once, from what its neighbors have found, and kept."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from omnifusion.flow import confidence as judge
from omnifusion.flow import dis as of
from omnifusion.geometry import inside, sample

Array = np.ndarray
Pair = tuple[int, int]

CACHE_BYTES = 800e6
"""Memory that the flows kept for later may take."""

SPREAD = 5.0
"""The chroma spread that the judge is told where there is no color: about that of a photograph."""

SEEN = 0.7
"""Probability from which a point is said to be seen, where a yes or no is asked for (docs/tracker.md)."""


@dataclass(frozen=True)
class Correspondence:
    """Where the pixels of one frame are in another.

    Attributes:
        flow: ``(H, W, 2)`` float32 px; p + flow(p) lies in the other frame.
        error: its ``cycle``, or None where there is ``back``.
        back: the flow from the other frame.
    """

    flow: Array
    error: Array | None = None
    back: Array | None = None

    @cached_property
    def cycle(self) -> Array:
        """``(H, W)`` float32 px by which p is missed on the way there and back; inf where it is not seen there."""
        if self.back is not None:
            return of.cycle_error(self.flow, self.back)
        assert self.error is not None
        return self.error


def most_likely(
    answers: list[Correspondence], asked: Array, other: Array, spread: Array | None
) -> tuple[Correspondence, Array]:
    """Of several answers, per pixel the one that the judge finds most likely right.

    Args:
        answers: at least one.
        asked, other: L* ``(H, W)`` of the frame whose pixels ask, and of the other.
        spread: chroma spread ``(H, W)`` of the other (``judge``); None = nothing is judged, what is seen is right.

    Returns:
        it, put together, and the probability ``(H, W)`` that it is right.
    """
    grid, chosen, best = of.grid(*asked.shape), answers[0], np.zeros(asked.shape, np.float32)
    for answer in answers:
        points = grid + answer.flow
        if spread is None:
            p = np.isfinite(answer.cycle).astype(np.float32)
        else:
            residual = judge.residual(asked, of.remap(other, points))
            p = judge.probability(residual, answer.cycle, of.remap(spread, points))
        better, best = p >= best, np.maximum(p, best)
        cycle = np.where(better, answer.cycle, chosen.cycle)
        chosen = Correspondence(np.where(better[..., None], answer.flow, chosen.flow), cycle)
    return chosen, best


class DirectFlow:
    """Optical flow between any two frames of a clip; implements ``state.Tracker``.

    The flow over a longer interval starts its search at the flow over an interval shorter by one, followed by one step
    between neighbors: from an exemplar outwards that is one search per frame and direction. What a search has left is
    searched once more through its own warp.

    Args:
        images: ``(T, H, W)`` uint8 gray frames.
    """

    def __init__(self, images: Array) -> None:
        self.images = images
        self._held: OrderedDict[Pair, Array] = OrderedDict()
        self._most = max(16, round(CACHE_BYTES / (8 * images[0].size)))

    def __call__(self, i: int, j: int) -> Array:
        """The flow ``(H, W, 2)`` px from frame ``i`` to ``j``."""
        if abs(i - j) == 1:
            return self.neighbor(i, j)
        ways = [(k, j) for k in range(j + 1, i + 1)] if i > j else [(i, k) for k in range(i + 1, j + 1)]
        known = max((n for n, way in enumerate(ways) if way in self._held), default=0)
        flow = self._held.get(ways[known])
        if flow is None:
            flow = self.neighbor(*ways[0])
        for a, b in ways[known + 1 :]:
            steps = (self.neighbor(a, a - 1), flow) if i > j else (flow, self.neighbor(b - 1, b))
            start = of.compose(*steps)
            flow = self._keep((a, b), self._search(a, b, start))
        return flow

    def neighbor(self, i: int, j: int) -> Array:
        """The flow between neighbors."""
        if (i, j) in self._held:
            self._held.move_to_end((i, j))
            return self._held[i, j]
        return self._keep((i, j), self._search(i, j))

    def _search(self, i: int, j: int, start: Array | None = None) -> Array:
        source, target = self.images[i], self.images[j]
        return of.through_warp(of.dis, source, target, of.dis(source, target, start))

    def chain(self, i: int, j: int) -> Array:
        """Flows between neighbors, one after another from ``i`` to ``j``: no search, for short ways."""
        step = 1 if j > i else -1
        flow = self.neighbor(i, i + step)
        for k in range(i + step, j, step):
            flow = of.compose(flow, self.neighbor(k, k + step))
        return flow

    def pairs(self, i: int, j: int, near: bool = False) -> list[Correspondence]:
        """The answer for every pixel of frame ``i``; ``near``: a chain will do."""
        find = self.chain if near else self
        there, back = of.parallel(lambda way: find(*way), [(i, j), (j, i)], 1 if near else 2)
        return [Correspondence(there, back=back)]

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """See ``state.Tracker``; of several answers the most likely one, seen where that is probably right."""
        T, H, W = self.images.shape
        if not (0 <= i < T and 0 <= j < T):
            raise IndexError(f"frames {i} and {j} are not both in a clip of {T}")
        points = points.to(torch.float32)
        if i == j:
            return points.clone(), inside(points, H, W)
        asked, other = (self.images[t] / np.float32(2.55) for t in (i, j))
        found, p = most_likely(self.pairs(i, j), asked, other, np.full((H, W), SPREAD, np.float32))
        there = points + sample(torch.from_numpy(found.flow).permute(2, 0, 1), points).T
        seen = sample(torch.from_numpy(p)[None], points, "nearest")[0] > SEEN
        return there, seen & inside(there, H, W) & inside(points, H, W)

    def _keep(self, pair: Pair, flow: Array) -> Array:
        self._held[pair] = flow
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return flow
