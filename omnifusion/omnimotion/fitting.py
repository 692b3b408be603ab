"""Fitting a volume to a clip."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from omnifusion.flow import dis as of
from omnifusion.geometry import fit_size, resize
from omnifusion.omnimotion.flows import Flows, collect, collect_at_once, refine
from omnifusion.omnimotion.grid import GridVolume
from omnifusion.omnimotion.layers import affine_flow, affine_starts
from omnifusion.omnimotion.optimize import Optimizer, Schedule
from omnifusion.omnimotion.rays import Sampler
from omnifusion.omnimotion.tracker import OmniMotion, volume_of
from omnifusion.omnimotion.volume import Kind
from omnifusion.progress import Fitting, InputError, Note, Step, Steps, check_canceled
from omnifusion.visualize import recent_tracks


@dataclass(frozen=True)
class Preset:
    """What a fit spends.

    Attributes:
        kind: of volume.
        side: longer side of the flows that supervise it, in pixels.
        iterations: for a clip of up to ``frames`` frames.
        frames: longer clips take more iterations in proportion; None: they do not.
        schedule: rays, samples and learning rates.
    """

    kind: Kind = "grid"
    side: int = 192
    iterations: int = 1000
    frames: int | None = 24
    schedule: Schedule = field(default_factory=Schedule)

    def total(self, frames: int) -> int:
        """Iterations for so many frames."""
        return round(max(1.0, frames / self.frames if self.frames else 1.0) * self.iterations)


PRESETS = {
    "draft": Preset(iterations=300),
    "standard": Preset(),
    "paper": Preset(
        kind="mlp",
        side=448,
        iterations=100_000,
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

    DIS; on a GPU, for the paper's volume, RAFT where its weights can be had.

    Raises:
        InputError: unknown preset, or frames smaller than 16 px.
    """
    p = _checked(L, preset)
    small, wanted = _small(L, p), of.intervals(len(L))
    yield Step("flow", "following every pixel from frame to frame", 0.0)
    if p.kind == "mlp" and device != "cpu":
        try:
            return collect_at_once(small, wanted, of.raft(device))
        except OSError as error:
            yield Note("flow", f"RAFT's weights cannot be had ({error}): DIS found the optical flow.")
    flows = collect(small, wanted)
    if len(L) > 1:
        yield Step("flow", "following again, starting from the dominant motion", 0.5)
        refine_by_dominant_motion(flows, small)
    return flows


def refine_by_dominant_motion(flows: Flows, small: np.ndarray) -> None:
    """Once more through the warp of the dominant affine motion, for every pair: smooth regions drift when they are
    followed from frame to frame, and settle on a wrong answer."""
    maps = affine_starts(flows, len(small))[-1]
    refine(flows, small, lambda pair: affine_flow(maps[pair[0]], maps[pair[1]], flows.size))


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
    tensors and numbers. Given back as ``state`` with the same clip and preset, the fit goes on from there to
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
    if T > 1 and (sampler := Sampler(flows)).weight.sum() > 0:
        if isinstance(tracker.volume, GridVolume):
            tracker.volume.start(affine_starts(flows, T))
        optimizer = Optimizer(tracker.volume, sampler, p.schedule, seed)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
        end = math.inf if budget is None else started + budget
        yield from _optimize(tracker, optimizer, preset, p.total(T), end)
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


def _optimize(tracker: OmniMotion, o: Optimizer, preset: str, total: int, end: float) -> Iterator[Step]:
    """Iterate until there were ``total``, or until the moment ``end`` where that is finite."""
    begun, first, shown = time.monotonic(), o.iteration, -math.inf
    images, middle = tracker.images, len(tracker.images) // 2
    while True:
        check_canceled()
        now = time.monotonic()
        share = (now - begun) / max(end - begun, 1e-3) if math.isfinite(end) else o.iteration / total
        if share >= 1:
            return
        if not o.step(share):
            yield Step("fit", f"diverged at iteration {o.iteration}: back to the last safe state, slower", share)
        elif o.iteration % 10 == 0:
            pace = (now - begun) / max(o.iteration - first, 1)
            left = end - now if math.isfinite(end) else pace * (total - o.iteration)
            step = Fitting(
                "fit", f"motion explained to {o.loss:.2f} px", share, left,
                loss=o.loss, iteration=o.iteration, recoveries=o.recoveries,
            )  # fmt: skip
            if now - shown > SHOW_EVERY:
                shown = now
                picture = recent_tracks(images[middle], middle, lambda p, t: tracker.by_volume(p, middle, t))
                step = replace(step, picture=picture)
            yield step
