"""Seconds and memory of a piece of work."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType

import torch


@dataclass
class Meter:
    """Measures what runs inside ``with Meter() as meter``.

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
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._held = peak_mib()
        self._computed = time.process_time()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = time.process_time() - self._computed
        self.peak_mib = peak_mib()
        self.added_mib = self.peak_mib - self._held


def median_seconds(work: Callable[[], object], times: int) -> float:
    """The median wall time of so many calls."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return float(median(seconds))


def peak_mib() -> float:
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
