"""Algorithm 1 of the paper as a generator of Steps: fit, then propagate and inpaint until every pixel has colour."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from omnifusion import omnimotion
from omnifusion.inpaint import Task, make_hint_for, paint_frame
from omnifusion.omnimotion import Flows
from omnifusion.prior.diffusion import load
from omnifusion.propagate import propagate
from omnifusion.settings import Settings
from omnifusion.state import (
    Colored,
    ColorState,
    Fitted,
    Followed,
    Iteration,
    Origin,
    Prior,
    Round,
    Step,
    Steps,
    Tracker,
)

R = TypeVar("R")

KEYFRAME_GAP = 5
"""Frames from one keyframe to the next in the order "keyframes"."""

KEYFRAME_GREY = 0.25
"""A frame with a larger share of grey pixels is no keyframe: nearer ones must bring it colour first."""


def device() -> str:
    """Where heavy stages run by default."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def flow_here(L: Tensor, settings: Settings) -> Steps[Flows]:
    """The flows of ``L`` ``(T, 1, h, w)`` that the tracker learns from, in this process."""
    return omnimotion.find_flows(L, settings.fit, device=device())


def fit_here(L: Tensor, flows: Flows, settings: Settings) -> Steps[Tracker]:
    """Fit OmniMotion to ``L`` ``(T, 1, h, w)`` and its flows in this process."""
    return omnimotion.fit(L, settings.fit, flows=flows, seed=settings.seed, device=device())


class InpaintHere:
    """Fills frames in this process; the prior is loaded when first needed and kept."""

    def __init__(self) -> None:
        self._loaded: tuple[Settings, Prior] | None = None

    def load(self, settings: Settings) -> Prior:
        """The prior with these settings.

        Raises:
            InputError: its weights cannot be had.
        """
        if self._loaded is None or self._loaded[0] != settings:
            self._loaded = (settings, load(settings, device()))
        return self._loaded[1]

    def __call__(self, task: Task, settings: Settings) -> Steps[Tensor]:
        """Fill one frame."""
        return task.run(self.load(settings))


@dataclass(frozen=True)
class Stages:
    """Where the heavy stages run: this process, or whatever the caller puts in their place (a GPU call, a worker)."""

    flow: Callable[[Tensor, Settings], Steps[Flows]] = flow_here
    fit: Callable[[Tensor, Flows, Settings], Steps[Tracker]] = fit_here
    inpaint: Callable[[Task, Settings], Steps[Tensor]] = field(default_factory=InpaintHere)

    def track(self, L: Tensor, settings: Settings) -> Steps[Tracker]:
        """Flow, then fit."""
        flows = yield from self.flow(L, settings)
        tracker = yield from self.fit(L, flows, settings)
        return tracker


@dataclass(frozen=True)
class Result:
    """What a run ends with.

    Attributes:
        state: every pixel coloured, at the working size.
        trackers: the fitted tracker of each shot, by its first frame.
        iterations: the rounds of Algorithm 1.
        seconds: time spent per stage ("flow", "fit", "propagate", "inpaint").
        peak_mib: the process's peak memory at the end of each stage.
    """

    state: ColorState
    trackers: dict[int, Tracker]
    iterations: tuple[Iteration, ...]
    seconds: dict[str, float]
    peak_mib: dict[str, float]


def colorize(
    L: Tensor,
    exemplars: Mapping[int, Tensor],
    settings: Settings,
    shots: Sequence[range] | None = None,
    stages: Stages | None = None,
    trackers: Mapping[int, Tracker] | None = None,
) -> Steps[Result]:
    """Colour a clip at its working size.

    Each shot is a clip of its own for the tracker; its hints may still look up colours in the exemplars of other shots.
    A shot without an exemplar starts with its first frame coloured by the prior.

    Args:
        L: ``(T, 1, h, w)`` luminance in [0, 100].
        exemplars: frame index -> ab ``(2, h, w)`` of the whole frame.
        settings: the choices of the run.
        shots: ranges that cover the clip; None = one shot.
        stages: where the heavy stages run; None = here.
        trackers: fitted trackers by first frame of their shot, from an earlier run on the same clip.

    Raises:
        ValueError: an exemplar outside the clip.
    """
    stages = stages or Stages()
    shots = list(shots or [range(len(L))])
    run = _Run(ColorState.grey(L), settings, stages, list(exemplars), trackers=dict(trackers or {}))
    everywhere = torch.ones(L.shape[-2:], dtype=torch.bool)
    run.state = run.state.paint({e: (everywhere, ab) for e, ab in exemplars.items()}, 0, Origin.EXEMPLAR)
    yield run.colored("propagate", "exemplars in place")
    for frames in sorted(shots, key=lambda shot: not any(e in shot for e in exemplars)):
        yield from run.color_shot(frames)
    return Result(run.state, run.trackers, tuple(run.iterations), run.seconds, run.peak_mib)


@dataclass(frozen=True)
class _ShotTracker:
    """A shot's tracker, asked with the clip's frame numbers."""

    tracker: Tracker
    start: int

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        return self.tracker.correspond(points, i - self.start, j - self.start)


@dataclass
class _Run:
    """The moving parts of one run."""

    state: ColorState
    settings: Settings
    stages: Stages
    exemplars: list[int]
    trackers: dict[int, Tracker] = field(default_factory=dict)
    iterations: list[Iteration] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)

    def colored(self, stage: str, message: str, frame: int | None = None) -> Colored:
        """A Step that shows the colours so far."""
        return Colored(stage, message, self.coverage(), state=self.state, frame=frame, iteration=len(self.iterations))

    def coverage(self) -> float:
        return float(self.state.mask.float().mean())

    def timed(self, stage: str, steps: Steps[R]) -> Steps[R]:
        """Pass a stage's steps on, counting only the time spent inside it."""
        work, start = Followed(steps), time.perf_counter()
        for step in work:
            self.spent(stage, time.perf_counter() - start)
            yield step
            start = time.perf_counter()
        self.spent(stage, time.perf_counter() - start)
        return work.result

    def spent(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.peak_mib[stage] = peak_memory()

    def color_shot(self, frames: range) -> Steps[None]:
        """Algorithm 1 on one shot."""
        if frames.start not in self.trackers:
            self.trackers[frames.start] = yield from self.track(self.state.L[frames.start : frames.stop])
            yield Fitted("fit", "the tracker is fitted", 1.0, start=frames.start, tracker=self.trackers[frames.start])
        tracker = _ShotTracker(self.trackers[frames.start], frames.start)
        given = [e for e in self.exemplars if e in frames]
        for i, targets in _first_rounds(given, frames):
            yield from self.round(tracker, i, targets, inpainted=None)
        visited = set(given)
        while not self.complete(frames):
            i = self.next_frame(frames, given, visited)
            visited.add(i)
            grey = ~self.state.mask[i]
            if bool(grey.any()):
                yield from self.inpaint(tracker, i, frames)
            yield from self.round(tracker, i, frames, inpainted=grey)

    def track(self, L: Tensor) -> Steps[Tracker]:
        """Flow, then fit, of one shot."""
        flows = yield from self.timed("flow", self.stages.flow(L, self.settings))
        tracker = yield from self.timed("fit", self.stages.fit(L, flows, self.settings))
        return tracker

    def round(self, tracker: Tracker, i: int, targets: Sequence[int], inpainted: Tensor | None) -> Steps[None]:
        """The inter-frame propagation step from frame ``i``, whose ``inpainted`` pixels are new; ends the iteration."""

        def work() -> Steps[ColorState]:
            yield from ()
            return propagate(tracker, self.state, i, len(self.iterations), targets, inpainted)

        before = int(self.state.mask.sum())
        self.state = yield from self.timed("propagate", work())
        coloured = int(self.state.mask.sum())
        filled = 0 if inpainted is None else int(inpainted.sum())
        iteration = Iteration(len(self.iterations), i, coloured - before, filled, self.state.mask.numel() - coloured)
        message = f"frame {i} gave its colour to {coloured - before} pixels"
        self.iterations.append(iteration)
        yield Round(
            "propagate",
            message,
            self.coverage(),
            state=self.state,
            frame=i,
            iteration=iteration.index,
            result=iteration,
        )

    def inpaint(self, tracker: Tracker, i: int, frames: range) -> Steps[None]:
        """The intra-frame inpainting step on frame ``i``."""

        def work() -> Steps[Tensor]:
            hint = None
            if self.settings.start is not None:
                yield Step("inpaint", "looking up colours")
                hint = make_hint_for(self.state, i, tracker, frames, self.exemplars)
            seed = (self.settings.seed * 1_000_003 + i) % 2**63
            task = Task(self.state.L[i], self.state.ab[i], self.state.mask[i], hint, seed)
            ab = yield from self.stages.inpaint(task, self.settings)
            return ab

        ab = yield from self.timed("inpaint", work())
        self.state = paint_frame(self.state, i, ab, len(self.iterations))
        yield self.colored("inpaint", f"frame {i} is complete", i)

    def complete(self, frames: range) -> bool:
        return bool(self.state.mask[frames.start : frames.stop].all())

    def next_frame(self, frames: range, given: Sequence[int], visited: set[int]) -> int:
        """What Algorithm 1 takes next; see ``Settings.order``."""
        if self.settings.order == "greyest":
            return max(frames, key=lambda j: int((~self.state.mask[j]).sum()))
        first = given[0] if given else frames.start
        onward = [j for j in (*range(first, frames.stop), *range(first - 1, frames.start - 1, -1)) if j not in visited]
        if self.settings.order == "next":
            return onward[0]
        grey = {j: float((~self.state.mask[j]).float().mean()) for j in onward}
        incomplete = [j for j in onward if grey[j] > 0]
        ahead = [j for j in incomplete if abs(j - incomplete[0]) < KEYFRAME_GAP and grey[j] <= KEYFRAME_GREY]
        return ahead[-1] if ahead else incomplete[0]


def _first_rounds(given: Sequence[int], frames: range) -> list[tuple[int, Sequence[int]]]:
    """Which exemplar colours which frames first: each those it is nearest to, then each all."""
    if len(given) <= 1:
        return [(e, frames) for e in given]
    nearest = {j: min(given, key=lambda e: abs(e - j)) for j in frames}
    return [(e, [j for j in frames if nearest[j] == e]) for e in given] + [(e, frames) for e in given]


def peak_memory() -> float:
    """This process's peak resident memory in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
