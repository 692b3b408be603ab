"""Correspondence from a fitted volume and direct flow, the best of both; and how a volume is fitted to a clip."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.flow import dis as of
from omnifusion.flow import match
from omnifusion.flow.tracker import FlowTracker
from omnifusion.geometry import fit_size, resize
from omnifusion.omnimotion.flows import Flows, Sampler, affine_flow, affine_starts, collect, collect_at_once
from omnifusion.omnimotion.kinds import volume_of
from omnifusion.omnimotion.volume import Kind, Volume, depths, to_pixels, to_volume
from omnifusion.pool import parallel
from omnifusion.progress import Fitting, InputError, Note, Step, Steps, check_canceled

Array = np.ndarray

VISIBLE_TRANSMITTANCE = 0.5  # transmittance above which a point is visible
WARMUP, CURRICULUM = 50, 0.3
"""Iterations until the learning rates are reached; share of the fit after which pairs of all intervals are drawn."""
LENGTH, HALVING = 24, 20_000
"""Frames from which on the grid's fit takes more iterations; iterations after which the networks' rates are halved."""


class OmniMotion(FlowTracker):
    """The ``state.Tracker`` of a fitted clip, ``images`` ``(T, H, W)`` uint8 at the working size: volume and direct
    flow both answer (the paper's volume alone)."""

    def __init__(self, images: Array, volume: Volume) -> None:
        super().__init__(images)
        self.volume = volume

    def matches(self, pixels: Array, i: int, j: int) -> list[tuple[Array, Array]]:
        """See ``state.Tracker``; a point that the volume hides is not visible. The paper's volume answers alone."""
        H, W = self.images.shape[1:]
        points = match.points_of(pixels, W)
        landed, transmittance = self.trace(points, i, j)
        penalty = np.where(transmittance > VISIBLE_TRANSMITTANCE, np.float32(0), np.float32(np.inf))
        if self.volume.kind == "mlp":
            return [(landed, penalty)]
        error = match.cycle_error(points, landed, self.trace(landed, j, i)[0], H, W)
        return [*super().matches(pixels, i, j), (landed, error + penalty)]

    def trace(self, points: Array, i: int, j: int) -> tuple[Array, Array]:
        """Follow ``points`` ``(N, 2)`` px of frame ``i`` to ``j`` by the volume alone; also their transmittance
        there."""
        size = (self.images.shape[1], self.images.shape[2])
        at, transmittance = self.volume.trace(torch.from_numpy(to_volume(points, size)), i, j)
        return to_pixels(at.numpy(), size), transmittance.numpy()

    def state_dict(self) -> dict[str, Any]:
        """CPU tensors from which ``from_state`` makes the same tracker."""
        weights = {k: v.detach().cpu().clone() for k, v in self.volume.state_dict().items()}
        images, volume = torch.from_numpy(self.images), self.volume
        return {"images": images, "kind": volume.kind, "seed": volume.seed, "weights": weights}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> OmniMotion:
        """The tracker that ``state_dict`` described."""
        images = state["images"].cpu().numpy()
        volume = volume_of(state["kind"], len(images), state["seed"], device)
        volume.load_state_dict(state["weights"])
        return cls(images, volume)


@dataclass(frozen=True)
class Preset:
    """The budget of a fit; ``rates`` are learning rates by the first letters of parameters' names."""

    kind: Kind = "grid"
    side: int = 192  # longer side in pixels of the flows that supervise the volume
    iterations: int = 1000  # for a clip of up to LENGTH frames
    pairs: int = 32  # of frames, per iteration
    rays: int = 128  # of each pair
    rates: tuple[tuple[str, float], ...] = (("couplings", 1e-2), ("maps", 5e-3), ("field", 4e-2))

    def total(self, frames: int) -> int:
        """Iterations for a clip of ``frames`` frames."""
        return round(max(1.0, frames / LENGTH) * self.iterations) if self.kind == "grid" else self.iterations

    def factor(self, iteration: int, done: float) -> float:
        """The multiplier of the learning rates in an iteration, at a share ``done`` in [0, 1] of the fit."""
        fall = 0.5 * (1 + math.cos(math.pi * done)) if self.kind == "grid" else 0.5 ** (iteration // HALVING)
        return min(1.0, (iteration + 1) / WARMUP) * fall


PRESETS = {
    "draft": Preset(iterations=300),
    "standard": Preset(),
    "paper": Preset("mlp", 448, 100_000, 8, 256, (("code", 1e-3), ("field", 3e-4), ("", 1e-4))),
}


def find_flows(L: Tensor, preset: str = "standard", *, device: str = "cpu") -> Steps[Flows]:
    """Optical flow between frame pairs of luminance ``L`` ``(T, 1, H, W)``, the training data of ``fit``.

    DIS; on a GPU, for the paper's volume, RAFT if its weights are available. InputError if frames are too small.
    """
    p, (H, W) = PRESETS[preset], L.shape[-2:]
    if min(H, W) < 16:
        raise InputError(f"The frames are {W}x{H}; the tracker needs 16 pixels each way: use larger frames.")
    side = max(p.side, math.ceil(48 * max(H, W) / min(H, W)))  # the shorter side has 48 pixels where the frame has
    small, intervals = of.to_bytes(resize(L, fit_size((H, W), side))[:, 0]), of.intervals(len(L))
    yield Step("flow", "following every pixel from frame to frame", 0.0)
    if p.kind == "mlp" and device != "cpu":
        try:
            return collect_at_once(small, intervals, of.raft(device))
        except OSError as error:
            yield Note("flow", f"RAFT's weights cannot be had ({error}): DIS found the optical flow.")
    flows = collect(small, intervals)
    if len(L) > 1:
        yield Step("flow", "following again, starting from the dominant motion", 0.5)
        refine_by_dominant_motion(flows, small)
    return flows


def refine_by_dominant_motion(flows: Flows, images: np.ndarray) -> None:
    """Search the flow of every pair of ``images`` again, started at the dominant affine motion: chained flow drifts in
    smooth regions, and settles on a wrong answer."""
    maps = affine_starts(flows, len(images))[-1]

    def search(i: int, j: int) -> np.ndarray:
        return of.through_warp(images[i], images[j], affine_flow(maps[i], maps[j], flows.size))

    parallel(lambda pair: flows.improve(images, *pair, search(*pair), search(*pair[::-1])), flows.forward)


def fit(
    L: Tensor, preset: str = "standard", *, flows: Flows | None = None, seed: int = 0, device: str = "cpu"
) -> Steps[OmniMotion]:
    """Fit OmniMotion to luminance ``L`` ``(T, 1, H, W)``, L* in [0, 100]; returns the tracker. ``flows`` are those of
    ``find_flows`` for this clip and preset; None = find them now."""
    p, T = PRESETS[preset], len(L)
    tracker = OmniMotion(of.to_bytes(L[:, 0]), volume_of(p.kind, T, seed, device))
    if flows is None:
        flows = yield from find_flows(L, preset, device=device)
    if T > 1 and (sampler := Sampler(flows)).weight.sum() > 0:
        tracker.volume.start(affine_starts(flows, T))
        yield from _optimize(tracker, sampler, p, seed)
    return tracker


def _optimize(tracker: OmniMotion, sampler: Sampler, p: Preset, seed: int) -> Iterator[Step]:
    """Adam on rays of ``sampler``; a step whose loss or gradients are not finite is skipped."""
    volume, frames = tracker.volume, len(tracker.images)
    total, rng, jitter = p.total(frames), np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    groups: list[dict[str, Any]] = [{"params": [], "rate": rate} for _, rate in p.rates]
    for name, parameter in volume.named_parameters():
        groups[next(k for k, (start, _) in enumerate(p.rates) if name.startswith(start))]["params"].append(parameter)
    adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
    began, explained = time.monotonic(), torch.tensor(math.nan)
    for iteration in range(total):
        check_canceled()
        done = iteration / total
        for group in adam.param_groups:
            group["lr"] = group["rate"] * p.factor(iteration, done)
        rays = sampler.draw(rng, 1 + frames * done / CURRICULUM, p.pairs, p.rays)
        loss = volume.loss(rays, depths((p.pairs, p.rays, volume.samples), jitter), max(sampler.flows.size) / 2)
        adam.zero_grad()
        loss.backward()
        if bool(torch.stack([loss.detach(), *(g.grad.sum() for g in volume.parameters())]).isfinite().all()):
            adam.step()
            explained = loss.detach()
        if iteration % 10 == 9:
            message, seconds = f"motion explained to {explained:.2f} px", (time.monotonic() - began) * (1 / done - 1)
            yield Fitting("fit", message, done, seconds, loss=float(explained))
