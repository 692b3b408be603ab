"""The methods that are compared: OmniFusion, the rows of table 2, and the classical baselines."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.algorithm import colorize
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.geometry import inside, pixel_grid, warp
from omnifusion.levin import levin as fill
from omnifusion.pool import bounded, parallel
from omnifusion.progress import InputError, Step, Steps
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import Tracker, Video
from omnifusion.video import is_gray


@dataclass(frozen=True)
class Sample:
    """One clip under test, and the fitted ``trackers`` that its methods share, by the first frame of their shot: the
    first method that needs one fits it, and is charged for it."""

    ground_truth: np.ndarray  # (T, 3, H, W) uint8; methods see its luminance and the color of its first frame alone
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


# -- classical baselines: color the frames after a colored first one without any learning
#
# ``split`` and ``join`` use OpenCV's float Lab, which the published rows were measured with: its tables differ from
# exact CIELAB by enough to move DIS, and with it a clip's PSNR, by 0.1 dB.

Baseline = Callable[[Tensor, Tensor], Tensor]
"""From a clip's luminance ``L`` ``(T, 1, H, W)`` in [0, 100] and the first frame's ``ab`` ``(2, H, W)`` to the ``ab``
``(T, 2, H, W)`` of all frames."""


def split(frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """8-bit sRGB ``(T, 3, H, W)`` to ``L`` ``(T, 1, H, W)`` in [0, 100] and ``ab`` ``(T, 2, H, W)``."""
    lab = [cv2.cvtColor(f.transpose(1, 2, 0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in frames]
    both = torch.from_numpy(np.stack(lab)).permute(0, 3, 1, 2).contiguous()
    return both[:, :1], both[:, 1:]


def join(L: Tensor, ab: Tensor) -> np.ndarray:
    """``L`` and ``ab`` back to 8-bit sRGB ``(T, 3, H, W)``, clipped to the gamut and rounded."""
    lab = torch.cat([L, ab], 1).permute(0, 2, 3, 1).numpy()
    rgb = np.stack([cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_LAB2RGB) for f in lab])
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 3, 1, 2)


def gray(L: Tensor, ab: Tensor) -> Tensor:
    """Leave all frames after the first without color."""
    return torch.cat([ab[None], torch.zeros(len(L) - 1, *ab.shape)])


def static(L: Tensor, ab: Tensor) -> Tensor:
    """Give every frame the color of the first, pixel for pixel."""
    return ab.expand(len(L), *ab.shape).clone()


def flow_warp(L: Tensor, ab: Tensor) -> Tensor:
    """Warp color from frame to frame along backward DIS flow (medium preset), border repeated."""
    gray8, result = _bytes(L), [ab]
    for t in range(1, len(L)):
        result.append(warp(result[-1], _dis(gray8[t], gray8[t - 1])))
    return torch.stack(result)


def levin(L: Tensor, ab: Tensor) -> Tensor:
    """``flow_warp`` whose pixels without a consistent track are filled by Levin et al. 2004, frame after frame."""
    gray8, result = _bytes(L), [ab]
    for t in range(1, len(L)):
        backward, forward = _dis(gray8[t], gray8[t - 1]), _dis(gray8[t - 1], gray8[t])
        result.append(fill(L[t], warp(result[-1], backward), consistent(backward, forward)))
    return torch.stack(result)


def consistent(backward: Tensor, forward: Tensor) -> Tensor:
    """Forward-backward check of Sundaram et al. 2010: ``(H, W)`` bool, true where ``backward`` can be trusted.

    A pixel p passes if p + b lies in the frame and |b + f|^2 <= 0.01 (|b|^2 + |f|^2) + 0.5, with b = ``backward`` at p
    and f = ``forward`` at p + b; both flows ``(2, H, W)``.
    """
    H, W = backward.shape[1:]
    f = warp(forward, backward)
    bound = 0.01 * ((backward**2).sum(0) + (f**2).sum(0)) + 0.5
    return (((backward + f) ** 2).sum(0) <= bound) & inside(pixel_grid(H, W) + backward.permute(1, 2, 0), H, W)


def _bytes(L: Tensor) -> np.ndarray:
    """L* ``(T, 1, H, W)`` as the 8-bit gray pictures ``(T, H, W)`` that DIS reads."""
    return (2.55 * L[:, 0]).clamp(0, 255).byte().numpy()


def _dis(source: np.ndarray, target: np.ndarray) -> Tensor:
    """DIS flow, medium preset as created, ``(2, H, W)``: source(p) looks like target(p + flow(p))."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(source, target, None)
    return torch.from_numpy(flow).permute(2, 0, 1).contiguous()


BASELINES: dict[str, Baseline] = {"flow-warp": flow_warp, "levin": levin, "static": static, "gray": gray}
"""The classical baselines by the names that tables and the command line use."""


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
