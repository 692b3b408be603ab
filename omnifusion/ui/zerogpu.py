"""Stable Diffusion on a ZeroGPU Space: frames are filled in few, short GPU calls; everything else needs no GPU there.

Such a Space grants a GPU for the seconds that a call asks for, to a process forked from this one; weights that were
moved to "cuda" at start-up are on it by then. Only CPU tensors and plain values cross the border. ``spaces.GPU`` does
nothing elsewhere.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import spaces
from huggingface_hub import try_to_load_from_cache
from spaces.config import Config
from torch import Tensor

from omnifusion.prior.components import Components, embed, load_components
from omnifusion.prior.diffusion import DiffusionPrior
from omnifusion.prior.source import PRIORS, source_of
from omnifusion.progress import Canceled, InputError, Note, Step, Steps
from omnifusion.run.estimate import estimate
from omnifusion.settings import Settings
from omnifusion.stages import Stages, inpaint_here
from omnifusion.state import FillTask

log = logging.getLogger(__name__)

TITLES = {"bundled": "built-in", "sd15": "Stable Diffusion v1.5", "sd20": "Stable Diffusion v2.0"}
DOWNLOADS = {"sd15": "4.3 GB", "sd20": "5.2 GB"}
"""What the priors are called, and how large their weights are in single precision."""

RUN = 90.0  # most seconds of GPU that a run asks for in all its calls
START = 3.0  # seconds from the call to its first work: a process is forked, the weights move to the GPU
TOGETHER = 6  # most frames that are filled by a call

_loaded: dict[str, Components] = {}  # by prior: the weights, loaded at start-up


def duration(tasks: Sequence[FillTask], settings: Settings, text: Tensor | None = None) -> int:
    """Seconds that a call of ``fill`` asks for."""
    h, w = tasks[0].L.shape[-2:]
    texts = 2 if settings.prompt or settings.negative_prompt else 1
    return math.ceil(START + texts * estimate(settings, len(tasks), (h, w)).seconds)


@spaces.GPU(duration=duration)
def fill(tasks: Sequence[FillTask], settings: Settings, text: Tensor | None) -> Iterator[Step | list[Tensor]]:
    """Frames filled by a prior that was loaded at start-up: Steps, then the frames' ab."""
    yield (yield from DiffusionPrior(_loaded[settings.prior], settings, text).fill(tasks))


class Calls:
    """The stage "inpaint" of one run: GPU calls of ``fill`` as long as they are granted, then the bundled prior."""

    def __init__(self, call: Callable[..., Iterator[Step | list[Tensor]]] = fill) -> None:
        self.call, self.seconds, self.over = call, 0.0, False

    def __call__(self, tasks: Sequence[FillTask], settings: Settings) -> Steps[list[Tensor]]:
        """Fill frames."""
        if settings.prior != "bundled" and not self.over:
            try:
                return (yield from self._fill(tasks, settings))
            except Canceled:
                raise
            except Exception as error:  # whatever the scheduler, the GPU or its process may say
                log.exception("a GPU call failed")
                self.over = True
                why = str(getattr(error, "message", error)).strip().rstrip(".").replace(". ", "; ")
                name = TITLES.get(settings.prior, settings.prior)
                rest = "from there on the built-in model filled the frames"
                yield Note("inpaint", f"{name} could not go on ({why}): {rest}.")
        return (yield from inpaint_here(tasks, replace(settings, prior="bundled")))

    def _fill(self, tasks: Sequence[FillTask], settings: Settings) -> Steps[list[Tensor]]:
        self.seconds += duration(tasks, settings)
        if self.seconds > RUN:
            raise RuntimeError(f"a run has {RUN:.0f} s of GPU")
        text = embed(source_of(settings.prior), settings.prompt, settings.negative_prompt)
        for message in self.call(tasks, settings, text):
            if isinstance(message, list):
                return message
            yield message
        raise RuntimeError("the call ended without its result")


def stages() -> Stages:
    """The heavy stages of a run on this machine."""
    return Stages(inpaint=Calls(), together=TOGETHER) if Config.zero_gpu else Stages()


def preload() -> None:
    """On a ZeroGPU Space, load the priors that the owner offers (OMNIFUSION_PRIORS) before the first call, in the main
    thread, as such Spaces require; one that cannot be loaded is not offered."""
    names = os.environ.get("OMNIFUSION_PRIORS", "sd15").replace(",", " ").split() if Config.zero_gpu else []
    for name in names:
        try:
            embed(source_of(name), "", "")
            _loaded[name] = load_components(source_of(name), "cuda")
        except InputError as error:
            log.warning("%s is not offered: %s", name, error)


def priors() -> list[tuple[str, str]]:
    """The priors to choose from: (label, name); the label says what has to be downloaded first."""
    labels = []
    for name in offered():
        source, weights = source_of(name), "unet/diffusion_pytorch_model.safetensors"
        here = name in _loaded or Path(source).is_dir() or isinstance(try_to_load_from_cache(source, weights), str)
        download = "" if here else f" (not here: a download of {DOWNLOADS.get(name, 'its weights')})"
        labels.append((TITLES.get(name, name) + download, name))
    return labels


def offered() -> list[str]:
    """The priors that a visitor may choose; folders and other hub ids are for the command line."""
    return [name for name in PRIORS if name == "bundled" or not Config.zero_gpu or name in _loaded]


def check_prior(name: str) -> None:
    """Raise InputError unless a visitor may choose this prior."""
    if name not in offered():
        raise InputError(f"There is no prior {name!r} here; choose one of {', '.join(offered())}.")
