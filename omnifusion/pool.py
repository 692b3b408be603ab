"""Independent work in parallel threads: OpenCV, SciPy and the compiled kernels release the interpreter."""

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from pathlib import Path
from threading import Semaphore
from typing import Generic, TypeVar

from omnifusion.progress import check_canceled

J = TypeVar("J")
R = TypeVar("R")

M_ARENA_MAX = -8
with suppress(OSError, AttributeError):  # glibc alone: it gives each thread an arena, which keeps freed memory
    ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 2)

_spare: ContextVar[Semaphore | None] = ContextVar("spare", default=None)
"""The threads that the work of this context may still begin; None = as many as the process has cores."""


def cores() -> int:
    """The number of cores that this process may use, by its affinity and the quota of its container, if any."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return max(1, count)


@contextmanager
def bounded(threads: int) -> Iterator[None]:
    """Bound the threads of the work inside; 0 = as the caller's are, else one for each core."""
    outer = None if threads else _spare.get()
    token = _spare.set(outer or Semaphore((threads or cores()) - 1))
    try:
        yield
    finally:
        _spare.reset(token)


def parallel(function: Callable[[J], R], jobs: Sequence[J]) -> list[R]:
    """``function`` of every job, in order.

    The caller's thread works, too. A thread that begins a job starts another thread while one is free, so that nested
    jobs get the threads of finished ones. Threads live for this call alone: a forked process would wait in vain for
    threads kept by its parent.

    Raises:
        Canceled: the work was canceled meanwhile.
    """
    batch = _Batch(function, jobs, _spare.get() or Semaphore(cores() - 1))
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        try:
            batch.work(pool)
        finally:
            for helper in batch.helpers:  # helpers may start others meanwhile
                helper.exception()
    for helper in batch.helpers:
        helper.result()
    return [batch.results[n] for n in range(len(jobs))]


class _Batch(Generic[J, R]):
    """The jobs of one call and their results; no reference cycle, so that results are freed with their last user."""

    def __init__(self, function: Callable[[J], R], jobs: Sequence[J], spare: Semaphore) -> None:
        self.function, self.jobs, self.spare = function, jobs, spare
        self.todo, self.results, self.helpers = iter(range(len(jobs))), dict[int, R](), list[Future[None]]()

    def work(self, pool: ThreadPoolExecutor) -> None:
        """Do jobs until all have begun."""
        try:
            for n in self.todo:
                if n + 1 < len(self.jobs) and self.spare.acquire(blocking=False):
                    self.helpers.append(pool.submit(copy_context().run, self.help_out, pool))
                check_canceled()
                self.results[n] = self.function(self.jobs[n])
        except BaseException:
            deque(self.todo, maxlen=0)  # nobody begins another job
            raise

    def help_out(self, pool: ThreadPoolExecutor) -> None:
        """Do the same in a thread that was free."""
        try:
            self.work(pool)
        finally:
            self.spare.release()
