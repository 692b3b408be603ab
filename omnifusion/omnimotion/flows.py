"""The checked flows that a volume is fitted to, and how they are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from omnifusion import flow as of

Array = np.ndarray
Pair = tuple[int, int]
LOOKS_ALIKE = 20.0
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

    @property
    def forward(self) -> list[Pair]:
        """The pairs (i, j) with i < j; the way back is held, too."""
        return [p for p in self.pairs if p[0] < p[1]]

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
        """Takes the flows ``there`` (i to j) and ``back`` where they are trusted and cost less than those held."""
        for pair, f, b in (((i, j), there, back), ((j, i), back, there)):
            k = self.pairs[pair]
            source, target = images[pair[0]], images[pair[1]]
            held = of.appearance_error(source, target, self.of(pair))
            error, unlike = of.cycle_error(f, b), of.appearance_error(source, target, f)
            less = of.matching_cost(error, unlike) < of.matching_cost(self.error[k], held)
            better = (error < of.CYCLE) & (unlike < LOOKS_ALIKE) & (~self.trusted(pair) | less)
            self.error[k][better] = error[better]
            self.flow[k][better] = f[better]


def chains(step: dict[Pair, Array], frames: int, wanted: list[int]) -> dict[Pair, Array]:
    """Flows over all ``wanted`` intervals, ascending, composed of the flows ``step`` between neighbours alone."""
    out = dict(step)
    for before, g in pairwise(wanted):
        for i in range(frames - g):
            j, rest = i + g, g - before
            out[i, j] = of.compose(out[i, i + before], out[i + before, j])
            out[j, i] = of.compose(out[j, i + rest], out[i + rest, i])
    return out


def collect(images: Array, wanted: list[int], search: of.Search = of.dis) -> Flows:
    """Checked flows of ``images`` ``(T, H, W)`` uint8 over all ``wanted`` intervals: between neighbours cold, the rest
    started from their chain."""
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
    flows: Flows, images: Array, start: Callable[[Pair], Array], search: of.Search = of.dis, cold: bool = True
) -> None:
    """``search`` from each pair's ``start``, forward and back; ``flows`` takes what is better. Neighbours keep their
    start unless ``cold``."""

    def one(pair: Pair) -> None:
        both = start(pair), start(pair[::-1])
        if cold or pair[1] - pair[0] > 1:
            both = of.search_both(images[pair[0]], images[pair[1]], *both, search)
        flows.improve(images, *pair, *both)

    of.parallel(one, flows.forward)


def refine_warped(flows: Flows, images: Array, start: Callable[[Pair], Array], search: of.Search = of.dis) -> None:
    """``search`` for what is left once each pair's ``start`` has warped one frame onto the other; ``flows`` takes what
    is better."""

    def one(pair: Pair) -> None:
        ways = pair, pair[::-1]
        flows.improve(images, *pair, *(of.through_warp(search, images[i], images[j], start((i, j))) for i, j in ways))

    of.parallel(one, flows.forward)
