"""The service that all visitors share, and the limits of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import psutil
import torch

from omnifusion.algorithm import colorize
from omnifusion.correction.history import Correction, correct_run
from omnifusion.geometry import fit_size
from omnifusion.progress import InputError, Steps, held_mib, run_to_end
from omnifusion.run.estimate import Estimate, estimate
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.run.pipeline import Resources, begin, color
from omnifusion.settings import PRESETS, Settings
from omnifusion.ui import zerogpu
from omnifusion.ui.jobs import Job, Jobs, Work
from omnifusion.ui.parts import seconds
from omnifusion.ui.store import Limits, Store
from omnifusion.video import read_image

LEAST_SIDE = 16  # shorter side in pixels that the tracker needs at the working size
PROGRAM_PATIENCE = 5.0  # seconds for which a program's run continues while the program does not listen
PARENT = "parent.txt"  # the file with the token of the run that a run corrects


def warm_up() -> None:
    """Color a tiny clip, so that no visitor waits for the kernels to be compiled."""
    L, ab = torch.linspace(0, 100, 3 * 32 * 32).reshape(3, 1, 32, 32), torch.ones(2, 32, 32)
    run_to_end(colorize(L, {0: ab}, Settings()))


@dataclass(frozen=True)
class Service:
    """What all visitors share."""

    limits: Limits
    store: Store
    jobs: Jobs

    @property
    def memory_mib(self) -> float:
        """The memory that the process may use: the owner's limit, or less if the machine has less now."""
        return min(self.limits.mib, held_mib() + psutil.virtual_memory().available / 2**20)

    def fits(self, expected: Estimate) -> bool:
        """Whether a run is within the owner's limits, and the machine has the memory now."""
        return expected.seconds <= self.limits.seconds and expected.mib <= self.memory_mib

    def require_fit(self, settings: Settings, frames: int, size: tuple[int, int]) -> None:
        """Raise InputError, which says what would fit, if a run on ``frames`` frames of ``size`` (H, W) would not."""
        height, width = size
        if min(fit_size(size, settings.max_side)) < LEAST_SIDE:
            raise InputError(
                f"The clip's frames are {width} x {height}, too narrow to be tracked: at a working size of "
                f"{settings.max_side} the shorter side has fewer than {LEAST_SIDE} pixels; crop the clip."
            )
        expected = estimate(settings, frames, size)
        if self.fits(expected):
            return
        advice = "a smaller clip is needed"
        if fitting := self.that_fits(settings, frames, size):
            before = vars(settings) | {"frames": frames}
            names = ["steps", "optimizations"] if fitting["preset"] == settings.preset else ["preset", "prior"]
            changes = [f"{name} {fitting[name]}" for name in [*names, "frames"] if fitting[name] != before[name]]
            advice = f"it would fit with {', '.join(changes)}"
        raise InputError(
            f"This run would take about {seconds(expected.seconds)} and {expected.mib / 1024:.1f} GiB, more than the "
            f"{seconds(self.limits.seconds)} and {self.memory_mib / 1024:.1f} GiB that one run may take here; {advice}."
        )

    def that_fits(self, settings: Settings, frames: int, size: tuple[int, int]) -> dict[str, Any]:
        """The least changed settings and "frames" that fit, or nothing: fewer steps, fewer frames (down to eight),
        another preset, the built-in prior."""
        usual = PRESETS[settings.preset]
        modest = replace(settings, steps=min(settings.steps, usual.steps), optimizations=min(settings.optimizations, 1))
        priors, names = dict.fromkeys((settings.prior, "bundled")), ("standard", "draft")
        lighter = [replace(PRESETS[name], prior=prior, seed=settings.seed) for prior in priors for name in names]
        for kind in (modest, *lighter):
            count = frames
            while not (fits := self.fits(estimate(kind, count, size))) and count > 8:
                count = max(8, count * 3 // 4)
            if fits:
                return asdict(kind) | {"frames": count}
        return {}

    def color(
        self, clip: Path, size: tuple[int, int], request: RunRequest, exemplars: Mapping[int, Path], asker: gr.Request,
        page: bool = False, reuse: Sequence[Path] = (),
    ) -> Job:  # fmt: skip
        """A job that colors a clip of ``size`` (H, W), still to be submitted; InputError if it would take too much, or
        cannot begin. A run of the ``page`` continues long after the last look at it, and after a restart of
        the server; ``reuse`` are folders of earlier runs on the same clip."""
        self.require_fit(request.settings, request.frames or self.limits.frames, size)
        pictures = {frame: read_image(path, alpha=True) for frame, path in exemplars.items()}
        run = begin(self.store.new(), request, pictures, clip)
        if page:
            self.store.attempt(run.folder, begins=False)
        return self._job(run.folder, partial(self._color, run, page, reuse), page, asker, request.name)

    def _color(self, run: RunFolder, page: bool, reuse: Sequence[Path] = ()) -> Steps[RunFolder]:
        limits = self.limits
        if page:
            self.store.attempt(run.folder)
        resources = Resources(mib=limits.mib / limits.runs, max_frames=limits.frames, max_pixels=limits.pixels)
        return color(run, resources, zerogpu.stages(), [folder for folder in reuse if folder.is_dir()])

    def correct(self, run: RunFolder, correction: Correction, asker: gr.Request, page: bool = False) -> Job:
        """A job that corrects a run; the result is a run of its own."""
        height, width = run.report["size"]
        self.require_fit(run.request.settings, run.report["frames"], (height, width))
        folder = self.store.new()

        def work() -> Steps[RunFolder]:
            corrected = yield from correct_run(run, correction, folder)
            (folder / PARENT).write_text(run.token)
            return corrected

        return self._job(folder, work, page, asker, run.request.name, run.token)

    def _job(self, folder: Path, work: Work, page: bool, asker: gr.Request | None, name: str, parent: str = "") -> Job:
        visitor, session = folder.name, ""  # of one that continues after a restart
        if asker is not None:
            visitor, session = asker.client.host if asker.client else "unknown", str(asker.session_hash)
        patience = self.limits.vanished if page else PROGRAM_PATIENCE
        return Job(folder, work, self.limits.seconds, patience, visitor, session, name, parent, keep=page)

    def parent(self, run: RunFolder) -> str:
        """The token of the run that ``run`` corrects; "" where there is none, or it is gone."""
        token = (run.folder / PARENT).read_text() if (run.folder / PARENT).is_file() else ""
        return token if self.store.has(token) else ""

    def go_on(self) -> None:
        """Resume the runs that an earlier process left unfinished."""
        for run in self.store.unfinished():
            self.jobs.submit(self._job(run.folder, partial(self._color, run, True), True, None, run.request.name))
