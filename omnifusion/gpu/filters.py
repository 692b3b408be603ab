"""Separable filters as two matrix products: a border mirrored however often, windows of any size, two kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def filtered(values: Tensor, down: Sequence[float], across: Sequence[float]) -> Tensor:
    """``values`` ``(..., H, W)`` correlated with the odd numbers of taps ``down`` and ``across``, the border mirrored
    (OpenCV's default)."""
    H, W = values.shape[-2:]
    return _matrix(H, tuple(down), values.device) @ values @ _matrix(W, tuple(across), values.device).T


def blur(values: Tensor, sigma: float) -> Tensor:
    """``cv2.GaussianBlur`` of ``values`` ``(..., H, W)``."""
    taps = gaussian(sigma)
    return filtered(values, taps, taps)


@lru_cache(maxsize=32)
def gaussian(sigma: float) -> tuple[float, ...]:
    """The taps that OpenCV gives a Gaussian of ``sigma`` px."""
    radius = round(8 * sigma + 1) // 2
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return tuple((taps / taps.sum()).tolist())


@lru_cache(maxsize=64)
def _matrix(size: int, taps: tuple[float, ...], device: torch.device) -> Tensor:
    """The filter as a matrix ``(size, size)``."""
    period = max(2 * (size - 1), 1)
    at = (torch.arange(size)[:, None] + torch.arange(len(taps)) - len(taps) // 2) % period
    weights = torch.tensor(taps, dtype=torch.float32).expand(at.shape)
    return torch.zeros(size, size).scatter_add_(1, torch.minimum(at, period - at), weights).to(device)
