"""The queue of runs: as many at once as the owner allows; all others wait, in one queue.

Progress is recorded at once, pictures are rendered only when requested.
The client (page, endpoint, MCP tool) looks at its job now and then. A job that nobody looks at ends after its patience.
"""

import ctypes
import gc
import logging
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from omnifusion.color import compose, overlay, to_uint8
from omnifusion.correction.history import FrameCorrected
from omnifusion.progress import Canceled, Colored, InputError, Step, StepIterator, Steps, count, is_canceled
from omnifusion.run.folder import RunFolder
from omnifusion.state import ColorState, Origin
from omnifusion.ui.parts import inline, legend, message, seconds
from omnifusion.ui.store import Limits

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[], Steps[RunFolder]]

WAITING = 64  # most waiting jobs, of all visitors together, and most ended ones whose outcome is still known

STAGES = {"flow": "Flow", "fit": "Fit", "color": "Color", "finish": "Film"}
"""What a run goes through, and the word on its bar; propagation and inpainting take turns in "color"."""


@dataclass
class Live:
    """The progress of a run so far."""

    number: int = 0  # of steps
    done: dict[str, float] = field(default_factory=dict)  # share that is done of each stage that has begun
    shares: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # of pixels: exemplar, propagated, inpainted
    caption: str = ""  # what the pictures show
    pictures: Callable[[], dict[str, np.ndarray]] = dict  # makes them, see ``rendered``
    _step: Step | None = None
    _stage: str = ""
    _state: ColorState | None = None
    _first: tuple[float, float] = (0.0, 0.0)  # when there was color first, and how much

    def note(self, step: Step) -> None:
        """Record a step; cheap, however long the clip."""
        stage = "color" if step.stage in ("propagate", "inpaint", "correct") else step.stage
        if stage != "color" or isinstance(step, Colored | FrameCorrected):
            self.done[stage] = step.done
        if isinstance(step, Colored):
            self._note_colors(step)
        elif isinstance(step, FrameCorrected):
            picture = step.picture.transpose(1, 2, 0)
            self.caption, self.pictures = f"frame {step.frame}", lambda: {"after": picture}
        self._step, self._stage, self.number = step, stage, self.number + 1

    def _note_colors(self, step: Colored) -> None:
        origin = Origin.PROPAGATED if step.stage == "propagate" else Origin.INPAINTED
        origin = Origin.EXEMPLAR if step.frame is None else origin
        self.shares[origin] += max(0.0, step.done - sum(self.shares))
        if not self._first[0]:
            self._first = time.monotonic(), step.done
        state, before = step.state, self._state
        before = before if before is not None and len(before) == len(state) else None
        changed = [] if before is None else [j for j in range(len(state)) if state.origin[j] is not before.origin[j]]
        frame = changed[len(changed) // 2] if changed else step.frame or 0
        self.caption = f"frame {step.frames[frame] if step.frames else frame}, iteration {step.iteration}"
        self._state, self.pictures = state, partial(rendered, state, before, frame)

    def figures(self) -> str:
        """The pictures and the shares of the origins as HTML; "" before there are any."""
        names = {"after": f"After this step: {self.caption}", "before": "Before", "mask": "New colors"}
        figures = [
            f'<figure id="{kind}"><img src="{inline(picture)}" alt="{names[kind]}">'
            f"<figcaption>{names[kind]}</figcaption></figure>"
            for kind, picture in self.pictures().items()
        ]
        return f'<div class="of-live">{"".join(figures)}</div>{legend(self.shares)}' if figures else ""

    def progress(self, name: str = "") -> str:
        """One bar per stage, and one line that says what is going on, after the ``name`` of the run."""
        step, bars = self._step, []
        if step is None:
            return ""
        stages = [stage for stage in STAGES if stage in self.done or stage in ("color", "finish")]
        reached = stages.index(self._stage) if self._stage in stages else -1
        for k, stage in enumerate(stages):
            word, part = STAGES[stage], 1.0 if k < reached else self.done.get(stage, 0.0)
            now = round(100 * min(1.0, max(0.0, part)))
            bars.append(f'<label class="of-stage">{word}<progress max="100" value="{now}"></progress></label>')
        rest = self._seconds_left(step)
        line = name + step.message + (f" · about {seconds(rest)} left" if rest is not None else "")
        return f'<div class="of-stages">{"".join(bars)}</div>{message(line)}'

    def _seconds_left(self, step: Step) -> float | None:
        """Until all pixels have color, at the pace so far."""
        if self._stage != "color" or not self._first[0]:
            return step.seconds_left
        (began, first), done = self._first, sum(self.shares)
        passed = time.monotonic() - began
        return passed * (1 - done) / (done - first) if done > first + 0.1 and passed > 2 else None


def rendered(state: ColorState, before: ColorState | None, frame: int) -> dict[str, np.ndarray]:
    """A frame "before" and "after" a step, and the "mask" of its new colors, each ``(h, w, 3)`` uint8."""

    def picture(ab: Tensor) -> np.ndarray:
        return to_uint8(compose(state.L[frame], ab)).permute(1, 2, 0).numpy()

    origin, gray = state.origin[frame], torch.zeros_like(state.ab[frame])
    earlier = torch.full_like(origin, -1) if before is None else before.origin[frame]
    kind = torch.where((earlier < 0) & (origin >= 0), origin % 3, -1)
    return {
        "after": picture(state.ab[frame]),
        "before": picture(gray if before is None else before.ab[frame]),
        "mask": overlay(picture(gray), kind.numpy(), 0.65),
    }


@dataclass(eq=False)
class Job:
    """One run, from its place in the queue to its end."""

    folder: Path  # of the run, removed if it fails; its name is the token that the run's link carries
    work: Work  # makes the run in it
    seconds: float  # longest time it may compute
    patience: float  # seconds for which it continues after the last look at it
    visitor: str = ""  # whose it is, by address
    session: str = ""  # the page, or the program's connection, that it belongs to
    name: str = ""  # of the clip
    parent: str = ""  # token of the run that it corrects
    keep: bool = True  # what is done when its patience ends
    why: str = ""  # it ended before its time, as a sentence
    live: Live = field(default_factory=Live)
    result: Future[RunFolder] = field(default_factory=Future)
    began: float = 0.0  # when it began to compute; 0 while it waits
    stopped: Literal["", "keep", "drop"] = ""
    _seen: float = field(default_factory=time.monotonic)
    context: Context = field(default_factory=copy_context)  # by which a ZeroGPU Space knows its visitors

    @property
    def token(self) -> str:
        """The token in its link."""
        return self.folder.name

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the job (Canceled if it never began), or None."""
        try:
            return self.result.exception()
        except Exception:  # it never began
            return Canceled()

    def look(self) -> None:
        """Note that somebody still waits for the job."""
        self._seen = time.monotonic()

    def stop(self, keep: bool, why: str = "") -> None:
        """End within seconds; ``keep`` what is done by then, or leave nothing behind."""
        self.why, self.stopped = self.why or why, "keep" if keep and self.stopped != "drop" else "drop"
        if self.result.cancel():
            self.why = self.why or "It was canceled before it began."
            shutil.rmtree(self.folder, ignore_errors=True)

    def stopping(self) -> bool:
        """Whether it has to end now; asked by its work, often and from any of its threads."""
        now = time.monotonic()
        if not self.stopped and now - self._seen > self.patience:
            self.stop(self.keep)
        if not self.stopped and self.began and now - self.began > self.seconds:
            self.stop(True, f"It was stopped after {self.seconds:.0f} s, the limit for this run.")
        return bool(self.stopped)

    def compute(self) -> RunFolder:
        """Do the work."""
        self.began = time.monotonic()
        is_canceled.set(self.stopping)
        try:
            with closing(self.work()) as steps:
                work = StepIterator(steps)
                for step in work:
                    self.live.note(step)
                    if self.stopped == "drop":
                        break
            if self.stopped == "drop":
                raise Canceled
            return work.result
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise


class Jobs:
    """All jobs: those that compute, those that wait, and the last ones that have ended."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pool = ThreadPoolExecutor(limits.runs, "run")
        self._jobs: dict[str, Job] = {}
        self._lock = threading.RLock()

    def submit(self, job: Job, alone: bool = False) -> None:
        """Queue a job, which begins by itself when its turn has come. InputError if this visitor or all have too many,
        or the job has to be its session's only one and is not."""
        with self._lock:
            others = self.unfinished()
            own = sum(other.visitor == job.visitor for other in others)
            if alone and any(other.session == job.session for other in others):
                refusal = "Your run is still going on. Cancel it first, or wait for its end."
            elif own >= self.limits.queue:
                refusal = f"You have {count(own, 'run')} waiting here, the most for one visitor. Wait for one to end."
            elif len(others) >= WAITING + self.limits.runs:
                refusal = "Too many runs are waiting here. Come back later."
            else:
                self._jobs[job.token] = job
                for ended in [other for other in self._jobs.values() if other.result.done()][:-WAITING]:
                    del self._jobs[ended.token]
                job.result = self._pool.submit(self._run, job)
                return
        job.stop(keep=False)
        raise InputError(refusal)

    def _run(self, job: Job) -> RunFolder:
        log.info("a run begins; %d computing", 1 + self._computing())
        try:
            return job.context.run(job.compute)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they hold the colors so far
            raise
        finally:
            job.live = Live()
            del job.work
            gc.collect()
            with suppress(OSError, AttributeError):  # only glibc can give memory back
                ctypes.CDLL(None).malloc_trim(0)
            log.info("a run has ended; %d computing", self._computing() - 1)

    def _computing(self) -> int:
        return sum(job.began > 0 for job in self.unfinished())

    def unfinished(self) -> list[Job]:
        """Jobs that compute or wait, in order of arrival, without those that nobody waits for any more."""
        with self._lock:
            jobs = list(self._jobs.values())
        return [job for job in jobs if (job.began or not job.stopping()) and not job.result.done()]

    def find(self, token: str) -> Job | None:
        """The job of a token: one that computes, waits, or has ended not long ago."""
        return self._jobs.get(token)

    def beside(self, work: Callable[[], T]) -> T:
        """Do a short piece of work in the place of a run, and return its result; InputError if a run is at work."""
        if self.unfinished():
            raise InputError("A run is going on here, and this would have to wait for it. Try again afterwards.")
        return self._pool.submit(work).result()
