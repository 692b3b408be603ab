"""Independent work side by side, in threads: OpenCV, SciPy and the compiled kernels release the interpreter."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import TypeVar

from omnifusion.progress import check_canceled

J = TypeVar("J")
R = TypeVar("R")

M_ARENA_MAX = -8
with suppress(OSError, AttributeError):  # glibc alone: it gives each thread an arena, which keeps what is freed in it
    ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 2)

_threads: ContextVar[int] = ContextVar("threads", default=0)
"""Threads that the work of this context may use; 0 = as many as the process may."""


def cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its container where there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return max(1, count)


@contextmanager
def bounded(threads: int) -> Iterator[None]:
    """Bound the threads of what is done inside; 0 = no bound."""
    token = _threads.set(threads or _threads.get())
    try:
        yield
    finally:
        _threads.reset(token)


def parallel(function: Callable[[J], R], jobs: Sequence[J]) -> list[R]:
    """``function`` of every job, in order. Jobs inside a job share the threads that are over.

    The threads live for this call alone: a forked process would wait in vain for threads kept by its parent.

    Raises:
        Canceled: the work was canceled meanwhile.
    """
    threads = _threads.get() or cores()
    side_by_side = min(threads, len(jobs))

    def one(job: J) -> R:
        check_canceled()
        _threads.set(max(1, threads // max(1, len(jobs))))
        return function(job)

    if side_by_side <= 1:
        return [copy_context().run(one, job) for job in jobs]
    with ThreadPoolExecutor(side_by_side) as pool:
        return list(pool.map(lambda context, job: context.run(one, job), [copy_context() for _ in jobs], jobs))
