"""How long a run will take on this machine and what memory it needs: a few rates, learned from every run that ends."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnifusion.flow import intervals
from omnifusion.geometry import fit_size
from omnifusion.omnimotion import PRESETS
from omnifusion.settings import Settings

RATES = {"flow": 0.3, "fit:draft": 0.4, "fit": 1.4, "propagate": 1.0, "inpaint": 3.0, "finish": 0.35}
"""Seconds per unit of ``_units`` on two CPU cores, until a run of one's own is known."""

BASE_MIB = 1100
"""Resident memory of the page with torch and a bundled prior at work."""

FLOW_BYTES = 16
"""Bytes that the tracker's flows take per pair of frames and pixel of the fit size."""

PATIENCE = 600.0
"""A run longer than this many seconds is offered a trim."""


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to cost."""

    seconds: float
    mib: float
    free_mib: float

    @property
    def fits(self) -> bool:
        """Whether the run is reasonable here."""
        return self.mib < self.free_mib and self.seconds < PATIENCE


class Rates:
    """Seconds per unit of each stage, kept in a file of the results folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self) -> dict[str, float]:
        """The rates of this machine."""
        try:
            return RATES | json.loads(self.path.read_text())
        except (OSError, ValueError):
            return dict(RATES)

    def learn(self, report: dict[str, Any], settings: Settings) -> None:
        """Move the rates half way to what a finished run took."""
        if not report.get("complete"):
            return
        units = _units(settings, report["frames"], tuple(report["size"]))
        known = self.known()
        for stage in report["stages"]:
            key = _key(stage["name"], settings)
            if stage["name"] in units:
                seen = stage["seconds"] / units[stage["name"]]
                known[key] = seen if key not in known else (known[key] + seen) / 2
        self.path.write_text(json.dumps(known, indent=2) + "\n")

    def estimate(self, settings: Settings, frames: int, size: tuple[int, int], fitted: bool = False) -> Estimate:
        """Time and memory of a run on ``frames`` frames of ``size`` (H, W); ``fitted``: it has a tracker."""
        known = self.known()
        units = _units(settings, frames, size)
        if fitted:
            units |= {"flow": 0.0, "fit": 0.0}
        seconds = sum(known.get(_key(name, settings), RATES[name]) * amount for name, amount in units.items())
        return Estimate(seconds, _mib(settings, frames, size), free_mib())


def _key(stage: str, settings: Settings) -> str:
    """Fits differ by preset, inpaintings by prior."""
    return {"fit": f"fit:{settings.fit}", "inpaint": f"inpaint:{settings.prior}"}.get(stage, stage)


def _units(settings: Settings, frames: int, size: tuple[int, int]) -> dict[str, float]:
    """The amount of work of each stage."""
    working = _area(settings, size) / 1e6
    denoising = settings.steps * (1.0 if settings.start is None else settings.start) * (1 + settings.optimizations)
    return {
        "flow": frames,
        "fit": frames,
        "propagate": frames * working * 10,
        "inpaint": frames * max(1.0, denoising) * working * 10,
        "finish": frames * size[0] * size[1] / 1e6,
    }


def _mib(settings: Settings, frames: int, size: tuple[int, int]) -> float:
    """Peak memory: the films, the working clip, the tracker's flows, and one frame in the prior."""
    films, working = 6 * frames * size[0] * size[1], 60 * frames * _area(settings, size)
    pairs = 2 * sum(frames - n for n in intervals(frames))
    h, w = fit_size(size, PRESETS[settings.fit].side)
    prior = 300 * _area(settings, size) / 2**17
    return BASE_MIB + (films + working + FLOW_BYTES * pairs * h * w) / 2**20 + prior


def _area(settings: Settings, size: tuple[int, int]) -> int:
    h, w = fit_size(size, settings.max_side)
    return h * w


def free_mib() -> float:
    """Memory that the machine can still give, MiB."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
