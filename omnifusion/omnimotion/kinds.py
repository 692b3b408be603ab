"""The two kinds of volume: grids that are read linearly (draft and standard), and the official networks (paper)."""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnifusion.geometry import interpolate
from omnifusion.omnimotion.volume import DEPTH, Kind, Volume

LAYERS, NODES, KNOTS, CODE = 5, (24, 8), 8, 24
"""Coupling layers, nodes of their grids, depths that have an affine map of their own, length of a latent code."""
COARSE, FINE, REACH = (12, 20, 8), (54, 96, 8), 1.25
"""Nodes of the density grids; all grids span [-REACH, REACH] in x and y and [0, DEPTH] in z, and hold their border."""
GAIN, BIAS = 4.0, 0.5  # density is softplus(GAIN (coarse + fine) + BIAS)
FREQUENCIES = 4  # of the official networks' positional encoding


class GridVolume(Volume):
    """Scale and shift of a coupling layer are bilinear grids over the other two coordinates, linear functions of a
    frame's latent code psi, which is a cosine basis of time. Affine maps lie at ``KNOTS`` depths of each frame and are
    read linearly between them. Density is the sum of two trilinear grids ``(Y, X, Z)`` through a softplus.
    """

    kind, samples, opacity = "grid", 8, 8.0
    axes = tuple(layer % 3 for layer in range(LAYERS))

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        t = torch.linspace(0, 1, frames)[:, None] if frames > 1 else torch.zeros(1, 1)
        self.register_buffer("code", torch.cos(torch.pi * t * torch.arange(CODE)))
        self.couplings = nn.Parameter(torch.zeros(CODE, LAYERS * 2 * math.prod(NODES)))
        self.maps = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).repeat(frames, KNOTS, 1))
        self.field = nn.ParameterList([torch.zeros(COARSE), torch.zeros(FINE)])

    def start(self, layers: np.ndarray) -> None:
        """Begin with affine maps ``(layers, T, 2, 3)``: depth is cut into as many slabs, the last layer behind."""
        slab = torch.arange(KNOTS) * len(layers) // KNOTS
        self.maps.data.copy_(torch.from_numpy(layers).flatten(2)[slab].transpose(0, 1))

    def condition(self) -> Tensor:
        """All frames' coupling grids ``(layers, T, 2, A, B)``, from their codes."""
        return (self.code @ self.couplings / CODE).view(-1, LAYERS, 2, *NODES).transpose(0, 1)

    def affine(self, z: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """See ``Volume``."""
        at = (z.clamp(0, DEPTH) * ((KNOTS - 1) / DEPTH))[..., None] - torch.arange(KNOTS, device=z.device)
        return ((1 - at.abs()).clamp_min(0) @ self.maps[t]).unbind(-1)

    def scale_shift(self, psi: Tensor, layer: int, others: list[Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Volume``; scales are about e^r near r = 0, always within (1/3, 3)."""
        first, second = others[0] / REACH, others[1] / REACH if self.axes[layer] == 2 else others[1] * (2 / DEPTH) - 1
        r, shift = interpolate(psi[layer][t], first, second).unbind(1)
        whole, half = 1 + r.abs(), r / 2
        return (whole + half) / (whole - half), shift

    def density(self, u: Tensor) -> Tensor:
        """See ``Volume``."""
        x, y, z = (c.reshape(1, -1) for c in u.unbind(-1))
        coarse, fine = (interpolate(g[None, None], y / REACH, x / REACH, z * (2 / DEPTH) - 1) for g in self.field)
        return F.softplus(GAIN * (coarse + fine) + BIAS).view(u.shape[:-1])


class OfficialVolume(Volume):
    """Six Real-NVP layers with MLPs on encoded coordinates and codes, after affine maps by an MLP of time and depth
    (the official ``use_affine``: angle, two scales, shift; near the identity at first); density is softplus(raw - 1) of
    a GaborNet without its color outputs. Sizes as in the official configuration. ``seed`` fixes the random start, and
    which coordinate each layer changes.
    """

    kind, samples, smooth = "mlp", 32, 0.05
    opacity = 32.0  # the official code has 32 samples of unit thickness
    LAYERS, CODE, HIDDEN, LIMIT = 6, 128, 256, 8.0

    def __init__(self, frames: int, seed: int = 0) -> None:
        super().__init__(frames, seed)
        encoded, hidden, code = 2 * (1 + 2 * FREQUENCIES), self.HIDDEN, self.CODE
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

    def condition(self) -> list[Tensor]:
        """Each layer's projected codes ``(T, 128)``."""
        code = self.code(self._times())
        return [layer(code) for layer in self.per_layer]

    def affine(self, z: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """See ``Volume``."""
        encoded = _encode(torch.stack([self._times()[t].expand_as(z), z], -1))
        angle, s1, right, s2, down = self.motion(encoded).unbind(-1)
        c, s, e1, e2 = angle.cos(), angle.sin(), s1.exp(), s2.exp()
        return c * e1, -s * e1, right, s * e2, c * e2, down

    def scale_shift(self, psi: list[Tensor], layer: int, others: list[Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Volume``."""
        features = self.project[layer](_encode(torch.stack(others, -1)))
        code = psi[layer][t][:, None].expand(-1, features.shape[1], -1)
        s, shift = self.conditioner[layer](torch.cat([code, features], -1)).unbind(-1)
        return torch.exp(-s.clamp(-self.LIMIT, self.LIMIT)), shift

    def density(self, u: Tensor) -> Tensor:
        """See ``Volume``."""
        return F.softplus(self.field(u)[..., 0] - 1)

    def _times(self) -> Tensor:
        """Frame times ``(T, 1)`` over [-1, 1]."""
        times = torch.linspace(-1, 1, self.frames)[:, None].to(self.code.mu)
        return times if self.frames > 1 else 0 * times


class GaborNet(nn.Module):
    """Multiplicative filter network with Gabor filters (Fathony et al. 2021), as in the official code."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int, alpha: float) -> None:
        super().__init__()
        n = layers + 1
        gamma = torch.distributions.Gamma(alpha / n, 1.0)
        self.mu = nn.Parameter(2 * torch.rand(n, hidden, inputs) - 1)
        self.gamma = nn.Parameter(gamma.sample((n, hidden)))
        self.filters = nn.ModuleList(nn.Linear(inputs, hidden) for _ in range(n))
        self.mixers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.out = nn.Linear(hidden, outputs)
        for k, f in enumerate(self.filters):
            f.weight.data *= 256 / math.sqrt(n) * self.gamma.data[k, :, None].sqrt()
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


def _encode(x: Tensor) -> Tensor:
    """Positional encoding ``(..., D (1 + 2 FREQUENCIES))`` of ``(..., D)``."""
    angles = (x[..., None] * (math.pi * 2.0 ** torch.arange(FREQUENCIES, device=x.device))).flatten(-2)
    return torch.cat([x, angles.sin(), angles.cos()], dim=-1)


def volume_of(kind: Kind, frames: int, seed: int = 0, device: str = "cpu") -> Volume:
    """A fresh volume; the grid's stays on the CPU, where the seed fixes its result to the last bit."""
    return GridVolume(frames) if kind == "grid" else OfficialVolume(frames, seed).to(device)
