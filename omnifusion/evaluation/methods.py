"""The methods that are measured side by side: OmniFusion, its two steps each alone, and the classical peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.prepare import Clip, prepare
from omnifusion.driver import Stages, colorize
from omnifusion.evaluation.peers import PEERS, join, split
from omnifusion.propagate import propagate
from omnifusion.settings import Settings
from omnifusion.state import ColorState, InputError, Origin, Step, Steps, Tracker, Video


@dataclass(frozen=True)
class Outcome:
    """What a method made of a clip.

    Attributes:
        frames: ``(T, 3, H, W)`` uint8.
        kind: ``(T, h, w)`` integer at the working size, each pixel's ``Origin`` or -1 = left grey; None for peers.
        borrowed: seconds of work that another method had done before on this clip (the tracker's fit).
    """

    frames: np.ndarray
    kind: np.ndarray | None = None
    borrowed: float = 0.0


@dataclass
class Case:
    """One clip under test, and the trackers that its methods share.

    Attributes:
        truth: ``(T, 3, H, W)`` uint8; methods see its luminance and the colour of its first frame alone.
        settings: the choices of OmniFusion.
        stages: where the heavy stages run; shared by the clips of a run, so that the prior is loaded once.
        trackers: fitted trackers by the first frame of their shot.
        fit_seconds: what fitting them took.
    """

    truth: np.ndarray
    settings: Settings
    stages: Stages = field(default_factory=Stages)
    trackers: dict[int, Tracker] = field(default_factory=dict)
    fit_seconds: float = 0.0

    def clip(self) -> Clip:
        """The clip as the product prepares it.

        Raises:
            InputError: the truth has no colour.
        """
        clip = prepare(Video(self.truth, Fraction(24)), [], self.settings.max_side)
        if not clip.truth:
            raise InputError("The clip is in black and white; only a clip in colour can be scored.")
        return clip


Method = Callable[[Case], Steps[Outcome]]


def omnifusion(case: Case) -> Steps[Outcome]:
    """The whole of Algorithm 1."""
    borrowed, clip = case.fit_seconds, case.clip()
    result = yield from colorize(clip.L, clip.exemplar_ab(), case.settings, clip.shots, case.stages, case.trackers)
    case.trackers = result.trackers
    case.fit_seconds += sum(result.seconds.get(stage, 0.0) for stage in ("flow", "fit"))
    return _outcome(clip, result.state, borrowed)


def omnimotion_only(case: Case) -> Steps[Outcome]:
    """One propagation from the exemplar; what it does not reach stays grey."""
    borrowed, clip = case.fit_seconds, case.clip()
    shot = clip.shots[0]
    if shot.start not in case.trackers:
        start = time.perf_counter()
        case.trackers[shot.start] = yield from case.stages.track(clip.L[shot.start : shot.stop], case.settings)
        case.fit_seconds += time.perf_counter() - start
    everywhere = torch.ones(clip.L.shape[-2:], dtype=torch.bool)
    state = ColorState.grey(clip.L).paint({0: (everywhere, clip.exemplar_ab()[0])}, 0, Origin.EXEMPLAR)
    yield Step("propagate", "from the exemplar to every frame")
    return _outcome(clip, propagate(case.trackers[shot.start], state, 0, 0, shot), borrowed)


def inpainting_only(case: Case) -> Steps[Outcome]:
    """Algorithm 1 with a tracker that sees nothing: the prior colours every frame, its hint looks up earlier ones."""
    clip = case.clip()
    blind: dict[int, Tracker] = {shot.start: Blind() for shot in clip.shots}
    result = yield from colorize(clip.L, clip.exemplar_ab(), case.settings, clip.shots, case.stages, blind)
    return _outcome(clip, result.state)


class Blind:
    """A tracker that loses every point."""

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """All points leave the frame."""
        return torch.full_like(points, -1e6), torch.zeros(len(points), dtype=torch.bool)


def _outcome(clip: Clip, state: ColorState, borrowed: float = 0.0) -> Outcome:
    frames = np.stack([clip.full_size(state, t) for t in range(len(state))])
    return Outcome(frames, state.kind.numpy().astype(np.int8), borrowed)


def _peer(name: str) -> Method:
    def run(case: Case) -> Steps[Outcome]:
        yield Step("peer", name)
        L, ab = split(case.truth)
        return Outcome(join(L, PEERS[name](L, ab[0])))

    return run


METHODS: dict[str, Method] = {
    "omnifusion": omnifusion,
    "omnimotion-only": omnimotion_only,
    "inpainting-only": inpainting_only,
    **{name: _peer(name) for name in reversed(PEERS)},
}
"""All methods by name, in the order of the tables; OmniFusion first, as the others are also scored on its pixels."""
