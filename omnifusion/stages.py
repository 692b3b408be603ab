"""Where the heavy stages of a run are done: in this process, or wherever a caller sends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnifusion import omnimotion
from omnifusion.flow import to_bytes
from omnifusion.flow.direct import DirectFlow
from omnifusion.inpaint import Task
from omnifusion.meter import Costs
from omnifusion.omnimotion import Flows
from omnifusion.prior.diffusion import load_prior
from omnifusion.settings import Settings
from omnifusion.state import Prior, Steps, Tracker


def device() -> str:
    """Where heavy stages run by default."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def flow_here(L: Tensor, settings: Settings) -> Steps[Flows]:
    """The flows of ``L`` ``(T, 1, h, w)`` that the tracker learns from, in this process."""
    return omnimotion.find_flows(L, settings.fit, device=device())


def fit_here(L: Tensor, flows: Flows, settings: Settings) -> Steps[Tracker]:
    """Fit OmniMotion to ``L`` ``(T, 1, h, w)`` and its flows in this process."""
    return omnimotion.fit(L, settings.fit, flows=flows, seed=settings.seed, device=device())


class InpaintHere:
    """Fills frames in this process; the prior is loaded when first needed and kept."""

    def __init__(self) -> None:
        self._loaded: tuple[Settings, Prior] | None = None

    def load(self, settings: Settings) -> Prior:
        """The prior with these settings.

        Raises:
            InputError: its weights cannot be had.
        """
        if self._loaded is None or self._loaded[0] != settings:
            self._loaded = (settings, load_prior(settings, device()))
        return self._loaded[1]

    def __call__(self, task: Task, settings: Settings) -> Steps[Tensor]:
        """Fill one frame."""
        return task.run(self.load(settings))


@dataclass(frozen=True)
class Stages:
    """The heavy stages: as they are here, or whatever the caller puts in their place (a GPU call, a worker)."""

    flow: Callable[[Tensor, Settings], Steps[Flows]] = flow_here
    fit: Callable[[Tensor, Flows, Settings], Steps[Tracker]] = fit_here
    inpaint: Callable[[Task, Settings], Steps[Tensor]] = field(default_factory=InpaintHere)

    def track(self, L: Tensor, settings: Settings) -> Steps[Tracker]:
        """Of a shot ``L`` ``(T, 1, h, w)``: optical flow as it is asked for, or flow and a volume fitted to it."""
        if settings.fit == "none":
            return DirectFlow(to_bytes(L[:, 0]))
        flows = yield from self.flow(L, settings)
        tracker = yield from self.fit(L, flows, settings)
        return tracker

    def metered(self, costs: Costs) -> Stages:
        """The same stages; flow and fit note what they cost."""
        return Stages(
            lambda *given: costs.of("flow", self.flow(*given)),
            lambda *given: costs.of("fit", self.fit(*given)),
            self.inpaint,
        )
