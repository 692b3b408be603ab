"""The heavy stages as calls of limited length: on a ZeroGPU Space each runs on a GPU in a process of its own.

``spaces.GPU`` does nothing elsewhere. Only CPU tensors, arrays and plain values cross the border, in both directions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import spaces
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from omnifusion import omnimotion
from omnifusion.inpaint import Task
from omnifusion.omnimotion import Flows
from omnifusion.prior.components import Components
from omnifusion.prior.diffusion import PRIORS, DiffusionPrior, load_prior
from omnifusion.settings import Settings
from omnifusion.stages import Stages, device
from omnifusion.state import Fitting, Followed, InputError, Prior, Steps, Tracker, relay

BUDGET = 40.0
"""Seconds of fitting in one call; the rest is for the start of its process and the way back."""

TITLES = {"bundled": "bundled", "sd15": "Stable Diffusion v1.5", "sd20": "Stable Diffusion v2.0"}
DOWNLOADS = {"bundled": "nothing", "sd15": "4.3 GB", "sd20": "5.2 GB"}
"""What the priors are called, and how large their weights are in single precision."""

Message = tuple[str, Any]
Call = Callable[..., Iterator[Message]]


def flow_duration(L: Tensor, preset: str) -> int:
    """Seconds that a call of ``find_flows`` may take, by the clip's length."""
    return int(min(240, 30 + 0.8 * len(L)))


def fit_duration(
    L: Tensor, flows: Flows, preset: str, seed: int, budget: float | None, state: dict[str, Any] | None
) -> int:
    """Seconds that a call of ``fit_chunk`` may take: its budget, and what comes before its first step."""
    return int(min(240, (budget or BUDGET) + 15 + 0.5 * len(L)))


def inpaint_duration(task: Task, settings: Settings) -> int:
    """Seconds that a call of ``inpaint_frame`` may take, by denoising steps."""
    return int(min(240, 20 + 0.6 * settings.steps * (1 + settings.optimizations)))


@spaces.GPU(duration=flow_duration)
def find_flows(L: Tensor, preset: str) -> Iterator[Message]:
    """The flows that a fit to ``L`` ``(T, 1, H, W)`` learns from: Steps, then ``Flows``."""
    yield from _sent(omnimotion.find_flows(L, preset, device=device()))


@spaces.GPU(duration=fit_duration)
def fit_chunk(
    L: Tensor, flows: Flows, preset: str, seed: int, budget: float | None, state: dict[str, Any] | None
) -> Iterator[Message]:
    """A part of a fit: Steps, then either the whole tracker ("result") or where the next call goes on ("state").

    Args:
        L: ``(T, 1, H, W)`` in [0, 100].
        flows: from ``find_flows``.
        preset: the tracker's.
        budget: seconds after which the fit stops at its next saved state; None = fit to the end.
        state: where an earlier call stopped.
    """
    started = time.monotonic()
    steps = omnimotion.fit(L, preset, flows=flows, seed=seed, device=device(), state=state)
    work = Followed(steps)
    for step in work:
        saved = step.saved if isinstance(step, Fitting) else None
        yield "step", replace(step, saved=None) if isinstance(step, Fitting) else step
        if saved is not None and budget is not None and time.monotonic() - started > budget:
            yield "state", saved
            return
    yield "result", work.result.state_dict()


_loaded: dict[tuple[str, str, str], Components] = {}


def prior_of(settings: Settings) -> Prior:
    """The prior; its weights are loaded when first needed and kept, one prior at a time."""
    key = (settings.prior, settings.prompt, settings.negative_prompt)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_prior(settings, device()).components
    return DiffusionPrior(_loaded[key], settings)


@spaces.GPU(duration=inpaint_duration)
def inpaint_frame(task: Task, settings: Settings) -> Iterator[Message]:
    """One frame filled by the prior: Steps, then its ab."""
    yield from _sent(task.run(prior_of(settings)))


def _sent(steps: Steps[Any]) -> Iterator[Message]:
    """A stage's steps and its result as messages."""
    yield "result", (yield from relay(steps, lambda step: ("step", step)))


def stages(
    flow: Call = find_flows, fit: Call = fit_chunk, inpaint: Call = inpaint_frame, budget: float | None = None
) -> Stages:
    """The driver's stages as such calls.

    Args:
        flow, fit, inpaint: ``find_flows``, ``fit_chunk`` and ``inpaint_frame``, or what runs them elsewhere.
        budget: seconds of fitting in one call; None = ``BUDGET`` on a ZeroGPU Space, elsewhere the whole fit in one.
    """
    if budget is None and zero_gpu():
        budget = BUDGET

    def run_flow(L: Tensor, settings: Settings) -> Steps[Flows]:
        _, flows = yield from _last(flow(L, settings.fit))
        return flows

    def run_fit(L: Tensor, flows: Flows, settings: Settings) -> Steps[Tracker]:
        kind: str = "state"
        value: Any = None
        while kind == "state":
            kind, value = yield from _last(fit(L, flows, settings.fit, settings.seed, budget, value))
        return omnimotion.OmniMotion.from_state(value)

    def run_inpaint(task: Task, settings: Settings) -> Steps[Tensor]:
        _, ab = yield from _last(inpaint(task, settings))
        return ab

    return Stages(run_flow, run_fit, run_inpaint)


def _last(messages: Iterator[Message]) -> Steps[Any]:
    """Pass a call's steps on, and return its last message."""
    for kind, value in messages:
        if kind != "step":
            return kind, value
        yield value
    raise RuntimeError("a call ended without its result")


def zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space."""
    from spaces.config import Config

    return bool(Config.zero_gpu)


def preload(name: str = "bundled") -> None:
    """On a ZeroGPU Space, load the prior before the first call, as such Spaces want it."""
    if zero_gpu():
        prior_of(Settings(prior=name))


def priors() -> list[tuple[str, str]]:
    """The priors to choose from: (label, name); the label says what has to be downloaded first."""
    found = []
    for name, (source, variable) in PRIORS.items():
        here = Path(os.environ.get(variable) or source).is_dir() or _downloaded(source)
        found.append((TITLES[name] + ("" if here else f" (not here: a download of {DOWNLOADS[name]})"), name))
    return found


def _downloaded(source: str) -> bool:
    """Whether the weights of a hub id are in the local cache."""
    return isinstance(try_to_load_from_cache(source, "unet/diffusion_pytorch_model.safetensors"), str)


def check_prior(name: str) -> None:
    """Raise InputError unless a visitor may choose this prior; folders and other hub ids are for the command line."""
    if name not in PRIORS:
        raise InputError(f"There is no prior {name!r}; choose one of {', '.join(PRIORS)}.")
