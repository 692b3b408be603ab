"""On a ZeroGPU Space, Stable Diffusion's fills as GPU calls, few and short; everything else needs no GPU there.

Such a Space lends a GPU for the seconds that a call asks for, to a process forked from this one; weights that were
moved to "cuda" at start-up are on it by then. Only CPU tensors and plain values cross the border. ``spaces.GPU`` does
nothing elsewhere.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import spaces
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from omnifusion.prior.components import Components, embed, load_components
from omnifusion.prior.diffusion import DiffusionPrior
from omnifusion.prior.source import PRIORS, source_of
from omnifusion.progress import Canceled, InputError, Note, Steps, map_steps
from omnifusion.settings import Settings
from omnifusion.stages import Stages, inpaint_here
from omnifusion.state import FillTask

log = logging.getLogger(__name__)

TITLES = {"bundled": "built-in", "sd15": "Stable Diffusion v1.5", "sd20": "Stable Diffusion v2.0"}
DOWNLOADS = {"bundled": "nothing", "sd15": "4.3 GB", "sd20": "5.2 GB"}
"""What the priors are called, and how large their weights are in single precision."""

CALL, RUN = 20.0, 90.0
"""Most seconds of GPU that a call asks for, and a run in all."""
START = 3.0
"""Seconds from the call to its first work: a process is forked, the weights move to the GPU."""
SPARE = 1.5
"""A call asks for so many times the seconds that its work is expected to take."""
RATE = 0.5
"""Seconds of one guided evaluation of one megapixel, before any call has been measured (docs/experiments.md)."""
TOGETHER = 8
"""Most frames that are filled at once."""

Message = tuple[str, Any]

_loaded: dict[str, Components] = {}
_rates: dict[str, float] = {}
"""By prior: the weights, loaded at start-up, and the measured rate."""


def asked(tasks: Sequence[FillTask], settings: Settings, text: Tensor | None = None) -> int:
    """Seconds that a call of ``fill`` asks for."""
    return math.ceil(START + SPARE * _rates.get(settings.prior, RATE) * _work(tasks, settings))


def _work(tasks: Sequence[FillTask], settings: Settings) -> float:
    """Guided evaluations of the denoiser, times megapixels at the prior's size."""
    prior = DiffusionPrior(_loaded[settings.prior], settings)
    pixels = sum(math.prod(prior.working_size((t.L.shape[-2], t.L.shape[-1]))) for t in tasks)
    texts = 2 if settings.prompt or settings.negative_prompt else 1
    return pixels / 1e6 * texts * settings.steps * (1 + settings.optimizations - prior.shares)


@spaces.GPU(duration=asked)
def fill(tasks: Sequence[FillTask], settings: Settings, text: Tensor | None) -> Iterator[Message]:
    """Frames filled by a prior that was loaded at start-up: Steps, then the frames' ab and the seconds it took."""
    began = time.monotonic()
    steps = DiffusionPrior(_loaded[settings.prior], settings, text).fill(tasks)
    found = yield from map_steps(steps, lambda step: ("step", step))
    yield "result", (found, time.monotonic() - began)


class Calls:
    """The stage "inpaint" of one run: GPU calls as long as they are granted, the bundled prior from then on.

    Args:
        call: ``fill``, or what stands for it.
    """

    def __init__(self, call: Callable[..., Iterator[Message]] = fill) -> None:
        self.call, self.asked, self.over = call, 0.0, False

    def __call__(self, tasks: Sequence[FillTask], settings: Settings) -> Steps[list[Tensor]]:
        """Fill frames."""
        found: list[Tensor] = []
        while len(found) < len(tasks):
            part = tasks[len(found) :]
            if settings.prior != "bundled" and not self.over:
                try:
                    found += yield from self._granted(part, settings)
                    continue
                except Canceled:
                    raise
                except Exception as error:  # whatever the scheduler, the GPU or its process may say
                    log.exception("a GPU call failed")
                    self.over = True
                    yield Note("inpaint", _sentence(settings.prior, error))
            found += yield from inpaint_here(part, replace(settings, prior="bundled"))
        return found

    def _granted(self, tasks: Sequence[FillTask], settings: Settings) -> Steps[list[Tensor]]:
        """As many of the frames as one call may fill."""
        most = next((n for n in range(len(tasks), 0, -1) if asked(tasks[:n], settings) <= CALL), 0)
        if not most:
            raise RuntimeError(f"a frame takes {asked(tasks[:1], settings)} s of GPU, a call has {CALL:.0f}")
        chosen = tasks[:most]
        self.asked += asked(chosen, settings)
        if self.asked > RUN:
            raise RuntimeError(f"a run has {RUN:.0f} s of GPU")
        text = embed(source_of(settings.prior), settings.prompt, settings.negative_prompt)
        for kind, value in self.call(chosen, settings, text):
            if kind == "result":
                found, seconds = value
                _rates[settings.prior] = seconds / _work(chosen, settings)
                return found
            yield value
        raise RuntimeError("the call ended without its result")


def _sentence(prior: str, error: Exception) -> str:
    """What a failed call means for the run; the errors of Gradio keep their text in ``message``."""
    why = str(getattr(error, "message", error)).strip().rstrip(".").replace(". ", "; ")
    return f"{TITLES[prior]} could not go on ({why}): from there on the built-in model filled the frames."


def stages() -> Stages:
    """Where the heavy stages of a run on this machine are done."""
    return Stages(inpaint=Calls(), together=TOGETHER) if zero_gpu() else Stages()


def zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space."""
    from spaces.config import Config

    return bool(Config.zero_gpu)


def preload() -> None:
    """On a ZeroGPU Space, load the priors that the owner offers (OMNIFUSION_PRIORS) before the first call, in the main
    thread, as such Spaces want it; one that cannot be had is not offered."""
    if zero_gpu():
        for name in os.environ.get("OMNIFUSION_PRIORS", "sd15").replace(",", " ").split():
            try:
                if name not in PRIORS:
                    raise InputError(f"There is no prior {name!r}.")
                embed(source_of(name), "", "")
                _loaded[name] = load_components(source_of(name), "cuda")
            except InputError as error:
                log.warning("%s is not offered: %s", name, error)


def priors() -> list[tuple[str, str]]:
    """The priors to choose from: (label, name); the label says what has to be downloaded first."""
    found = []
    for name in PRIORS:
        source = source_of(name)
        here = name in _loaded or Path(source).is_dir() or _downloaded(source)
        if _offered(name):
            found.append((TITLES[name] + ("" if here else f" (not here: a download of {DOWNLOADS[name]})"), name))
    return found


def _offered(name: str) -> bool:
    return name == "bundled" or not zero_gpu() or name in _loaded


def _downloaded(source: str) -> bool:
    """Whether the weights of a hub id are in the local cache."""
    return isinstance(try_to_load_from_cache(source, "unet/diffusion_pytorch_model.safetensors"), str)


def check_prior(name: str) -> None:
    """Raise InputError unless a visitor may choose this prior; folders and other hub ids are for the command line."""
    offered = [known for known in PRIORS if _offered(known)]
    if name not in offered:
        raise InputError(f"There is no prior {name!r} here; choose one of {', '.join(offered)}.")
