"""Who colors segments beside this process: others on this machine, or those of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from omnifusion.progress import InputError, check_canceled, is_canceled, run_to_end
from omnifusion.run.segments import Record, Segment
from omnifusion.stages import Stages


class LocalPool:
    """Processes on this machine, of ``threads`` threads each; ``size`` segments are colored at once."""

    def __init__(self, size: int, threads: int) -> None:
        self.size, self._context = size, multiprocessing.get_context("spawn")
        self._known = (threads, os.getpid(), self._context.Event())
        self._executor = ProcessPoolExecutor(size, self._context, _begin, self._known)

    def submit(self, segment: Segment, folder: Path) -> Future[Record]:
        """Begin to color a segment; where a process has died, all are started anew."""
        try:
            return self._executor.submit(_color, segment, folder)
        except BrokenExecutor:
            self._executor = ProcessPoolExecutor(self.size, self._context, _begin, self._known)
            return self._executor.submit(_color, segment, folder)

    def close(self) -> None:
        """End what was begun; the workers stop at their next step."""
        self._known[2].set()
        self._executor.shutdown(cancel_futures=True)


def _begin(threads: int, parent: int, stop: Event) -> None:
    """Prepare a worker process: an interruption is its parent's affair, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    is_canceled.set(lambda: stop.is_set() or os.getppid() != parent)


def _color(segment: Segment, folder: Path) -> Record:
    return run_to_end(segment.color(folder, Stages(threads=torch.get_num_threads())), lambda step: check_canceled())


class RayPool:
    """The machines of the Ray cluster at ``address`` ("ray://head:10001"), to which clip and run have the same paths;
    each segment may take ``mib`` MiB.

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
        self._remote = ray.remote(num_cpus=1, memory=round(mib * 2**20), max_retries=3)(_color)
        self.size = max(1, round(ray.cluster_resources().get("CPU", 1)))
        self.close: Callable[[], None] = ray.shutdown

    def submit(self, segment: Segment, folder: Path) -> Future[Record]:
        """Begin to color a segment."""
        return self._remote.remote(segment, folder).future()
