"""Seconds and memory of every stage, for clips of growing length, as ratios to references measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omnifusion import flow, synthetic
from omnifusion.clip.prepare import prepare
from omnifusion.clip.shots import Shot
from omnifusion.driver import colorize
from omnifusion.evaluation.tables import Table
from omnifusion.geometry import resize
from omnifusion.meter import Meter
from omnifusion.propagate import propagate
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import ColorState
from omnifusion.steps import Measured, Step, Steps

SIZE = (240, 427)
"""Height and width that the method works at: half of DAVIS 480p."""

SCENE = "three-layers"


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
    """Measure tracker, propagation, whole run and upsampling at every length."""
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
    return rows


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
