"""The methods that are measured side by side: OmniFusion, its two steps each alone, and the classical baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from omnifusion.algorithm import colorize
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.evaluation.baselines import BASELINES, Baseline, join, split
from omnifusion.progress import Costs, InputError, Step, Steps
from omnifusion.propagate import propagate
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import ColorState, Exemplar, Origin, Tracker, Video
from omnifusion.video import is_gray
from omnifusion.visualize import stretch


@dataclass(frozen=True)
class Outcome:
    """What a method made of a clip.

    Attributes:
        frames: ``(T, 3, H, W)`` uint8.
        kind: ``(T, h, w)`` integer at the working size, each pixel's ``Origin`` or -1 = left gray; None for baselines.
        borrowed: wall-clock and CPU seconds that another method had spent before on this clip (the trackers' fit).
    """

    frames: np.ndarray
    kind: np.ndarray | None = None
    borrowed: tuple[float, float] = (0.0, 0.0)

    def picture(self, t: int) -> np.ndarray:
        """Frame ``t`` as ``(H, W, 3)`` uint8."""
        return np.ascontiguousarray(self.frames[t].transpose(1, 2, 0))

    def came_by(self, origin: Origin) -> np.ndarray | None:
        """Which pixels of the frames have their color from ``origin``: ``(T, H, W)`` bool."""
        return None if self.kind is None else stretch(self.kind, self.frames.shape[2:]) == origin


@dataclass(frozen=True)
class Case:
    """One clip under test, and the trackers that its methods share.

    Attributes:
        truth: ``(T, 3, H, W)`` uint8; methods see its luminance and the color of its first frame alone.
        seen: gray frames that they see instead of its luminance, or None.
        settings: the choices of OmniFusion.
        stages: where the heavy stages run; shared by the clips of a run, so that the prior is loaded once.
        trackers: fitted trackers by the first frame of their shot.
        fitting: what fitting them took.
    """

    truth: np.ndarray
    settings: Settings
    stages: Stages = field(default_factory=Stages)
    trackers: dict[int, Tracker] = field(default_factory=dict)
    fitting: Costs = field(default_factory=Costs)
    seen: np.ndarray | None = None

    def clip(self) -> Clip:
        """The clip as the product prepares it.

        Raises:
            InputError: the truth has no color.
        """
        video = Video(self.truth, Fraction(24))
        if is_gray(video):
            raise InputError("The clip is in black and white; only a clip in color can be scored.")
        if self.seen is None:
            return prepare(video, [], self.settings.max_side)
        return prepare(replace(video, frames=self.seen), [Exemplar(0, self.truth[0])], self.settings.max_side)

    def outcome(self, clip: Clip, state: ColorState, borrowed: tuple[float, float] = (0.0, 0.0)) -> Outcome:
        """What a method made of ``clip``, with the true luminance."""
        true = clip if self.seen is None else replace(clip, video=replace(clip.video, frames=self.truth))
        frames = np.stack([true.full_size(state, t) for t in range(len(state))])
        return Outcome(frames, state.kind.numpy().astype(np.int8), borrowed)

    def spent(self) -> tuple[float, float]:
        """Wall-clock and CPU seconds that fitting the trackers has taken so far."""
        return sum(self.fitting.seconds.values()), sum(self.fitting.cpu_seconds.values())


Method = Callable[[Case], Steps[Outcome]]


def omnifusion(case: Case) -> Steps[Outcome]:
    """The whole of Algorithm 1."""
    borrowed, clip, stages = case.spent(), case.clip(), case.stages.metered(case.fitting)
    result = yield from colorize(clip.L, clip.exemplar_ab(), case.settings, clip.shots, stages, case.trackers)
    case.trackers.update(result.trackers)
    return case.outcome(clip, result.state, borrowed)


def omnimotion_only(case: Case) -> Steps[Outcome]:
    """One propagation from the exemplar; what it does not reach stays gray."""
    borrowed, clip, stages = case.spent(), case.clip(), case.stages.metered(case.fitting)
    shot = clip.shots[0]
    if shot.start not in case.trackers:
        case.trackers[shot.start] = yield from stages.track(clip.L[shot.start : shot.stop], case.settings)
    yield Step("propagate", "from the exemplar to every frame")
    state = ColorState.of_exemplars(clip.L, clip.exemplar_ab())
    return case.outcome(clip, propagate(case.trackers[shot.start], state, 0, 0, shot.frames), borrowed)


def inpainting_only(case: Case) -> Steps[Outcome]:
    """Algorithm 1 with a tracker that sees nothing: the prior colors every frame, its hint looks up earlier ones."""
    clip = case.clip()
    blind: dict[int, Tracker] = {shot.start: Blind() for shot in clip.shots}
    result = yield from colorize(clip.L, clip.exemplar_ab(), case.settings, clip.shots, case.stages, blind)
    return case.outcome(clip, result.state)


class Blind:
    """A tracker that loses every point."""

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """All points leave the frame."""
        return torch.full_like(points, -1e6), torch.zeros(len(points), dtype=torch.bool)


def classical(baseline: Baseline, case: Case) -> Steps[Outcome]:
    """A classical baseline, at the clip's own size."""
    yield Step("baseline", baseline.__name__)
    L, ab = split(case.truth)
    seen = L if case.seen is None else split(case.seen)[0]
    return Outcome(join(L, baseline(seen, ab[0])))


METHODS: dict[str, Method] = {
    "omnifusion": omnifusion,
    "omnimotion-only": omnimotion_only,
    "inpainting-only": inpainting_only,
    **{name: partial(classical, BASELINES[name]) for name in reversed(BASELINES)},
}
"""All methods by name, in the order of the tables; OmniFusion first, as the others are also scored on its pixels."""
