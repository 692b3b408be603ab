"""Who computes: never more runs at once than the owner allows, whoever asked, each in a thread of the page's own.

What asks (a handler of the page, an endpoint, an MCP tool) only relays a run's steps; whether it goes on, is closed or
is forgotten by the web server, the run holds its place until its thread has ended.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from omnifusion.progress import Canceled, Colored, InputError, Step, StepIterator, Steps, held_mib, is_canceled
from omnifusion.run.folder import RunFolder
from omnifusion.ui.estimate import MIB
from omnifusion.ui.limits import Limits
from omnifusion.ui.work import Job

log = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between two looks at a run."""

WAITING = 64
"""Most runs that wait, of all visitors together; of so many that came to nothing it is still known why."""

Work = Callable[[Callable[[], bool]], Steps[RunFolder]]
"""A run's work; it is given a question, "have you to stop?", and when that turns true it keeps what is done."""


@dataclass(frozen=True)
class Bound:
    """What a run may take at most: seconds, and the resident memory in MiB of a process that was at rest before it."""

    seconds: float
    mib: float


@dataclass(eq=False)
class Run:
    """One run, from its place in the queue to its end.

    Attributes:
        work: what it does.
        bound: what it may take.
        visitor: whose it is: an address.
        session: the page, or the program's connection, that it was asked from.
        patience: seconds for which it goes on after its last client has vanished.
        token: what its link names, and its folder will be called.
        job: what was asked, for whoever opens the link meanwhile.
        why: the sentence that says why it was stopped before its end.
        result, error: what it ended with.
    """

    work: Work
    bound: Bound
    visitor: str
    session: str
    patience: float = 0.0
    token: str = ""
    job: Job | None = None
    why: str = ""
    result: RunFolder | None = None
    error: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    _news: dict[type, tuple[int, Step]] = field(default_factory=dict)
    _told: int = 0
    _followers: int = 0
    _stop: Literal["", "keep", "drop"] = ""
    _began: float = 0.0
    _looked: float = 0.0
    _before: float = 0.0  # MiB that the process held beyond what it does at rest when the run began
    _vanished: float | None = None
    _context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def stop(self, keep: bool, why: str = "") -> None:
        """End within seconds; ``keep`` what is done by then, or leave nothing behind."""
        self.why = self.why or why
        self._stop = "keep" if keep and self._stop != "drop" else "drop"

    def vanish(self) -> None:
        """Nobody listens any more."""
        if self._vanished is None:
            self._vanished = time.monotonic()

    def has_to_stop(self) -> bool:
        """Whether the run has to end now, and keep what is done."""
        self._look()
        return self._stop == "keep"

    def _called_off(self) -> bool:
        """What the work asks between its parts, from any of its threads."""
        self._look()
        return bool(self._stop)

    def _look(self) -> None:
        now = time.monotonic()
        if self._stop or now - self._looked < POLL:
            return
        self._looked = now
        if self._forgotten(now):
            self.stop(keep=self.patience > 0)
        elif now - self._began > self.bound.seconds:
            self.stop(True, f"It was stopped after {now - self._began:.0f} s, far more than it was expected to take.")
        elif (held := held_mib()) > self.bound.mib + self._before:
            self.stop(True, f"It was stopped at {held:.0f} MiB, far more memory than it was expected to need.")

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more, before it has begun."""
        return not self._began and bool(self._stop or self._forgotten(time.monotonic()))

    def _forgotten(self, now: float) -> bool:
        return self._vanished is not None and now - self._vanished >= self.patience

    def compute(self) -> None:
        """Do the work, in the context of whoever asked (a ZeroGPU Space knows its visitors by it)."""
        self._began = time.monotonic()
        self._before = max(0.0, held_mib() - MIB["base"])
        self._context.run(self._compute)

    def _compute(self) -> None:
        is_canceled.set(self._called_off)
        work = StepIterator(self.work(self.has_to_stop))
        try:
            with suppress(Canceled):
                for step in work:
                    self._tell(step)
                    self._look()
                    if self._stop == "drop":
                        return
                self.result = work.result
        except BaseException as error:
            self.error = error

    def _tell(self, step: Step) -> None:
        """Keep the newest step of each kind: a state weighs as much as the clip."""
        self._told += 1
        kind = Colored if isinstance(step, Colored) else type(step)
        self._news = {**self._news, kind: (self._told, step)}

    async def follow(self, listening: Callable[[], bool]) -> AsyncGenerator[Step, None]:
        """The newest steps as they come, until the run has ended; raises what the run raised.

        Any number may follow. When the last one stops, the client has vanished.
        """
        seen, self._followers, self._vanished = 0, self._followers + 1, None
        try:
            ended = False
            while not ended:
                ended = self.ended.is_set() or self.unwanted
                for number, step in sorted(self._news.values(), key=lambda told: told[0]):
                    if number > seen:
                        seen = number
                        yield step
                if not listening():
                    return
                await asyncio.sleep(0 if ended else POLL)
        finally:
            self._followers -= 1
            if not self._followers:
                self.vanish()
        if self.error is not None:
            raise self.error


class Runs:
    """All runs, those that compute and those that wait."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.RLock()
        self._waiting: deque[Run] = deque()
        self._computing: set[object] = set()
        self._failed: deque[Run] = deque(maxlen=WAITING)

    def submit(self, run: Run, alone: bool = False) -> int:
        """Queue a run; returns how many others come first.

        Args:
            run: begins by itself when its turn has come.
            alone: its session may have no other.

        Raises:
            InputError: this session has one already, or this visitor or all have too many.
        """
        with self._lock:
            others = self._all()
            if alone and any(r.session == run.session for r in others):
                raise InputError("Your run is still going on; cancel it first, or wait for its end.")
            mine = sum(r.visitor == run.visitor for r in others)
            if mine >= self.limits.queue:
                raise InputError(f"You have {mine} runs waiting here, as many as one visitor may; wait for one to end.")
            if len(self._waiting) >= WAITING:
                raise InputError("Too many runs are waiting here; come back later.")
            self._waiting.append(run)
            self._dispatch()
            return len(others)

    def _sweep(self) -> None:
        """Those that wait and are not wanted any more give up their places; the lock is held."""
        self._waiting = deque(run for run in self._waiting if not run.unwanted)

    def _dispatch(self) -> None:
        """Let the next ones begin; the lock is held."""
        self._sweep()
        while self._waiting and len(self._computing) < self.limits.runs:
            run = self._waiting.popleft()
            self._computing.add(run)
            log.info("a run begins; %d computing, %d waiting", len(self._computing), len(self._waiting))
            threading.Thread(target=self._compute, args=(run,), daemon=True).start()

    def _compute(self, run: Run) -> None:
        try:
            run.compute()
        finally:
            if run.result is None:
                run._news = {}
                self._failed.append(run)
            self._end(run)
            run.ended.set()

    def _end(self, work: object) -> None:
        with self._lock:
            self._computing.discard(work)
            log.info("a run has ended; %d computing, %d waiting", len(self._computing), len(self._waiting))
            self._dispatch()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """A short piece of work in the place of a run.

        Raises:
            InputError: all places are taken.
        """
        with self._lock:
            if len(self._computing) >= self.limits.runs:
                raise InputError("A run is going on here, and this would have to wait for it; ask again afterwards.")
            place = object()
            self._computing.add(place)
        try:
            yield
        finally:
            self._end(place)

    def find(self, token: str) -> Run | None:
        """The run of a link: one that computes or waits, or one that came to nothing not long ago."""
        return next((run for run in (*self._all(), *self._failed) if token and run.token == token), None)

    def cancel(self, token: str) -> bool:
        """Stop a run and keep what is done; returns whether there was one."""
        found = [run for run in self._all() if token and run.token == token]
        for run in found:
            run.stop(keep=True)
        return bool(found)

    def uses(self, folder: Path) -> bool:
        """Whether a run still needs the clip that lies in ``folder``."""
        return any(run.job is not None and run.job.clip.parent == folder for run in self._all())

    def leave(self, session: str) -> None:
        """A session is over: its runs have lost their client."""
        for run in self._all():
            if run.session == session:
                run.vanish()

    def _all(self) -> list[Run]:
        """Those that compute or wait."""
        with self._lock:
            self._sweep()
            return [run for run in (*self._waiting, *self._computing) if isinstance(run, Run)]
