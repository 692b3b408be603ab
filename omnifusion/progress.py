"""Long work: its progress events, cancellation, costs, and the error for bad input.

The bottom layer: it imports nothing heavy, so that a typing error is answered at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psutil

if TYPE_CHECKING:
    from omnifusion.state import ColorState, Iteration, Tracker

T = TypeVar("T")


def count(number: int, thing: str) -> str:
    """A number of things: "1 frame", "2 frames"."""
    return f"{number} {thing}{'s' * (number != 1)}"


class InputError(Exception):
    """Input that cannot be used; ``str`` gives the command line's sentence, which says why and what to do.

    ``problem`` is the whole sentence; or, with ``fixes``, what is wrong, without a period. ``fixes`` say what to do
    about it, by the option that does it ("force"; "" = it takes none).
    """

    def __init__(self, problem: str, fixes: Mapping[str, str] | None = None) -> None:
        super().__init__(problem, fixes)
        self.problem, self.fixes = problem, fixes or {}

    def sentence(self, where: Callable[[str], str | None]) -> str:
        """The sentence with options named by ``where``; fixes by options that it does not know are left out."""
        places = [(text, where(option) if option else "") for option, text in self.fixes.items()]
        fixes = [f"{text} with {place}" if place else text for text, place in places if place is not None]
        if not fixes:
            return self.problem + "." * bool(self.fixes)
        *others, last = fixes
        advice = f"{', '.join(others)}, or {last}" if others else last
        return f"{self.problem}; {advice}."

    def __str__(self) -> str:
        return self.sentence("--{}".format)


class Canceled(Exception):
    """The work was canceled."""


is_canceled: ContextVar[Callable[[], bool]] = ContextVar("is_canceled", default=lambda: False)
"""Tells whether the work of this context is canceled; the caller who starts the work may set it."""


def check_canceled() -> None:
    """Raise Canceled if the work is canceled; long work calls this between its parts, seconds apart at most."""
    if is_canceled.get()():
        raise Canceled


@dataclass(frozen=True)
class Step:
    """One progress event of long work; richer events are subclasses."""

    stage: str  # "load", "flow", "fit", "propagate", "inpaint", "finish"...
    message: str = ""  # one short line for people
    done: float = 0.0  # the share of the stage, in [0, 1]; once frames get color, of the pixels that have one
    seconds_left: float | None = None  # of the stage


@dataclass(frozen=True, kw_only=True)
class Colored(Step):
    """New colors."""

    state: ColorState  # the colors so far, of the whole clip, or of the part of it that is being colored
    iteration: int  # counted from 0 in the state
    frame: int | None = None  # of the state, that got them; None = exemplars
    frames: Sequence[int] = ()  # the clip's numbers of the state's frames, where it is a part of the clip


@dataclass(frozen=True, kw_only=True)
class Round(Colored):
    """An iteration of Algorithm 1 has ended."""

    result: Iteration


@dataclass(frozen=True, kw_only=True)
class Fitting(Step):
    """A tracker is being fitted; ``loss``: mean error of the motion in pixels."""

    loss: float


@dataclass(frozen=True, kw_only=True)
class Fitted(Step):
    """The ``tracker`` of the shot that begins at frame ``start`` is fitted."""

    start: int
    tracker: Tracker


@dataclass(frozen=True, kw_only=True)
class Note(Step):
    """A warning for the report: one sentence."""


@dataclass(frozen=True, kw_only=True)
class Measured(Step):
    """A ``row`` of an evaluation; its message stays on the terminal."""

    row: Any


Steps = Generator[Step, None, T]  # long work: yields Steps and returns its result


class StepIterator(Generic[T]):
    """Long work to loop over: ``for step in work: ...``, then ``work.result``."""

    result: T

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[Step]:
        self.result = yield from self._steps


def run_to_end(steps: Steps[T], each: Callable[[Step], object] = lambda step: None) -> T:
    """Run long work to its end, show each step to ``each``, and return the result."""
    work = StepIterator(steps)
    for step in work:
        each(step)
    return work.result


def inside(context: Callable[[], AbstractContextManager[None]], steps: Steps[T]) -> Steps[T]:
    """Pass long work's steps on; the work alone is done inside a context, such as ``Costs.during``."""
    while True:
        with context():
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value
        yield step


def held_mib() -> float:
    """Resident memory of this process in MiB."""
    return psutil.Process().memory_info().rss / 2**20


@dataclass
class Costs:
    """The costs of the stages of a run, by stage."""

    seconds: dict[str, float] = field(default_factory=dict)  # by the clock
    cpu_seconds: dict[str, float] = field(default_factory=dict)  # of the whole process meanwhile
    peak_mib: dict[str, float] = field(default_factory=dict)  # largest resident memory at the ends of a stage's parts

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Charge the work inside to a stage."""
        began, computed = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
            self.cpu_seconds[stage] = self.cpu_seconds.get(stage, 0.0) + time.process_time() - computed
            self.peak_mib[stage] = max(self.peak_mib.get(stage, 0.0), held_mib())
