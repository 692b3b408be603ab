"""The compiled kernels as differentiable functions of the volume's parameters, over two threads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.flow import parallel
from omnifusion.omnimotion import kernels

CHUNKS = 2
"""Rays are cut into this many parts, whatever the number of cores, so that sums are taken in one order everywhere."""


def _chunks(total: int, unit: int = 1) -> list[slice]:
    """``CHUNKS`` parts of ``range(total)``, all but the last a multiple of ``unit``."""
    edges = [total * k // CHUNKS // unit * unit for k in range(CHUNKS)] + [total]
    return [slice(a, b) for a, b in pairwise(edges)]


def _flat(*parameters: Tensor) -> list[np.ndarray]:
    return [p.detach().contiguous().view(-1).numpy() for p in parameters]


def _shape(grids: Tensor, affine: Tensor, coarse: Tensor, fine: Tensor) -> tuple[int, ...]:
    return (*affine.shape[:2], *grids.shape[2:4], *coarse.shape, *fine.shape)


class KernelLoss(torch.autograd.Function):
    """Mean loss over rays (see ``kernels.loss``); the gradients are made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, grids: Tensor, affine: Tensor, coarse: Tensor, fine: Tensor, rays: tuple, options: tuple
    ) -> Tensor:
        """The loss, a scalar; its gradients are kept for ``backward``."""
        parameters = _flat(grids, affine, coarse, fine)
        shape, R = _shape(grids, affine, coarse, fine), len(rays[0])

        def run(part: slice) -> tuple[float, list[np.ndarray]]:
            gradients = [np.zeros_like(p) for p in parameters]
            cut = [r[part] for r in rays]
            return kernels.loss(shape, *parameters, *cut[:6], *options, *gradients, cut[6]), gradients

        parts = parallel(run, _chunks(R, options[2]))
        summed = [torch.from_numpy(sum(g) / np.float32(R)) for g in zip(*(g for _, g in parts), strict=True)]
        ctx.gradients = [g.view(p.shape) for g, p in zip(summed, (grids, affine, coarse, fine), strict=True)]
        return torch.tensor(sum(total for total, _ in parts) / R, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients, scaled by the one from above."""
        return (*(g * upstream[0] for g in ctx.gradients), None, None)


def loss(
    volume: Any,
    xy: Tensor,
    i: Tensor,
    j: Tensor,
    q: Tensor,
    confidence: Tensor,
    z: Tensor,
    scale: float,
    smooth: float,
    every: int = 8,
) -> tuple[Tensor, Tensor]:
    """``Volume.loss`` by kernel: mean loss, and every ray's own flow loss ``(R,)`` px."""
    each = torch.empty(len(xy))
    rays = tuple(v.contiguous().numpy() for v in (xy, i, j, q, confidence, z, each))
    options = (np.float32(scale), np.float32(smooth), every)
    nvp, field = volume.nvp, volume.field
    return KernelLoss.apply(nvp.condition(), nvp.affine, field.coarse, field.fine, rays, options), each


@torch.no_grad()
def trace(volume: Any, xy: Tensor, i: int, j: int, samples: int, near: float) -> tuple[Tensor, Tensor]:
    """``volume.trace`` by kernel."""
    points, front = np.empty((len(xy), 2), np.float32), np.empty(len(xy), np.float32)
    z = ((np.arange(samples) + 0.5) * (2.0 / samples)).astype(np.float32)
    nvp, field = volume.nvp, volume.field
    parameters = (nvp.condition(), nvp.affine, field.coarse, field.fine)
    flat, shape = _flat(*parameters), _shape(*parameters)
    at = xy.contiguous().numpy()

    def run(part: slice) -> None:
        kernels.trace(shape, *flat, at[part], i, j, z, np.float32(near), points[part], front[part])

    parallel(run, _chunks(len(at)))
    return torch.from_numpy(points), torch.from_numpy(front)
