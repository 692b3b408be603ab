"""The intra-frame inpainting step (paper, section 3.2, eq. 5): the prior colours what is left grey in one frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from omnifusion.hint import Reference, make_hint
from omnifusion.propagate import guess
from omnifusion.state import ColorState, Hint, Origin, Prior, Steps, Tracker

NEIGHBOURS = 2
"""How many completed frames, nearest in time, lend their colours to the hint beside the exemplars."""


@dataclass(frozen=True)
class Task:
    """One frame to fill, all CPU tensors, so that it can be sent to another process.

    Attributes:
        L, ab, mask: as in ``state.Prior.inpaint``.
        hint: the start for the unknown pixels, or None for pure noise (the paper).
        seed: of this frame's generator.
    """

    L: torch.Tensor
    ab: torch.Tensor
    mask: torch.Tensor
    hint: Hint | None
    seed: int

    def run(self, prior: Prior) -> Steps[torch.Tensor]:
        """Fill the frame with ``prior``; returns ``ab`` ``(2, H, W)``."""
        return prior.inpaint(self.L, self.ab, self.mask, self.hint, torch.Generator().manual_seed(self.seed))


def make_hint_for(state: ColorState, frame: int, tracker: Tracker, frames: range, exemplars: Sequence[int]) -> Hint:
    """What exemplars, completed neighbours, uncertain tracks and the frame's own colours say of its grey pixels.

    Args:
        state: the colours so far.
        frame: the frame to fill.
        tracker: for colours fetched along tracks too uncertain to propagate; knows the frames of this shot.
        frames: the frames of this shot.
        exemplars: indices of the frames that the user coloured, in any shot.
    """

    def nearest(candidates: Iterable[int], count: int) -> list[int]:
        return sorted((j for j in candidates if j != frame), key=lambda j: abs(j - frame))[:count]

    neighbours = nearest((j for j in frames if bool(state.mask[j].all())), NEIGHBOURS)
    sources = list(dict.fromkeys(neighbours + nearest(exemplars, 1)))
    references = [Reference(state.L[j], state.ab[j], state.mask[j]) for j in sources]
    tracked = guess(tracker, state, frame, [j for j in sources if j in frames])
    return make_hint(state.L[frame], state.ab[frame], state.mask[frame], references, tracked)


def inpaint(
    state: ColorState,
    frame: int,
    iteration: int,
    hint: Hint | None,
    seed: int,
    fill: Callable[[Task], Steps[torch.Tensor]],
) -> Steps[ColorState]:
    """x_i, M_i = IntraFrameInpaintingStep(x_i, M_i), eq. (5): the grey pixels of ``frame`` take what ``fill`` finds.

    Args:
        state: the colours so far.
        iteration: Algorithm 1's iteration.
        hint, seed: see ``Task``.
        fill: a prior's way to fill one frame.
    """
    ab = yield from fill(Task(state.L[frame], state.ab[frame], state.mask[frame], hint, seed))
    return state.paint({frame: (~state.mask[frame], ab)}, iteration, Origin.INPAINTED)
