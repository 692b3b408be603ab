"""The grid volume of the presets draft and standard: grids that are read linearly instead of networks."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifusion.geometry import interpolate
from omnifusion.omnimotion.volume import DEPTH, Volume

LAYERS, NODES, KNOTS, CODE = 5, (24, 8), 8, 24
"""Coupling layers, nodes of their grids, depths that have an affine map of their own, length of a latent code."""
COARSE, FINE, REACH = (12, 20, 8), (54, 96, 8), 1.25
"""Nodes of the density grids; all grids span [-REACH, REACH] in x and y and [0, DEPTH] in z, and hold their border."""
GAIN, BIAS = 4.0, 0.5
"""Density is softplus(GAIN (coarse + fine) + BIAS)."""


class GridVolume(Volume):
    """Scale and shift of a coupling layer are bilinear grids over the other two coordinates, linear functions of a
    frame's latent code psi, which is a cosine basis of time. Affine maps lie at ``KNOTS`` depths of each frame and are
    read linearly between them. Density is the sum of two trilinear grids ``(Y, X, Z)`` through a softplus.

    Args:
        frames: length T of the clip.
        seed: not needed; nothing is random here.
    """

    kind, samples, opacity = "grid", 8, 8.0
    axes = tuple(layer % 3 for layer in range(LAYERS))

    def __init__(self, frames: int, seed: int = 0) -> None:
        super().__init__(frames)
        t = torch.linspace(0, 1, frames)[:, None] if frames > 1 else torch.zeros(1, 1)
        self.register_buffer("code", torch.cos(torch.pi * t * torch.arange(CODE)))
        self.couplings = nn.Parameter(torch.zeros(CODE, LAYERS * 2 * math.prod(NODES)))
        self.maps = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).repeat(frames, KNOTS, 1))
        self.field = nn.ParameterList([torch.zeros(COARSE), torch.zeros(FINE)])

    def start(self, layers: np.ndarray) -> None:
        """Begin with affine maps ``(layers, T, 2, 3)``: depth is cut into as many slabs, the last layer behind."""
        slab = torch.arange(KNOTS) * len(layers) // KNOTS
        self.maps.data.copy_(torch.from_numpy(layers).flatten(2)[slab].transpose(0, 1))

    def condition(self) -> Tensor:
        """All frames' coupling grids ``(layers, T, 2, A, B)``, from their codes."""
        return (self.code @ self.couplings / CODE).view(-1, LAYERS, 2, *NODES).transpose(0, 1)

    def affine(self, z: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """See ``Volume``."""
        at = (z.clamp(0, DEPTH) * ((KNOTS - 1) / DEPTH))[..., None] - torch.arange(KNOTS, device=z.device)
        return ((1 - at.abs()).clamp_min(0) @ self.maps[t]).unbind(-1)

    def scale_shift(self, psi: Tensor, layer: int, others: list[Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Volume``; scales are about e^r near r = 0, always within (1/3, 3)."""
        first, second = others[0] / REACH, others[1] / REACH if self.axes[layer] == 2 else others[1] * (2 / DEPTH) - 1
        r, shift = interpolate(psi[layer][t], first, second).unbind(1)
        whole, half = 1 + r.abs(), r / 2
        return (whole + half) / (whole - half), shift

    def density(self, u: Tensor) -> Tensor:
        """See ``Volume``."""
        x, y, z = (c.reshape(1, -1) for c in u.unbind(-1))
        coarse, fine = (interpolate(g[None, None], y / REACH, x / REACH, z * (2 / DEPTH) - 1) for g in self.field)
        return F.softplus(GAIN * (coarse + fine) + BIAS).view(u.shape[:-1])
