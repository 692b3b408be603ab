"""Algorithm 1 of the paper: fit the tracker, then propagate and inpaint until every pixel has color."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.shots import Shot
from omnifusion.flow.dis import to_bytes
from omnifusion.flow.tracker import FlowTracker
from omnifusion.inpaint import ColorCandidates
from omnifusion.pool import bounded, parallel
from omnifusion.progress import Colored, Costs, Fitted, Round, Step, Steps, inside
from omnifusion.propagate import SourceFrame, blend_exemplars, warp
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import ColorEstimate, ColorState, FillTask, Iteration, Origin, Tracker

Array = np.ndarray

KEYFRAME_GAP = 5  # frames from one keyframe to the next in the order "keyframes"
KEYFRAME_GRAY = 0.25  # frames with a larger share of gray pixels are no keyframes: nearer ones color them first
REFERENCES = 2  # exemplars that the prior sees
BATCH = 16  # frames colored in parallel from one exemplar; bounds the memory of their estimates


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        state: every pixel colored, at the working size.
        trackers: the fitted tracker of each shot, by its first frame.
        iterations: the rounds of Algorithm 1.
        seconds: time spent per stage ("flow", "fit", "propagate", "inpaint").
        peak_mib: the process's peak memory while the stage was at work.
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
    shots: Sequence[Shot] | None = None,
    stages: Stages | None = None,
    trackers: Mapping[int, Tracker] | None = None,
    state: ColorState | None = None,
) -> Steps[Result]:
    """Color a clip at its working size.

    Each shot is colored by itself. One without an exemplar takes its colors from its reference frame, or else starts
    with its first frame colored by the prior.

    Args:
        L: ``(T, 1, h, w)`` luminance in [0, 100].
        exemplars: frame index -> ab ``(2, h, w)``, NaN where it has no color.
        settings: the choices of the run.
        shots: of the whole clip, in coloring order; None = one shot.
        stages: where the heavy stages run; None = here.
        trackers: fitted trackers by first frame of their shot, from an earlier run on the same clip.
        state: the colors before the run; None = those of the exemplars.

    Raises:
        ValueError: an exemplar outside the clip.
    """
    state = state or ColorState.of_exemplars(L, exemplars)
    run = Run(state, settings, stages or Stages(), list(exemplars), dict(trackers or {}))
    del state  # frees its memory: the run soon has another
    yield run.colored("propagate", "exemplars in place")
    for shot in shots or [Shot(0, len(L))]:
        yield from algorithm_1(run, shot)
    return Result(run.state.stacked(), run.trackers, tuple(run.iterations), run.costs.seconds, run.costs.peak_mib)


def algorithm_1(run: Run, shot: Shot) -> Steps[None]:
    """Algorithm 1 on one shot. Unlike the paper's loop, an iteration begins by inpainting, so that a shot without an
    exemplar can start."""
    frames = shot.frames
    sources = [e for e in run.exemplars if e in frames] + shot.sources
    first = min(frames, key=lambda j: abs(j - sources[0])) if sources else frames[0]
    remote = shot.reference_frame if shot.anchor_frames else None  # it shows what the anchor frames no longer show
    run.candidates = ColorCandidates(sources, run.settings.trust_tracker, remote)
    tracker = yield from run.track(shot)  # Train OmniMotion
    between = {} if run.settings.trust_tracker else bracketing_exemplars(sources, frames)
    for i, targets in first_rounds(sources, frames):  # for i = 1: the exemplars
        # X, M = InterFramePropagationStep(x_i, X, M, i), eq. (1)
        yield from run.propagate(tracker, i, targets, between=between)
    visited = {e for e in sources if run.state.is_complete(e)}
    asks_prior = run.settings.prior_everywhere
    most, ahead = (run.stages.together, run.stages.together > 1) if asks_prior else (len(frames), False)
    while not run.is_complete(frames):  # if every frame is full colored then break
        chosen = next_frames(run.settings.order, run.gray(frames), first, visited, most, ahead)  # i = i + 1
        visited.update(chosen)
        fills = yield from run.fill(tracker, chosen, frames)
        for i in chosen:
            fresh = ~run.state.colored(i)
            if run.uncolored[i]:
                yield run.inpaint(i, fills[i])  # x_i, M_i = IntraFrameInpaintingStep(x_i, M_i), eq. (5)
            targets = frames if run.settings.trust_tracker or i in sources else near(i, frames)
            yield from run.propagate(tracker, i, targets, fresh)  # X, M = InterFramePropagationStep(x_i, X, M, i)
    run.set_state(run.state.repeated(shot.duplicates), shot.duplicates)


def first_rounds(sources: Sequence[int], frames: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
    """The first rounds: each exemplar colors the frames nearest to it; then each colors all frames."""
    if len(sources) <= 1:
        return [(e, frames) for e in sources]
    nearest = {j: min(sources, key=lambda e: abs(e - j)) for j in frames}
    return [(e, [j for j in frames if nearest[j] == e]) for e in sources] + [(e, frames) for e in sources]


def bracketing_exemplars(sources: Sequence[int], frames: Sequence[int]) -> dict[int, tuple[int, int]]:
    """For each frame that lies between two exemplars: these two."""
    sides = {j: ([e for e in sources if e < j], [e for e in sources if e > j]) for j in frames if j not in sources}
    return {j: (max(before), min(after)) for j, (before, after) in sides.items() if before and after}


def near(i: int, frames: Sequence[int]) -> list[int]:
    """The frames up to a keyframe's gap from ``i``.

    The paper takes all. Here farther ones have keyframes of their own, so that costs grow with length, not its square.
    """
    return [j for j in frames if abs(j - i) <= KEYFRAME_GAP]


def next_frames(
    order: str,
    gray: Mapping[int, float],
    first: int,
    visited: Collection[int],
    most: int = 1,
    ahead: bool = False,
) -> list[int]:
    """The frames to inpaint next; several only if none depends on another.

    The paper's order "next" proceeds in time, from the first exemplar to the end, then back to the beginning.
    "keyframes" does so in leaps over a few frames that have little left to inpaint: new regions are inpainted when more
    of them is in view, and the frames between get their color from both sides.

    Args:
        order: "next", "keyframes" or "grayest".
        gray: share of gray pixels of each frame of the shot, in the order of time.
        first: the first exemplar, or the frame nearest to the reference frame, or the first frame.
        visited: the frames that were taken before.
        most: at most this many.
        ahead: whether frames beyond the next keyframe may be taken with it, to save calls of the prior.
    """
    if order == "grayest":
        return [max(gray, key=lambda j: gray[j])]
    ways = [j for j in gray if j >= first], [j for j in reversed([*gray]) if j < first]
    if order == "next":
        return [next(j for way in ways for j in way if j not in visited)]
    leaders: list[int] = []
    followers: list[int] = []
    rest: list[int] = []
    for way in ways:
        last = max((n for n, j in enumerate(way) if j in visited), default=-1)  # the keyframe reached so far
        due = [j for j in way[last + 1 :] if gray[j] > 0]
        leap = [j for j in due if abs(j - due[0]) < KEYFRAME_GAP and gray[j] <= KEYFRAME_GRAY]
        leaders += leap[-1:] or due[:1]
        rest += due if ahead else []
        followers += [j for j in reversed(way[: last + 1]) if gray[j] > 0 and j not in visited]
    chosen: list[int] = []
    for j in [*leaders, *followers, *rest]:
        if len(chosen) < most and all(abs(j - i) >= KEYFRAME_GAP for i in chosen):
            chosen.append(j)
    return chosen


@dataclass(frozen=True)
class ShotTracker:
    """A shot's tracker, addressed by the clip's frame numbers."""

    tracker: Tracker
    frames: Mapping[int, int]

    def matches(self, pixels: Array, i: int, j: int) -> list[tuple[Array, Array]]:
        """See ``state.Tracker``."""
        return self.tracker.matches(pixels, self.frames[i], self.frames[j])

    def reach(self, exemplar: int, frames: Iterable[int]) -> None:
        """Compute the flows from an exemplar to ``frames``, if the tracker uses flows."""
        if isinstance(self.tracker, FlowTracker):
            self.tracker.reach(self.frames[exemplar], [self.frames[j] for j in frames])


@dataclass
class Run:
    """A run at work: its colors, trackers, iterations and costs so far."""

    state: ColorState
    settings: Settings
    stages: Stages
    exemplars: list[int]
    trackers: dict[int, Tracker]
    iterations: list[Iteration] = field(default_factory=list)
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        self.candidates = ColorCandidates(self.exemplars, self.settings.trust_tracker)
        self.uncolored = [0] * len(self.state)
        self.set_state(self.state, range(len(self.state)))

    def set_state(self, state: ColorState, frames: Iterable[int]) -> None:
        """Replace the colors by ``state``, which differs in ``frames``, and count the gray pixels of these."""
        self.state = state
        for j in frames:
            self.uncolored[j] = int((~state.colored(j)).sum())

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Charge the work inside to a stage, and bound its threads."""
        with bounded(self.stages.threads), self.costs.during(stage):
            yield

    def track(self, shot: Shot) -> Steps[ShotTracker]:
        """The tracker of a shot; a fitted one is kept for later runs, a flow tracker is dropped after its shot."""
        tracker = self.trackers.get(shot.start)
        if tracker is None:
            L = self.state.L[shot.tracker_frames]
            if self.settings.omnimotion == "off":
                tracker = FlowTracker(to_bytes(L[:, 0]))
            else:
                fit = self.stages.fit(L, self.settings)
                tracker = yield from inside(lambda: self.working("fit"), fit)
                self.trackers[shot.start] = tracker
                yield Fitted("fit", "the tracker is fitted", 1.0, start=shot.start, tracker=tracker)
        numbers = {frame: k for k, frame in enumerate(shot.tracker_frames)}
        return ShotTracker(tracker, numbers)

    def propagate(
        self,
        tracker: ShotTracker,
        i: int,
        targets: Sequence[int],
        inpainted: Tensor | None = None,
        between: Mapping[int, tuple[int, int]] | None = None,
    ) -> Steps[None]:
        """The inter-frame propagation step from frame ``i``, whose ``inpainted`` pixels are new; ends the iteration.

        ``between``: for targets between two exemplars, these two, whose colors are blended.
        """
        before, iteration, trust = sum(self.uncolored), len(self.iterations), self.settings.trust_tracker
        todo = [j for j in sorted(targets, key=lambda j: abs(j - i)) if j != i and self.uncolored[j]]
        pairs = {j: (between or {}).get(j, ()) for j in todo}
        other = {j: sum(pair) - i for j, pair in pairs.items() if i in pair}
        if inpainted is None:  # from an exemplar
            yield Step("propagate", f"following the motion from frame {i}")
        with self.working("flow"):
            tracker.reach(i, todo if inpainted is None else ())
            for e in set(other.values()):
                tracker.reach(e, [j for j in todo if other.get(j) == e])
        sources = {e: SourceFrame.of(self.state, e) for e in {i, *other.values()}}

        def one(j: int) -> dict[str, Tensor]:
            warped = warp(tracker, self.state, sources[i], j, i, trust)
            if j in other:
                e = other[j]
                theirs = warp(tracker, self.state, sources[e], j, e, trust)
                warped = blend_exemplars(warped, theirs, abs(j - i) / abs(e - i))
            estimate, accepted = warped
            return self.state.paint(j, accepted, estimate, iteration, Origin.PROPAGATED).colors(j)

        for n in range(0, len(todo), BATCH):
            with self.working("propagate"):
                painted = parallel(one, part := todo[n : n + BATCH])
            for j, colors in zip(part, painted, strict=True):
                self.set_state(self.state.with_colors(j, colors), [j])
                yield self.colored("propagate", f"carrying color from frame {i} to frame {j}", j)
        colored = before - sum(self.uncolored)
        filled = 0 if inpainted is None else int(inpainted.sum())
        result = Iteration(iteration, i, colored, filled, sum(self.uncolored))
        event = self.colored("propagate", f"{colored:,} pixels colored from frame {i}", i)
        self.iterations.append(result)
        yield Round(**vars(event), result=result)

    def fill(
        self, tracker: ShotTracker, chosen: Sequence[int], frames: Sequence[int]
    ) -> Steps[dict[int, ColorEstimate]]:
        """Colors for those ``chosen`` frames that are incomplete: the prior's, or the estimates themselves."""
        todo = [i for i in chosen if self.uncolored[i]]
        estimates: dict[int, ColorEstimate | None] = dict.fromkeys(todo)
        if self.settings.strength is not None:
            yield Step("inpaint", "matching similar pixels")
            with self.working("estimate"):
                colors = dict(zip(todo, self.candidates.estimates(self.state, todo, tracker, frames), strict=True))
            if not self.asks_prior(frames):
                return colors
            estimates = {**colors}
        tasks = [
            FillTask(*self.frame(i), estimate, (self.settings.seed * 1_000_003 + i) % 2**63, self.references(i))
            for i, estimate in estimates.items()
        ]
        fills: list[Tensor] = []
        if tasks:
            fills = yield from inside(lambda: self.working("inpaint"), self.stages.inpaint(tasks, self.settings))
        sure = torch.ones(())  # without an estimate, colors count as certain
        return {
            i: ColorEstimate(ab, sure) if estimate is None else replace(estimate, ab=ab)
            for (i, estimate), ab in zip(estimates.items(), fills, strict=True)
        }

    def frame(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """L, ab and mask of a frame."""
        return self.state.L[i], self.state.ab[i], self.state.colored(i)

    def references(self, i: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The exemplars nearest to a frame, for the prior to look at."""
        nearest = sorted((e for e in self.candidates.exemplars if e != i), key=lambda e: abs(e - i))
        return [self.frame(e) for e in nearest[:REFERENCES]]

    def inpaint(self, i: int, colors: ColorEstimate) -> Colored:
        """The intra-frame inpainting step on frame ``i``."""
        gray = ~self.state.colored(i)
        self.set_state(self.state.paint(i, gray, colors, len(self.iterations), Origin.INPAINTED), [i])
        return self.colored("inpaint", f"frame {i} is complete", i)

    def asks_prior(self, frames: Sequence[int]) -> bool:
        """Whether the prior inpaints: if it is to do so everywhere, or the shot has no color to start from; with an
        estimate the bundled one neither helps nor hurts (docs/experiments.md)."""
        if self.settings.prior_everywhere:
            return True
        return not (self.candidates.exemplars or any(bool(self.state.colored(j).any()) for j in frames))

    def gray(self, frames: Sequence[int]) -> dict[int, float]:
        """The share of each frame's pixels that are still gray."""
        return {j: self.uncolored[j] / self.state.L[j].numel() for j in frames}

    def is_complete(self, frames: Sequence[int]) -> bool:
        """Whether every pixel of ``frames`` has its color."""
        return not any(self.uncolored[j] for j in frames)

    def colored(self, stage: str, message: str, frame: int | None = None) -> Colored:
        """A Step that shows the colors so far."""
        coverage = 1 - sum(self.uncolored) / self.state.L.numel()
        return Colored(stage, message, coverage, state=self.state, iteration=len(self.iterations), frame=frame)
