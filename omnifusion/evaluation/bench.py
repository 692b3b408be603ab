"""Seconds and memory of every stage, for clips of growing length, as ratios to references measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from omnifusion import flow, synthetic
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.driver import Stages, colorize, device
from omnifusion.evaluation.tables import Table
from omnifusion.geometry import resize
from omnifusion.inpaint import make_hint_for
from omnifusion.meter import Meter, median_seconds
from omnifusion.prior.diffusion import DiffusionPrior, load, sampling_of
from omnifusion.propagate import propagate
from omnifusion.settings import Settings
from omnifusion.state import ColorState, Origin, Step, Steps, Tracker

LENGTHS = (12, 24, 48, 80)
"""Frames of the clips, from the shortest the paper would meet to the longest of DAVIS that are common."""

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

    def step(self) -> Step:
        """The row as a sign of life."""
        words = f"{self.stage}, {self.frames} frames: {self.seconds:.2f} s, {self.ratio:.1f} x {self.reference}"
        return Step("bench", words, data={"result": self})


def bench(settings: Settings, lengths: Sequence[int] = LENGTHS) -> Steps[list[Row]]:
    """Measure tracker, propagation, whole run and upsampling at every length, and one guided denoising step."""
    rows: list[Row] = []
    stages = Stages()
    for frames in lengths:
        video = synthetic.make(SCENE, frames, (2 * SIZE[0], 2 * SIZE[1])).video
        clip = prepare(video, [], SIZE[1])
        clip = Clip(clip.video, clip.L, clip.exemplars, [range(frames)], clip.truth, ())
        tracker, of_clip = yield from _clip_rows(clip, settings, stages)
        rows += of_clip
        if frames == lengths[0]:
            rows.append(guided_step(clip, tracker, settings))
            yield rows[-1].step()
    return rows


def _clip_rows(clip: Clip, settings: Settings, stages: Stages) -> Steps[tuple[Tracker, list[Row]]]:
    """What depends on the length of the clip."""
    rows, frames = [], len(clip.L)
    with Meter() as reference:
        for t in range(1, frames):
            flow.dis(clip.L[t], clip.L[t - 1])
            flow.dis(clip.L[t - 1], clip.L[t])
    dis = ("DIS flow between neighbours", reference.seconds)
    with Meter() as fit:
        tracker = yield from stages.track(clip.L, settings)
    rows.append(Row("tracker", frames, fit.seconds, *dis, fit.peak_mib, fit.added_mib))
    yield rows[-1].step()
    with Meter() as meter:
        propagate(tracker, start(clip), 0, 0)
    rows.append(Row("propagation of one exemplar", frames, meter.seconds, *dis, meter.peak_mib, meter.added_mib))
    yield rows[-1].step()
    with Meter() as meter:
        result = yield from colorize(clip.L, clip.exemplar_ab(), settings, clip.shots, stages, {0: tracker})
    memory = max((m.peak_mib, m.added_mib) for m in (meter, fit))
    rows.append(Row("whole run", frames, fit.seconds + meter.seconds, *dis, *memory))
    yield rows[-1].step()
    rows.append(upsampling(clip, result.state))
    yield rows[-1].step()
    return tracker, rows


def start(clip: Clip) -> ColorState:
    """The state before the first iteration: the exemplar, and nothing else."""
    everywhere = torch.ones(clip.L.shape[-2:], dtype=torch.bool)
    return ColorState.grey(clip.L).paint({0: (everywhere, clip.exemplar_ab()[0])}, 0, Origin.EXEMPLAR)


def upsampling(clip: Clip, state: ColorState) -> Row:
    """Frames of the result at twice the working size, beside a bicubic enlargement of their chroma."""
    frames = range(1, len(state))
    with Meter() as reference:
        for t in frames:
            resize(state.ab[t][None], clip.video.size)
    with Meter() as meter:
        for t in frames:
            clip.full_size(state, t)
    name = "bicubic enlargement of ab"
    return Row(
        "frames at full size", len(state), meter.seconds, name, reference.seconds, meter.peak_mib, meter.added_mib
    )


def guided_step(clip: Clip, tracker: Tracker, settings: Settings) -> Row:
    """One denoising step with eq. (2)-(4) beside one plain pass through denoiser and decoder, medians."""
    prior = load(settings.prior, device(), sampling_of(settings))
    state, frame = propagate(tracker, start(clip), 0, 0), len(clip.L) - 1
    hint = make_hint_for(state, frame, tracker, clip.shots[0], [0]) if settings.start is not None else None
    generator = torch.Generator().manual_seed(settings.seed)
    steps = prior.inpaint(state.L[frame], state.ab[frame], state.mask[frame], hint, generator)
    next(steps)  # the first step encodes the frame, too
    with Meter() as meter:
        guided = median_seconds(lambda: next(steps), min(REPEATS, settings.steps - 1))
    name = "denoiser and decoder, once"
    return Row("guided denoising step", 1, guided, name, plain_pass(prior), meter.peak_mib, meter.added_mib)


def plain_pass(prior: DiffusionPrior) -> float:
    """Seconds of the denoiser and the decoder on one frame of ``SIZE``, without gradients."""
    parts = prior.components
    h, w = (-(-side // parts.multiple) * parts.multiple // parts.factor for side in prior.working_size(SIZE))
    channels = parts.vae.config.latent_channels
    z = torch.zeros(1, channels, h, w, device=parts.device)
    extra = torch.zeros(1, channels + 1, h, w, device=parts.device) if parts.input_channels != channels else None
    network = parts.network(extra)

    def once() -> None:
        with torch.no_grad():
            network(z, 1)
            parts.decode(z)

    once()
    return median_seconds(once, REPEATS)


def table(rows: Sequence[Row], settings: Settings, machine: str) -> Table:
    """The rows, stage by stage, so that growth with the length is visible."""
    order = list(dict.fromkeys(row.stage for row in rows))
    cells = [
        [
            row.stage,
            str(row.frames),
            f"{row.seconds:.3g}",
            f"{row.seconds / row.frames:.3g}",
            f"{row.ratio:.1f}",
            row.reference,
            f"{row.peak_mib:.0f}",
            f"{row.added_mib:.0f}",
        ]
        for row in sorted(rows, key=lambda row: (order.index(row.stage), row.frames))
    ]
    head = ["stage", "frames", "s", "s per frame", "ratio to reference", "reference", "peak MiB", "added MiB"]
    note = (
        f"Scene {SCENE!r} at {SIZE[1]}x{SIZE[0]}, {settings.preset} preset, {settings.prior} prior, on {machine}. "
        "The whole run is fit and Algorithm 1. Peak memory is the process's, libraries included; added is how far "
        "it rises above what the process held before the stage."
    )
    return Table("Seconds and memory", head, cells, [note])
