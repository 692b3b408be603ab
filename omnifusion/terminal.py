"""Long work as seen in a terminal: progress bars, Ctrl-C that keeps what is done, and a summary."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from omnifusion.clip.prepare import Clip
from omnifusion.prior.diffusion import load_prior
from omnifusion.progress import Colored, Measured, Step, Steps, run_to_end
from omnifusion.run.cache import fingerprint
from omnifusion.run.export import makers
from omnifusion.run.folder import Request, RunFolder, writing
from omnifusion.run.segments import BASE_MIB, Units, longest, windows
from omnifusion.run.workers import color_by, color_here, local, ray_cluster
from omnifusion.stages import Stages, device
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


def follow(steps: Steps[T], each_stage: bool = False) -> T:
    """Run long work to its end under a bar; see ``Bar``."""
    bar = Bar(each_stage)
    try:
        return run_to_end(steps, bar.show)
    finally:
        bar.close()


@dataclass(frozen=True)
class Means:
    """What a run may use, and what it writes.

    Attributes:
        mib: memory of all processes together, MiB.
        workers: how many processes, or where a Ray cluster is.
        format: see ``deliver``.
    """

    mib: float = 4096.0
    workers: int | str = 1
    format: str = "h264"


def color_to_folder(
    clip: Clip, request: Request, exemplars: Sequence[Exemplar], out: Path, overwrite: bool, means: Means | None = None
) -> dict[str, Any]:
    """Run the method on a clip, with progress on the terminal, into a folder; returns the report.

    A run that was killed goes on where it was. Ctrl-C ends the run early: what is colored by then is written, and the
    report says ``"complete": false``.

    Args:
        clip: what was prepared from the request and the ``exemplars`` that came with it.
        out, overwrite: see ``RunFolder``.
        means: what may be used.
    """
    settings, means = request.settings, means or Means()
    load_prior(settings, device())  # first of all: a prior that cannot be had must cost nobody a fit
    count = means.workers if isinstance(means.workers, int) else 1
    share = means.mib if count == 1 else (means.mib - BASE_MIB) / count
    shots = windows(clip.shots, clip.exemplars, longest(clip.size, clip.video.size, share))
    source = (
        fingerprint(Path(request.source)) if request.source else hashlib.sha256(clip.video.frames.tobytes()).hexdigest()
    )
    folder = RunFolder(out, overwrite, source)
    folder.require_space(clip)
    units = Units(clip, settings, shots, folder.cache)
    if means.workers == 1:
        steps = color_here(units, Stages())
    else:
        pool = local(count) if isinstance(means.workers, int) else ray_cluster(means.workers, means.mib)
        steps = color_by(pool, units)
    try:
        with writing(out):
            follow(steps, each_stage=True)
    except KeyboardInterrupt:
        print("\nInterrupted: writing what is colored so far.")
    folder.iterations, folder.trackers, folder.notes = units.rounds(), units.trackers(), units.notes()
    threads = makers(clip.video.size, means.mib)
    report = follow(folder.finish(clip, settings, units.costs(), units.colors, means.format, threads), each_stage=True)
    folder.keep(request, {given.index: given.image for given in exemplars})
    for note in report["notes"]:
        print(note)
    print(summary(report))
    print(f"Results: {folder.path}")
    return report


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
