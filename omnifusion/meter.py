"""Seconds and memory of a piece of work."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch

from omnifusion.steps import Followed, Steps

T = TypeVar("T")


_open: list[Meter] = []
"""The meters whose work is going on: one within another restarts the system's count, and the outer ones must know."""


@dataclass(eq=False)
class Meter:
    """Measures what runs inside ``with Meter() as meter``; meters may lie within one another.

    Attributes:
        seconds: wall-clock time.
        cpu_seconds: what the process's threads computed together, in user and system time.
        peak_mib: the process's peak resident memory in MiB meanwhile; where the system cannot restart that count
            (anything but Linux, and some containers), since the process began.
        added_mib: how far that lies above what the process held when it entered.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0
    added_mib: float = 0.0
    _start: float = field(default=0.0, repr=False)
    _computed: float = field(default=0.0, repr=False)
    _held: float = field(default=0.0, repr=False)

    def __enter__(self) -> Meter:
        for meter in _open:
            meter.peak_mib = meter.so_far()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        _open.append(self)
        self._held = _peak_mib()
        self._computed = time.process_time()
        self._start = time.perf_counter()
        return self

    def so_far(self) -> float:
        """``peak_mib`` of work that is still going on."""
        return max(self.peak_mib, _peak_mib())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = time.process_time() - self._computed
        self.peak_mib = self.so_far()
        self.added_mib = self.peak_mib - self._held
        _open.remove(self)


@dataclass
class Costs:
    """What the stages of a run took.

    Attributes:
        seconds: wall-clock time by stage.
        cpu_seconds: what its threads computed together.
        peak_mib: the process's peak memory in MiB while the stage was at work.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Count what is done inside for a stage."""
        with Meter() as meter:
            yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + meter.seconds
        self.cpu_seconds[stage] = self.cpu_seconds.get(stage, 0.0) + meter.cpu_seconds
        self.peak_mib[stage] = max(self.peak_mib.get(stage, 0.0), meter.peak_mib)

    def of(self, stage: str, steps: Steps[T]) -> Steps[T]:
        """Pass a stage's steps on, counting only what is done inside it."""
        work = Followed(steps)
        told = iter(work)
        while True:
            with self.during(stage):
                step = next(told, None)
            if step is None:
                return work.result
            yield step


def _peak_mib() -> float:
    """Peak resident memory in MiB since the last ``Meter`` was entered (or, off Linux, since the process began)."""
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def machine() -> str:
    """What a measurement ran on, in words, with how busy it was where the system tells: seconds depend on it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    load = f", load average {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} CPU cores ({platform.machine()}{load})"
