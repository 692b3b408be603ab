"""The heavy stages of a run: in this process, or wherever a caller sends them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from omnifusion import omnimotion
from omnifusion.flow.dis import to_bytes
from omnifusion.flow.tracker import FlowTracker
from omnifusion.omnimotion import Flows
from omnifusion.prior.diffusion import load_prior
from omnifusion.progress import Costs, Note, Steps
from omnifusion.settings import Settings
from omnifusion.state import FillTask, Tracker

T = TypeVar("T")


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


def flow_here(L: Tensor, settings: Settings) -> Steps[Flows]:
    """The flows of ``L`` ``(T, 1, h, w)`` that the tracker learns from, in this process."""
    return (yield from _here(omnimotion.find_flows(L, settings.omnimotion, device=device())))


def fit_here(L: Tensor, flows: Flows, settings: Settings) -> Steps[Tracker]:
    """Fit OmniMotion to ``L`` ``(T, 1, h, w)`` and its flows in this process."""
    return omnimotion.fit(L, settings.omnimotion, flows=flows, seed=settings.seed, device=device())


def inpaint_here(tasks: Sequence[FillTask], settings: Settings) -> Steps[list[Tensor]]:
    """Fill frames in this process."""
    return (yield from _here(load_prior(settings, device()).fill(tasks)))


def _here(steps: Steps[T]) -> Steps[T]:
    """Run heavy steps, after a warning if the GPU cannot be used."""
    warning = usable_device()[1]
    if warning is not None:
        yield Note("load", warning)
    return (yield from steps)


@dataclass(frozen=True)
class Stages:
    """The heavy stages: those of this process, or what a caller puts in their place (a GPU call, a worker).

    Attributes:
        together: most frames that one call of ``inpaint`` fills. The paper fills one after the other; where calls are
            costly, frames a keyframe gap apart are filled together, without each other's colors.
        threads: bounds the threads of the loop over frames; 0 = as many as the process may use.
    """

    flow: Callable[[Tensor, Settings], Steps[Flows]] = flow_here
    fit: Callable[[Tensor, Flows, Settings], Steps[Tracker]] = fit_here
    inpaint: Callable[[Sequence[FillTask], Settings], Steps[list[Tensor]]] = inpaint_here
    together: int = 1
    threads: int = 0

    def track(self, L: Tensor, settings: Settings) -> Steps[Tracker]:
        """The tracker of a shot with luminance ``L`` ``(T, 1, h, w)``: optical flow on demand, or a fitted volume."""
        if settings.omnimotion == "off":
            return FlowTracker(to_bytes(L[:, 0]))
        flows = yield from self.flow(L, settings)
        tracker = yield from self.fit(L, flows, settings)
        return tracker

    def metered(self, costs: Costs) -> Stages:
        """The same stages, with flow and fit charged to ``costs``."""
        return replace(
            self,
            flow=lambda *values: costs.of("flow", self.flow(*values)),
            fit=lambda *values: costs.of("fit", self.fit(*values)),
        )
