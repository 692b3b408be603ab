"""What a made clip consists of: pictures with outlines, and motion that is inverted in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omnifusion import geometry

TURNING_TIME = 160.0  # frames per period: motion is close to steady over 24 frames and stays bounded in long clips


@dataclass(frozen=True)
class Motion:
    """Non-rigid wobble, then similarity: layer coordinates ``q`` to frame coordinates ``p``, both ``(N, 2)`` float64.

    The wobble is two shears ``x += A sin(k y + phase)``, ``y += A sin(k x + phase)``: undone one by one, hence exact.
    Speeds are per frame; all but the ``travel`` swing back in long clips.
    """

    start: tuple[float, float] = (0.0, 0.0)
    drift: tuple[float, float] = (0.0, 0.0)
    travel: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    wobble: float = 0.0
    wavelength: float = 0.7
    tempo: float = 0.2

    def _place(self, t: float) -> tuple[float, float, float, float]:
        """Complex scale-and-rotation, then offset, at time ``t``."""
        steady = TURNING_TIME / (2 * math.pi) * math.sin(2 * math.pi * t / TURNING_TIME)
        angle, scale = self.angle + self.turn * steady, math.exp(self.zoom * steady)
        x, y = (s + d * steady + v * t for s, d, v in zip(self.start, self.drift, self.travel, strict=True))
        return scale * math.cos(angle), scale * math.sin(angle), x, y

    def _shear(self, along: Tensor, t: float, axis: int) -> Tensor:
        return self.wobble * torch.sin(2 * math.pi / self.wavelength * along + self.tempo * t * (1 - 0.3 * axis) + axis)

    def forward(self, q: Tensor, t: float) -> Tensor:
        """Frame coordinates of the layer's points ``q`` ``(N, 2)`` at frame ``t``."""
        x = q[:, 0] + self._shear(q[:, 1], t, 0)
        y = q[:, 1] + self._shear(x, t, 1)
        c, s, dx, dy = self._place(t)
        return torch.stack([c * x - s * y + dx, s * x + c * y + dy], dim=1)

    def inverse(self, p: Tensor, t: float) -> Tensor:
        """The layer's points at frame coordinates ``p`` ``(N, 2)`` at frame ``t``: undoes ``forward`` to rounding."""
        c, s, dx, dy = self._place(t)
        u, v = p[:, 0] - dx, p[:, 1] - dy
        x, y = torch.stack([c * u + s * v, c * v - s * u]) / (c * c + s * s)
        y = y - self._shear(x, t, 1)
        x = x - self._shear(y, t, 0)
        return torch.stack([x, y], dim=1)


@dataclass(frozen=True)
class Layer:
    """A moving picture.

    Attributes:
        picture: ``(4, h, w)`` float32 RGB and outline in [0, 1]; the layer is where the outline is above one half.
        height: of the picture, in frame heights.
        motion: of the layer.
        endless: the picture goes on beyond its border, mirrored (backgrounds); otherwise nothing is there.
    """

    picture: Tensor
    height: float
    motion: Motion
    endless: bool = False

    def at(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Color ``(3, N)`` and cover ``(N,)`` bool at layer coordinates ``q`` ``(N, 2)``."""
        h, w = self.picture.shape[1:]
        texel = q * (h / self.height) + q.new_tensor([(w - 1) / 2, (h - 1) / 2])
        if self.endless:
            last = texel.new_tensor([w - 1.0, h - 1.0])
            texel = last - (texel % (2 * last) - last).abs()
        values = geometry.sample(self.picture, texel.float())
        return values[:3], (values[3] > 0.5) & geometry.inside(texel, h, w)
