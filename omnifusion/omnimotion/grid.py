"""The grid volume of the presets draft and standard: bilinear and trilinear grids instead of networks.

What it computes stands in ``kernels``; the arithmetic of one sample is written out in PyTorch in ``tests/twin.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omnifusion.omnimotion import kernels
from omnifusion.omnimotion.volume import NEAR, Rays, Volume
from omnifusion.pool import parallel

COARSE, FINE = (12, 20, 8), (54, 96, 8)
MIN_DET = 0.05
"""An affine map whose determinant would fall below this keeps its former value."""
CHUNKS = 2
"""Rays are cut into this many parts, whatever the number of cores, so that sums are taken in one order everywhere."""


class GridNVP(nn.Module):
    """Affine coupling layers whose scale and shift are bilinear grids over the other two coordinates.

    Each frame's grids are a linear function of its latent code psi; a depth-dependent affine map of (x, y) precedes
    the couplings (the official ``use_affine``).
    """

    def __init__(self, frames: int, nodes: tuple[int, int] = (24, 8), code: int = 24, knots: int = 8) -> None:
        super().__init__()
        self.shape = (frames, kernels.LAYERS, *nodes, 2)
        t = torch.linspace(0, 1, frames)[:, None] if frames > 1 else torch.zeros(1, 1)
        self.code = nn.Parameter(torch.cos(torch.pi * t * torch.arange(code)))
        self.hyper = nn.Parameter(torch.zeros(code, int(np.prod(self.shape[1:]))))
        identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        self.affine = nn.Parameter(identity.repeat(frames, knots, 1))

    def condition(self) -> Tensor:
        """All frames' coupling grids ``(T, layers, A, B, 2)``, from their codes."""
        return (self.code @ self.hyper / self.code.shape[1]).view(self.shape)


class GridField(nn.Module):
    """Density: the sum of two trilinear grids ``(Y, X, Z)`` over the canonical volume, through a softplus."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Parameter(torch.zeros(COARSE))
        self.fine = nn.Parameter(torch.zeros(FINE))


class GridVolume(Volume):
    """The grid volume; it stays on the CPU, where its kernels are faster than thousands of small ones on a GPU.

    Args:
        frames: length T of the clip.
        seed: not needed; nothing is random here.
    """

    kind, opacity, small = "grid", float(kernels.OPACITY), True

    def __init__(self, frames: int, seed: int = 0) -> None:
        super().__init__(frames)
        self.nvp, self.field = GridNVP(frames), GridField()

    def start(self, layers: np.ndarray) -> None:
        """Begin with affine maps ``(layers, T, 2, 3)`` in volume units: depth is cut into as many slabs, the last
        layer behind."""
        affine = self.nvp.affine.data
        slab = torch.arange(affine.shape[1]) * len(layers) // affine.shape[1]
        affine.copy_(torch.from_numpy(layers).flatten(2)[slab].transpose(0, 1))

    def loss(self, rays: Rays, z: Tensor, scale: float) -> Tensor:
        """``Volume.loss`` by kernel."""
        tensors = self._tensors()
        shape, flat = _flat(tensors)
        arrays = [v.contiguous().numpy() for v in (*rays, z)]

        def run(part: slice) -> tuple[float, tuple[np.ndarray, ...]]:
            gradients = tuple(np.zeros_like(p) for p in flat)
            cut = tuple(a[part] for a in arrays)
            return kernels.loss(shape, flat, cut, np.float32(scale), gradients), gradients

        totals, parts = zip(*parallel(run, _chunks(len(z))), strict=True)
        summed = [torch.from_numpy(sum(g) / np.float32(len(z))) for g in zip(*parts, strict=True)]
        gradients = [g.view(p.shape) for g, p in zip(summed, tensors, strict=True)]
        return _Differentiated.apply(sum(totals) / len(z), gradients, *tensors)

    @torch.no_grad()
    def trace(self, xy: Tensor, i: int, j: int, samples: int = 8) -> tuple[Tensor, Tensor]:
        """``Volume.trace`` by kernel."""
        points, front = np.empty((len(xy), 2), np.float32), np.empty(len(xy), np.float32)
        z = ((np.arange(samples) + 0.5) * (2.0 / samples)).astype(np.float32)
        (shape, flat), at = _flat(self._tensors()), xy.contiguous().numpy()

        def run(part: slice) -> None:
            kernels.trace(shape, flat, at[part], i, j, z, np.float32(NEAR), points[part], front[part])

        parallel(run, _chunks(len(at)))
        return torch.from_numpy(points), 1 - torch.from_numpy(front)

    def descend(self, step: Callable[[], Any]) -> None:
        """Take an optimizer's ``step``; affine maps that would come near to folding keep their former value."""
        a = self.nvp.affine.data
        before = a.clone()
        step()
        low = (a[..., 0] * a[..., 4] - a[..., 1] * a[..., 3]) < MIN_DET
        a[low] = before[low]

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.nvp.condition(), self.nvp.affine, self.field.coarse, self.field.fine


class _Differentiated(torch.autograd.Function):
    """A number with its gradients, as a function of the tensors that they belong to."""

    @staticmethod
    def forward(ctx: Any, value: float, gradients: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients = gradients
        return torch.tensor(value, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(g * upstream[0] for g in ctx.gradients)


def _flat(tensors: tuple[Tensor, ...]) -> tuple[tuple[int, ...], tuple[np.ndarray, ...]]:
    """Shape and flat arrays of ``_tensors`` as the kernels take them."""
    grids, affine, coarse, fine = tensors
    shape = (*affine.shape[:2], *grids.shape[2:4], *coarse.shape, *fine.shape)
    return shape, tuple(p.detach().contiguous().view(-1).numpy() for p in tensors)


def _chunks(total: int) -> list[slice]:
    """``CHUNKS`` parts of ``range(total)``."""
    edges = [total * k // CHUNKS for k in range(CHUNKS + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]
