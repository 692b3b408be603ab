"""Density over the canonical volume."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifusion.omnimotion.nvp import DEPTH, REACH, GaborNet, cell

GAIN, BIAS = 4.0, 0.5
OPACITY = 8.0
"""Thickness of the whole volume."""
COARSE, FINE = (12, 20, 8), (54, 96, 8)


class GridField(nn.Module):
    """sigma = softplus(GAIN (coarse + fine) + BIAS), two trilinear grids ``(Y, X, Z)`` over the canonical volume."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Parameter(torch.zeros(COARSE))
        self.fine = nn.Parameter(torch.zeros(FINE))

    def forward(self, u: Tensor) -> Tensor:
        """Density ``(N,)`` at canonical points ``(N, 3)``."""
        return F.softplus(GAIN * (_trilinear(self.coarse, u) + _trilinear(self.fine, u)) + BIAS)

    def thickness(self, samples: int) -> float:
        """Of one of ``samples`` samples, so that opacity does not depend on their number."""
        return OPACITY / samples


class GaborField(nn.Module):
    """The official density: GaborNet of 512 units, sigma = softplus(raw - 1), unit thickness; without its colour
    outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = GaborNet(3, 512, 1, layers=3, alpha=3.0)

    def forward(self, u: Tensor) -> Tensor:
        """Density ``(N,)`` at canonical points ``(N, 3)``."""
        return F.softplus(self.net(u)[:, 0] - 1)

    def thickness(self, samples: int) -> float:
        """Of one sample: 1, as in the official code."""
        return 1.0


def _trilinear(grid: Tensor, u: Tensor) -> Tensor:
    Y, X, Z = grid.shape
    x, fx = cell(u[:, 0], -REACH, REACH, X)
    y, fy = cell(u[:, 1], -REACH, REACH, Y)
    z, fz = cell(u[:, 2], 0.0, DEPTH, Z)
    flat = grid.reshape(-1)

    def row(dy: int, dx: int) -> Tensor:
        at = ((y + dy) * X + x + dx) * Z + z
        return flat[at] * (1 - fz) + flat[at + 1] * fz

    return (row(0, 0) * (1 - fx) + row(0, 1) * fx) * (1 - fy) + (row(1, 0) * (1 - fx) + row(1, 1) * fx) * fy
