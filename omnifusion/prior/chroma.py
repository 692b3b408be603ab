"""The bundled prior: a diffusion model of chroma at an eighth of the size, conditioned on luminance.

An encoder trained to classify photographs (EfficientNet-Lite0) reads the luminance at full size. Its context at 1/8
conditions the denoiser, whose latents are a*, b* there, beside the color estimate and what attention copies from
colored reference frames; a decoder places the colors at full size along the frame's own edges.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""EfficientNet-Lite0 (Tan and Le 2019): repeats, kernel, stride, expansion and channels of its stages."""
TAPS = (0, 1, 2, 4, 6)  # the stages that end a size: 1/2, 1/4, 1/8, 1/16, 1/32 of the frame
FACTOR, SCALE, CONTEXT, WIDTH = 8, 16.0, 48, 12
"""Pixels per latent cell along each side; a*, b* per unit of the latents; channels of the denoiser's context, and of
the decoder at full size."""
CHANNELS, TIME, HEADS, MATCHED = (64, 96, 128), 256, 4, 16
"""Of the denoiser at its three sizes; of its code of time; attention heads, and channels by which a head matches."""
STEPS = 1000


class _Conv(nn.Conv2d):
    """A convolution with TensorFlow's padding; its normalization is part of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        pads = [max((-(-n // s) - 1) * s + k - n, 0) for n in (x.shape[-1], x.shape[-2])]
        return super().forward(F.pad(x, [p for n in pads for p in (n // 2, n - n // 2)]))


class _Block(nn.Module):
    """An inverted bottleneck: widen, look around, narrow."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.widen = _Conv(inner, wide, 1) if expansion > 1 else None
        self.look = _Conv(wide, wide, kernel, stride, groups=wide)
        self.narrow = _Conv(wide, outer, 1)
        self.skips = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.widen is None else F.relu6(self.widen(x))
        y = self.narrow(F.relu6(self.look(y)))
        return x + y if self.skips else y


class Encoder(nn.Module):
    """EfficientNet-Lite0 without its head, on luminance."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(1, 32, 3, 2)
        self.stages, inner = nn.ModuleList(), 32
        for repeats, kernel, stride, expansion, outer in STAGES:
            blocks = [_Block(inner, outer, kernel, stride, expansion)]
            blocks += [_Block(outer, outer, kernel, 1, expansion) for _ in range(repeats - 1)]
            self.stages.append(nn.Sequential(*blocks))
            inner = outer

    def forward(self, L: Tensor) -> list[Tensor]:
        """L* ``(B, 1, H, W)`` in [0, 100] to features of 1/2, 1/4, 1/8, 1/16 and 1/32 of its size."""
        x, features = F.relu6(self.stem(L / 50 - 1)), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return [features[n] for n in TAPS]


class _Residual(nn.Module):
    """Two convolutions with a shortcut, shifted by the code of time."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.time = nn.Linear(TIME, outer)
        self.norm2, self.conv2 = nn.GroupNorm(8, outer), nn.Conv2d(outer, outer, 3, padding=1)
        self.shortcut = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[..., None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class _Attention(nn.Module):
    """Attention of every cell to all others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(8, channels), nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + y.transpose(1, 2).view_as(x)


class Denoiser(nn.Module):
    """A U-Net of three sizes with attention at the coarsest; it is zero at initialization."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        a, b, c = CHANNELS
        self.time = nn.Sequential(nn.Linear(a, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
        self.first = nn.Conv2d(inputs, a, 3, padding=1)
        self.down = nn.ModuleList([_Residual(a, a), _Residual(a, b), _Residual(b, c)])
        self.shrink = nn.ModuleList(nn.Conv2d(n, n, 3, 2, 1) for n in (a, b))
        self.middle = nn.ModuleList([_Attention(c), _Residual(c, c), _Attention(c), _Residual(c, c)])
        sizes = ((2 * c, c), (c + b, c), (c + b, b), (b + a, b), (b + a, a), (2 * a, a))
        self.up = nn.ModuleList(_Residual(*pair) for pair in sizes)
        self.look = nn.ModuleList([_Attention(c), _Attention(c)])
        self.grow = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in (c, b))
        self.norm, self.last = nn.GroupNorm(8, a), nn.Conv2d(a, 2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Inputs ``(B, C, h, w)``, sides divisible by 4, at times ``t`` ``(B,)`` to ``(B, 2, h, w)``."""
        half = CHANNELS[0] // 2
        angles = t[:, None] * torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / half))
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype))
        x = self.first(x)
        skips = [x]
        for n, block in enumerate(self.down):
            x = block(x, time)
            if n < 2:
                skips.append(x)
                x = self.shrink[n](x)
                skips.append(x)
        x = self.middle[0](x, time)
        skips.append(x)
        for block in self.middle[1:]:
            x = block(x, time)
        for n, block in enumerate(self.up):
            x = block(torch.cat([x, skips.pop()], dim=1), time)
            if n < 2:
                x = self.look[n](x, time)
            if n in (1, 3):
                x = self.grow[n // 2](F.interpolate(x, scale_factor=2.0))
        return self.last(F.silu(self.norm(x)))


class Frames(NamedTuple):
    """Frames that are to be colored: their ``features``, the color estimate ``(B, 2, H, W)`` with its uncertainty
    ``(B, 1, H, W)`` (0 = the color is known), and what the denoiser reads besides noised latents, ``(B, C, h, w)``."""

    features: list[Tensor]
    ab: Tensor
    uncertainty: Tensor
    extra: Tensor


class ChromaNet(nn.Module):
    """Denoiser and decoder of chroma. Frames are ``(B, C, H, W)`` with sides divisible by 32."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.reduce = nn.ModuleList(nn.Conv2d(c, CONTEXT, 1) for c in (40, 112, 320))
        self.match = nn.Conv2d(CONTEXT, HEADS * MATCHED, 1)
        self.sharpness = nn.Parameter(torch.full((HEADS,), 2.5))
        self.denoiser = Denoiser(5 + CONTEXT + 4 * HEADS)
        self.levels, inner = nn.ModuleList(), 2
        for channels, times in ((CONTEXT, 4), (24, 3), (16, 2), (1, 1)):
            self.levels.append(nn.Conv2d(inner + channels + 3, times * WIDTH, 3, padding=1))
            inner = times * WIDTH
        self.last = nn.Conv2d(WIDTH, 4, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def features(self, L: Tensor) -> list[Tensor]:
        """Features of luminance L*: the context at 1/8, features at 1/4 and 1/2, L itself in [-1, 1]."""
        half, quarter, *deep = self.encoder(L)
        context = torch.stack(
            [_resized(conv(x), deep[0].shape[-2:]) for conv, x in zip(self.reduce, deep, strict=True)]
        )
        return [F.silu(context.sum(0)), quarter, half, L / 50 - 1]

    def frames(
        self, L: Tensor, ab: Tensor, uncertainty: Tensor, references: Sequence[tuple[Tensor, Tensor, Tensor]] = ()
    ) -> Frames:
        """Frames with their color estimate; references are colored frames of any size: L, ab, 1 where ab is known."""
        features = self.features(L)
        sources = [(features[0], ab, (1 - 2 * uncertainty).clamp_min(0))]
        sources += [(self.features(L)[0], ab, mask) for L, ab, mask in references]
        extra = [F.avg_pool2d(uncertainty, FACTOR), self.encode(ab), features[0], self._copied(sources)]
        return Frames(features, ab, uncertainty, torch.cat(extra, dim=1))

    def _copied(self, sources: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """What each head copies from colored cells that look alike: mean ab, its spread, and how alike they look."""
        keys, values, weights = [], [], []
        for context, ab, mask in sources:
            keys.append(F.normalize(self.match(context).unflatten(1, (HEADS, MATCHED)).flatten(3), dim=2))
            weight = F.avg_pool2d(mask, FACTOR).clamp_min(0)
            color = F.avg_pool2d(ab * mask, FACTOR) / ((weight + 1e-3) * SCALE)
            values.append(torch.cat([color, color.square()], dim=1).flatten(2))
            weights.append(weight.flatten(2))
        key, value, weight = (torch.cat(parts, dim=-1) for parts in (keys, values, weights))
        query, prior = keys[0] * self.sharpness.exp().view(-1, 1, 1), (weight[:, None] + 1e-4).log()
        query = torch.cat([query, torch.ones_like(query[:, :, :1])], dim=2)  # its last channel adds the prior
        likeness = query.transpose(2, 3) @ torch.cat([key, prior.expand(-1, HEADS, -1, -1)], dim=2)
        copied = likeness.softmax(-1) @ value[:, None].transpose(2, 3)
        mean, square = copied.split(2, dim=-1)
        spread = (square - mean.square()).clamp_min(0).sum(-1, keepdim=True).add(1e-4).sqrt()
        copied = torch.cat([mean, spread, likeness.amax(-1, keepdim=True) / SCALE], dim=-1)
        return copied.transpose(2, 3).flatten(1, 2).unflatten(2, sources[0][0].shape[-2:])

    @staticmethod
    def encode(ab: Tensor) -> Tensor:
        """ab to latents at 1/8 of the size."""
        return F.avg_pool2d(ab, FACTOR) / SCALE

    def denoise(self, z: Tensor, t: Tensor, frames: Frames) -> Tensor:
        """z_0 from latents ``z`` at times ``t`` ``(B,)``: the estimate, as far as it is certain, and what it lacks."""
        estimate = (1 - frames.extra[:, :1]) * frames.extra[:, 1:3]
        return estimate + self.denoiser(torch.cat([z, frames.extra], dim=1), t)

    def decode(self, z_0: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
        """Latents to ab, and the log-odds ``(B, 1, H, W)`` that it is right (``flow.confidence.RIGHT``)."""
        estimate = torch.cat([frames.ab / SCALE, frames.uncertainty], dim=1)
        x = z_0
        for layer, features in zip(self.levels, frames.features, strict=True):
            size = features.shape[-2:]
            x = F.silu(layer(torch.cat([_resized(x, size), features, F.adaptive_avg_pool2d(estimate, size)], dim=1)))
        change, gate, sure = self.last(x).split((2, 1, 1), dim=1)
        trust = ((1 - frames.uncertainty) * (1 + gate)).clamp(0, 1)
        color = SCALE * (_resized(z_0, estimate.shape[-2:]) + change)
        return trust * frames.ab + (1 - trust) * color, sure


def noise_levels() -> Tensor:
    """alpha-bar ``(STEPS,)``: Stable Diffusion's schedule, down to pure noise (Lin et al. 2024)."""
    signal = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, STEPS) ** 2).cumprod(0).sqrt()
    return ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])).square()


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
