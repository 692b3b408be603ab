"""What a run will take: seconds by simple rules that no run can teach nonsense, memory and disk by those of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from omnifusion.geometry import fit_size
from omnifusion.run.segments import BASE_MIB, FRAME_BYTES, FULL_BYTES
from omnifusion.settings import Settings

SECONDS_A_FRAME = 0.02
SECONDS_A_WORKING_MEGAPIXEL = 7.0
SECONDS_A_FULL_MEGAPIXEL = 0.4
"""On two CPU cores: for each frame, for each megapixel of it at the working size, and at its own."""

FIT_SECONDS = {"off": 0.0, "draft": 30.0, "standard": 90.0, "paper": 200_000.0}
FIT_SECONDS_A_FRAME = {"off": 0.0, "draft": 0.5, "standard": 1.5, "paper": 0.0}
"""Of fitting OmniMotion's volume."""

DENOISING_SECONDS = {"bundled": 8.0}
DENOISING_SECONDS_OF_OTHERS = {"cpu": 40.0, "cuda": 0.2}
"""Of a prior, for each megapixel that it works on and each evaluation of its network."""

PRIOR_SIDE = {"bundled": (128, 256)}
PRIOR_SIDE_OF_OTHERS = (512, 768)
"""Least and largest shorter side in pixels of what a prior works on."""

PRIOR_MIB, PRIOR_MIB_OF_OTHERS = 300.0, 6000.0
"""Memory that a prior takes where it is asked."""

PNG_SHARE, COLOR_BYTES = 0.8, 18
"""Disk: of the bytes of frames as PNG at most, and for each pixel at the working size."""


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take: seconds of work on two cores, MiB of memory where nothing bounds it (a run that
    is given less works in shorter windows), and MiB of disk."""

    seconds: float
    mib: float
    disk_mib: int


def estimate(settings: Settings, frames: int, size: tuple[int, int]) -> Estimate:
    """What a run on ``frames`` frames of ``size`` (H, W) will take."""
    working = fit_size(size, settings.max_side)
    small, full = working[0] * working[1] / 1e6, size[0] * size[1] / 1e6
    seconds = frames * (SECONDS_A_FRAME + SECONDS_A_WORKING_MEGAPIXEL * small + SECONDS_A_FULL_MEGAPIXEL * full)
    seconds += FIT_SECONDS[settings.omnimotion] + FIT_SECONDS_A_FRAME[settings.omnimotion] * frames
    bundled, always = settings.prior == "bundled", settings.diffusion == "always"
    if not bundled or always or settings.strength is None:
        least, most = PRIOR_SIDE.get(settings.prior, PRIOR_SIDE_OF_OTHERS)
        scale = min(max(min(working), least), most) / min(working)
        other = DENOISING_SECONDS_OF_OTHERS["cuda" if torch.cuda.is_available() else "cpu"]
        evaluations = settings.steps * (1 + 2 * settings.optimizations * settings.gray_constraint)
        seconds += frames * evaluations * small * scale**2 * DENOISING_SECONDS.get(settings.prior, other)
    mib = BASE_MIB + (FULL_BYTES * full + FRAME_BYTES * frames * small) * 1e6 / 2**20
    mib += PRIOR_MIB if bundled else PRIOR_MIB_OF_OTHERS
    return Estimate(seconds, mib, disk_mib(frames, size, working))


def disk_mib(frames: int, size: tuple[int, int], working: tuple[int, int]) -> int:
    """What the results take, MiB: frames as PNG, and the colors at the ``working`` size; sizes are (h, w)."""
    return 1 + int(frames * (PNG_SHARE * 3 * size[0] * size[1] + COLOR_BYTES * working[0] * working[1])) // 2**20
