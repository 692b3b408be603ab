"""What a run tells while it works, step by step, and how steps are passed on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor

from omnifusion.state import ColorState, Iteration, Task, Tracker

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One sign of life from long work: all that the page, the command line and the tests see of a run.

    What tells more than that work goes on is a kind of its own, below.

    Attributes:
        stage: "load", "flow", "fit", "propagate", "inpaint", "finish"...
        message: one short line for people.
        done: fraction of the stage that is done, in [0, 1]; once colours flow, the share of pixels that have one.
        seconds_left: estimate for the stage, or None.
    """

    stage: str
    message: str = ""
    done: float = 0.0
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Colored(Step):
    """There are new colours: those of the whole clip so far, from ``frame`` (None = exemplars) in an iteration."""

    state: ColorState
    iteration: int
    frame: int | None = None


@dataclass(frozen=True, kw_only=True)
class Round(Colored):
    """An iteration of Algorithm 1 has ended."""

    result: Iteration


@dataclass(frozen=True, kw_only=True)
class Fitting(Step):
    """A tracker is being fitted.

    Attributes:
        loss: mean error of the motion in pixels.
        iteration: gradient steps so far.
        recoveries: how often the fit diverged and went back.
        picture: ``(H, W, 3)`` uint8, the motion so far, or None.
        saved: where another call may go on, or None.
    """

    loss: float
    iteration: int
    recoveries: int
    picture: np.ndarray | None = None
    saved: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted(Step):
    """The ``tracker`` of the shot that begins at frame ``start`` is fitted; ``picture`` as in ``Fitting``."""

    start: int
    tracker: Tracker
    picture: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Note(Step):
    """Something went otherwise than wished: its message, one sentence, belongs in the report."""


@dataclass(frozen=True, kw_only=True)
class Measured(Step):
    """A ``row`` of an evaluation is there; its message is worth keeping."""

    row: Any


Steps = Generator[Step, None, T]
"""Long work: yields Steps and returns its result."""


class Followed(Generic[S, T]):
    """Long work to loop over: ``for step in work: ...``, then ``work.result``."""

    result: T

    def __init__(self, steps: Generator[S, None, T]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[S]:
        self.result = yield from self._steps


def relay(steps: Generator[S, None, T], each: Callable[[S], R]) -> Generator[R, None, T]:
    """Pass on what ``each`` makes of the steps of long work, and return its result."""
    work = Followed(steps)
    for step in work:
        yield each(step)
    return work.result


def drain(steps: Generator[S, None, T], each: Callable[[S], object] = lambda step: None) -> T:
    """Run long work to its end, show each step to ``each``, and give the result."""
    work = Followed(steps)
    for step in work:
        each(step)
    return work.result


class Prior(Protocol):
    """An image prior that completes the colour of frames."""

    def fill(self, tasks: Sequence[Task]) -> Steps[list[Tensor]]:
        """Each task's ``ab`` ``(2, H, W)`` with the pixels outside its mask coloured and those inside it unchanged.

        Args:
            tasks: frames of one size, filled at once and independently of each other.
        """
        ...
