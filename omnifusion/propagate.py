"""The inter-frame propagation step (paper, section 3.1, eq. 1): a coloured frame colours every pixel that sees it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.geometry import blur, inside, pixel_grid, sample
from omnifusion.state import ColorState, Hint, Origin, Tracker

NEAR = 2
"""Frames this close to the exemplar are queried in full; farther ones only where its fresh colour may be seen."""

PATCH_SIGMA = 2.0
"""Radius in pixels of the surroundings that are compared before a colour is believed."""

UNLIKE, ALIKE = 8.0, 3.0
"""Mean difference in L* above which a visible point is not believed, and below which a hidden one is."""

COMPANY, COMPANY_SIGMA, LIKE = 0.5, 4.0, 8.0
"""Of the pixels within about COMPANY_SIGMA whose L* is within LIKE, the share COMPANY must be coloured along: a speck
alone is not believed."""

LUMINANCE_SIGMA = 10.0
"""L* difference at which a neighbour's say in the fetched colour falls to 0.6."""

STILL_SIGMA, MOVING_SIGMA = 0.3, 0.7
"""The same for its distance in pixels, where nothing moves (almost a copy) and where something does."""

STILL, MOVING = 0.25, 0.75
"""Motion in pixels up to which a point is still and from which on it moves."""


def fetch(ab: Tensor, L: Tensor, points: Tensor, target: Tensor, target_L: Tensor) -> Tensor:
    """The colour of a frame at ``points``, for pixels at ``target`` of another, whose own luminance is ``target_L``.

    A joint bilateral mean of the 3 x 3 pixels around a point: plain bilinear sampling mixes the two sides of an edge.
    It narrows where nothing moves, so that still parts are copied and stay sharp (docs/propagation.md).

    Args:
        ab: ``(2, H, W)``, L: ``(1, H, W)``, points and target: ``(N, 2)``, target_L: ``(N,)``.

    Returns:
        ``(2, N)``.
    """
    lab, centre = torch.cat([L, ab]), points.round()
    motion = (((points - target).norm(dim=-1) - STILL) / (MOVING - STILL)).clamp(0.0, 1.0)
    sigma = STILL_SIGMA + (MOVING_SIGMA - STILL_SIGMA) * motion
    total, weight = torch.zeros(2, len(points)), torch.zeros(len(points))
    for dy in (-1.0, 0.0, 1.0):
        for dx in (-1.0, 0.0, 1.0):
            neighbour = centre + torch.tensor([dx, dy])
            there = sample(lab, neighbour, "nearest")
            distance = ((neighbour - points) ** 2).sum(dim=-1) / sigma**2
            difference = ((there[0] - target_L) / LUMINANCE_SIGMA) ** 2
            w = torch.exp(-0.5 * distance) * (torch.exp(-0.5 * difference) + 1e-3)
            total, weight = total + w * there[1:], weight + w
    return total / weight


def agreement(L: Tensor, points: Tensor, target_L: Tensor) -> Tensor:
    """How well the luminance at ``points`` of ``L`` ``(1, H, W)`` matches ``target_L`` ``(N,)``: (0, 1], 1 = equal."""
    return torch.exp(-0.5 * ((sample(L, points)[0] - target_L) / LUMINANCE_SIGMA) ** 2)


def mismatch(L: Tensor, points: Tensor, target_L: Tensor, where: Tensor) -> Tensor:
    """How much the surroundings of ``points`` ``(N, 2)`` in ``L`` ``(1, H, W)`` differ from the asking pixels'.

    Args:
        target_L: ``(1, H, W)`` luminance of the asking frame; where: ``(H, W)`` bool, its N asking pixels.

    Returns:
        ``(N,)``: the difference in L*, averaged over the asking pixels within about ``PATCH_SIGMA``.
    """
    pair = torch.zeros(2, *where.shape)
    pair[0][where] = (sample(L, points)[0] - target_L[0][where]).abs()
    pair[1][where] = 1.0
    difference, weight = blur(pair, PATCH_SIGMA)
    return (difference / weight.clamp(min=1e-6))[where]


def company(L: Tensor, colored: Tensor) -> Tensor:
    """Share of the pixels around each one, of like luminance, that are ``colored``.

    Args:
        L: ``(1, H, W)``, colored: ``(H, W)`` bool.

    Returns:
        ``(H, W)`` in [0, 1]; a bilateral mean, by blurring levels of luminance one by one.
    """
    levels = torch.arange(0.0, 100.0 + LIKE, LIKE).view(-1, 1, 1)
    like = (1 - (L - levels).abs() / LIKE).clamp(min=0.0)
    return (like * blur(like * colored, COMPANY_SIGMA) / blur(like, COMPANY_SIGMA).clamp(min=1e-6)).sum(dim=0)


def _accept(points: Tensor, visible: Tensor, difference: Tensor, size: tuple[int, int]) -> Tensor:
    """Whose colour is taken: what the tracker sees unless it looks different; what it has lost if it looks the same.

    A departure from the paper, which trusts the tracker alone: a pixel is coloured for good, and on real clips the
    likeness of its surroundings tells a wrong colour better than any geometry does (docs/propagation.md).
    """
    likely = torch.where(visible, difference < UNLIKE, difference < ALIKE)
    return likely & inside(points, *size)


def propagate(
    tracker: Tracker,
    state: ColorState,
    i: int,
    iteration: int,
    frames: Iterable[int] | None = None,
    fresh: Tensor | None = None,
) -> ColorState:
    """X, M = InterFramePropagationStep(x_i, X, M, i), eq. (1): colour the grey pixels that are visible in frame ``i``.

    The paper queries every grey pixel of every frame. Here an exemplar in which only the pixels ``fresh`` are new is
    asked in full by frames up to ``NEAR`` away, and by those 4, 8, 16... away around the places where the fresh pixels
    may be seen: all else has had its chance with an earlier exemplar or will have it with a nearer one, and the cost of
    a run grows with its length, not with its square.

    Args:
        tracker: correspondence at the working size.
        state: frame ``i`` must be coloured completely.
        i: the exemplar frame.
        iteration: Algorithm 1's iteration.
        frames: those that may be coloured; None = all.
        fresh: ``(H, W)`` bool; None = all pixels.

    Raises:
        ValueError: frame ``i`` still has grey pixels.
    """
    if not bool(state.mask[i].all()):
        raise ValueError(f"frame {i} is not fully coloured")
    H, W = state.mask.shape[1:]
    grid = pixel_grid(H, W)
    updates = {}
    for j in range(len(state)) if frames is None else frames:
        where = ~state.mask[j]
        if j == i or not bool(where.any()):
            continue
        gap = abs(j - i)
        if fresh is not None and gap > NEAR:
            if gap & (gap - 1) or not bool(fresh.any()):
                continue
            where &= _reach(tracker, grid[fresh], i, j, (H, W))
        if not bool(where.any()):
            continue
        target = grid[where]
        points, visible = tracker.correspond(target, j, i)
        target_L = state.L[j, 0][where]
        colour = fetch(state.ab[i], state.L[i], points, target, target_L)
        seen = torch.zeros_like(where)
        seen[where] = _accept(points, visible, mismatch(state.L[i], points, state.L[j], where), (H, W))
        seen &= company(state.L[j], seen | state.mask[j]) > COMPANY
        ab = torch.zeros(2, H, W)
        ab[:, where] = colour
        updates[j] = (seen, ab)
    return state.paint(updates, iteration, Origin.PROPAGATED)


def _reach(tracker: Tracker, points: Tensor, i: int, j: int, size: tuple[int, int]) -> Tensor:
    """Pixels of frame ``j`` near to where ``points`` of frame ``i`` go, ``(H, W)`` bool."""
    reached = torch.zeros(size)
    there, _ = tracker.correspond(points, i, j)
    there = there[inside(there, *size)].round().long()
    x, y = there[:, 0].clamp(0, size[1] - 1), there[:, 1].clamp(0, size[0] - 1)
    reached[y, x] = 1.0
    return F.max_pool2d(reached[None, None], 7, stride=1, padding=3)[0, 0] > 0


def guess(tracker: Tracker, state: ColorState, frame: int, sources: list[int]) -> Hint:
    """What uncertain tracks say of a frame's grey pixels: colour of coloured frames whether seen there or not.

    Where several sources answer, the one that agrees best in luminance wins.

    Returns:
        ``ab`` ``(2, H, W)`` and ``confidence`` ``(H, W)`` in [0, 1]: the agreement in luminance, halved where the
        track is hidden, zero on known pixels and outside the source.
    """
    where = ~state.mask[frame]
    H, W = where.shape
    grid, target_L = pixel_grid(H, W)[where], state.L[frame, 0][where]
    best, colour = torch.zeros(len(grid)), torch.zeros(2, len(grid))
    for source in sources:
        points, visible = tracker.correspond(grid, frame, source)
        trust = agreement(state.L[source], points, target_L) * torch.where(visible, 1.0, 0.5) * inside(points, H, W)
        better = trust > best
        best = torch.where(better, trust, best)
        colour = torch.where(better, fetch(state.ab[source], state.L[source], points, grid, target_L), colour)
    ab, confidence = torch.zeros(2, H, W), torch.zeros(H, W)
    ab[:, where], confidence[where] = colour, best
    return Hint(ab, confidence)
