"""Rendering a scene, and asking it for the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from omnifusion import geometry
from omnifusion.flow import match
from omnifusion.state import Video
from synthetic.layers import Layer
from synthetic.scenes import SCENES

SUPERSAMPLES = 3  # per pixel and axis: soft outlines from hard masks
TEXELS = 1.5  # per pixel: fine enough to keep a frame sharp, coarse enough not to alias


@dataclass(frozen=True)
class MadeClip:
    """A made clip and its ground truth; ``layers`` run from the nearest to the farthest (which covers every pixel)."""

    video: Video
    layers: tuple[Layer, ...]

    def _to_units(self, points: Tensor) -> Tensor:
        H, W = self.video.size
        return (points.double() - torch.tensor([(W - 1) / 2, (H - 1) / 2], dtype=torch.float64)) / H

    def layer_of(self, points: Tensor, frame: int) -> Tensor:
        """Which layer, ``(N,)`` int64, shows at ``points`` ``(N, 2)`` px of a frame (or beyond its border)."""
        return _look(self.layers, self._to_units(points), frame)[1]

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """Where ``points`` ``(N, 2)`` px of frame ``i`` are in frame ``j``, and whether they are seen there: exact.

        The answer may lie outside the frame; seen means inside the frame and behind no nearer layer.
        """
        H, W = self.video.size
        p, owner = self._to_units(points), self.layer_of(points, i)
        there = torch.empty_like(p)
        for index, layer in enumerate(self.layers):
            mine = owner == index
            there[mine] = layer.motion.forward(layer.motion.inverse(p[mine], i), j)
        there = there * H + p.new_tensor([(W - 1) / 2, (H - 1) / 2])
        if i == j:
            there = points.double()
        visible = geometry.inside(there, H, W) & (self.layer_of(there, j) == owner)
        return there.to(points.dtype), visible

    def matches(self, pixels: np.ndarray, i: int, j: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same as a ``state.Tracker``."""
        points = torch.from_numpy(match.points_of(pixels, self.video.size[1]))
        there, visible = self.correspond(points, i, j)
        return [(there.numpy(), np.where(visible.numpy(), np.float32(0), np.float32(np.inf)))]


def make(
    name: str, frames: int = 24, size: tuple[int, int] = (108, 192), seed: int = 0, noise: float = 1.5
) -> MadeClip:
    """Render one of ``SCENES``.

    Args:
        frames: length T, from 1; size: (H, W) in pixels; noise: standard deviation of the sensor noise, of 255.
        seed: varies directions, speeds, crops and noise.

    Raises:
        KeyError: there is no such scene.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    layers = tuple(_prepare(layer, size[0]) for layer in SCENES[name](rng))
    clip = np.empty((frames, 3, *size), dtype=np.uint8)
    for t in range(frames):
        clean = _render(layers, size, t).numpy()
        noisy = clean * 255 + rng.normal(0.0, noise, clean.shape) if noise else clean * 255
        clip[t] = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    return MadeClip(Video(clip, Fraction(24)), layers)


def _prepare(layer: Layer, H: int) -> Layer:
    """The same layer with its picture at the resolution that suits frames of height ``H``."""
    h, w = layer.picture.shape[1:]
    height = max(2, round(TEXELS * H * layer.height))
    picture = geometry.resize(layer.picture[None], (height, max(2, round(w * height / h))))[0].clamp(0, 1)
    return Layer(picture, layer.height, layer.motion, layer.endless)


def _look(layers: Sequence[Layer], p: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """What the frame coordinates ``p`` ``(N, 2)`` show at time ``t``: color ``(3, N)`` and layer ``(N,)``."""
    color, owner = torch.zeros(3, len(p)), torch.full((len(p),), -1)
    for index, layer in enumerate(layers):
        open_ = (owner < 0).nonzero()[:, 0]
        values, cover = layer.at(layer.motion.inverse(p[open_], t))
        color[:, open_[cover]], owner[open_[cover]] = values[:, cover], index
    return color, owner


def _render(layers: Sequence[Layer], size: tuple[int, int], t: float) -> Tensor:
    """One clean frame ``(3, H, W)`` in [0, 1], averaged over the area of each pixel."""
    H, W = size
    n = SUPERSAMPLES
    fine = geometry.pixel_grid(H * n, W * n).reshape(-1, 2)
    p = (fine - fine.new_tensor([(W * n - 1) / 2, (H * n - 1) / 2])) / (H * n)
    color, _ = _look(layers, p, t)
    return geometry.resize(color.reshape(1, 3, H * n, W * n), size)[0]
