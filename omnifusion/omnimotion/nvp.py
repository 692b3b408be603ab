"""Bijections between each frame's local volume and the canonical volume.

A local point is (x, y, z): x and y isotropic, the longer side spanning [-1, 1], z in [0, DEPTH] with 0 nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

AXES = (0, 1, 2, 0, 1)
"""The coordinate that each coupling layer changes."""
DEPTH = 2.0
REACH = 1.25
"""Conditioning grids span [-REACH, REACH] in x and y; beyond them the border value holds."""


def _cell(x: Tensor, low: float, high: float, size: int) -> tuple[Tensor, Tensor]:
    """Lower node and fraction of ``x`` on a grid of ``size`` nodes over [low, high], clamped."""
    u = ((x - low) * ((size - 1) / (high - low))).clamp(0, size - 1)
    lower = u.detach().floor().clamp(max=size - 2)
    return lower.long(), u - lower


class GridNVP(nn.Module):
    """Affine coupling layers whose log-scale and shift are bilinear grids over the other two coordinates.

    Each frame's grids are a linear function of its latent code psi; a depth-dependent affine map of (x, y) precedes
    the couplings (the official ``use_affine``).
    """

    def __init__(self, frames: int, nodes: tuple[int, int] = (24, 8), code: int = 24, knots: int = 8) -> None:
        super().__init__()
        self.frames, self.nodes, self.knots = frames, nodes, knots
        t = torch.linspace(0, 1, frames)[:, None] if frames > 1 else torch.zeros(1, 1)
        self.code = nn.Parameter(torch.cos(torch.pi * t * torch.arange(code)))
        self.hyper = nn.Parameter(torch.zeros(code, len(AXES) * nodes[0] * nodes[1] * 2))
        identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        self.affine = nn.Parameter(identity.repeat(frames, knots, 1))

    def grids(self) -> Tensor:
        """All frames' coupling grids ``(T, layers, A, B, 2)``."""
        return (self.code @ self.hyper).view(self.frames, len(AXES), *self.nodes, 2)

    def _affine(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        lower, f = _cell(z, 0.0, DEPTH, self.knots)
        flat = self.affine.reshape(-1, 6)
        m = flat[t * self.knots + lower] * (1 - f)[:, None] + flat[t * self.knots + lower + 1] * f[:, None]
        m = m.view(-1, 2, 3)
        return m[..., :2], m[..., 2]

    def _condition(self, grids: Tensor, layer: int, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        axis = AXES[layer]
        first, second = ((1, 2), (0, 2), (0, 1))[axis]
        A, B = self.nodes
        a, fa = _cell(x[:, first], -REACH, REACH, A)
        low, high = (0.0, DEPTH) if second == 2 else (-REACH, REACH)
        b, fb = _cell(x[:, second], low, high, B)
        flat = grids.reshape(-1, 2)
        base = ((t * len(AXES) + layer) * A + a) * B + b
        v0 = flat[base] * (1 - fb)[:, None] + flat[base + 1] * fb[:, None]
        v1 = flat[base + B] * (1 - fb)[:, None] + flat[base + B + 1] * fb[:, None]
        value = v0 * (1 - fa)[:, None] + v1 * fa[:, None]
        return torch.tanh(value[:, 0]), value[:, 1]

    def forward(self, x: Tensor, t: Tensor, grids: Tensor) -> Tensor:
        """Local points ``(N, 3)`` of frames ``t`` ``(N,)`` to canonical points ``(N, 3)``."""
        m, b = self._affine(x[:, 2], t)
        xy = (m @ x[:, :2, None])[..., 0] + b
        x = torch.cat([xy, x[:, 2:]], dim=1)
        for layer, axis in enumerate(AXES):
            s, shift = self._condition(grids, layer, x, t)
            moved = x[:, axis] * torch.exp(s) + shift
            x = torch.cat([x[:, :axis], moved[:, None], x[:, axis + 1 :]], dim=1)
        return x

    def inverse(self, u: Tensor, t: Tensor, grids: Tensor) -> Tensor:
        """Canonical points ``(N, 3)`` to local points of frames ``t`` ``(N,)``."""
        for layer in reversed(range(len(AXES))):
            axis = AXES[layer]
            s, shift = self._condition(grids, layer, u, t)
            moved = (u[:, axis] - shift) * torch.exp(-s)
            u = torch.cat([u[:, :axis], moved[:, None], u[:, axis + 1 :]], dim=1)
        m, b = self._affine(u[:, 2], t)
        d = u[:, :2] - b
        det = m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0]
        x = (m[:, 1, 1] * d[:, 0] - m[:, 0, 1] * d[:, 1]) / det
        y = (m[:, 0, 0] * d[:, 1] - m[:, 1, 0] * d[:, 0]) / det
        return torch.stack([x, y, u[:, 2]], dim=1)
