"""Who does the units of a run: this process, others beside it, or the machines of a Ray cluster."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import torch

from omnifusion.progress import Colored, InputError, Step, Steps, map_steps
from omnifusion.run.cache import Cache
from omnifusion.run.segments import Units, work
from omnifusion.stages import Stages

TRIES = 4
"""How often a unit is begun whose worker dies."""


def color_here(units: Units, stages: Stages) -> Steps[None]:
    """Do all units in this process, one after another; those that are kept already cost a look."""
    for shot in units.shots:
        given, before = units.task(shot), units.done()
        key = given.key

        def told(step: Step, shot: Any = shot, before: float = before) -> Step:
            if not isinstance(step, Colored):
                return step
            units.begun[shot.start] = step
            return replace(step, done=before + step.done * len(shot) / len(units.clip.video))

        if units.cache.holds(key):
            yield Step("propagate", f"frames {shot.start} to {shot.stop - 1} are kept from before", before)
        else:
            yield from map_steps(work(given, units.cache, stages), told)
        units.keys[shot.start] = key
        units.begun.clear()


@dataclass
class Pool:
    """So many workers.

    Attributes:
        size: units that are done at once.
        submit: begins a unit, given a pickled ``Task`` and the folder of its cache.
        stop: ends what was begun.
    """

    size: int
    submit: Callable[[bytes, Path], Future[None]]
    stop: Callable[[], None]


def color_by(pool: Pool, units: Units) -> Steps[None]:
    """Do all units by the workers of a pool: whichever is ready, as many at once as there are workers.

    Raises:
        InputError: as the work itself; or a unit's workers died, again and again.
    """
    waiting, going = list(units.shots), {}  # type: ignore[var-annotated]
    try:
        while waiting or going:
            while len(going) < pool.size and (shot := next(filter(units.ready, waiting), None)):
                waiting.remove(shot)
                given = units.task(shot)
                if units.cache.holds(given.key):
                    units.keys[shot.start] = given.key
                else:
                    going[pool.submit(pickle.dumps(given), units.cache.folder)] = shot, given.key
            finished, _ = wait(going, 0.5, FIRST_COMPLETED)
            for future in finished:
                shot, key = going.pop(future)
                future.result()
                units.keys[shot.start] = key
            begun = sum(len(shot) * units.cache.progress(key) for shot, key in going.values())
            names = ", ".join(f"{shot.start}-{shot.stop - 1}" for shot, _ in going.values())
            told = f"{len(units.keys)} of {len(units.shots)} parts done" + (f"; at frames {names}" if names else "")
            state = Step("units", told, units.done() + begun / len(units.clip.video))
            yield state
    finally:
        pool.stop()


def local(size: int) -> Pool:
    """A pool of processes on this machine."""
    threads, stopped = ThreadPoolExecutor(size), Event()
    running: set[subprocess.Popen[bytes]] = set()
    home = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    share = max(1, (os.cpu_count() or 1) // size)

    def one(given: bytes, folder: Path) -> None:
        for _ in range(TRIES):
            worker = subprocess.Popen(
                [sys.executable, "-m", "omnifusion.run.workers", str(folder), str(share)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # an interruption is the parent's affair
                env=os.environ | {"PYTHONPATH": home},
            )
            running.add(worker)
            told, _ = worker.communicate(given)
            running.remove(worker)
            if told:
                raise pickle.loads(told)
            if worker.returncode == 0 or stopped.is_set():
                return
        raise InputError(
            f"A worker died {TRIES} times at the same part (exit code {worker.returncode}; -9 is often a lack of "
            "memory)",
            {"workers": "run it again, with fewer processes", "memory": "allow it less"},
        )

    def stop() -> None:
        stopped.set()
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(running):
            worker.kill()

    return Pool(size, lambda given, folder: threads.submit(one, given, folder), stop)


def serve(folder: Path, threads: int) -> None:
    """Do the unit that comes in by the standard input, in a process of its own, which ends when its parent does; what
    goes wrong goes out by the standard output."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    answer, parent = os.fdopen(os.dup(1), "wb"), os.getppid()
    os.dup2(2, 1)  # whatever a library prints is no answer
    try:
        for _ in work(pickle.load(sys.stdin.buffer), Cache(folder), Stages()):
            if os.getppid() != parent:
                return
    except Exception as error:
        answer.write(pickle.dumps(error))


def ray_cluster(address: str, mib: float) -> Pool:
    """A pool on a Ray cluster that is running; the clip's and the run's folders must be the same on all its machines.

    Args:
        address: such as "ray://head:10001".
        mib: memory that a unit may take.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed; install omnifusion[ray] (or requirements-ray.txt).") from error
    home = str(Path(__file__).parents[2])
    try:
        ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": home}}, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"The Ray cluster {address} cannot be reached ({error}).") from error
    remote = ray.remote(num_cpus=1, memory=round(mib * 2**20), max_retries=TRIES - 1)(_there)
    size = max(1, round(ray.cluster_resources().get("CPU", 1)))
    return Pool(size, lambda given, folder: remote.remote(given, str(folder)).future(), ray.shutdown)


def _there(given: bytes, folder: str) -> None:
    """Do a unit on a machine of a cluster."""
    for _ in work(pickle.loads(given), Cache(Path(folder)), Stages()):
        pass


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
