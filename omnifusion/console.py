"""A run as seen in a terminal: progress bars, Ctrl-C that keeps what is done, and a summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm import tqdm

from omnifusion.clip.prepare import Clip
from omnifusion.driver import colorize
from omnifusion.settings import Settings
from omnifusion.stages import InpaintHere, Stages
from omnifusion.state import Colored, Step, drain
from omnifusion.store import RunFolder


class Bar:
    """One progress bar per stage."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def show(self, step: Step) -> None:
        """Move the bar to where the step is."""
        stage = "colour" if step.stage in ("propagate", "inpaint") else step.stage
        if self._bar is None or stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = tqdm(
                total=100, desc=f"{stage:9}", bar_format="{desc} {percentage:3.0f}% |{bar:30}| {elapsed}{postfix}"
            )
        if stage != "colour" or isinstance(step, Colored):
            self._bar.update(max(0.0, 100 * step.done - self._bar.n))
        left = "" if step.seconds_left is None else f", {step.seconds_left:.0f} s left"
        self._bar.set_postfix_str(f"{step.message}{left}")

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def color_to_folder(clip: Clip, settings: Settings, out: Path, overwrite: bool) -> dict[str, Any]:
    """Run the method on a clip, with progress on the terminal, into a folder; returns the report.

    Ctrl-C ends the run early: what is coloured by then is written, and the report says ``"complete": false``.
    """
    inpaint = InpaintHere()
    inpaint.load(settings)  # first of all: a prior that cannot be had must cost nobody a fit
    folder = RunFolder(out, overwrite)
    folder.require_space(clip)
    for note in clip.notes:
        print(note)
    bar, result = Bar(), None
    try:
        run = colorize(clip.L, clip.exemplar_ab(), settings, clip.shots, Stages(inpaint=inpaint))

        def show(step: Step) -> None:
            bar.show(step)
            folder.watch(step)

        result = drain(run, show)
    except KeyboardInterrupt:
        print("\nInterrupted: writing what is coloured so far.")
    report = drain(folder.finish(clip, settings, result), bar.show)
    bar.close()
    print(summary(report))
    print(f"Results: {folder.path}")
    return report


def summary(report: dict[str, Any]) -> str:
    """A report in a few lines."""
    origin, (h, w) = report["origin"], report["working_size"]
    pixels = report["frames"] * h * w
    shares = ", ".join(f"{name} {100 * count / pixels:.1f} %" for name, count in origin.items())
    lines = [
        f"{report['frames']} frames, {report['size'][1]}x{report['size'][0]}, coloured at {w}x{h}",
        f"{len(report['iterations'])} iterations; {shares}",
        "seconds: " + ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in report["stages"]),
    ]
    if report["scores"]:
        lines.append("against the truth: " + ", ".join(f"{k} {v:.2f}" for k, v in report["scores"].items()))
    return "\n".join(lines)
