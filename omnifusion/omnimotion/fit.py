"""Fitting a volume to a clip."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion import flow as of
from omnifusion.geometry import fit_size, resize
from omnifusion.omnimotion import supervision
from omnifusion.omnimotion.tracker import OmniMotion
from omnifusion.omnimotion.volume import Volume, depths
from omnifusion.state import InputError, Step, Steps


@dataclass(frozen=True)
class Preset:
    """What a fit spends: flow size (longer side), iterations of each stage, rays per iteration, samples per ray."""

    side: int = 192
    iterations: int = 400
    pairs: int = 32
    rays: int = 64
    samples: int = 8


PRESETS = {"draft": Preset(iterations=120), "standard": Preset(), "paper": Preset()}


def fit(
    L: Tensor,
    preset: str = "standard",
    *,
    seed: int = 0,
    budget: float | None = None,
    device: str = "cpu",
    state: dict[str, Any] | None = None,
) -> Steps[OmniMotion]:
    """Fit OmniMotion to luminance ``L`` ``(T, 1, H, W)``, L* in [0, 100]; returns the tracker.

    Raises:
        InputError: unknown preset, or frames too small.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no tracker preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    T, _, H, W = L.shape
    images = of.to_bytes(L[:, 0])
    if T == 1:
        return OmniMotion(images, Volume(1))
    p = PRESETS[preset]
    started = time.monotonic()
    yield Step("fit", "optical flow")
    size = small_size((H, W), p.side)
    flows = supervision.collect(of.to_bytes(resize(L, size)[:, 0]), of.gaps(T))
    volume = Volume(T)
    starts = torch.from_numpy(supervision.affine_starts(flows, T)).reshape(T, 1, 6)
    volume.nvp.affine.data.copy_(starts.expand_as(volume.nvp.affine))
    sampler = supervision.Sampler(flows)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(
        [
            {"params": [volume.nvp.hyper, volume.nvp.affine], "base": 5e-3},
            {"params": [volume.nvp.code], "base": 1.5e-3},
            {"params": list(volume.field.parameters()), "base": 2e-2},
        ],
        betas=(0.9, 0.99),
    )
    scale = max(size) / 2
    for it in range(p.iterations if sampler.weight.sum() > 0 else 0):
        done = it / p.iterations
        rate = min(1.0, (it + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * rate
        rays = sampler.draw(rng, 1 + T * done / 0.3, p.pairs, p.rays)
        z = depths(len(rays.xy), p.samples, generator)
        loss = volume.loss(rays.xy, rays.i, rays.j, rays.q, rays.confidence, z, scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent = time.monotonic() - started
        if it % 10 == 0:
            left = spent / max(done, 1e-3) * (1 - done)
            yield Step("fit", f"loss {float(loss.detach()):.2f} px", done, left, data={"loss": float(loss.detach())})
        if budget is not None and spent > budget:
            break
    return OmniMotion(images, volume)


def small_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The fit size: longer side at most ``side``, shorter at least 48 where the frame has that many."""
    h, w = fit_size(size, side)
    return (h, w) if min(h, w) >= 48 else fit_size(size, max(side, math.ceil(48 * max(size) / min(size))))
