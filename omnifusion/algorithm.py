"""Algorithm 1 of the paper: fit the tracker, then propagate and inpaint until every pixel has color."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from omnifusion.clip.shots import Shot
from omnifusion.flow.tracker import Correspondence
from omnifusion.inpaint import ColorCandidates, complete
from omnifusion.progress import Colored, Costs, Fitted, Round, Step, Steps
from omnifusion.propagate import correspondences, propagate
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import ColorEstimate, ColorState, Iteration, Task, Tracker

KEYFRAME_GAP = 5
"""Frames from one keyframe to the next in the order "keyframes"."""

KEYFRAME_GRAY = 0.25
"""A frame with a larger share of gray pixels is no keyframe: nearer ones must bring it color first."""


@dataclass(frozen=True)
class Result:
    """What a run ends with.

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

    Each shot is a clip of its own. One without an exemplar takes its colors from the frame that is lent to it, or else
    starts with its first frame colored by the prior.

    Args:
        L: ``(T, 1, h, w)`` luminance in [0, 100].
        exemplars: frame index -> ab ``(2, h, w)``, NaN where one says nothing of its frame.
        settings: the choices of the run.
        shots: cover the clip, lenders first (``clip.alike``); None = one shot.
        stages: where the heavy stages run; None = here.
        trackers: fitted trackers by first frame of their shot, from an earlier run on the same clip.
        state: what is colored before the run; None = the exemplars.

    Raises:
        ValueError: an exemplar outside the clip.
    """
    state = state or ColorState.of_exemplars(L, exemplars)
    run = Run(state, settings, stages or Stages(), list(exemplars), dict(trackers or {}))
    del state  # memory: the run's is another soon
    yield run.colored("propagate", "exemplars in place")
    for shot in shots or [Shot(0, len(L))]:
        yield from algorithm_1(run, shot)
    return Result(run.state.stacked(), run.trackers, tuple(run.iterations), run.costs.seconds, run.costs.peak_mib)


def algorithm_1(run: Run, shot: Shot) -> Steps[None]:
    """Algorithm 1 on one shot. The paper inpaints at the end of its loop, here it is the beginning: a shot without an
    exemplar can start, too."""
    frames = shot.frames
    given = [e for e in run.exemplars if e in frames] + shot.sources
    first = min(frames, key=lambda j: abs(j - given[0])) if given else frames[0]
    run.witnesses = ColorCandidates(given, run.settings.trust_tracker, shot.remote_reference)
    tracker = yield from run.track(shot)  # Train OmniMotion
    between = {} if run.settings.trust_tracker else enclosing(given, frames)
    for i, targets in first_rounds(given, frames):  # for i = 1: the exemplars
        # X, M = InterFramePropagationStep(x_i, X, M, i), eq. (1)
        yield from run.propagate(tracker, i, targets, between=between)
    visited = {e for e in given if run.state.whole(e)}
    while not run.complete(frames):  # if every frame is full colored then break
        chosen = next_frames(run.settings.order, run.gray(frames), first, visited, run.stages.together)  # i = i + 1
        visited.update(chosen)
        filled = yield from run.fill(tracker, chosen, frames)
        for i in chosen:
            fresh = ~run.state.colored(i)
            if run.left[i]:
                yield run.inpaint(i, *filled[i])  # x_i, M_i = IntraFrameInpaintingStep(x_i, M_i), eq. (5)
            targets = frames if run.settings.trust_tracker or i in given else near(i, frames)
            yield from run.propagate(tracker, i, targets, fresh)  # X, M = InterFramePropagationStep(x_i, X, M, i)
    run.painted(run.state.repeated(shot.duplicates), shot.duplicates)


def first_rounds(given: Sequence[int], frames: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
    """Which exemplar colors which frames first: each those it is nearest to, then each all."""
    if len(given) <= 1:
        return [(e, frames) for e in given]
    nearest = {j: min(given, key=lambda e: abs(e - j)) for j in frames}
    return [(e, [j for j in frames if nearest[j] == e]) for e in given] + [(e, frames) for e in given]


def enclosing(given: Sequence[int], frames: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Of every frame between two exemplars these two."""
    sides = {j: ([e for e in given if e < j], [e for e in given if e > j]) for j in frames if j not in given}
    return {j: (max(before), min(after)) for j, (before, after) in sides.items() if before and after}


def near(i: int, frames: Sequence[int]) -> list[int]:
    """The frames up to a keyframe's gap from ``i``.

    The paper asks all. Here others have keyframes of their own, and a run's cost grows with its length, not its square.
    """
    return [j for j in frames if abs(j - i) <= KEYFRAME_GAP]


def next_frame(order: str, gray: Mapping[int, float], first: int, visited: Collection[int]) -> int:
    """The frame that Algorithm 1 takes next.

    The paper's order "next" goes on in time, from the first exemplar to the end and then back to the beginning.
    "keyframes" follows it in leaps of a few frames, over those that have little left to inpaint: new regions are filled
    where more of them has come into view, and the frames between get their color from both sides.

    Args:
        order: "next", "keyframes" or "grayest".
        gray: share of gray pixels of each frame of the shot, in the order of time.
        first: the first exemplar, or the frame nearest to what is lent, or the first frame.
        visited: the frames that were taken before.
    """
    if order == "grayest":
        return max(gray, key=lambda j: gray[j])
    last = max(gray)
    way = (*range(first, last + 1), *range(first - 1, min(gray) - 1, -1))
    onward = [j for j in way if j in gray and j not in visited]
    if order == "next":
        return onward[0]
    incomplete = [j for j in onward if gray[j] > 0]
    ahead = [j for j in incomplete if abs(j - incomplete[0]) < KEYFRAME_GAP and gray[j] <= KEYFRAME_GRAY]
    return ahead[-1] if ahead else incomplete[0]


def next_frames(order: str, gray: Mapping[int, float], first: int, visited: Collection[int], most: int) -> list[int]:
    """``next_frame``, and with it, up to ``most`` in all, frames that lie a keyframe's gap or more apart."""
    chosen = [next_frame(order, gray, first, visited)]
    while order == "keyframes" and len(chosen) < most:
        far = [j for j in gray if gray[j] > 0 and all(abs(j - i) >= KEYFRAME_GAP for i in chosen)]
        if not far:
            break
        chosen.append(min(far, key=lambda j: abs(j - chosen[-1])))
    return chosen


def prior_everywhere(settings: Settings) -> bool:
    """Whether the prior is asked for every frame, not only where a shot has no color at all."""
    return settings.diffusion == "always" or settings.prior != "bundled" or settings.strength is None


@dataclass(frozen=True)
class ShotTracker:
    """A shot's tracker, asked with the clip's frame numbers."""

    tracker: Tracker
    frames: Mapping[int, int]
    size: tuple[int, int]

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """See ``state.Tracker``."""
        return self.tracker.correspond(points, self.frames[i], self.frames[j])

    def pairs(self, i: int, j: int, near: bool) -> list[Correspondence]:
        """See ``propagate.correspondences``."""
        return correspondences(self.tracker, self.frames[i], self.frames[j], self.size, near)


@dataclass
class Run:
    """The moving parts of one run, and what it tells."""

    state: ColorState
    settings: Settings
    stages: Stages
    exemplars: list[int]
    trackers: dict[int, Tracker]
    iterations: list[Iteration] = field(default_factory=list)
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        self.witnesses = ColorCandidates(self.exemplars, self.settings.trust_tracker)
        self.left = [0] * len(self.state)
        self.painted(self.state, range(len(self.state)))

    def painted(self, state: ColorState, frames: Iterable[int]) -> None:
        """Go on with ``state``, which differs in ``frames``; count their pixels that are still gray."""
        self.state = state
        for j in frames:
            self.left[j] = int((~state.colored(j)).sum())

    def track(self, shot: Shot) -> Steps[ShotTracker]:
        """The tracker of a shot, made unless there is one; only a fitted one is kept, flows go with their shot."""
        tracker = self.trackers.get(shot.start)
        if tracker is None:
            stages = self.stages.metered(self.costs)
            tracker = yield from stages.track(self.state.L[shot.tracker_frames], self.settings)
            if self.settings.omnimotion != "off":
                self.trackers[shot.start] = tracker
                yield Fitted("fit", "the tracker is fitted", 1.0, start=shot.start, tracker=tracker)
        numbers = {frame: k for k, frame in enumerate(shot.tracker_frames)}
        return ShotTracker(tracker, numbers, (self.state.L.shape[2], self.state.L.shape[3]))

    def propagate(
        self,
        tracker: Tracker,
        i: int,
        targets: Sequence[int],
        inpainted: Tensor | None = None,
        between: Mapping[int, tuple[int, int]] | None = None,
    ) -> Steps[None]:
        """The inter-frame propagation step from frame ``i``, whose ``inpainted`` pixels are new; ends the iteration.

        ``between`` names the two exemplars that targets lie between: both have their say.
        """
        before, iteration = sum(self.left), len(self.iterations)
        near, literal = inpainted is not None, self.settings.trust_tracker
        for j in sorted(targets, key=lambda j: abs(j - i)):  # from the exemplar outwards: sure things first
            if j != i and self.left[j]:
                pair = (between or {}).get(j, ())
                beside = sum(pair) - i if i in pair else None
                with self.costs.during("propagate"):
                    given = (i, iteration, [j], near, literal, beside)
                    self.painted(propagate(tracker, self.state, *given), [j])
                yield self.colored("propagate", f"frame {i} gives its color to frame {j}", j)
        colored = before - sum(self.left)
        filled = 0 if inpainted is None else int(inpainted.sum())
        result = Iteration(iteration, i, colored, filled, sum(self.left))
        told = self.colored("propagate", f"frame {i} gave its color to {colored} pixels", i)
        self.iterations.append(result)
        yield Round(**vars(told), result=result)

    def fill(
        self, tracker: Tracker, chosen: Sequence[int], frames: Sequence[int]
    ) -> Steps[dict[int, tuple[Tensor, ColorEstimate | None]]]:
        """The colors ab of those of the ``chosen`` frames that are not whole, and the hint they come from."""
        hints: dict[int, ColorEstimate | None] = {i: None for i in chosen if self.left[i]}
        if self.settings.strength is not None:
            for i in hints:
                yield Step("inpaint", "looking up colors")
                with self.costs.during("hint"):
                    hints[i] = self.witnesses.hint(self.state, i, tracker, frames)
            if not self.asks_prior(frames):
                return {i: (hint.ab, hint) for i, hint in hints.items() if hint is not None}
        tasks = [
            Task(self.state.L[i], self.state.ab[i], self.state.colored(i), hint, self._seed(i))
            for i, hint in hints.items()
        ]
        found = (yield from self.costs.of("inpaint", self.stages.inpaint(tasks, self.settings))) if tasks else []
        return {i: (ab, hint) for (i, hint), ab in zip(hints.items(), found, strict=True)}

    def _seed(self, i: int) -> int:
        return (self.settings.seed * 1_000_003 + i) % 2**63

    def inpaint(self, i: int, ab: Tensor, hint: ColorEstimate | None) -> Colored:
        """The intra-frame inpainting step on frame ``i``."""
        self.painted(complete(self.state, i, len(self.iterations), ab, hint), [i])
        return self.colored("inpaint", f"frame {i} is complete", i)

    def asks_prior(self, frames: Sequence[int]) -> bool:
        """Whether the prior is asked; the bundled one only where a shot has no color at all to go by, unless it is
        wanted everywhere: what it does to a hint is measured to be neutral (docs/prior.md)."""
        if prior_everywhere(self.settings):
            return True
        return not (self.witnesses.exemplars or any(bool(self.state.colored(j).any()) for j in frames))

    def gray(self, frames: Sequence[int]) -> dict[int, float]:
        """The share of each frame's pixels that are still gray."""
        return {j: self.left[j] / self.state.L[j].numel() for j in frames}

    def complete(self, frames: Sequence[int]) -> bool:
        """Whether every pixel of ``frames`` has its color."""
        return not any(self.left[j] for j in frames)

    def colored(self, stage: str, message: str, frame: int | None = None) -> Colored:
        """A Step that shows the colors so far."""
        coverage = 1 - sum(self.left) / self.state.L.numel()
        return Colored(stage, message, coverage, state=self.state, iteration=len(self.iterations), frame=frame)
