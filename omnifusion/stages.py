"""Where the heavy stages of a run are done: in this process, or wherever a caller sends them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from omnifusion import omnimotion
from omnifusion.flow.dis import to_bytes
from omnifusion.flow.tracker import FlowTracker
from omnifusion.omnimotion import Flows
from omnifusion.prior.diffusion import load_prior
from omnifusion.progress import Costs, Steps
from omnifusion.settings import Settings
from omnifusion.state import FillTask, Tracker


def device() -> str:
    """Where heavy stages run by default; on a ZeroGPU Space the main process only seems to have a GPU."""
    return "cuda" if torch.cuda.is_available() and not os.environ.get("SPACES_ZERO_GPU") else "cpu"


def flow_here(L: Tensor, settings: Settings) -> Steps[Flows]:
    """The flows of ``L`` ``(T, 1, h, w)`` that the tracker learns from, in this process."""
    return omnimotion.find_flows(L, settings.omnimotion, device=device())


def fit_here(L: Tensor, flows: Flows, settings: Settings) -> Steps[Tracker]:
    """Fit OmniMotion to ``L`` ``(T, 1, h, w)`` and its flows in this process."""
    return omnimotion.fit(L, settings.omnimotion, flows=flows, seed=settings.seed, device=device())


def inpaint_here(tasks: Sequence[FillTask], settings: Settings) -> Steps[list[Tensor]]:
    """Fill frames in this process."""
    return load_prior(settings, device()).fill(tasks)


@dataclass(frozen=True)
class Stages:
    """The heavy stages: as they are here, or whatever the caller puts in their place (a GPU call, a worker).

    Attributes:
        together: most frames that ``inpaint`` is given at once. The paper fills one after the other; where each call
            costs, frames a keyframe's gap apart are filled together, before they can know of each other.
        threads: bounds the threads of the loop over frames; 0 = as many as the process may use.
    """

    flow: Callable[[Tensor, Settings], Steps[Flows]] = flow_here
    fit: Callable[[Tensor, Flows, Settings], Steps[Tracker]] = fit_here
    inpaint: Callable[[Sequence[FillTask], Settings], Steps[list[Tensor]]] = inpaint_here
    together: int = 1
    threads: int = 0

    def track(self, L: Tensor, settings: Settings) -> Steps[Tracker]:
        """Of a shot ``L`` ``(T, 1, h, w)``: optical flow as it is asked for, or flow and a volume fitted to it."""
        if settings.omnimotion == "off":
            return FlowTracker(to_bytes(L[:, 0]))
        flows = yield from self.flow(L, settings)
        tracker = yield from self.fit(L, flows, settings)
        return tracker

    def metered(self, costs: Costs) -> Stages:
        """The same stages; flow and fit note what they cost."""
        return replace(
            self,
            flow=lambda *given: costs.of("flow", self.flow(*given)),
            fit=lambda *given: costs.of("fit", self.fit(*given)),
        )
