"""The intra-frame inpainting step (paper, section 3.2, eq. 5): the prior colors what is left gray in one frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from omnifusion.hint import Reference, estimate_color
from omnifusion.progress import Steps
from omnifusion.propagate import fetched
from omnifusion.state import ColorEstimate, ColorState, Origin, Task, Tracker, pixel_numbers

NEAREST = 2
"""How many completed frames, nearest in time, lend their colors to the hint beside the exemplars."""


@dataclass
class ColorCandidates:
    """Who is asked about a frame's gray pixels: exemplars, completed neighbors, and the frame itself.

    Attributes:
        exemplars: indices of the frames that the user colored in this shot, or of the frame that is lent to it.
        literal: see ``propagate.fetched``.
        elsewhere: the exemplar of a window that does not hold it: colors are looked up there instead of in the frames
            that the window goes on from.
    """

    exemplars: Sequence[int]
    literal: bool = False
    elsewhere: int | None = None
    _kept: dict[int, Reference] = field(default_factory=dict)

    def hint(self, state: ColorState, frame: int, tracker: Tracker, frames: Sequence[int]) -> ColorEstimate:
        """What they say of ``frame``; the tracker knows the frames of this shot, ``frames``, and the exemplars."""

        def distance(j: int) -> int:
            return abs(j - frame)

        near = frames if self.elsewhere is None else [*frames, *self.exemplars]
        whole = sorted((j for j in near if j != frame and state.whole(j)), key=distance)[:NEAREST]
        first = sorted((e for e in self.exemplars if e != frame), key=distance)[:1]
        sources = list(dict.fromkeys(whole + first))
        told = [fetched(tracker, state, frame, j, j not in self.exemplars, self.literal)[0] for j in sources]
        seen = sources if self.elsewhere is None else [*whole, self.elsewhere]
        self._kept = {j: self._kept.get(j) or self._reference(state, j) for j in [*seen, *self.exemplars]}
        return estimate_color(self._reference(state, frame), [self._kept[j] for j in seen], told)

    @staticmethod
    def _reference(state: ColorState, j: int) -> Reference:
        return Reference(state.L[j], state.ab[j], state.colored(j), pixel_numbers(j, state.L.shape[-2:]))


def suggest(
    L: torch.Tensor,
    seeds: Sequence[int],
    fill: Callable[[Sequence[Task]], Steps[list[torch.Tensor]]],
) -> Steps[list[torch.Tensor]]:
    """Versions of one frame's colors, without a hint, one per seed: ab ``(2, H, W)`` each.

    Args:
        L: ``(1, H, W)`` luminance.
        fill: a prior's ``fill``, or ``Stages.inpaint`` with its settings.
    """
    nothing = torch.zeros(L.shape[-2:], dtype=torch.bool)
    return fill([Task(L, torch.zeros(2, *nothing.shape), nothing, None, seed) for seed in seeds])


def complete(state: ColorState, frame: int, iteration: int, ab: torch.Tensor, hint: ColorEstimate | None) -> ColorState:
    """x_i, M_i = IntraFrameInpaintingStep(x_i, M_i), eq. (5): the gray pixels of ``frame`` take what was found, ``ab``
    ``(2, H, W)``, and are as sure as the hint was of them."""
    sure = {} if hint is None else {frame: hint.confidence}
    sources = {} if hint is None or hint.source is None else {frame: hint.source}
    return state.paint({frame: (~state.colored(frame), ab)}, iteration, Origin.INPAINTED, sure, sources)
