"""Runs: one at a time, whoever asked and however they leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from omnifusion import flow
from omnifusion.progress import Canceled, InputError, Step, Steps
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.settings import Settings
from omnifusion.ui.estimate import MIB
from omnifusion.ui.limits import Limits
from omnifusion.ui.runs import Bound, Run, Runs

STORED = RunFolder("token", Path(), RunRequest("clip", Settings()))
WIDE = Bound(60.0, 1e9)


@dataclass
class Counted:
    """Work that counts how many of its kind go on at once."""

    now: int = 0
    most: int = 0
    begun: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, steps: int, seconds: float = 0.01) -> Callable[[Callable[[], bool]], Steps[RunFolder]]:
        def run(stopped: Callable[[], bool]) -> Steps[RunFolder]:
            with self.lock:
                self.now, self.begun = self.now + 1, self.begun + 1
                self.most = max(self.most, self.now)
            try:
                for _ in range(steps):
                    yield Step("fit")
                    if stopped():
                        break
                    time.sleep(seconds)
                return STORED
            finally:
                with self.lock:
                    self.now -= 1

        return run


def a_run(counted: Counted, steps: int = 3, session: str = "s", patience: float = 0.0, bound: Bound = WIDE) -> Run:
    return Run(counted.work(steps), bound, "1.2.3.4", session, patience, token=session)


def follow(run: Run, listening: Callable[[], bool] = lambda: True) -> int:
    async def count() -> int:
        return len([step async for step in run.follow(listening)])

    return asyncio.run(count())


def test_runs_wait_for_each_other_and_give_their_newest_steps() -> None:
    runs, counted = Runs(Limits(runs=1)), Counted()
    mine = [a_run(counted, session=str(k)) for k in range(5)]
    assert [runs.submit(run) for run in mine] == [0, 1, 2, 3, 4]
    assert all(follow(run) in (1, 2, 3) for run in mine)
    assert all(run.result is STORED for run in mine) and counted.most == 1


def test_submitting_and_canceling_never_lets_two_compute() -> None:
    runs, counted = Runs(Limits(runs=1, queue=100)), Counted()

    async def storm() -> float:
        for k in range(20):
            run = a_run(counted, steps=1000, session=str(k))
            runs.submit(run)
            task = asyncio.create_task(_all(run))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CanceledError):
                await task
        last, began = a_run(counted, steps=5, session="last"), time.monotonic()
        runs.submit(last)
        await _all(last)
        assert last.result is STORED
        return time.monotonic() - began

    assert asyncio.run(storm()) < 2
    assert counted.most == 1


async def _all(run: Run) -> None:
    async for _ in run.follow(lambda: True):
        pass


def test_a_visitor_has_so_many_places_and_a_page_one() -> None:
    runs, counted = Runs(Limits(queue=2)), Counted()
    first = a_run(counted, 100, "page")
    runs.submit(first, alone=True)
    with pytest.raises(InputError, match="still going on"):
        runs.submit(a_run(counted, session="page"), alone=True)
    second = a_run(counted, session="other")
    runs.submit(second)
    with pytest.raises(InputError, match="2 runs waiting"):
        runs.submit(a_run(counted, session="third"))
    assert runs.find("other") is second and runs.find("") is None
    assert runs.cancel("other") and not runs.cancel("other"), "one that waits is gone at once"
    assert runs.submit(a_run(counted, 1, "third")) == 1
    assert runs.cancel("page") and not runs.cancel("nobody")
    assert first.ended.wait(5) and first.result is STORED, "what is done is kept"


def test_a_client_that_vanishes_is_treated_as_the_owner_says() -> None:
    counted = Counted()
    for patience, kept in ((0.0, False), (0.3, True)):
        runs, run = Runs(Limits()), a_run(counted, 1000, patience=patience)
        runs.submit(run)
        began = time.monotonic()
        follow(run, listening=lambda: False)
        assert run.ended.wait(5) and patience <= time.monotonic() - began < patience + 2
        assert (run.result is STORED) == kept
    runs, run = Runs(Limits()), a_run(counted, 1000)
    runs.submit(run)
    runs.leave("s")
    assert run.ended.wait(5) and run.result is None
    assert runs.find("s") is run, "a link can still say why"


def test_a_run_is_found_again_and_followed_by_many() -> None:
    runs, counted = Runs(Limits(runs=1)), Counted()
    first, waiting = (a_run(counted, 60, session=name, patience=0.5) for name in ("first", "waiting"))
    runs.submit(first)
    runs.submit(waiting)
    for _ in range(3):  # the tab is closed, and the link opened again
        follow(first, listening=lambda: False)
        follow(waiting, listening=lambda: False)
        time.sleep(0.1)
        assert runs.find("first") is first and runs.find("waiting") is waiting

    async def both() -> None:
        await asyncio.gather(_all(waiting), _all(waiting), _all(first))

    asyncio.run(both())
    assert first.result is STORED and waiting.result is STORED and counted.most == 1
    assert runs.find("first") is None, "the archive has it now"


def test_a_run_that_outgrows_its_bound_is_stopped_and_says_so() -> None:
    counted = Counted()
    for bound, word in ((Bound(0.2, 1e9), "far more than it was expected"), (Bound(60, 1.0), "memory")):
        runs, run = Runs(Limits()), a_run(counted, 1000, bound=bound)
        runs.submit(run)
        follow(run)
        assert run.result is STORED and word in run.why


@pytest.mark.parametrize("keep", [True, False])
def test_a_run_ends_within_a_step_that_is_going_on(keep: bool) -> None:
    searching = threading.Event()

    def search(_: int) -> None:
        searching.set()
        flow.parallel(lambda _: time.sleep(0.05), list(range(1000)))

    def work(stopped: Callable[[], bool]) -> Steps[RunFolder]:
        yield Step("flow")
        try:
            flow.parallel(search, list(range(4)))
        except Canceled:
            if not stopped():
                raise
        return STORED

    runs, run = Runs(Limits()), Run(work, WIDE, "v", "s")
    runs.submit(run)
    assert searching.wait(5)
    run.stop(keep)
    assert run.ended.wait(5)
    assert (run.result is STORED) == keep and run.error is None


def test_what_a_run_raises_is_raised_to_its_client_and_frees_the_place() -> None:
    def broken(stopped: Callable[[], bool]) -> Steps[RunFolder]:
        yield Step("load")
        raise InputError("no good")

    runs = Runs(Limits())
    run = Run(broken, WIDE, "v", "s")
    runs.submit(run)
    with pytest.raises(InputError, match="no good"):
        follow(run)
    assert runs.submit(a_run(Counted(), 1)) == 0


def test_short_work_beside_takes_the_place_of_a_run() -> None:
    runs, counted = Runs(Limits(runs=1)), Counted()
    with runs.beside():
        assert runs.submit(run := a_run(counted, 1)) == 0 or counted.begun == 0
        time.sleep(0.05)
        assert counted.begun == 0
    assert run.ended.wait(5) and counted.begun == 1
    long = a_run(counted, 1000)
    runs.submit(long)
    with pytest.raises(InputError, match="A run is going on"), runs.beside():
        pass
    long.stop(keep=False)
    assert long.ended.wait(5)


def test_what_the_process_held_before_is_not_a_runs_own() -> None:
    held = np.ones(2**29, np.uint8)  # what an earlier run left behind
    run = a_run(Counted(), steps=30)
    run.bound = Bound(60.0, MIB["base"] + 50)
    Runs(Limits()).submit(run)
    asyncio.run(_all(run))
    assert run.result is STORED and held.all()
