"""Long work as seen in a terminal: progress bars, Ctrl-C that keeps what is done, and a summary."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from omnifusion.progress import Colored, Measured, Step, Steps, run_to_end
from omnifusion.run.estimate import estimate
from omnifusion.run.folder import RunRequest
from omnifusion.run.pipeline import Loaded, Resources, begin, color
from omnifusion.settings import Settings
from omnifusion.state import Exemplar

T = TypeVar("T")


class Bar:
    """Progress, and a line that stays for each row that was measured.

    Args:
        each_stage: begin a new bar with every stage.
    """

    def __init__(self, each_stage: bool) -> None:
        self.each_stage = each_stage
        self._bar: tqdm | None = None
        self._stage = ""

    def show(self, step: Step) -> None:
        """Move the bar to where the step is."""
        if step.stage == "load":  # soon over, or with a sentence of its own
            return
        stage = "color" if step.stage in ("propagate", "inpaint") else step.stage
        if self._bar is None or (self.each_stage and stage != self._stage):
            self.close()
            name = f"{stage:9} " if self.each_stage else ""
            self._bar = tqdm(total=100, bar_format=name + "{percentage:3.0f}% |{bar:30}| {elapsed}{postfix}")
        self._stage = stage
        if stage != "color" or isinstance(step, Colored):
            self._bar.n = round(100 * step.done)
        left = "" if step.seconds_left is None else f", {step.seconds_left:.0f} s left"
        self._bar.set_postfix_str(f"{step.message}{left}")
        if isinstance(step, Measured):
            self._bar.write(step.message)

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def follow(steps: Steps[T], each_stage: bool = False, also: Callable[[Step], None] = lambda step: None) -> T:
    """Run long work to its end under a bar; see ``Bar``. Each step is shown to ``also``, too."""
    bar = Bar(each_stage)

    def show(step: Step) -> None:
        also(step)
        bar.show(step)

    try:
        return run_to_end(steps, show)
    finally:
        bar.close()


def color_to_folder(
    request: RunRequest, exemplars: Sequence[Exemplar], out: Path, overwrite: bool, resources: Resources | None = None
) -> dict[str, Any]:
    """Color a clip into the folder ``out`` with progress on the terminal; returns the report. See ``pipeline``."""
    resources = resources or Resources()

    def show(step: Step) -> None:
        if isinstance(step, Loaded):
            print(cost(step, request.settings, resources.mib))

    run = begin(out, request, {given.index: given.image for given in exemplars}, overwrite=overwrite)
    run = follow(color(run, resources), each_stage=True, also=show)
    for note in run.report["notes"]:
        print(note)
    print(summary(run.report))
    print(f"Results: {run.folder}")
    return run.report


def cost(clip: Loaded, settings: Settings, mib: float) -> str:
    """What a run will take, in words."""
    expected, length = estimate(settings, clip.frames, clip.size), clip.frames / clip.fps
    return (
        f"{clip.frames} frames, {float(length):.1f} s of footage: about {expected.seconds / length:.0f} s of work on "
        f"two cores for each second, {expected.seconds / 60:.1f} min in all; up to {mib:.0f} MiB of memory and "
        f"{expected.disk_mib} MiB of disk."
    )


def summary(report: dict[str, Any]) -> str:
    """A report in a few lines."""
    origin, (h, w) = report["origin"], report["working_size"]
    pixels = report["frames"] * h * w
    shares = ", ".join(f"{name} {100 * count / pixels:.1f} %" for name, count in origin.items())
    lines = [
        f"{report['frames']} frames, {report['size'][1]}x{report['size'][0]}, colored at {w}x{h}",
        f"{len(report['iterations'])} iterations; {shares}",
        "seconds: " + ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in report["stages"]),
    ]
    if report["scores"]:
        lines.append("against the truth: " + ", ".join(f"{k} {v:.2f}" for k, v in report["scores"].items()))
    return "\n".join(lines)


def command_line() -> str:
    """The command that is running, as anyone may repeat it: clips under $OMNIFUSION_CLIPS, outputs by name alone."""
    words = [Path(w).name if w.endswith((".json", ".html", ".md", ".png")) else w for w in sys.argv[1:]]
    line = shlex.join(["python", "-m", "omnifusion", *words])
    clips = os.environ.get("OMNIFUSION_CLIPS")
    return "`" + (line.replace(clips.rstrip("/"), "$OMNIFUSION_CLIPS") if clips else line) + "`"
