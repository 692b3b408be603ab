"""OmniMotion's volume: a bijection per frame onto one canonical volume with a density, and what is rendered from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from omnifusion.omnimotion.coordinates import DEPTH
from omnifusion.progress import check_canceled

Kind = Literal["grid", "mlp"]
MIX = 0.75
"""Share of the per-sample loss; the rest is the official loss on the composited point."""
RHO = 0.05
"""Softening of the robust distance rho(d) = sqrt(d^2 + RHO), pixels squared."""
NEAR = 100.0
"""Samples this many to the volume unit apart count as one surface when tracing."""
SMOOTHED = 8
"""One ray in so many carries the temporal smoothness."""


class Rays(NamedTuple):
    """Rays to learn from: points ``xy`` of frames ``i`` are at ``q`` in frames ``j``.

    Attributes:
        xy, q: ``(R, 2)`` volume units; i, j: ``(R,)`` int64; confidence: ``(R,)`` in [0, 1].
    """

    xy: Tensor
    i: Tensor
    j: Tensor
    q: Tensor
    confidence: Tensor


class Volume(nn.Module):
    """The representation: ``nvp`` (codes psi, bijections M_theta) and ``field`` (density sigma of F_theta).

    A kind of volume gives ``nvp.condition() -> psi``, ``nvp(x, t, psi) -> u``, its ``nvp.inverse``, and
    ``field(u) -> sigma``, or computes loss and trace in its own way.

    Attributes:
        opacity: thickness of the whole volume, shared by the samples of a ray.
        smooth: weight of the temporal smoothness.
        small: its tensors are so small that waking a second thread costs PyTorch more than it brings.
    """

    kind: Kind
    opacity: float
    smooth = 0.0
    small = False
    nvp: Any
    field: Any

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

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
        weights = composite_weights(self.field(u).view(R, K), self.opacity / K)
        return u.view(R, K, 3), p.view(R, K, 3), weights

    def loss(self, rays: Rays, z: Tensor, scale: float) -> Tensor:
        """Mean over rays of confidence times flow loss, plus temporal smoothness.

        Flow loss: MIX sum_k w_k rho(p_k - q) + (1 - MIX) rho(sum_k w_k p_k - q).
        Smoothness, on one ray in SMOOTHED: sum_k w_k rho(p_k in frame i - 1 + p_k in frame i + 1 - 2 p), w_k held
        fixed.

        Args:
            z: ``(R, K)`` depths.
            scale: pixels per volume unit; the losses are in pixels.
        """
        xy, i, j, q, confidence = (v.to(self.device) for v in rays)
        u, p, w = self.map(xy, i, j, z.to(self.device))
        off = (p[..., :2] - q[:, None]) * scale
        each = MIX * (w * rho(off)).sum(1) + (1 - MIX) * rho((w[..., None] * off).sum(1))
        total = (confidence * each).mean()
        if self.smooth > 0:
            chosen = torch.arange(0, len(i), SMOOTHED, device=i.device)
            inner = (i[chosen] > 0) & (i[chosen] < self.frames - 1)
            if not i.is_cuda:  # there shapes stay fixed, and the ends of the clip weigh nothing
                chosen, inner = chosen[inner], inner[inner]
            K, psi, flat = z.shape[1], self.nvp.condition(), u[chosen].reshape(-1, 3)
            sides = [(i[chosen] + d).clamp(0, self.frames - 1).repeat_interleave(K) for d in (-1, 1)]
            ends = [self.nvp.inverse(flat, side, psi)[:, :2] for side in sides]
            bend = (ends[0] + ends[1]).view(-1, K, 2) - 2 * xy[chosen][:, None]
            weights = w[chosen].detach() * inner[:, None]
            total = total + self.smooth * SMOOTHED * (weights * rho(bend * scale)).sum() / len(xy)
        return total

    @torch.no_grad()
    def trace(self, xy: Tensor, i: int, j: int, samples: int = 8) -> tuple[Tensor, Tensor]:
        """Where rays ``xy`` ``(N, 2)`` of frame ``i`` meet their surface, and where that is in frame ``j``.

        The answer is the strongest sample's point, averaged with those samples that agree with it.

        Returns:
            Points ``(N, 2)`` volume units and the transmittance in front of them in frame ``j`` ``(N,)``: 1 seen, 0
            hidden.
        """
        parts = []
        for part in xy.split(8192):
            check_canceled()
            parts.append(self._trace(part.to(self.device), i, j, samples))
        return torch.cat([p for p, _ in parts]).cpu(), torch.cat([c for _, c in parts]).cpu()

    def _trace(self, xy: Tensor, i: int, j: int, samples: int) -> tuple[Tensor, Tensor]:
        N = len(xy)
        z = depths(N, samples).to(xy.device)
        here, there = (torch.full((N,), t, device=xy.device) for t in (i, j))
        _, p, w = self.map(xy, here, there, z)
        best = p[torch.arange(N, device=xy.device), w.argmax(1)]
        near = torch.exp(-((p - best[:, None])[..., :2] * NEAR).square().sum(-1)) * w
        point = (near[..., None] * p).sum(1) / near.sum(1, keepdim=True)
        _, _, front = self.map(point[:, :2], there, there, z)
        return point[:, :2], 1 - (front * (z + DEPTH / samples <= point[:, 2:])).sum(1)

    def descend(self, step: Callable[[], Any]) -> None:
        """Take an optimizer's ``step``, and keep the bijections invertible."""
        step()


def composite_weights(sigma: Tensor, thickness: float) -> Tensor:
    """Weights w_k = T_k alpha_k ``(R, K)`` of densities ``(R, K)``: alpha_k = 1 - exp(-thickness sigma_k), the last
    opaque.

    T_k = prod_{l<k} (1 - alpha_l) is the transmittance in front of sample k; each row sums to 1.
    """
    clear = torch.exp(-thickness * sigma)
    in_front = torch.cumprod(torch.cat([torch.ones_like(clear[:, :1]), clear[:, :-1]], dim=1), dim=1)
    alpha = torch.cat([1 - clear[:, :-1], torch.ones_like(clear[:, :1])], dim=1)
    return in_front * alpha


def rho(off: Tensor) -> Tensor:
    """Robust length of pixel vectors ``(..., 2)``."""
    return (off.square().sum(-1) + RHO).sqrt()


def depths(rays: int, samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Stratified depths ``(rays, samples)`` in [0, DEPTH]: jittered with a generator, bin centers without."""
    jitter = torch.full((rays, samples), 0.5) if generator is None else torch.rand(rays, samples, generator=generator)
    return (torch.arange(samples) + jitter) * (DEPTH / samples)
