"""OmniMotion's volume: a bijection per frame onto one canonical volume with a density, and what is rendered from it.

Volume units: the frame's center is 0, its longer side spans [-1, 1]; depths go from 0, nearest, to DEPTH.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from omnifusion.progress import check_canceled

Kind = Literal["grid", "mlp"]
DEPTH = 2.0
MIX, RHO = 0.75, 0.05
"""Share of the per-sample loss, the rest is on the composited point; softening of rho(d) = sqrt(d^2 + RHO), px^2."""
NEAR = 100.0  # samples this many to the volume unit apart count as one surface when tracing
SMOOTHED = 8  # every n-th ray carries the temporal smoothness
LEAST_DET = 1e-3
"""Bound on the determinant of an affine map: between two depths with sound maps there may be one without."""
CHUNK = 2**18  # samples that are traced at once


def to_volume(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels ``(..., 2)`` of a frame of ``size`` (H, W) to volume units."""
    H, W = size
    return ((points + 0.5 - np.array([W / 2, H / 2], np.float32)) / (max(H, W) / 2)).astype(np.float32)


def to_pixels(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The inverse of ``to_volume``."""
    H, W = size
    return (points * (max(H, W) / 2) + np.array([W / 2, H / 2], np.float32) - 0.5).astype(np.float32)


class Rays(NamedTuple):
    """Rays to learn from: points ``xy`` ``(P, R, 2)`` of frames ``i`` ``(P,)`` are at ``q`` in frames ``j``, in volume
    units, with a confidence ``(P, R)`` in [0, 1]."""

    i: Tensor
    j: Tensor
    xy: Tensor
    q: Tensor
    confidence: Tensor


class Volume(nn.Module):
    """The representation: bijections M_theta of all frames onto the canonical volume, and F_theta's density there.

    A bijection is an affine map of (x, y) that depends on depth, then coupling layers, each of which changes one of the
    three coordinates by a scale and a shift that depend on the two others. Points are ``(P, N, 3)``, their frames
    ``t`` ``(P,)``. A kind gives ``axes``, the coordinate that each layer changes, and

    - ``condition() -> psi``, the codes that distinguish frames;
    - ``affine(z, t)``: the rows of (2, 3) matrices at depths ``z`` ``(P, N)``, six ``(P, N)``;
    - ``scale_shift(psi, layer, others, t)``: scales > 0 and shifts ``(P, N)``, from the two other coordinates;
    - ``density(u)``: sigma ``(P, N)`` at canonical points.
    """

    kind: Kind
    samples: int  # K, depths per ray, in the fit and when tracing
    opacity: float  # thickness of the whole volume, shared by the samples of a ray
    smooth = 0.0  # weight of the temporal smoothness
    axes: Sequence[int]
    condition: Callable[[], Any]
    affine: Callable[..., Sequence[Tensor]]
    scale_shift: Callable[..., tuple[Tensor, Tensor]]
    density: Callable[[Tensor], Tensor]

    def __init__(self, frames: int, seed: int = 0) -> None:
        super().__init__()
        self.frames, self.seed = frames, seed

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.parameters()).device

    def start(self, layers: Any) -> None:
        """Begin with affine maps ``(layers, T, 2, 3)`` in volume units, the nearest layer first; not every kind can."""

    def to_canonical(self, x: Tensor, t: Tensor, psi: Any) -> Tensor:
        """T_i: local points of frames ``t`` to canonical points."""
        x0, y0, z = x.unbind(-1)
        a, b, right, c, d, down = self.affine(z, t)
        point = [a * x0 + b * y0 + right, c * x0 + d * y0 + down, z]
        for layer, axis in enumerate(self.axes):
            scale, shift = self.scale_shift(psi, layer, [point[n] for n in range(3) if n != axis], t)
            point[axis] = (point[axis] - shift) * scale
        return torch.stack(point, -1)

    def to_local(self, u: Tensor, t: Tensor, psi: Any) -> Tensor:
        """T_i^-1: canonical points to local points of frames ``t``."""
        point = list(u.unbind(-1))
        for layer, axis in reversed(list(enumerate(self.axes))):
            scale, shift = self.scale_shift(psi, layer, [point[n] for n in range(3) if n != axis], t)
            point[axis] = point[axis] / scale + shift
        a, b, right, c, d, down = self.affine(point[2], t)
        x, y, det = point[0] - right, point[1] - down, (a * d - b * c).clamp_min(LEAST_DET)
        return torch.stack([(d * x - b * y) / det, (a * y - c * x) / det, point[2]], -1)

    def map(self, xy: Tensor, i: Tensor, j: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lift rays ``xy`` ``(P, R, 2)`` of frames ``i`` ``(P,)`` at depths ``z`` ``(P, R, K)``: canonical points u_k
        and their images p_k in frames ``j``, each ``(P, R, K, 3)``, and weights w_k ``(P, R, K)``."""
        x = torch.cat([xy[:, :, None].expand(*z.shape, 2), z[..., None]], dim=-1)
        psi = self.condition()
        u = self.to_canonical(x.flatten(1, 2), i, psi)
        p = self.to_local(u, j, psi)
        weights = composite_weights(self.density(u).view(z.shape), self.opacity / z.shape[-1])
        return u.view(x.shape), p.view(x.shape), weights

    def loss(self, rays: Rays, z: Tensor, scale: float) -> Tensor:
        """Mean over rays of confidence times flow loss, plus temporal smoothness, in pixels.

        Flow loss: MIX sum_k w_k rho(p_k - q) + (1 - MIX) rho(sum_k w_k p_k - q).
        Smoothness, on one ray in SMOOTHED: sum_k w_k rho(p_k in frame i - 1 + p_k in frame i + 1 - 2 p), w_k held
        fixed; the ends of the clip weigh nothing. ``z``: depths ``(P, R, K)``; ``scale``: pixels per volume unit.
        """
        i, j, xy, q, confidence = (v.to(self.device) for v in rays)
        u, p, w = self.map(xy, i, j, z.to(self.device))
        off = (p[..., :2] - q[:, :, None]) * scale
        each = MIX * (w * rho(off)).sum(-1) + (1 - MIX) * rho((w[..., None] * off).sum(-2))
        total = (confidence * each).mean()
        if self.smooth > 0:
            u, w, psi = u[:, ::SMOOTHED], w[:, ::SMOOTHED].detach(), self.condition()
            sides = [(i + d).clamp(0, self.frames - 1) for d in (-1, 1)]
            ends = [self.to_local(u.flatten(1, 2), side, psi)[..., :2].view(*w.shape, 2) for side in sides]
            bend = ends[0] + ends[1] - 2 * xy[:, ::SMOOTHED, None]
            inner = ((i > 0) & (i < self.frames - 1)).view(-1, 1, 1)
            total = total + self.smooth * SMOOTHED * (w * inner * rho(bend * scale)).sum() / confidence.numel()
        return total

    @torch.no_grad()
    def trace(self, xy: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """Where the surface that rays ``xy`` ``(N, 2)`` of frame ``i`` meet is in frame ``j``: points ``(N, 2)`` in
        volume units, and the transmittance in front of them there ``(N,)``: 1 visible, 0 hidden.

        The answer is the strongest sample's point, averaged with those samples that agree with it.
        """
        here, there = (torch.full((1,), t, device=self.device) for t in (i, j))
        points, transmittance = [], []
        for part in xy.split(CHUNK // self.samples):
            check_canceled()
            z = depths((1, len(part), self.samples)).to(self.device)
            _, p, w = self.map(part.to(self.device)[None], here, there, z)
            best = p.gather(2, w.argmax(2)[..., None, None].expand(-1, -1, 1, 3))
            near = torch.exp(-((p - best)[..., :2] * NEAR).square().sum(-1)) * w
            point = (near[..., None] * p).sum(2) / near.sum(2)[..., None]
            _, _, front = self.map(point[..., :2], there, there, z)
            points.append(point[0, :, :2].cpu())
            transmittance.append(1 - (front * (z + DEPTH / self.samples <= point[..., 2:])).sum(2)[0].cpu())
        return torch.cat(points), torch.cat(transmittance)


def composite_weights(sigma: Tensor, thickness: float) -> Tensor:
    """Weights w_k = T_k alpha_k ``(..., K)`` of densities ``(..., K)``: alpha_k = 1 - exp(-thickness sigma_k), the last
    opaque, and T_k = prod_{l<k} (1 - alpha_l) the transmittance in front of sample k; they sum to 1."""
    passed = torch.exp(-thickness * sigma[..., :-1].cumsum(-1))  # T_2 ... T_K
    transmittance = torch.cat([torch.ones_like(sigma[..., :1]), passed], dim=-1)
    return transmittance - torch.cat([passed, torch.zeros_like(sigma[..., :1])], dim=-1)


def rho(off: Tensor) -> Tensor:
    """Robust length of pixel vectors ``(..., 2)``."""
    return (off.square().sum(-1) + RHO).sqrt()


def depths(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """Stratified depths ``(..., K)`` in [0, DEPTH]: jittered with a generator, bin centers without."""
    jitter = torch.full(shape, 0.5) if generator is None else torch.rand(shape, generator=generator)
    return (torch.arange(shape[-1]) + jitter) * (DEPTH / shape[-1])
