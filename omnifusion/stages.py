"""The heavy stages of a run: in this process, or wherever a caller sends them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from omnifusion import omnimotion
from omnifusion.pool import cores
from omnifusion.prior.diffusion import load_prior
from omnifusion.progress import Note, Step, Steps
from omnifusion.settings import Settings
from omnifusion.state import FillTask, Tracker


@lru_cache(maxsize=1)
def usable_device() -> tuple[str, str | None]:
    """The default device of heavy stages, tested once by a small computation, and a warning if the GPU cannot be used.
    On a ZeroGPU Space the main process only seems to have a GPU."""
    if os.environ.get("SPACES_ZERO_GPU") or not torch.cuda.is_available():
        return "cpu", None
    try:
        image = torch.ones(1, 1, 4, 4, device="cuda")
        if conv2d(image, image).item() != 16:
            raise RuntimeError("it computes wrong results")
        return "cuda", None
    except (RuntimeError, AssertionError) as error:  # no driver, or a card that this build has no kernels for
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        return "cpu", f"The graphics card cannot be used ({reason}); everything is computed on the CPU."


def device() -> str:
    """The default device of heavy stages."""
    return usable_device()[0]


def fit_here(L: Tensor, settings: Settings) -> Steps[Tracker]:
    """Fit OmniMotion to ``L`` ``(T, 1, h, w)`` in this process."""
    yield from _warning()
    return (yield from omnimotion.fit(L, settings.omnimotion, seed=settings.seed, device=device()))


def inpaint_here(tasks: Sequence[FillTask], settings: Settings) -> Steps[list[Tensor]]:
    """Fill frames in this process."""
    yield from _warning()
    prior = load_prior(settings, device())
    torch.set_num_threads(1 if prior.components.chromatic else cores())  # Stable Diffusion is worth PyTorch's own
    try:
        return (yield from prior.fill(tasks))
    finally:
        torch.set_num_threads(1)


def _warning() -> Iterator[Step]:
    """A note if the GPU cannot be used."""
    warning = usable_device()[1]
    if warning is not None:
        yield Note("load", warning)


@dataclass(frozen=True)
class Stages:
    """The heavy stages: those of this process, or what a caller puts in their place (a GPU call, a worker).

    The paper fills one frame after the other; where calls are costly, frames a keyframe gap apart are filled together,
    without each other's colors.
    """

    fit: Callable[[Tensor, Settings], Steps[Tracker]] = fit_here
    inpaint: Callable[[Sequence[FillTask], Settings], Steps[list[Tensor]]] = inpaint_here
    together: int = 1  # most frames that one call of ``inpaint`` fills
    threads: int = 0  # most of the loop over frames; 0 = as many as the process may use
