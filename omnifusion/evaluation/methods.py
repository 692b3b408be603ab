"""The methods that are compared: OmniFusion, the rows of table 2, and the classical baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from omnifusion.algorithm import colorize
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.evaluation.baselines import BASELINES, Baseline, join, split
from omnifusion.pool import bounded, parallel
from omnifusion.progress import InputError, Step, Steps
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import Tracker, Video
from omnifusion.video import is_gray


@dataclass(frozen=True)
class Sample:
    """One clip under test, and the fitted trackers that its methods share.

    Attributes:
        ground_truth: ``(T, 3, H, W)`` uint8; methods see its luminance and the color of its first frame alone.
        trackers: by the first frame of their shot; the first method that needs one fits it, and is charged for it.
    """

    ground_truth: np.ndarray
    settings: Settings
    stages: Stages = field(default_factory=Stages)
    trackers: dict[int, Tracker] = field(default_factory=dict)

    def clip(self) -> Clip:
        """The clip as the product prepares it; InputError if the ground truth has no color."""
        video = Video(self.ground_truth, Fraction(24))
        if is_gray(video):
            raise InputError("The clip is in black and white; only a clip in color can be scored.")
        return prepare(video, {}, self.settings.max_side)


Result = tuple[np.ndarray, "np.ndarray | None"]
"""A colored sample: frames ``(T, 3, H, W)`` uint8, with the luminance of the ground truth; and at the working size
each pixel's ``Origin``, ``(T, h, w)``, or None for a baseline."""

Method = Callable[[Sample], Steps[Result]]


def omnifusion(sample: Sample) -> Steps[Result]:
    """Run Algorithm 1."""
    clip = sample.clip()
    work = colorize(clip.L, clip.exemplar_ab(), sample.settings, clip.shots, sample.stages, sample.trackers)
    result = yield from work
    sample.trackers.update(result.trackers)
    with bounded(sample.stages.threads):
        frames = parallel(lambda t: clip.full_size(result.state, t), range(len(result.state)))
    return np.stack(frames), result.state.kind.numpy()


def classical(baseline: Baseline, sample: Sample) -> Steps[Result]:
    """Run a classical baseline, at the clip's own size."""
    yield Step("baseline", baseline.__name__)
    L, ab = split(sample.ground_truth)
    return join(L, baseline(L, ab[0])), None


METHODS: dict[str, Method] = {
    "omnifusion": omnifusion,
    **{name: partial(classical, baseline) for name, baseline in BASELINES.items()},
}
"""All methods by name."""

# -- table 2, all of it by settings

Changes = dict[str, Any]

TABLE_2: dict[str, tuple[Changes, tuple[float, float, float]]] = {
    "whole method": ({}, (27.87, 0.970, 0.070)),
    "twice the steps": ({"steps": lambda settings: 2 * settings.steps}, (27.99, 0.965, 0.075)),
    "3 optimizations": ({"optimizations": 3}, (27.17, 0.941, 0.103)),
    "no color condition": ({"color_condition": False}, (25.37, 0.922, 0.111)),
    "no gray constraint": ({"gray_constraint": False}, (26.24, 0.904, 0.127)),
    "neither": ({"color_condition": False, "gray_constraint": False}, (24.78, 0.892, 0.155)),
}
"""The rows of table 2: what they change of the whole method, and the paper's PSNR, SSIM and LPIPS (Stable Diffusion
v2.0, 50 and 100 steps, 20 clips of DAVIS)."""


def _changed(changes: Changes, sample: Sample) -> Steps[Result]:
    """Run OmniFusion under changed settings, diffusion everywhere."""
    values = {name: value(sample.settings) if callable(value) else value for name, value in changes.items()}
    settings = replace(sample.settings, diffusion="always", optimizations=1)
    return omnifusion(replace(sample, settings=replace(settings, **values)))


TABLE_2_METHODS: dict[str, Method] = {name: partial(_changed, changes) for name, (changes, _) in TABLE_2.items()}
"""The rows of table 2; the whole method first, as all are also scored on the pixels that it inpainted."""
