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
    """Six Real-NVP layers with MLPs on encoded coordinates and codes, after affine maps by an MLP
    of time and depth (the official ``use_affine``: angle, two scales, shift; near the identity at first); density is
    softplus(raw - 1) of a GaborNet without its color outputs.

    Sizes as in the official configuration: 128-d codes from a GaborNet over time, 256 hidden units, 4 frequencies. One
    departure: x and y are isotropic, not squeezed to a square.

    Args:
        frames: length T of the clip.
        seed: fixes their random start.
    """

    kind, samples, smooth = "mlp", 32, 0.05
    opacity = 32.0  # the official code has 32 samples of unit thickness
    LAYERS, CODE, HIDDEN, FREQUENCIES, LIMIT = 6, 128, 256, 4, 8.0

    def __init__(self, frames: int, seed: int = 0) -> None:
        super().__init__(frames)
        encoded, hidden, code = 2 * (1 + 2 * self.FREQUENCIES), self.HIDDEN, self.CODE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.code = GaborNet(1, 256, code, layers=2, alpha=4.5)
            self.axes = [int(a) for _ in range(0, self.LAYERS, 3) for a in torch.randperm(3)]
            leaky = nn.LeakyReLU()
            self.project = nn.ModuleList(nn.Sequential(nn.Linear(encoded, hidden), leaky) for _ in self.axes)
            self.conditioner = nn.ModuleList(_mlp([hidden + code, *[hidden] * 3, 2], leaky) for _ in self.axes)
            self.per_layer = nn.ModuleList(_mlp([code, code, code], leaky) for _ in self.axes)
            self.motion = _mlp([encoded, 256, 256, 5], nn.ReLU())
            self.field = GaborNet(3, 512, 1, layers=3, alpha=3.0)
        nn.init.uniform_(self.motion[-1].weight, -1e-4, 1e-4, torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.motion[-1].bias)
        self.register_buffer("order", torch.tensor(self.axes))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.axes = self.order.tolist()

    def condition(self) -> list[Tensor]:
        """Each layer's projected codes ``(T, 128)``."""
        code = self.code(self._times())
        return [layer(code) for layer in self.per_layer]

    def affine(self, z: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """See ``Volume``."""
        encoded = _encode(torch.stack([self._times()[t].expand_as(z), z], -1), self.FREQUENCIES)
        angle, s1, right, s2, down = self.motion(encoded).unbind(-1)
        c, s, e1, e2 = angle.cos(), angle.sin(), s1.exp(), s2.exp()
        return c * e1, -s * e1, right, s * e2, c * e2, down

    def scale_shift(self, psi: list[Tensor], layer: int, others: list[Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Volume``."""
        seen = self.project[layer](_encode(torch.stack(others, -1), self.FREQUENCIES))
        code = psi[layer][t][:, None].expand(-1, seen.shape[1], -1)
        s, shift = self.conditioner[layer](torch.cat([code, seen], -1)).unbind(-1)
        return torch.exp(-s.clamp(-self.LIMIT, self.LIMIT)), shift

    def density(self, u: Tensor) -> Tensor:
        """See ``Volume``."""
        return F.softplus(self.field(u)[..., 0] - 1)

    def _times(self) -> Tensor:
        """Frame times ``(T, 1)`` over [-1, 1]."""
        like = self.code.mu
        times = torch.linspace(-1, 1, self.frames, device=like.device, dtype=like.dtype)[:, None]
        return times if self.frames > 1 else 0 * times


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
        distance = x.square().sum(-1, keepdim=True) + mu.square().sum(1) - 2 * x @ mu.T
        return torch.sin(self.filters[k](x)) * torch.exp(-0.5 * distance * self.gamma[k])

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        value = self._filter(0, x)
        for k, mixer in enumerate(self.mixers):
            value = self._filter(k + 1, x) * mixer(value)
        return self.out(value)


def _mlp(sizes: list[int], activation: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation]
    return nn.Sequential(*layers[:-1])


def _encode(x: Tensor, frequencies: int) -> Tensor:
    """Positional encoding ``(..., D (1 + 2 frequencies))`` of ``(..., D)``."""
    angles = (x[..., None] * (math.pi * 2.0 ** torch.arange(frequencies, device=x.device))).flatten(-2)
    return torch.cat([x, angles.sin(), angles.cos()], dim=-1)
