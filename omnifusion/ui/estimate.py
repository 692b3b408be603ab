"""What a run will take on this machine: a model of every stage's work, and factors learned from every run that ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from omnifusion.flow.dis import intervals
from omnifusion.geometry import fit_size
from omnifusion.omnimotion import PRESETS as FITS
from omnifusion.omnimotion.fitting import Preset
from omnifusion.settings import PRESETS, Settings
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import seconds as words

NO_FIT = Preset(side=1, iterations=0)

SECONDS = {
    "flow": 0.25,
    "fit": 0.025,
    "fit:mlp": 2.0,
    "propagate": 3.0,
    "hint": 4.0,
    "inpaint": 8.0,
    "inpaint:gpu": 0.2,
    "finish": 0.4,
}
"""Seconds per unit of work on two CPU cores, and of Stable Diffusion's on a GPU, before any run has been seen."""

MIB = {"base": 900.0, "clip": 7.0, "working": 108.0, "flow": 16.0, "fit": 50.0, "fit:mlp": 10_000.0, "prior": 3000.0}
"""Memory: of the page at rest, then per megapixel of the clip, of the working clip and of all flows (times bytes), of a
fit, and per megapixel that the prior works on."""

TRAINED = {"bundled": (128, 2.0)}
"""Shorter side in pixels of what a prior was trained on, and how many times as large it works at most; 512 and 1.5 for
all others (``prior.diffusion.LARGEST``)."""

GAINS = {"draft": 2.1, "standard": 2.4}
"""PSNR in dB above the best classical baseline, mean of the clips in README's table."""

USUAL = (24, (240, 427))
"""Frames and size of a clip of which nothing is known yet: the table's."""

FEWEST, SMALLEST = 8, 128
"""Frames and working size below which no run is shrunk in order to fit."""


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take: seconds, and the process's peak memory in MiB."""

    seconds: float
    mib: float


class Rates:
    """The factors by which this machine differs from ``SECONDS``, in a file of the results folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self) -> dict[str, float]:
        """The factors by stage; those of stages never seen are missing."""
        try:
            return {key: float(value) for key, value in json.loads(self.path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def learn(self, report: dict[str, Any], settings: Settings) -> None:
        """Move the factors half way to what a finished run took."""
        if not report.get("complete"):
            return
        expected, known = _seconds(settings, report["frames"], tuple(report["size"])), self.known()
        for stage in report["stages"]:
            if (usual := expected.get(stage["name"], 0.0)) > 0:
                key, seen = _key(stage["name"], settings), stage["seconds"] / usual
                known[key] = seen if key not in known else (known[key] + seen) / 2
        self.path.write_text(json.dumps(known, indent=2) + "\n")

    def estimate(self, settings: Settings, frames: int, size: tuple[int, int], fitted: bool = False) -> Estimate:
        """Time and memory of a run on ``frames`` frames of ``size`` (H, W); ``fitted``: it has a tracker."""
        known, expected = self.known(), _seconds(settings, frames, size)
        if fitted:
            expected |= {"flow": 0.0, "fit": 0.0}
        seconds = sum(known.get(_key(stage, settings), 1.0) * usual for stage, usual in expected.items())
        return Estimate(seconds, _mib(settings, frames, size))

    def presets(self, frames: int, size: tuple[int, int]) -> list[tuple[str, str]]:
        """What each preset costs here and gains in general: (label, name)."""
        found = []
        for name, settings in PRESETS.items():
            gain = f", +{GAINS[name]:.1f} dB" if name in GAINS else ""
            found.append((f"{name}: {words(self.estimate(settings, frames, size).seconds)}{gain}", name))
        return found


def fits(found: Estimate, limits: Limits) -> bool:
    """Whether a run is within the owner's limits, and the machine has the memory now."""
    return found.seconds <= limits.seconds and found.mib <= memory_mib(limits)


def memory_mib(limits: Limits) -> float:
    """What the process may hold: the owner's limit, or less where the machine cannot give that now."""
    return min(limits.mib, held_mib() + free_mib())


def smaller(settings: Settings, frames: int, sides: bool) -> Iterator[tuple[Settings, int]]:
    """Choices that take less, those that change least first.

    Args:
        sides: whether the working size may change, too.
    """
    usual = PRESETS[settings.preset]
    modest = replace(settings, steps=min(settings.steps, usual.steps), optimizations=min(settings.optimizations, 1))
    kinds = [settings, modest]
    side = settings.max_side
    while sides and (side := int(side * 0.8) // 16 * 16) >= SMALLEST:
        kinds.append(replace(modest, max_side=side))
    kinds += [replace(PRESETS[name], prior=settings.prior, seed=settings.seed) for name in ("standard", "draft")]
    for kind in kinds:
        count = frames
        while True:
            yield kind, count
            if count <= FEWEST:
                break
            count = max(FEWEST, count * 3 // 4)


def changes(old: Settings, new: Settings) -> dict[str, Any]:
    """What differs, by name; a preset stands for all that it brings."""
    if new.preset != old.preset:
        return {"preset": new.preset}
    return {name: getattr(new, name) for name in ("max_side", "steps", "optimizations")
            if getattr(new, name) != getattr(old, name)}  # fmt: skip


def _key(stage: str, settings: Settings) -> str:
    """Fits differ by kind, inpaintings by prior."""
    kind = FITS[settings.omnimotion].kind if settings.omnimotion in FITS else "none"
    return {"fit": f"fit:{kind}", "inpaint": f"inpaint:{settings.prior}"}.get(stage, stage)


def _seconds(settings: Settings, frames: int, size: tuple[int, int]) -> dict[str, float]:
    """Usual seconds of each stage."""
    fit, working = FITS.get(settings.omnimotion, NO_FIT), _megapixels(size, settings.max_side)
    searched = _pairs(frames) * _megapixels(size, fit.side)
    longer = max(1.0, frames / fit.frames) if fit.frames else 1.0
    iterations = longer * fit.iterations if frames > 1 else 0.0
    evaluations = settings.steps * (1 + 2 * settings.optimizations * settings.gray_constraint)
    inpaint = "inpaint:gpu" if settings.prior != "bundled" and torch.cuda.is_available() else "inpaint"
    filled = frames if settings.diffusion == "always" or settings.prior != "bundled" else 1
    return {
        "flow": SECONDS["flow"] * searched,
        "fit": SECONDS.get(f"fit:{fit.kind}", SECONDS["fit"]) * iterations,
        "propagate": SECONDS["propagate"] * frames * working,
        "hint": SECONDS["hint"] * frames * working if settings.strength is not None else 0.0,
        "inpaint": filled * SECONDS[inpaint] * evaluations * _prior_megapixels(settings, size),
        "finish": SECONDS["finish"] * frames * size[0] * size[1] / 1e6,
    }


def _mib(settings: Settings, frames: int, size: tuple[int, int]) -> float:
    """Peak memory: what is always there, the clip, and the largest of what the stages need one after the other."""
    fit = FITS.get(settings.omnimotion, NO_FIT)
    flows = MIB["flow"] * _pairs(frames) * _megapixels(size, fit.side)
    fitting = MIB.get(f"fit:{fit.kind}", MIB["fit"]) if frames > 1 else 0.0
    clip = MIB["clip"] * frames * size[0] * size[1] / 1e6 + MIB["working"] * frames * _megapixels(
        size, settings.max_side
    )
    return MIB["base"] + clip + max(flows + fitting, MIB["prior"] * _prior_megapixels(settings, size))


def _pairs(frames: int) -> int:
    return 2 * sum(frames - n for n in intervals(frames))


def _megapixels(size: tuple[int, int], side: int) -> float:
    h, w = fit_size(size, side)
    return h * w / 1e6


def _prior_megapixels(settings: Settings, size: tuple[int, int]) -> float:
    """What the prior works on: its shorter side between what it was trained on and the largest."""
    h, w = fit_size(size, settings.max_side)
    trained, most = TRAINED.get(settings.prior, (512, 1.5))
    scale = min(max(min(h, w), trained), most * trained) / min(h, w)
    return h * w * scale**2 / 1e6


def held_mib() -> float:
    """Memory that this process holds."""
    return _read("/proc/self/status", "VmRSS")


def free_mib() -> float:
    """Memory that the machine can still give."""
    return _read("/proc/meminfo", "MemAvailable") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20


def _read(path: str, name: str) -> float:
    """A line of the system's in MiB, 0 where there is none."""
    try:
        lines = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
        return int(lines[name].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return 0.0
