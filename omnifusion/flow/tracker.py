"""Correspondence by optical flow alone: chains of neighbor flows for short distances, direct flow from exemplars."""

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from omnifusion.flow import dis as of
from omnifusion.flow import match
from omnifusion.pool import parallel

Array = np.ndarray

STRIDE = 4
"""Frames between anchors: direct searches start at the flow to the last anchor, so that those between are independent
of each other."""


class FlowTracker:
    """Optical flow between frames of a clip; implements ``state.Tracker``.

    Args:
        images: ``(T, H, W)`` uint8 gray frames.
    """

    def __init__(self, images: Array) -> None:
        self.images = images
        self._direct: dict[tuple[int, int], Array] = {}

    @cached_property
    def neighbors(self) -> tuple[Array, Array]:
        """Flows ``(T - 1, H, W, 2)`` px from each frame to the next, and from the next back to it."""
        last = len(self.images) - 1
        flows = np.empty((2, last, *self.images.shape[1:], 2), np.float32)

        def one(job: tuple[int, int]) -> None:
            way, k = job
            flows[way, k] = self._search(k + way, k + 1 - way)

        parallel(one, [(way, k) for k in range(last) for way in (0, 1)])
        return flows[0], flows[1]

    def _search(self, i: int, j: int, start: Array | None = None) -> Array:
        source, target = self.images[i], self.images[j]
        return of.through_warp(source, target, of.dis(source, target, start))

    def _steps(self, i: int, j: int) -> tuple[Array, int, int, int]:
        """The flows between neighbors from ``i`` to ``j``, as ``match.follow`` takes them."""
        forward, backward = self.neighbors
        return (forward, i, 1, j - i) if j > i else (backward, i - 1, -1, i - j)

    def chain(self, i: int, j: int, flow: Array | None = None) -> Array:
        """Dense flow from ``i`` to ``j`` composed of those between neighbors, appended to ``flow``, which ends in
        ``i``."""
        flows, first, step, count = self._steps(i, j)
        for k in range(count):
            neighbor = flows[first + k * step]
            flow = neighbor if flow is None else of.compose(flow, neighbor)
        assert flow is not None
        return flow

    def reach(self, exemplar: int, frames: Iterable[int]) -> None:
        """Search the direct flows between an exemplar and ``frames``, both ways; known ones are kept."""

        def anchor(j: int) -> int:
            way = 1 if j > exemplar else -1
            return exemplar + way * STRIDE * ((abs(j - exemplar) - 1) // STRIDE)

        wanted = {j for j in frames if abs(j - exemplar) > 1 and (exemplar, j) not in self._direct}
        missing = {a for j in wanted for a in range(anchor(j), exemplar, STRIDE if exemplar > j else -STRIDE)} | wanted
        missing = {j for j in missing if abs(j - exemplar) > 1 and (exemplar, j) not in self._direct}
        self.neighbors  # noqa: B018  (computed now, before threads need it)

        def one(job: tuple[int, bool]) -> Array:
            j, out = job
            a = anchor(j)
            if out:
                start = None if a == exemplar else self._direct[exemplar, a]
                return self._search(exemplar, j, self.chain(a, j, start))
            start = self.chain(j, a)
            return self._search(j, exemplar, start if a == exemplar else of.compose(start, self._direct[a, exemplar]))

        for distance in sorted({abs(anchor(j) - exemplar) for j in missing}):
            jobs = [(j, out) for j in sorted(missing) if abs(anchor(j) - exemplar) == distance for out in (True, False)]
            for (j, out), flow in zip(jobs, parallel(one, jobs), strict=True):
                self._direct[(exemplar, j) if out else (j, exemplar)] = flow

    def matches(self, pixels: Array, i: int, j: int) -> list[tuple[Array, Array]]:
        """Where ``pixels`` ``(N,)`` of frame ``i`` are in ``j``, as ``confidence.most_likely`` takes it: by the direct
        flow if there is one, else by the chain of flows between neighbors."""
        H, W = self.images.shape[1:]
        points = match.points_of(pixels, W)
        there, back = self._way(i, j), self._way(j, i)
        landed = match.follow(*there, points)
        error = match.cycle_error(points, landed, match.follow(*back, landed), H, W)
        return [(landed, error)]

    def _way(self, i: int, j: int) -> tuple[Array, int, int, int]:
        direct = self._direct.get((i, j))
        return self._steps(i, j) if direct is None else (direct[None], 0, 1, 1)
