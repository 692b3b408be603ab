"""The queue of runs: as many at once as the owner allows; all others wait, in one queue.

The client (page, endpoint, MCP tool) looks at its job now and then. A job that nobody looks at ends after its patience.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from omnifusion.progress import Canceled, InputError, StepIterator, Steps, is_canceled
from omnifusion.run.folder import RunFolder
from omnifusion.ui.live import Live
from omnifusion.ui.store import Limits

log = logging.getLogger(__name__)

T = TypeVar("T")

WAITING = 64  # most waiting jobs, of all visitors together, and most ended ones whose outcome is still known


@dataclass(eq=False)
class Job:
    """One run, from its place in the queue to its end.

    Attributes:
        folder: of the run; its name is the token that the run's link carries. Removed if the run fails.
        work: makes the run in it.
        seconds: longest time it may compute.
        patience: seconds for which it continues after the last look at it; then it ends, ``keep`` what is done or not.
        visitor, session: whose it is: an address, and the page or the program's connection that asked.
        name: of the clip.
        parent: token of the run that it corrects, or "".
        why: the sentence that says why it ended before its time, or "".
        began: when it began to compute; 0 while it waits.
    """

    folder: Path
    work: Callable[[], Steps[RunFolder]]
    seconds: float
    patience: float
    visitor: str = ""
    session: str = ""
    name: str = ""
    parent: str = ""
    keep: bool = True
    why: str = ""
    live: Live = field(default_factory=Live)
    result: Future[RunFolder] = field(default_factory=Future)
    began: float = 0.0
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
            if self.stopping():
                raise Canceled
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
                refusal = f"You have {own} runs waiting here, the most for one visitor. Wait for one to end."
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
        finally:
            job.live = Live()
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
