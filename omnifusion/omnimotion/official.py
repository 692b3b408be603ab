"""The official volume of the preset paper: Real-NVP layers with MLPs, and a GaborNet for the density."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifusion.omnimotion.volume import Volume


class OfficialVolume(Volume):
    """The official networks.

    Args:
        frames: length T of the clip.
        seed: fixes their random start.
    """

    kind, smooth = "mlp", 0.05
    opacity = 32.0  # the official code has 32 samples of unit thickness

    def __init__(self, frames: int, seed: int = 0) -> None:
        super().__init__(frames)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.nvp, self.field = MlpNVP(frames), GaborField()


class MlpNVP(nn.Module):
    """The official bijection: six Real-NVP layers with MLPs on encoded coordinates and codes, after a
    depth-dependent affine map.

    Sizes as in the official configuration: 128-d codes from a GaborNet over time, 256 hidden units, 4 frequencies,
    affine maps by an MLP of (time, depth). One departure: x and y are isotropic, not squeezed to a square.
    """

    LAYERS, CODE, HIDDEN, FREQUENCIES, LIMIT = 6, 128, 256, 4, 8.0

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.code = GaborNet(1, 256, self.CODE, layers=2, alpha=4.5)
        encoded, hidden = 2 * (1 + 2 * self.FREQUENCIES), self.HIDDEN
        self.axes = [int(a) for _ in range(0, self.LAYERS, 3) for a in torch.randperm(3)]
        self.register_buffer("order", torch.tensor(self.axes))
        self.project = nn.ModuleList(nn.Sequential(nn.Linear(encoded, hidden), nn.LeakyReLU()) for _ in self.axes)
        self.conditioner = nn.ModuleList(
            _mlp([hidden + self.CODE, hidden, hidden, hidden, 2], nn.LeakyReLU()) for _ in self.axes
        )
        self.per_layer = nn.ModuleList(_mlp([self.CODE, self.CODE, self.CODE], nn.LeakyReLU()) for _ in self.axes)
        self.affine = AffineMLP(self.FREQUENCIES)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.axes = self.order.tolist()

    def condition(self) -> list[Tensor]:
        """Each layer's projected codes ``(T, 128)``."""
        code = self.code(_times(self.frames, self.code.mu))
        return [layer(code) for layer in self.per_layer]

    def _scale_shift(self, psi: list[Tensor], layer: int, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        axis = self.axes[layer]
        others = x[:, [a for a in range(3) if a != axis]]
        features = torch.cat([psi[layer][t], self.project[layer](_encode(others, self.FREQUENCIES))], dim=1)
        s, shift = self.conditioner[layer](features).unbind(1)
        return s.clamp(-self.LIMIT, self.LIMIT), shift

    def forward(self, x: Tensor, t: Tensor, psi: list[Tensor]) -> Tensor:
        """Local points ``(N, 3)`` of frames ``t`` ``(N,)`` to canonical points ``(N, 3)``."""
        m, b = self.affine(x[:, 2], t, self.frames)
        x = torch.cat([(m @ x[:, :2, None])[..., 0] + b, x[:, 2:]], dim=1)
        for layer, axis in enumerate(self.axes):
            s, shift = self._scale_shift(psi, layer, x, t)
            moved = (x[:, axis] - shift) * torch.exp(-s)
            x = torch.cat([x[:, :axis], moved[:, None], x[:, axis + 1 :]], dim=1)
        return x

    def inverse(self, u: Tensor, t: Tensor, psi: list[Tensor]) -> Tensor:
        """Canonical points ``(N, 3)`` to local points of frames ``t`` ``(N,)``."""
        for layer, axis in reversed(list(enumerate(self.axes))):
            s, shift = self._scale_shift(psi, layer, u, t)
            moved = u[:, axis] * torch.exp(s) + shift
            u = torch.cat([u[:, :axis], moved[:, None], u[:, axis + 1 :]], dim=1)
        m, b = self.affine(u[:, 2], t, self.frames)
        return torch.cat([_solved(m, u[:, :2] - b), u[:, 2:]], dim=1)


class AffineMLP(nn.Module):
    """Angle, two scales and shift of the official ``use_affine`` from time and depth; near the identity at first."""

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = _mlp([2 * (1 + 2 * frequencies), 256, 256, 5], nn.ReLU())
        nn.init.uniform_(self.mlp[-1].weight, -1e-4, 1e-4)
        nn.init.zeros_(self.mlp[-1].bias)

    def forward(self, z: Tensor, t: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Matrices ``(N, 2, 2)`` and shifts ``(N, 2)`` at depths ``z`` and frames ``t`` ``(N,)``."""
        time = _times(frames, z)[t, 0]
        angle, s1, tx, s2, ty = self.mlp(_encode(torch.stack([time, z], dim=1), self.frequencies)).unbind(1)
        c, s, e1, e2 = angle.cos(), angle.sin(), s1.exp(), s2.exp()
        m = torch.stack([c * e1, -s * e1, s * e2, c * e2], dim=1).view(-1, 2, 2)
        return m, torch.stack([tx, ty], dim=1)


class GaborField(nn.Module):
    """The official density: GaborNet of 512 units, sigma = softplus(raw - 1); without its color outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = GaborNet(3, 512, 1, layers=3, alpha=3.0)

    def forward(self, u: Tensor) -> Tensor:
        """Density ``(N,)`` at canonical points ``(N, 3)``."""
        return F.softplus(self.net(u)[:, 0] - 1)


class GaborNet(nn.Module):
    """Multiplicative filter network with Gabor filters (Fathony et al. 2021), as in the official code."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int, alpha: float, scale: float = 256.0) -> None:
        super().__init__()
        n = layers + 1
        gamma = torch.distributions.Gamma(alpha / n, 1.0)
        self.mu = nn.Parameter(2 * torch.rand(n, hidden, inputs) - 1)
        self.gamma = nn.Parameter(gamma.sample((n, hidden)))
        self.filters = nn.ModuleList(nn.Linear(inputs, hidden) for _ in range(n))
        self.mixers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.out = nn.Linear(hidden, outputs)
        for k, f in enumerate(self.filters):
            f.weight.data *= scale / math.sqrt(n) * self.gamma.data[k, :, None].sqrt()
            f.bias.data.uniform_(-math.pi, math.pi)
        for mixer in self.mixers:
            mixer.weight.data.uniform_(-math.sqrt(1 / hidden), math.sqrt(1 / hidden))

    def _filter(self, k: int, x: Tensor) -> Tensor:
        mu = self.mu[k]
        distance = x.square().sum(1, keepdim=True) + mu.square().sum(1) - 2 * x @ mu.T
        return torch.sin(self.filters[k](x)) * torch.exp(-0.5 * distance * self.gamma[k])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, outputs)``."""
        value = self._filter(0, x)
        for k, mixer in enumerate(self.mixers):
            value = self._filter(k + 1, x) * mixer(value)
        return self.out(value)


def _solved(m: Tensor, b: Tensor) -> Tensor:
    """m^-1 b of ``(N, 2, 2)`` and ``(N, 2)``; on a GPU by Cramer's rule, where a solver would wait for the host."""
    if not m.is_cuda:
        return torch.linalg.solve(m, b)
    (p, q), (r, s), (x, y) = m[:, 0].unbind(1), m[:, 1].unbind(1), b.unbind(1)
    return torch.stack([s * x - q * y, p * y - r * x], dim=1) / (p * s - q * r)[:, None]


def _mlp(sizes: list[int], activation: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation]
    return nn.Sequential(*layers[:-1])


def _encode(x: Tensor, frequencies: int) -> Tensor:
    """Positional encoding ``(N, D (1 + 2 frequencies))`` of ``(N, D)``."""
    angles = (x[..., None] * (math.pi * 2.0 ** torch.arange(frequencies, device=x.device))).flatten(1)
    return torch.cat([x, angles.sin(), angles.cos()], dim=1)


def _times(frames: int, like: Tensor) -> Tensor:
    """Frame times ``(T, 1)`` over [-1, 1]."""
    if frames == 1:
        return like.new_zeros(1, 1)
    return torch.linspace(-1, 1, frames, device=like.device, dtype=like.dtype)[:, None]
