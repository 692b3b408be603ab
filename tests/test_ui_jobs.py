"""Jobs: one at a time, whoever asked and however they leave."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from omnifusion.pool import parallel
from omnifusion.progress import InputError, Step, Steps, check_canceled
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.settings import Settings
from omnifusion.ui.jobs import Job, Jobs
from omnifusion.ui.store import Limits

RESULT = RunFolder(Path("token"), RunRequest("clip", Settings()))


@dataclass
class Counted:
    """Work that counts how many of its kind go on at once; stopped, it keeps what is done."""

    now: int = 0
    most: int = 0
    begun: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def job(self, folder: Path, steps: int = 3, patience: float = 60.0, seconds: float = 60.0, **known: Any) -> Job:
        def work() -> Steps[RunFolder]:
            with self.lock:
                self.now, self.begun = self.now + 1, self.begun + 1
                self.most = max(self.most, self.now)
            try:
                for _ in range(steps):
                    yield Step("fit")
                    if job.stopping():
                        break
                    time.sleep(0.01)
                return RESULT
            finally:
                with self.lock:
                    self.now -= 1

        folder.mkdir(exist_ok=True)
        job = Job(folder, work, seconds, patience, **{"visitor": "v", "session": folder.name, **known})
        return job


def test_a_canceled_job_keeps_nothing_of_its_work(tmp_path: Path) -> None:
    class Colors:
        """What a step may hold."""

    alive: list[weakref.ref[Colors]] = []

    def work() -> Steps[RunFolder]:
        while True:
            colors = Colors()
            alive[:] = [weakref.ref(colors)]
            yield Step("fit", message=colors)  # type: ignore[arg-type]
            time.sleep(0.01)

    (tmp_path / "a").mkdir()
    job, jobs = Job(tmp_path / "a", work, 60, 60), Jobs(Limits(runs=1))
    jobs.submit(job)
    while not alive:
        time.sleep(0.01)
    job.stop(keep=False)
    assert outcome(job) is None and jobs.find("a") is job
    while jobs.unfinished():
        time.sleep(0.01)
    gc.collect()
    assert alive[0]() is None


def outcome(job: Job) -> RunFolder | None:
    """What a job ended with; None where it came to nothing."""
    ended = threading.Event()
    job.result.add_done_callback(lambda _: ended.set())
    assert ended.wait(10)
    return None if job.error else job.result.result()


def test_jobs_wait_for_each_other_in_their_order(tmp_path: Path) -> None:
    jobs, counted = Jobs(Limits(runs=1)), Counted()
    mine = [counted.job(tmp_path / str(k), 8) for k in range(4)]
    for job in mine:
        jobs.submit(job)
    assert [other.token for other in jobs.unfinished()] == ["0", "1", "2", "3"]
    assert all(outcome(job) is RESULT for job in mine) and counted.most == 1
    assert sorted(mine, key=lambda job: job.began) == mine and jobs.find("2") is mine[2]


@pytest.mark.slow
def test_submitting_and_canceling_never_lets_two_compute(tmp_path: Path) -> None:
    jobs, counted, began = Jobs(Limits(runs=1, queue=100)), Counted(), time.monotonic()
    for k in range(20):
        job = counted.job(tmp_path / str(k), 1000)
        jobs.submit(job)
        time.sleep(0.01)
        job.stop(keep=False)
    last = counted.job(tmp_path / "last")
    jobs.submit(last)
    assert outcome(last) is RESULT and counted.most == 1 and time.monotonic() - began < 30
    assert [folder.name for folder in tmp_path.iterdir()] == ["last"], "what came to nothing leaves nothing behind"


def test_a_visitor_has_so_many_places_and_a_page_one(tmp_path: Path) -> None:
    jobs, counted = Jobs(Limits(queue=2)), Counted()
    first, second = counted.job(tmp_path / "page", 1000), counted.job(tmp_path / "other")
    jobs.submit(first, alone=True)
    with pytest.raises(InputError, match="still going on"):
        jobs.submit(counted.job(tmp_path / "b", session="page"), alone=True)
    jobs.submit(second)
    with pytest.raises(InputError, match="2 runs waiting"):
        jobs.submit(counted.job(tmp_path / "third"))
    second.stop(keep=True)
    assert outcome(second) is None and "before it began" in second.why, "one that waits is gone at once"
    jobs.submit(counted.job(tmp_path / "third"))
    first.stop(keep=True)
    assert outcome(first) is RESULT, "what is done is kept"


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_a_job_that_nobody_looks_at_ends_after_its_patience(tmp_path: Path, keep: bool) -> None:
    jobs, job = Jobs(Limits()), Counted().job(tmp_path / "a", 10_000, patience=1.5, keep=keep)
    waiting = Counted().job(tmp_path / "waiting", patience=0.1)
    began = time.monotonic()
    jobs.submit(job)
    jobs.submit(waiting)
    for _ in range(4):
        time.sleep(0.1)
        job.look()
    assert jobs.unfinished() == [job] and outcome(waiting) is None
    assert (outcome(job) is RESULT) == keep and time.monotonic() - began > 1.8


def test_a_job_is_stopped_at_its_time_limit_and_says_so(tmp_path: Path) -> None:
    job = Counted().job(tmp_path / "a", 1000, seconds=0.2)
    Jobs(Limits()).submit(job)
    assert outcome(job) is RESULT and "the limit" in job.why


@pytest.mark.parametrize("keep", [True, False])
def test_a_job_ends_within_a_step_that_is_going_on(tmp_path: Path, keep: bool) -> None:
    searching = threading.Event()

    def search(_: int) -> None:
        searching.set()
        time.sleep(0.05)
        check_canceled()

    def work() -> Steps[RunFolder]:
        yield Step("flow")
        parallel(search, list(range(1000)))
        return RESULT

    jobs, job = Jobs(Limits()), Job(tmp_path / "a", work, 60, 60)
    jobs.submit(job)
    assert searching.wait(5)
    job.stop(keep)
    assert outcome(job) is None and job.stopped == ("keep" if keep else "drop")


def test_what_a_job_raises_is_its_outcome_and_frees_the_place(tmp_path: Path) -> None:
    def broken() -> Steps[RunFolder]:
        yield Step("load")
        raise InputError("no good")

    jobs, job = Jobs(Limits()), Job(tmp_path / "a", broken, 60, 60)
    jobs.submit(job)
    assert outcome(job) is None and str(job.result.exception()) == "no good"
    assert jobs.unfinished() == []


def test_short_work_beside_takes_the_place_of_a_run(tmp_path: Path) -> None:
    jobs, counted, may_end = Jobs(Limits(runs=1)), Counted(), threading.Event()
    beside = threading.Thread(target=jobs.beside, args=(may_end.wait,))
    beside.start()
    jobs.submit(job := counted.job(tmp_path / "a"))
    time.sleep(0.05)
    assert counted.begun == 0
    may_end.set()
    beside.join()
    assert outcome(job) is RESULT and counted.begun == 1
    assert jobs.beside(lambda: 7) == 7
    jobs.submit(long := counted.job(tmp_path / "b", 1000))
    with pytest.raises(InputError, match="A run is going on"):
        jobs.beside(lambda: 7)
    long.stop(keep=False)
    assert outcome(long) is None


@pytest.mark.slow
def test_no_more_than_allowed_compute_at_once(tmp_path: Path) -> None:
    jobs, counted = Jobs(Limits(runs=2)), Counted()
    mine = [counted.job(tmp_path / str(k), 10) for k in range(6)]
    for job in mine:
        jobs.submit(job)
    wait: Callable[[Job], object] = outcome
    assert all(wait(job) is RESULT for job in mine) and counted.most == 2
