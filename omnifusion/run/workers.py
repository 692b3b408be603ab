"""Who colors the segments of a run beside this process: others on this machine, or those of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2
import torch

from omnifusion.progress import InputError, Step, Steps, check_canceled, is_canceled, run_to_end
from omnifusion.run.coloring import Coloring, Record
from omnifusion.run.segments import Segment, color_segment
from omnifusion.stages import Stages

TRIES = 4
"""How often a segment is begun whose worker dies."""


def color_by(pool: LocalPool | RayPool, coloring: Coloring) -> Steps[None]:
    """Color all segments by the workers of a pool: whichever is ready, as many at once as there are workers.

    Raises:
        InputError: as ``color_segment``; or a segment's workers died, again and again.
    """
    waiting, running, tries = list(coloring.shots), {}, Counter[int]()  # type: ignore[var-annotated]
    try:
        while waiting or running:
            while len(running) < pool.size and (shot := next(filter(coloring.ready, waiting), None)):
                waiting.remove(shot)
                segment = coloring.segment(shot)
                if not coloring.find(segment, key := segment.key):
                    running[pool.submit(segment, key, coloring.folder)] = shot
            finished, _ = wait(running, 0.5, FIRST_COMPLETED)
            check_canceled()
            for future in finished:
                shot = running.pop(future)
                try:
                    coloring.add(shot.start, future.result())
                except BrokenExecutor as error:
                    tries[shot.start] += 1
                    if tries[shot.start] == TRIES:
                        raise InputError(
                            f"A worker died {TRIES} times at frames {shot.start} to {shot.stop - 1}, often for lack of "
                            "memory; run again with fewer workers or less memory."
                        ) from error
                    waiting.insert(0, shot)
            names = ", ".join(f"{shot.start}-{shot.stop - 1}" for shot in running.values())
            message = f"{len(coloring.records)} of {len(coloring.shots)} parts done" + (
                f"; at frames {names}" if names else ""
            )
            yield Step("propagate", message, coloring.done())
    finally:
        pool.close()


class LocalPool:
    """Processes on this machine, of ``threads`` threads each; ``size`` segments are colored at once."""

    def __init__(self, size: int, threads: int) -> None:
        self.size, self._threads = size, threads
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        known = (self._threads, os.getpid(), self._stop)
        return ProcessPoolExecutor(self.size, self._context, initializer=_begin, initargs=known)

    def submit(self, segment: Segment, key: str, folder: Path) -> Future[Record]:
        """Begin ``color_segment``; where a process has died, all are started anew."""
        try:
            return self._executor.submit(_color, segment, key, folder)
        except BrokenExecutor:
            self._executor = self._start()
            return self._executor.submit(_color, segment, key, folder)

    def close(self) -> None:
        """End what was begun; the workers stop at their next step."""
        self._stop.set()
        self._executor.shutdown(cancel_futures=True)


def _begin(threads: int, parent: int, stop: Event) -> None:
    """Prepare a worker process: an interruption is its parent's affair, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    is_canceled.set(lambda: stop.is_set() or os.getppid() != parent)


def _color(segment: Segment, key: str, folder: Path) -> Record:
    return run_to_end(color_segment(segment, key, folder, Stages()), lambda step: check_canceled())


class RayPool:
    """The machines of a Ray cluster that is running; the run's folder must be the same on all of them.

    Args:
        address: such as "ray://head:10001".
        mib: memory that a segment may take.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str, mib: float) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("Ray is not installed; install omnifusion[ray] (or requirements-ray.txt).") from error
        home = str(Path(__file__).parents[2])
        try:
            ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": home}}, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"The Ray cluster {address} cannot be reached ({error}).") from error
        self._remote = ray.remote(num_cpus=1, memory=round(mib * 2**20), max_retries=TRIES - 1)(_color)
        self.size = max(1, round(ray.cluster_resources().get("CPU", 1)))
        self.close: Callable[[], None] = ray.shutdown

    def submit(self, segment: Segment, key: str, folder: Path) -> Future[Record]:
        """Begin ``color_segment``."""
        return self._remote.remote(segment, key, folder).future()
