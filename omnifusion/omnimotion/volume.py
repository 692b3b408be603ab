"""OmniMotion's volume: a bijection per frame onto one canonical volume with a density, and what is rendered from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnifusion.omnimotion.field import GridField
from omnifusion.omnimotion.nvp import DEPTH, GridNVP
from omnifusion.omnimotion.render import composite_weights

OPACITY = 8.0
"""Thickness of the whole volume: K samples of density sigma have alpha = 1 - exp(-OPACITY / K sigma)."""
MIX = 0.75
"""Share of the per-sample loss; the rest is the official loss on the composited point."""
RHO = 0.05
"""Softening of the robust distance rho(d) = sqrt(d^2 + RHO), pixels squared."""


class Volume(nn.Module):
    """The representation: ``nvp`` (psi, M_theta) and ``field`` (density of F_theta)."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.nvp = GridNVP(frames)
        self.field = GridField()

    def map(self, xy: Tensor, i: Tensor, j: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Lift rays ``xy`` ``(R, 2)`` of frames ``i`` ``(R,)`` at depths ``z`` ``(R, K)``: points in frames ``j`` ``(R, K, 3)``, weights ``(R, K)``."""
        R, K = z.shape
        x = torch.cat([xy[:, None].expand(R, K, 2), z[..., None]], dim=-1).reshape(-1, 3)
        grids = self.nvp.grids()
        u = self.nvp(x, i.repeat_interleave(K), grids)
        sigma = self.field(u).view(R, K)
        p = self.nvp.inverse(u, j.repeat_interleave(K), grids)
        return p.view(R, K, 3), composite_weights(sigma, OPACITY / K)

    def loss(self, xy: Tensor, i: Tensor, j: Tensor, q: Tensor, confidence: Tensor, z: Tensor, scale: float) -> Tensor:
        """Flow loss in pixels: mean of confidence (MIX sum_k w_k rho(p_k - q) + (1 - MIX) rho(sum_k w_k p_k - q))."""
        p, w = self.map(xy, i, j, z)
        each = ((p[..., :2] - q[:, None]).mul(scale).square().sum(-1) + RHO).sqrt()
        joint = ((((w[..., None] * p[..., :2]).sum(1) - q) * scale).square().sum(-1) + RHO).sqrt()
        return (confidence * (MIX * (w * each).sum(1) + (1 - MIX) * joint)).mean()


def depths(rays: int, samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Stratified depths ``(rays, samples)`` in [0, DEPTH]: jittered with a generator, bin centres without."""
    jitter = torch.full((rays, samples), 0.5) if generator is None else torch.rand(rays, samples, generator=generator)
    return (torch.arange(samples) + jitter) * (DEPTH / samples)


@torch.no_grad()
def trace(volume: Volume, xy: Tensor, i: int, j: int, samples: int = 8) -> tuple[Tensor, Tensor]:
    """Where rays ``xy`` ``(N, 2)`` of frame ``i`` meet their surface and go in frame ``j``: points ``(N, 2)``, clearness ``(N,)``.

    The answer is the strongest sample's point, averaged with those samples that agree with it; clearness is the
    transmittance in frame j in front of it: 1 = seen, 0 = hidden.
    """
    N = len(xy)
    z = depths(N, samples)
    p, w = volume.map(xy, torch.full((N,), i), torch.full((N,), j), z)
    best = p[torch.arange(N), w.argmax(1)]
    near = torch.exp(-((p - best[:, None])[..., :2] * 100).square().sum(-1)) * w
    point = (near[..., None] * p).sum(1) / near.sum(1, keepdim=True)
    at = point[:, :2]
    _, wj = volume.map(at, torch.full((N,), j), torch.full((N,), j), z)
    in_front = (wj * (z + DEPTH / samples <= point[:, 2:])).sum(1)
    return at, 1 - in_front
