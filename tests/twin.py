"""The grid volume in plain PyTorch, differentiated by autograd: what the compiled kernels are held to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.omnimotion.grid import GridField, GridNVP, GridVolume
from omnifusion.omnimotion.kernels import LAYERS
from omnifusion.omnimotion.volume import Volume

AXES = tuple(layer % 3 for layer in range(LAYERS))
DEPTH, REACH, GAIN, BIAS, LEAST_DET = 2.0, 1.25, 4.0, 0.5, 1e-3


def cell(x: Tensor, low: float, high: float, size: int) -> tuple[Tensor, Tensor]:
    """Lower node and fraction of ``x`` on a grid of ``size`` nodes over [low, high], clamped."""
    u = ((x - low) * ((size - 1) / (high - low))).clamp(0, size - 1)
    lower = u.detach().floor().clamp(max=size - 2)
    return lower.long(), u - lower


def stretch(r: Tensor) -> Tensor:
    """Scale of a coupling layer: positive, about e^r near 0, always within (1/3, 3)."""
    return (1 + r.abs() + r / 2) / (1 + r.abs() - r / 2)


class TwinNVP(GridNVP):
    """T_i and its inverse for points ``(N, 3)`` of frames ``t`` ``(N,)``."""

    def _affine(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        knots = self.affine.shape[1]
        lower, f = cell(z, 0.0, DEPTH, knots)
        flat = self.affine.reshape(-1, 6)
        m = flat[t * knots + lower] * (1 - f)[:, None] + flat[t * knots + lower + 1] * f[:, None]
        m = m.view(-1, 2, 3)
        return m[..., :2], m[..., 2]

    def _condition(self, grids: Tensor, layer: int, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        first, second = ((1, 2), (0, 2), (0, 1))[AXES[layer]]
        A, B = grids.shape[2:4]
        a, fa = cell(x[:, first], -REACH, REACH, A)
        low, high = (0.0, DEPTH) if second == 2 else (-REACH, REACH)
        b, fb = cell(x[:, second], low, high, B)
        flat = grids.reshape(-1, 2)
        base = ((t * len(AXES) + layer) * A + a) * B + b
        v0 = flat[base] * (1 - fb)[:, None] + flat[base + 1] * fb[:, None]
        v1 = flat[base + B] * (1 - fb)[:, None] + flat[base + B + 1] * fb[:, None]
        value = v0 * (1 - fa)[:, None] + v1 * fa[:, None]
        return stretch(value[:, 0]), value[:, 1]

    def forward(self, x: Tensor, t: Tensor, grids: Tensor) -> Tensor:
        m, b = self._affine(x[:, 2], t)
        x = torch.cat([(m @ x[:, :2, None])[..., 0] + b, x[:, 2:]], dim=1)
        for layer, axis in enumerate(AXES):
            s, shift = self._condition(grids, layer, x, t)
            moved = x[:, axis] * s + shift
            x = torch.cat([x[:, :axis], moved[:, None], x[:, axis + 1 :]], dim=1)
        return x

    def inverse(self, u: Tensor, t: Tensor, grids: Tensor) -> Tensor:
        for layer, axis in reversed(list(enumerate(AXES))):
            s, shift = self._condition(grids, layer, u, t)
            moved = (u[:, axis] - shift) / s
            u = torch.cat([u[:, :axis], moved[:, None], u[:, axis + 1 :]], dim=1)
        m, b = self._affine(u[:, 2], t)
        d = u[:, :2] - b
        det = (m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0]).clamp(min=LEAST_DET)
        x = (m[:, 1, 1] * d[:, 0] - m[:, 0, 1] * d[:, 1]) / det
        y = (m[:, 0, 0] * d[:, 1] - m[:, 1, 0] * d[:, 0]) / det
        return torch.stack([x, y, u[:, 2]], dim=1)


class TwinField(GridField):
    """sigma = softplus(GAIN (coarse + fine) + BIAS) at canonical points ``(N, 3)``."""

    def forward(self, u: Tensor) -> Tensor:
        return F.softplus(GAIN * (trilinear(self.coarse, u) + trilinear(self.fine, u)) + BIAS)


def trilinear(grid: Tensor, u: Tensor) -> Tensor:
    Y, X, Z = grid.shape
    x, fx = cell(u[:, 0], -REACH, REACH, X)
    y, fy = cell(u[:, 1], -REACH, REACH, Y)
    z, fz = cell(u[:, 2], 0.0, DEPTH, Z)
    flat = grid.reshape(-1)

    def row(dy: int, dx: int) -> Tensor:
        at = ((y + dy) * X + x + dx) * Z + z
        return flat[at] * (1 - fz) + flat[at + 1] * fz

    return (row(0, 0) * (1 - fx) + row(0, 1) * fx) * (1 - fy) + (row(1, 0) * (1 - fx) + row(1, 1) * fx) * fy


class TwinVolume(Volume):
    """``grid``, with loss and trace as ``Volume`` writes them."""

    kind, opacity = "grid", GridVolume.opacity

    def __init__(self, grid: GridVolume) -> None:
        super().__init__(grid.frames)
        self.nvp, self.field = TwinNVP(grid.frames), TwinField()
        self.load_state_dict(grid.state_dict())
