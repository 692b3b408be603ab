"""Seconds and memory of every stage, for clips of growing length, as ratios to references measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from omnifusion import flow, synthetic
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.clip.shots import Shot
from omnifusion.driver import colorize
from omnifusion.evaluation.tables import Table
from omnifusion.geometry import resize
from omnifusion.inpaint import Witnesses
from omnifusion.meter import Meter, median_seconds
from omnifusion.prior.diffusion import DiffusionPrior, load_prior
from omnifusion.propagate import propagate
from omnifusion.settings import Settings
from omnifusion.stages import Stages, device
from omnifusion.state import ColorState, Task, Tracker
from omnifusion.steps import Measured, Step, Steps

SIZE = (240, 427)
"""Height and width that the method works at: half of DAVIS 480p."""

SCENE = "three-layers"
REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One measurement: the ``seconds`` of a stage, those of its reference, and the stage's memory as in ``Meter``."""

    stage: str
    frames: int
    seconds: float
    reference: str
    reference_seconds: float
    peak_mib: float
    added_mib: float

    @property
    def ratio(self) -> float:
        """How many times the reference."""
        return self.seconds / self.reference_seconds


def bench(settings: Settings, lengths: Sequence[int]) -> Steps[list[Row]]:
    """Measure tracker, propagation, whole run and upsampling at every length, and one guided denoising step."""
    rows: list[Row] = []
    stages = Stages()

    def row(stage: str, frames: int, seconds: float, reference: tuple[str, float], *meters: Meter) -> Step:
        memory = max((meter.peak_mib, meter.added_mib) for meter in meters)
        rows.append(Row(stage, frames, seconds, *reference, *memory))
        words = f"{stage}, {frames} frames: {seconds:.2f} s, {rows[-1].ratio:.1f} x {reference[0]}"
        return Measured("bench", words, row=rows[-1])

    for frames in lengths:
        clip = prepare(synthetic.make(SCENE, frames, (2 * SIZE[0], 2 * SIZE[1])).video, [], SIZE[1])
        clip = replace(clip, shots=[Shot(0, frames)])
        grey = flow.to_bytes(clip.L[:, 0])
        with Meter() as reference:
            for t in range(1, frames):
                flow.dis(grey[t], grey[t - 1])
                flow.dis(grey[t - 1], grey[t])
        dis = ("DIS flow between neighbours", reference.seconds)
        with Meter() as fit:
            tracker = yield from stages.track(clip.L, settings)
        yield row("tracker", frames, fit.seconds, dis, fit)
        with Meter() as meter:
            propagate(tracker, ColorState.of_exemplars(clip.L, clip.exemplar_ab()), 0, 0)
        yield row("propagation of one exemplar", frames, meter.seconds, dis, meter)
        with Meter() as meter:
            result = yield from colorize(clip.L, clip.exemplar_ab(), settings, clip.shots, stages, {0: tracker})
        yield row("whole run", frames, fit.seconds + meter.seconds, dis, fit, meter)
        with Meter() as reference:
            for ab in result.state.ab[1:]:
                resize(ab[None], clip.video.size)
        with Meter() as meter:
            for t in range(1, frames):
                clip.full_size(result.state, t)
        bicubic = ("bicubic enlargement of ab", reference.seconds)
        yield row("frames at full size", frames, meter.seconds, bicubic, meter)
        if frames == lengths[0]:
            prior = load_prior(settings, device())
            with Meter() as meter:
                seconds = guided_step(prior, clip, tracker, settings)
            yield row("guided denoising step", 1, seconds, ("denoiser and decoder, once", plain_pass(prior)), meter)
    return rows


def guided_step(prior: DiffusionPrior, clip: Clip, tracker: Tracker, settings: Settings) -> float:
    """Seconds of one denoising step of the last frame with eq. (2)-(4), the median of several."""
    state = propagate(tracker, ColorState.of_exemplars(clip.L, clip.exemplar_ab()), 0, 0)
    frame = len(clip.L) - 1
    hint = Witnesses([0]).hint(state, frame, tracker, clip.shots[0].frames) if settings.start is not None else None
    steps = prior.fill([Task(state.L[frame], state.ab[frame], state.mask[frame], hint, settings.seed)])
    next(steps)  # the first step encodes the frame, too
    return median_seconds(lambda: next(steps), min(REPEATS, settings.steps - 1))


def plain_pass(prior: DiffusionPrior) -> float:
    """Seconds of the denoiser and the decoder on one frame of ``SIZE``, without gradients; the median of several."""
    parts = prior.components
    h, w = (-(-side // parts.multiple) * parts.multiple // parts.factor for side in prior.working_size(SIZE))
    channels = parts.vae.config.latent_channels
    z = torch.zeros(1, channels, h, w, device=parts.device)
    extra = torch.zeros(1, channels + 1, h, w, device=parts.device) if parts.input_channels != channels else None
    network = parts.network(extra)

    @torch.no_grad()
    def once() -> None:
        network(z, 1)
        parts.decode(z)

    once()
    return median_seconds(once, REPEATS)


def table(rows: Sequence[Row], settings: Settings, machine: str) -> Table:
    """The rows, stage by stage, so that growth with the length is visible."""
    order = list(dict.fromkeys(row.stage for row in rows))
    forms = {"stage": "", "frames": "", "s": ".3g", "s per frame": ".3g", "ratio to reference": ".1f", "reference": ""}
    cells: list[Sequence[Any]] = [
        [r.stage, r.frames, r.seconds, r.seconds / r.frames, r.ratio, r.reference, r.peak_mib, r.added_mib]
        for r in sorted(rows, key=lambda row: (order.index(row.stage), row.frames))
    ]
    note = (
        f"Scene {SCENE!r} at {SIZE[1]}x{SIZE[0]}, {settings.preset} preset, {settings.prior} prior, on {machine}. "
        "The whole run is fit and Algorithm 1. Peak memory is the process's, libraries included; added is how far "
        "it rises above what the process held before the stage."
    )
    return Table("Seconds and memory", forms | {"peak MiB": ".0f", "added MiB": ".0f"}, cells, [note])
