"""Seconds and memory: only what is done inside counts, and a peak can fall again."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from omnifusion.meter import Costs, Meter
from omnifusion.steps import Step, drain

BIG = 100 << 17
"""Numbers that take 100 MiB."""


def work(numbers: int):
    for _ in range(3):
        np.ones(numbers).sum()
        yield Step("fit")
    return "done"


@pytest.mark.skipif(sys.platform != "linux", reason="the count can be restarted on Linux alone")
def test_a_stage_after_a_greedy_one_is_not_blamed_for_it() -> None:
    costs = Costs()
    assert drain(costs.of("greedy", work(BIG))) == drain(costs.of("modest", work(1))) == "done"
    assert costs.peak_mib["greedy"] > costs.peak_mib["modest"] + 50


@pytest.mark.skipif(sys.platform != "linux", reason="the count can be restarted on Linux alone")
def test_a_meter_within_another_does_not_hide_what_was_before_it() -> None:
    with Meter() as outer:
        np.ones(BIG)
        with Meter() as inner:
            pass
    assert outer.added_mib > 90 > 50 > inner.added_mib


def test_who_looks_on_does_not_count() -> None:
    costs = Costs()
    drain(costs.of("fit", work(1)), lambda step: time.sleep(0.1))
    with costs.during("fit"):
        time.sleep(0.05)
    assert 0.05 < costs.seconds["fit"] < 0.25


def test_what_fails_inside_ends_its_meter() -> None:
    def fails():
        yield Step("fit")
        raise RuntimeError("no luck")

    with Meter() as outer, pytest.raises(RuntimeError):
        drain(Costs().of("fit", fails()))
    assert outer.seconds > 0
