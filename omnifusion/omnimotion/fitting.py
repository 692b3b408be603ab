"""Fitting a volume to a clip: flows, first fit, bootstrap, second fit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from omnifusion import flow as of
from omnifusion.errors import go_on
from omnifusion.geometry import fit_size, resize
from omnifusion.omnimotion.flows import Flows, collect, refine, refine_warped
from omnifusion.omnimotion.grid import GridVolume
from omnifusion.omnimotion.layers import affine_flow, affine_starts
from omnifusion.omnimotion.optimise import Optimiser, Schedule
from omnifusion.omnimotion.rays import Sampler
from omnifusion.omnimotion.reid import reidentify
from omnifusion.omnimotion.tracker import OmniMotion, volume_of
from omnifusion.omnimotion.volume import Kind
from omnifusion.picture import recent_tracks
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

    def total(self, stage: int, frames: int) -> int:
        """Iterations of one of the fits to so many frames."""
        return round(max(1.0, frames / self.frames if self.frames else 1.0) * self.iterations[stage])


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
    small = _small(L, _checked(L, preset))
    yield Step("flow", "following every pixel from frame to frame", 0.0)
    search = of.dis if device == "cpu" else of.raft(device)
    flows = collect(small, of.intervals(len(L)), search)
    yield Step("flow", "following again, starting from the dominant motion", 0.5)
    if len(L) > 1:
        refine_by_dominant_motion(flows, small, search)
    yield Step("flow", "looking for what was hidden and comes back", 0.8)
    reidentify(flows, small, of.to_bytes(L[:, 0]))
    return flows


def refine_by_dominant_motion(flows: Flows, small: np.ndarray, search: of.Search = of.dis) -> None:
    """Once more through the warp of the dominant affine motion, for every pair: along chains, smooth regions drift and
    settle on a wrong answer."""
    maps = affine_starts(flows, len(small))[-1]
    refine_warped(flows, small, lambda pair: affine_flow(maps[pair[0]], maps[pair[1]], flows.size), search)


def bootstrap(flows: Flows, tracker: OmniMotion) -> Flows:
    """Flows improved by DIS that starts from the fitted volume's own flow, for every pair, at their size."""
    better = Flows(flows.pairs, flows.flow.copy(), flows.error.copy())
    refine(better, tracker.images, lambda pair: tracker.volume_flow(*pair)[0])
    return better


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

    Yields ``Fitting`` with the loss in pixels and, now and then, a picture and what is ``saved``: a plain dict of
    tensors, flows and numbers. Given back as ``state`` with the same clip and preset, the fit goes on from there to
    the same end.

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
    tracker = OmniMotion(of.to_bytes(L[:, 0]), volume_of(p.kind, T, seed, device))
    started = time.monotonic()
    if flows is None:
        flows = yield from find_flows(L, preset, device=device)
    if T > 1:
        yield from _Fit(tracker, _small(L, p), flows, preset, seed, state, started, budget).steps()
    return tracker


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
    """The frames at the fit size: longer side at most the preset's, shorter at least 48 where the frame has that
    many."""
    size = (L.shape[-2], L.shape[-1])
    h, w = fit_size(size, p.side)
    if min(h, w) < 48:
        h, w = fit_size(size, max(p.side, math.ceil(48 * max(size) / min(size))))
    return of.to_bytes(resize(L, (h, w))[:, 0])


@dataclass
class _Fit:
    """One fit: what it holds between its stages."""

    tracker: OmniMotion
    small: np.ndarray
    flows: Flows
    preset: str
    seed: int
    state: dict[str, Any] | None
    started: float
    budget: float | None
    shown: float = 0.0

    def steps(self) -> Iterator[Step]:
        p, volume = PRESETS[self.preset], self.tracker.volume
        self.stages = [k for k in (0, 1) if p.iterations[k]]
        ends = self._deadlines(time.monotonic() - self.started, p)
        if isinstance(volume, GridVolume):
            volume.start(affine_starts(self.flows, volume.frames))
        for stage in self.stages:
            resumed = None if self.state is None or self.state["stage"] < stage else self.state
            if resumed and resumed["stage"] > stage:
                continue
            if stage == 1:
                yield Step("fit", "following again, starting from the volume", 0.5)
                self.flows = resumed["flows"] if resumed else bootstrap(self.flows, OmniMotion(self.small, volume))
            sampler = Sampler(self.flows)
            if sampler.weight.sum() > 0:
                optimiser = Optimiser(volume, sampler, p.schedule, self.seed + 1000 * stage)
                if resumed:
                    optimiser.load_state_dict(resumed["optimiser"])
                yield from self._optimise(optimiser, stage, p.total(stage, volume.frames), ends[stage])

    def _deadlines(self, preparation: float, p: Preset) -> tuple[float, float]:
        """When each stage has to end, in seconds from the start; the bootstrap takes about as long as the
        preparation."""
        if self.budget is None:
            return math.inf, math.inf
        rest = max(self.budget - 1.5 * preparation, 0.0)
        return preparation + rest * (0.5 if p.iterations[1] else 1.0), self.budget

    def _optimise(self, o: Optimiser, stage: int, total: int, end: float) -> Iterator[Step]:
        begun, first = time.monotonic(), o.iteration
        while True:
            go_on()
            now = time.monotonic()
            share = o.iteration / total
            if math.isfinite(end):
                share = (now - begun) / max(end - (begun - self.started), 1e-3)
            if share >= 1:
                return
            if not o.step(share):
                yield Step(
                    "fit", f"diverged at iteration {o.iteration}: back to the last safe state at half the pace", share
                )
            elif o.iteration % 10 == 0:
                pace = (now - begun) / max(o.iteration - first, 1)
                left = end - (now - self.started) if math.isfinite(end) else pace * (total - o.iteration)
                yield self._report(o, stage, (stage + share) / len(self.stages), left)

    def _report(self, o: Optimiser, stage: int, done: float, left: float) -> Fitting:
        picture = saved = None
        if time.monotonic() - self.shown > SHOW_EVERY:
            self.shown = time.monotonic()
            images = self.tracker.images
            middle = len(images) // 2
            picture = recent_tracks(images[middle], middle, lambda p, t: self.tracker.by_volume(p, middle, t))
            saved = {"frames": len(images), "preset": self.preset, "stage": stage, "optimiser": o.state_dict()}
            saved |= {"flows": self.flows} if stage else {}
        return Fitting(
            "fit", f"motion explained to {o.loss:.2f} px", done, left, loss=o.loss, iteration=o.iteration, passes=stage,
            recoveries=o.recoveries, picture=picture, saved=saved,
        )  # fmt: skip
