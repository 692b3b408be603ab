"""Fitting a volume to a clip: flows, first fit, bootstrap, second fit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion import flow as of
from omnifusion.geometry import fit_size, resize
from omnifusion.omnimotion import reid, supervision
from omnifusion.omnimotion.optimise import Optimiser, Schedule
from omnifusion.omnimotion.picture import draw
from omnifusion.omnimotion.supervision import Flows
from omnifusion.omnimotion.tracker import OmniMotion
from omnifusion.omnimotion.volume import Kind, Volume
from omnifusion.state import Fitting, InputError, Step, Steps


@dataclass(frozen=True)
class Preset:
    """What a fit spends.

    Attributes:
        kind: of volume.
        side: longer side of the flows that supervise it, in pixels.
        iterations: of the first and the second fit, of a clip of up to ``frames`` frames.
        frames: longer clips take more iterations in proportion; None: they do not.
        schedule: rays, samples and learning rates.
    """

    kind: Kind = "grid"
    side: int = 192
    iterations: tuple[int, int] = (600, 400)
    frames: int | None = 24
    schedule: Schedule = field(default_factory=Schedule)


PRESETS = {
    "draft": Preset(iterations=(300, 0)),
    "standard": Preset(),
    "paper": Preset(
        kind="mlp",
        side=448,
        iterations=(100_000, 0),
        frames=None,
        schedule=Schedule(
            pairs=8,
            rays=256,
            samples=32,
            rates=(("nvp.code", 1e-3), ("nvp", 1e-4), ("field", 3e-4)),
            halve_every=20_000,
        ),
    ),
}
SHOW_EVERY = 2.0
"""Seconds between two pictures and saved states."""


def find_flows(L: Tensor, preset: str = "standard", *, device: str = "cpu") -> Steps[Flows]:
    """Follow every pixel of luminance ``L`` ``(T, 1, H, W)`` through the clip: what ``fit`` of that preset learns from.

    DIS on a CPU, RAFT on a GPU; what was hidden and comes back included.

    Raises:
        InputError: unknown preset, or frames smaller than 16 px.
    """
    p = _checked(L, preset)
    images = of.to_bytes(L[:, 0])
    small = _small(L, p)
    yield Step("flow", "following every pixel from frame to frame", 0.0)
    search = of.raw_dis if device == "cpu" else of.raft(device)
    flows = supervision.collect(small, of.gaps(len(L)), search)
    yield Step("flow", "following again, starting from the dominant motion", 0.5)
    if len(L) > 1:
        supervision.steady(flows, small, search)
    yield Step("flow", "looking for what was hidden and comes back", 0.8)
    reid.reidentify(flows, small, images)
    return flows


def fit(
    L: Tensor,
    preset: str = "standard",
    *,
    flows: Flows | None = None,
    seed: int = 0,
    budget: float | None = None,
    device: str = "cpu",
    state: dict[str, Any] | None = None,
) -> Steps[OmniMotion]:
    """Fit OmniMotion to luminance ``L`` ``(T, 1, H, W)``, L* in [0, 100]; returns the tracker.

    Yields Steps with ``data["loss"]`` in pixels and, now and then, a picture and ``data["state"]``: a plain dict of CPU
    tensors and numbers. Given back as ``state`` with the same clip and preset, the fit goes on from there to the
    same end.

    Args:
        preset: "draft", "standard" or "paper".
        flows: what ``find_flows`` returned for this clip and preset; None = find them now.
        budget: seconds for all of it, instead of the preset's iterations (then the result depends on the machine).

    Raises:
        InputError: unknown preset, frames smaller than 16 px, or a state of another clip.
    """
    p, T = _checked(L, preset), len(L)
    if state is not None and (state["frames"], state["preset"]) != (T, preset):
        raise InputError("The saved fit belongs to another clip or preset; start a new fit.")
    images = of.to_bytes(L[:, 0])
    volume = Volume(T, p.kind, seed).to(device)
    started = time.monotonic()
    if flows is None:
        flows = yield from find_flows(L, preset, device=device)
    if T > 1:
        yield from _Run(images, _small(L, p), flows, volume, p, preset, seed, budget, started, state).steps()
    return OmniMotion(images, volume)


def _checked(L: Tensor, preset: str) -> Preset:
    if preset not in PRESETS:
        raise InputError(f"There is no tracker preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    H, W = L.shape[-2:]
    if min(H, W) < 16:
        raise InputError(
            f"The frames are {W}x{H}; the tracker needs at least 16 pixels each way, so use larger frames."
        )
    return PRESETS[preset]


def _small(L: Tensor, p: Preset) -> np.ndarray:
    """The frames at the fit size."""
    return of.to_bytes(resize(L, small_size((L.shape[-2], L.shape[-1]), p.side))[:, 0])


class _Run:
    """One fit: what it holds between its stages."""

    def __init__(
        self,
        images: np.ndarray,
        small: np.ndarray,
        flows: Flows,
        volume: Volume,
        p: Preset,
        name: str,
        seed: int,
        budget: float | None,
        started: float,
        state: dict[str, Any] | None,
    ) -> None:
        self.images, self.small, self.flows, self.volume = images, small, flows, volume
        self.p, self.name, self.seed, self.frames = p, name, seed, len(images)
        self.started, self.budget = started, budget
        self.state = state
        self.first: dict[str, Any] | None = None if state is None else state["first"]
        self.shown = 0.0

    def steps(self) -> Iterator[Step]:
        preparation = time.monotonic() - self.started
        if self.p.kind == "grid":
            self._start_affine()
        ends = self._deadlines(preparation)
        stages = [k for k in (0, 1) if self.p.iterations[k]]
        for stage in stages:
            if self.state is not None and self.state["stage"] > stage:
                continue
            if stage == 1:
                yield Step("fit", "following again, starting from the volume", 0.5)
                if self.first is None:
                    self.first = {k: v.detach().cpu().clone() for k, v in self.volume.state_dict().items()}
                else:
                    self.volume.load_state_dict(self.first)
                self.flows = bootstrap(self.flows, self.small, OmniMotion(self.small, self.volume))
            sampler = supervision.Sampler(self.flows)
            if sampler.weight.sum() > 0:
                yield from self._optimise(stage, len(stages), sampler, ends[stage])

    def _start_affine(self) -> None:
        """Depth is cut into as many slabs as there are layers; each starts with its layer's motion, the largest
        behind."""
        starts = torch.from_numpy(supervision.affine_starts(self.flows, self.frames)).flatten(2)
        affine = self.volume.nvp.affine.data
        slab = torch.arange(affine.shape[1]) * len(starts) // affine.shape[1]
        affine.copy_(starts[slab].transpose(0, 1))

    def _deadlines(self, preparation: float) -> tuple[float, float]:
        """When each stage has to end, in seconds from the start; the bootstrap takes about as long as the
        preparation."""
        if self.budget is None:
            return math.inf, math.inf
        rest = max(self.budget - 1.5 * preparation, 0.0)
        return preparation + rest * (0.5 if self.p.iterations[1] else 1.0), self.budget

    def _optimise(self, stage: int, stages: int, sampler: supervision.Sampler, end: float) -> Iterator[Step]:
        o = Optimiser(self.volume, sampler, self.p.schedule, self.seed + 1000 * stage)
        if self.state is not None and self.state["stage"] == stage:
            o.load_state_dict(self.state["optimiser"])
        longer = max(1.0, self.frames / self.p.frames) if self.p.frames else 1.0
        total, begun, first = round(longer * self.p.iterations[stage]), time.monotonic(), o.iteration
        while True:
            now = time.monotonic()
            share = o.iteration / total
            if math.isfinite(end):
                share = (now - begun) / max(end - (begun - self.started), 1e-3)
            if share >= 1:
                return
            healthy = o.step(share)
            if not healthy:
                yield Step(
                    "fit", f"diverged at iteration {o.iteration}: back to the last safe state at half the pace", share
                )
            elif o.iteration % 10 == 0:
                pace = (now - begun) / max(o.iteration - first, 1)
                left = end - (now - self.started) if math.isfinite(end) else pace * (total - o.iteration)
                yield self._report(o, stage, (stage + share) / stages, left)

    def _report(self, o: Optimiser, stage: int, done: float, left: float) -> Fitting:
        picture = saved = None
        if time.monotonic() - self.shown > SHOW_EVERY:
            self.shown = time.monotonic()
            picture = draw(OmniMotion(self.small, self.volume), self.images, self.frames // 2)
            saved = {"frames": self.frames, "preset": self.name, "stage": stage, "first": self.first}
            saved["optimiser"] = o.state_dict()
        return Fitting(
            "fit", f"motion explained to {o.loss:.2f} px", done, left, loss=o.loss, iteration=o.iteration, passes=stage,
            recoveries=o.recoveries, picture=picture, saved=saved,
        )  # fmt: skip


def bootstrap(flows: Flows, small: np.ndarray, tracker: OmniMotion) -> Flows:
    """Flows improved by DIS that starts from the fitted volume's own flow, for every pair."""
    better = Flows(flows.pairs, flows.flow.copy(), flows.error.copy())
    supervision.refine(better, small, lambda pair: tracker.volume_flow(*pair)[0])
    return better


def small_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The fit size: longer side at most ``side``, shorter at least 48 where the frame has that many."""
    h, w = fit_size(size, side)
    return (h, w) if min(h, w) >= 48 else fit_size(size, max(side, math.ceil(48 * max(size) / min(size))))
