"""The checked flows that a volume is fitted to, and how they are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from omnifusion.flow import dis as of
from omnifusion.pool import parallel

Array = np.ndarray
Pair = tuple[int, int]
BATCH = 8
"""Pairs of frames that are searched at once, there and back."""
LOOKS_ALIKE = 20.0
"""A flow is trusted where its cycle closes and the gray levels (of 255) around both ends differ no more."""


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

    def of(self, pair: Pair) -> Array:
        """Flow ``(H, W, 2)`` float32 of one pair."""
        return self.flow[self.pairs[pair]].astype(np.float32)

    def trusted(self, pair: Pair) -> Array:
        """Pixels ``(H, W)`` bool of the source frame whose flow is trusted."""
        return np.isfinite(self.error[self.pairs[pair]])

    def coverage(self, pair: Pair) -> float:
        """Their share."""
        return float(self.trusted(pair).mean())

    def improve(self, images: Array, i: int, j: int, there: Array, back: Array) -> None:
        """Takes the flows ``there`` (i to j) and ``back`` where they are trusted and cost less than those held, or
        where none is trusted."""
        for pair, f, b in (((i, j), there, back), ((j, i), back, there)):
            k, held = self.pairs[pair], self.trusted(pair)
            costs = [of.appearance_error(images[pair[0]], images[pair[1]], flow) for flow in (f, self.of(pair))]
            error = of.cycle_error(f, b)
            trusted = (error < of.CYCLE) & (costs[0] < LOOKS_ALIKE)
            better = ~held | (trusted & (costs[0] + error < costs[1] + self.error[k]))
            self.error[k][better] = np.where(trusted, error, np.inf)[better]
            self.flow[k][better] = f[better]


def collect(images: Array, wanted: list[int], search: of.Search = of.dis) -> Flows:
    """Checked flows of ``images`` ``(T, H, W)`` uint8 over all ``wanted`` intervals (``flow.intervals``): between
    neighbors cold, each longer one from two shorter ones, one after the other."""
    forward, flows = _unknown(images, wanted)
    for before, interval in pairwise([0, *wanted]):

        def found(i: int, j: int, before: int = before) -> Array:
            middle = i + before if i < j else i - before
            start = of.compose(flows.of((i, middle)), flows.of((middle, j))) if before else None
            return search(images[i], images[j], start)

        def one(pair: Pair) -> None:
            flows.improve(images, *pair, found(*pair), found(*pair[::-1]))

        parallel(one, [pair for pair in forward if pair[1] - pair[0] == interval])
    return flows


def collect_at_once(images: Array, wanted: list[int], search: of.SearchMany) -> Flows:
    """``collect`` with a search that needs no start, many pairs at once, there and back."""
    forward, flows = _unknown(images, wanted)
    for n in range(0, len(forward), BATCH):
        part = forward[n : n + BATCH]
        i, j = (images[[pair[k] for pair in part]] for k in (0, 1))
        found = search(np.concatenate([i, j]), np.concatenate([j, i]))
        for pair, there, back in zip(part, found[: len(part)], found[len(part) :], strict=True):
            flows.improve(images, *pair, there, back)
    return flows


def _unknown(images: Array, wanted: list[int]) -> tuple[list[Pair], Flows]:
    """The pairs (i, j) with i < j, and flows of them and their ways back of which nothing is known."""
    forward = [(i, i + n) for n in wanted for i in range(len(images) - n)]
    pairs = {pair: k for k, pair in enumerate(p for i, j in forward for p in ((i, j), (j, i)))}
    shape = (len(pairs), *images.shape[1:])
    return forward, Flows(pairs, np.zeros((*shape, 2), np.float16), np.full(shape, np.inf, np.float16))


def refine(flows: Flows, images: Array, start: Callable[[Pair], Array], search: of.Search = of.dis) -> None:
    """``search`` for what is left once each pair's ``start`` has warped one frame onto the other; ``flows`` takes what
    is better."""

    def one(pair: Pair) -> None:
        ways = pair, pair[::-1]
        flows.improve(images, *pair, *(of.through_warp(search, images[i], images[j], start((i, j))) for i, j in ways))

    parallel(one, [pair for pair in flows.pairs if pair[0] < pair[1]])
