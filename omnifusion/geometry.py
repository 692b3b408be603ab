"""The coordinate convention, and everything that resamples.

A point is ``(x, y)`` in pixels, x to the right, y down; the center of the top left pixel is (0, 0), that of the
bottom right one is (W - 1, H - 1). Nothing else in the package calls ``grid_sample``.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """The center of every pixel, ``(H, W, 2)`` float32."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def inside(points: Tensor, height: int, width: int) -> Tensor:
    """Whether points ``(..., 2)`` lie on a frame's pixels (at most half a pixel off the outer centers), ``(...,)``."""
    x, y = points[..., 0], points[..., 1]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def sample(image: Tensor, points: Tensor) -> Tensor:
    """Read ``image`` ``(C, H, W)`` linearly at ``points`` ``(..., 2)``: ``(C, ...)``; outside the border repeats."""
    _, H, W = image.shape
    scale = torch.tensor([2.0 / max(W - 1, 1), 2.0 / max(H - 1, 1)], dtype=points.dtype, device=points.device)
    x, y = (points * scale - 1.0).reshape(1, -1, 2).to(image.dtype).unbind(-1)
    return interpolate(image[None], y, x)[0].reshape(len(image), *points.shape[:-1])


def interpolate(nodes: Tensor, *points: Tensor) -> Tensor:
    """Read grids ``nodes`` ``(B, C, n_1, ..., n_D)``, D = 2 or 3, linearly at ``points``, D coordinates ``(B, N)``:
    ``(B, C, N)``. -1 and 1 are an axis' first and last node; outside the border repeats."""
    where = torch.stack(points[::-1], -1)  # grid_sample has the last axis first
    where = where.view(len(where), *(1,) * (len(points) - 1), *where.shape[1:])
    return F.grid_sample(nodes, where, padding_mode="border", align_corners=True).flatten(2)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Warp ``image`` ``(C, H, W)`` along ``flow`` ``(2, H, W)``: out(p) = image(p + flow(p))."""
    _, H, W = flow.shape
    return sample(image, pixel_grid(H, W, flow.device) + flow.permute(1, 2, 0))


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ``(B, C, h, w)`` to ``size`` (H, W): area averaging down, bicubic up."""
    if images.shape[-2:] == tuple(size):
        return images
    if size[0] <= images.shape[-2] and size[1] <= images.shape[-1]:
        return F.interpolate(images, size, mode="area")
    return F.interpolate(images, size, mode="bicubic", align_corners=False)


def stretch(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """``values`` ``(..., h, w)`` at another ``size`` (H, W), each taken from its nearest neighbor."""
    rows, columns = (np.arange(n) * k // n for n, k in zip(size, values.shape[-2:], strict=True))
    return np.asarray(values)[..., rows[:, None], columns[None]]


def fit_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size (H, W) of the same shape whose longer side is at most ``max_side``; never enlarged, sides at least 1."""
    scale = min(1.0, max_side / max(size))
    h, w = (max(1, round(s * scale)) for s in size)
    return h, w


def pad_to_multiple(images: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad ``(B, C, H, W)`` at the right and bottom by reflection (edge where too small), and the original (H, W)."""
    H, W = images.shape[-2:]
    down, right = math.ceil(H / multiple) * multiple - H, math.ceil(W / multiple) * multiple - W
    mode = "reflect" if down < H and right < W else "replicate"
    return F.pad(images, (0, right, 0, down), mode=mode), (H, W)
