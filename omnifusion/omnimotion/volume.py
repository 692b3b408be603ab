"""OmniMotion's volume: a bijection per frame onto one canonical volume with a density, and what is rendered from it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from omnifusion.omnimotion import fast
from omnifusion.omnimotion.field import GaborField, GridField
from omnifusion.omnimotion.nvp import DEPTH, GridNVP, MlpNVP
from omnifusion.omnimotion.render import composite_weights

Kind = Literal["grid", "mlp"]
MIX = 0.75
"""Share of the per-sample loss; the rest is the official loss on the composited point."""
RHO = 0.05
"""Softening of the robust distance rho(d) = sqrt(d^2 + RHO), pixels squared."""
NEAR = 100.0
"""Samples this many to the volume unit apart count as one surface when tracing."""


class Volume(nn.Module):
    """The representation: ``nvp`` (codes psi, bijections M_theta) and ``field`` (density sigma of F_theta).

    Args:
        frames: length T of the clip.
        kind: "grid", or "mlp" for the official networks.
        seed: fixes the networks' random start ("grid" has none).
    """

    def __init__(self, frames: int, kind: Kind = "grid", seed: int = 0) -> None:
        super().__init__()
        self.frames, self.kind = frames, kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nvp: GridNVP | MlpNVP = GridNVP(frames) if kind == "grid" else MlpNVP(frames)
            self.field: GridField | GaborField = GridField() if kind == "grid" else GaborField()

    @property
    def compiled(self) -> bool:
        """Whether the numba kernels can do the work: grids on the CPU."""
        return self.kind == "grid" and self.nvp.affine.device.type == "cpu"

    def map(self, xy: Tensor, i: Tensor, j: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lift rays ``xy`` ``(R, 2)`` of frames ``i`` ``(R,)`` at depths ``z`` ``(R, K)``.

        Returns:
            Canonical points u_k ``(R, K, 3)``, their images p_k in frames ``j`` ``(R, K, 3)``, weights w_k ``(R, K)``.
        """
        R, K = z.shape
        x = torch.cat([xy[:, None].expand(R, K, 2), z[..., None]], dim=-1).reshape(-1, 3)
        psi = self.nvp.condition()
        u = self.nvp(x, i.repeat_interleave(K), psi)
        p = self.nvp.inverse(u, j.repeat_interleave(K), psi)
        weights = composite_weights(self.field(u).view(R, K), self.field.thickness(K))
        return u.view(R, K, 3), p.view(R, K, 3), weights

    def loss(
        self,
        xy: Tensor,
        i: Tensor,
        j: Tensor,
        q: Tensor,
        confidence: Tensor,
        z: Tensor,
        scale: float,
        smooth: float = 0.0,
        every: int = 8,
    ) -> tuple[Tensor, Tensor]:
        """Mean over rays of confidence times flow loss, plus temporal smoothness, in pixels; and each ray's flow
        loss ``(R,)``.

        Flow loss: MIX sum_k w_k rho(p_k - q) + (1 - MIX) rho(sum_k w_k p_k - q).
        Smoothness, on one ray in ``every``: sum_k w_k rho(p_k in frame i - 1 + p_k in frame i + 1 - 2 p), w_k held
        fixed.

        Args:
            xy, q: ``(R, 2)`` volume units; i, j: frames ``(R,)``; confidence ``(R,)``; z ``(R, K)`` depths.
            scale: pixels per volume unit; smooth: weight of the smoothness.
        """  # fmt: skip
        u, p, w = self.map(xy, i, j, z)
        off = (p[..., :2] - q[:, None]) * scale
        each = MIX * (w * rho(off)).sum(1) + (1 - MIX) * rho((w[..., None] * off).sum(1))
        total = (confidence * each).mean()
        if smooth > 0:
            chosen = torch.zeros_like(i, dtype=torch.bool)
            chosen[::every] = True
            chosen &= (i > 0) & (i < self.frames - 1)
            K, psi, flat = z.shape[1], self.nvp.condition(), u[chosen].reshape(-1, 3)
            ends = [self.nvp.inverse(flat, (i[chosen] + d).repeat_interleave(K), psi)[:, :2] for d in (-1, 1)]
            bend = (ends[0] + ends[1]).view(-1, K, 2) - 2 * xy[chosen][:, None]
            total = total + smooth * every * (w[chosen].detach() * rho(bend * scale)).sum() / len(xy)
        return total, each.detach()


def rho(off: Tensor) -> Tensor:
    """Robust length of pixel vectors ``(..., 2)``."""
    return (off.square().sum(-1) + RHO).sqrt()


def depths(rays: int, samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Stratified depths ``(rays, samples)`` in [0, DEPTH]: jittered with a generator, bin centres without."""
    jitter = torch.full((rays, samples), 0.5) if generator is None else torch.rand(rays, samples, generator=generator)
    return (torch.arange(samples) + jitter) * (DEPTH / samples)


@torch.no_grad()
def trace(volume: Volume, xy: Tensor, i: int, j: int, samples: int = 8) -> tuple[Tensor, Tensor]:
    """Where rays ``xy`` ``(N, 2)`` of frame ``i`` meet their surface, and where that is in frame ``j``.

    The answer is the strongest sample's point, averaged with those samples that agree with it.

    Returns:
        Points ``(N, 2)`` volume units and the transmittance in front of them in frame ``j`` ``(N,)``: 1 seen, 0 hidden.
    """
    if volume.compiled:
        points, front = fast.trace(volume, xy, i, j, samples, NEAR)
        return points, 1 - front
    device = next(volume.parameters()).device
    parts = [_trace(volume, part.to(device), i, j, samples) for part in xy.split(8192)]
    return torch.cat([p for p, _ in parts]).cpu(), torch.cat([c for _, c in parts]).cpu()


def _trace(volume: Volume, xy: Tensor, i: int, j: int, samples: int) -> tuple[Tensor, Tensor]:
    N = len(xy)
    z = depths(N, samples).to(xy.device)
    here, there = torch.full((N,), i, device=xy.device), torch.full((N,), j, device=xy.device)
    _, p, w = volume.map(xy, here, there, z)
    best = p[torch.arange(N, device=xy.device), w.argmax(1)]
    near = torch.exp(-((p - best[:, None])[..., :2] * NEAR).square().sum(-1)) * w
    point = (near[..., None] * p).sum(1) / near.sum(1, keepdim=True)
    _, _, front = volume.map(point[:, :2], there, there, z)
    return point[:, :2], 1 - (front * (z + DEPTH / samples <= point[:, 2:])).sum(1)
