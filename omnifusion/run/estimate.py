"""The expected costs of a run: memory and disk by measured rules, seconds by simple ones."""

import os
from dataclasses import dataclass

from omnifusion.geometry import fit_size
from omnifusion.progress import InputError
from omnifusion.settings import Settings
from omnifusion.stages import device

# Memory of a process: MiB whatever is colored, bytes for each pixel of the input's frames, and bytes for each pixel of
# all frames of a segment at the working size; and frames of a segment below which colors would drift
BASE_MIB, FULL_BYTES, FRAME_BYTES, FEWEST = 1000.0, 200, 80, 8
# Seconds on two CPU cores: of a run, for each frame, for each megapixel of it at the working size, and at its own
SECONDS, SECONDS_PER_FRAME, SECONDS_PER_WORKING_MEGAPIXEL, SECONDS_PER_FULL_MEGAPIXEL = 1.5, 0.03, 3.0, 0.55
# Seconds of fitting OmniMotion's volume, and for each frame more
FIT_SECONDS = {"off": (0.0, 0.0), "draft": (30.0, 0.5), "standard": (90.0, 1.5)}
PAPER_FIT_SECONDS = {"cpu": 200_000.0, "cuda": 13_300.0}
# Of the bundled prior, and of others on either device: seconds for each megapixel and evaluation of the network, least
# and largest shorter side in pixels of what it works on, and memory (through which weights pass on their way to a GPU)
DENOISING_SECONDS = {"bundled": 8.0, "cpu": 40.0, "cuda": 0.2}
PRIOR_SIDES = {"bundled": (128, 256), "cpu": (512, 768), "cuda": (512, 768)}
PRIOR_MIB = {"bundled": 300.0, "cpu": 6000.0, "cuda": 1500.0}
# Disk: of the bytes of frames as PNG at most, and bytes for each pixel at the working size
PNG_SHARE, COLOR_BYTES = 0.8, 18

Size = tuple[int, int]  # (H, W), or (h, w) at the working size


@dataclass(frozen=True)
class Estimate:
    """The expected costs of a run: seconds of work on two cores, MiB of memory if unbounded (with less, a run works in
    shorter windows), and MiB of disk."""

    seconds: float
    mib: float
    disk_mib: int


def estimate(settings: Settings, frames: int, size: Size) -> Estimate:
    """The expected costs of a run on ``frames`` frames of ``size`` (H, W)."""
    working, place = fit_size(size, settings.max_side), device()
    gpu = "cuda" if os.environ.get("SPACES_ZERO_GPU") else place  # by calls: see ui.zerogpu
    prior = "bundled" if settings.prior == "bundled" else gpu
    small, full = working[0] * working[1] / 1e6, size[0] * size[1] / 1e6
    seconds = SECONDS_PER_FRAME + SECONDS_PER_WORKING_MEGAPIXEL * small + SECONDS_PER_FULL_MEGAPIXEL * full
    if settings.prior_everywhere:
        least, most = PRIOR_SIDES[prior]
        scale = min(max(min(working), least), most) / min(working)
        steps = 1 if settings.mean_alone else settings.steps
        evaluations = steps * (1 + 2 * settings.optimizations * settings.gray_constraint)
        seconds += evaluations * small * scale**2 * DENOISING_SECONDS[prior]
    once, each = FIT_SECONDS.get(settings.omnimotion, (PAPER_FIT_SECONDS[place], 0.0))
    mib = BASE_MIB + PRIOR_MIB[prior] + (FULL_BYTES * full + FRAME_BYTES * frames * small) * 1e6 / 2**20
    return Estimate(SECONDS + once + (each + seconds) * frames, mib, disk_mib(frames, size, working))


def disk_mib(frames: int, size: Size, working: Size) -> int:
    """The size of the results in MiB: frames as PNG, and the colors at the ``working`` size."""
    return 1 + int(frames * (PNG_SHARE * 3 * size[0] * size[1] + COLOR_BYTES * working[0] * working[1])) // 2**20


def longest(working: Size, size: Size, mib: float) -> int:
    """How many frames a segment may have in a process of ``mib`` MiB; InputError if not even a few."""
    free = (mib - BASE_MIB) * 2**20 - FULL_BYTES * size[0] * size[1]
    frames = int(free / (FRAME_BYTES * working[0] * working[1]))
    if frames < FEWEST:
        raise InputError(
            f"{mib:.0f} MiB of memory are too little for frames of {size[1]}x{size[0]}, colored at "
            f"{working[1]}x{working[0]}",
            {"memory": "allow more", "workers": "use fewer processes", "max-side": "choose a smaller working size"},
        )
    return frames


def parallel_frames(size: Size, mib: float, threads: int) -> int:
    """How many frames may be composed in parallel in ``mib`` MiB by at most ``threads``."""
    return max(1, min(threads, int((mib - BASE_MIB) * 2**20 / (FULL_BYTES * size[0] * size[1]))))
