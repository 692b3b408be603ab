"""The classical baselines: color the frames after a colored first one without any learning.

Each takes the clip's luminance ``L`` ``(T, 1, H, W)`` in [0, 100] and the first frame's color ``ab`` ``(2, H, W)``,
and gives ``ab`` ``(T, 2, H, W)`` for all frames. ``split`` and ``join`` go from pictures to these and back by OpenCV's
float Lab, which the published rows were measured with: its tables differ from exact CIELAB by enough to move DIS,
and with it a clip's PSNR, by 0.1 dB.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.geometry import inside, pixel_grid, warp
from omnifusion.levin import levin as fill

Baseline = Callable[[Tensor, Tensor], Tensor]


def split(frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """8-bit sRGB ``(T, 3, H, W)`` to ``L`` ``(T, 1, H, W)`` in [0, 100] and ``ab`` ``(T, 2, H, W)``."""
    lab = [cv2.cvtColor(f.transpose(1, 2, 0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in frames]
    both = torch.from_numpy(np.stack(lab)).permute(0, 3, 1, 2).contiguous()
    return both[:, :1], both[:, 1:]


def join(L: Tensor, ab: Tensor) -> np.ndarray:
    """``L`` and ``ab`` back to 8-bit sRGB ``(T, 3, H, W)``, clipped to the gamut and rounded."""
    lab = torch.cat([L, ab], 1).permute(0, 2, 3, 1).numpy()
    rgb = np.stack([cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_LAB2RGB) for f in lab])
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 3, 1, 2)


def gray(L: Tensor, ab: Tensor) -> Tensor:
    """Leave all frames after the first without color."""
    return torch.cat([ab[None], torch.zeros(len(L) - 1, *ab.shape)])


def static(L: Tensor, ab: Tensor) -> Tensor:
    """Give every frame the color of the first, pixel for pixel."""
    return ab.expand(len(L), *ab.shape).clone()


def flow_warp(L: Tensor, ab: Tensor) -> Tensor:
    """Warp color from frame to frame along backward DIS flow (medium preset), border repeated."""
    gray8, result = _bytes(L), [ab]
    for t in range(1, len(L)):
        result.append(warp(result[-1], _dis(gray8[t], gray8[t - 1])))
    return torch.stack(result)


def levin(L: Tensor, ab: Tensor) -> Tensor:
    """``flow_warp`` whose pixels without a consistent track are filled by Levin et al. 2004, frame after frame."""
    gray8, result = _bytes(L), [ab]
    for t in range(1, len(L)):
        backward, forward = _dis(gray8[t], gray8[t - 1]), _dis(gray8[t - 1], gray8[t])
        result.append(fill(L[t], warp(result[-1], backward), consistent(backward, forward)))
    return torch.stack(result)


BASELINES: dict[str, Baseline] = {"flow-warp": flow_warp, "levin": levin, "static": static, "gray": gray}
"""The classical baselines by the names that tables and the command line use."""


def consistent(backward: Tensor, forward: Tensor) -> Tensor:
    """Forward-backward check of Sundaram et al. 2010: ``(H, W)`` bool, true where ``backward`` can be trusted.

    A pixel p passes if p + b lies in the frame and |b + f|^2 <= 0.01 (|b|^2 + |f|^2) + 0.5, with b = ``backward`` at p
    and f = ``forward`` at p + b; both flows ``(2, H, W)``.
    """
    H, W = backward.shape[1:]
    f = warp(forward, backward)
    bound = 0.01 * ((backward**2).sum(0) + (f**2).sum(0)) + 0.5
    return (((backward + f) ** 2).sum(0) <= bound) & inside(pixel_grid(H, W) + backward.permute(1, 2, 0), H, W)


def _bytes(L: Tensor) -> np.ndarray:
    """L* ``(T, 1, H, W)`` as the 8-bit gray pictures ``(T, H, W)`` that DIS reads."""
    return (2.55 * L[:, 0]).clamp(0, 255).byte().numpy()


def _dis(source: np.ndarray, target: np.ndarray) -> Tensor:
    """DIS flow, medium preset as created, ``(2, H, W)``: source(p) looks like target(p + flow(p))."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(source, target, None)
    return torch.from_numpy(flow).permute(2, 0, 1).contiguous()
