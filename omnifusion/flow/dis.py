"""Optical flow: dense inverse search (DIS), or RAFT in batches on a GPU, with starts, checks, and the choice of pairs.

Images are ``(H, W)`` uint8 arrays (``to_bytes``), flows ``(H, W, 2)`` float32 arrays in pixels (dx, dy).
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from omnifusion.geometry import pad_to_multiple
from omnifusion.progress import check_canceled

Array = np.ndarray
PRESET = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
PATCH = 8

cv2.setNumThreads(1)  # results depend on OpenCV's threads, which share a frame; ``pool`` runs searches in parallel


def to_bytes(L: Tensor) -> Array:
    """Luminance ``(..., H, W)`` L* in [0, 100] as uint8 of the same shape, contiguous."""
    return np.ascontiguousarray((L.detach().cpu() * 2.55).clamp(0, 255).round().to(torch.uint8).numpy())


def dis(source: Array, target: Array, init: Array | None = None) -> Array:
    """DIS flow from ``source`` to ``target``, down to the finest scale.

    ``init`` starts the search; without it the search starts at the coarsest scale from zero. A fresh object per call:
    OpenCV's keeps buffers that do not survive a change of settings or start.

    Raises:
        Canceled: the work is canceled.
    """
    check_canceled()
    height, width = source.shape
    if min(height, width) < 2 * PATCH:
        down, right = max(0, 2 * PATCH - height), max(0, 2 * PATCH - width)
        pad = [(0, down), (0, right)]
        start = None if init is None else np.pad(init, [*pad, (0, 0)], mode="edge")
        source, target = (np.pad(image, pad, mode="edge") for image in (source, target))
        return dis(source, target, start)[:height, :width]
    search = cv2.DISOpticalFlow.create(PRESET)
    search.setFinestScale(0)
    search.setVariationalRefinementIterations(0)  # it smooths over motion edges, and costs a third of the time
    flow = search.calc(source, target, None if init is None else np.ascontiguousarray(init, np.float32).copy())
    limit = 4.0 * max(height, width)
    return np.nan_to_num(flow, nan=0.0, posinf=limit, neginf=-limit).clip(-limit, limit)


SearchMany = Callable[[Array, Array], Array]
"""A search of many flows at once: sources and targets ``(N, H, W)`` uint8, to ``(N, H, W, 2)`` float32 pixels."""


def raft(device: str, pretrained: bool = True) -> SearchMany:
    """RAFT (Teed & Deng 2020; torchvision's large model with its default weights) on ``device``.

    Raises:
        OSError: the weights are not here and cannot be downloaded.
    """
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

    model = raft_large(weights=Raft_Large_Weights.DEFAULT if pretrained else None, progress=False).to(device).eval()

    def tensor(images: Array) -> Tensor:
        scaled = torch.from_numpy(images).to(device).float()[:, None] / 127.5 - 1
        padded, _ = pad_to_multiple(scaled.expand(-1, 3, -1, -1), 8)
        down, right = (max(0, 128 - side) for side in padded.shape[-2:])
        return functional.pad(padded, (0, right, 0, down), mode="replicate")

    @torch.no_grad()
    def search(sources: Array, targets: Array) -> Array:
        check_canceled()
        height, width = sources.shape[1:]
        flow = model(tensor(sources), tensor(targets))[-1]
        return flow[..., :height, :width].permute(0, 2, 3, 1).cpu().contiguous().numpy()

    return search


def grid(height: int, width: int) -> Array:
    """Pixel centers ``(H, W, 2)`` float32 (x, y)."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=-1)


def remap(image: Array, points: Array) -> Array:
    """``image`` ``(H, W[, C])`` read at ``points`` ``(h, w, 2)`` bilinearly, border repeated."""
    return cv2.remap(image, points[..., 0], points[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def compose(first: Array, second: Array) -> Array:
    """The flow that follows ``first`` (a to b), then ``second`` (b to c): a to c."""
    return first + remap(second, grid(*first.shape[:2]) + first)


def cycle_error(there: Array, back: Array) -> Array:
    """Distance in pixels ``(H, W)`` between p and where p arrives after going there and back; inf outside the frame."""
    height, width = there.shape[:2]
    landed = grid(height, width) + there
    error = np.linalg.norm(there + remap(back, landed), axis=-1)
    x, y = landed[..., 0], landed[..., 1]
    out = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    return np.where(out, np.float32(np.inf), error.astype(np.float32))


def appearance_error(source: Array, target: Array, flow: Array) -> Array:
    """Difference in gray levels ``(H, W)`` between ``source`` and ``target`` warped along ``flow``, smoothed over
    5x5."""
    warped = remap(target.astype(np.float32), grid(*source.shape) + flow)
    return cv2.blur(np.abs(cv2.blur(warped - source.astype(np.float32), (3, 3))), (5, 5))


CYCLE = 1.0  # cycle error in pixels within which a flow closes


def through_warp(source: Array, target: Array, start: Array) -> Array:
    """Refine the flow ``start`` by the DIS flow to the target warped by it. Unlike a start alone, this follows rotation
    and growth, which square patches do not."""
    warped = remap(target, grid(*source.shape) + start)
    return compose(dis(source, warped, np.zeros_like(start)), start)


def intervals(frames: int, dense: int = 40) -> list[int]:
    """The intervals between frames that supervise a clip, ascending: all of them up to ``dense`` frames, else 1, 2, 3,
    4, 6, 8, 12, 16, 24...

    Each beyond 1 is the sum of the one before it and another in the list. Past ``dense`` frames the pairs number
    about 2 n log2 n instead of n (n - 1) / 2.
    """
    if frames <= dense:
        return list(range(1, frames))
    chosen = [1, 2, 3, 4]
    while chosen[-1] < frames:
        chosen += [chosen[-1] * 3 // 2, chosen[-1] * 2]
    return [g for g in chosen if g < frames]
