"""What all visitors share, and how refusals and faults are told."""

from __future__ import annotations

import logging
import math
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.utils import get_upload_folder
from PIL import Image

from omnifusion.geometry import fit_size
from omnifusion.progress import InputError, Steps
from omnifusion.run.folder import RunFolder
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.ui import work
from omnifusion.ui.archive import Archive
from omnifusion.ui.estimate import Rates, changes, fits, memory_mib, smaller
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import seconds
from omnifusion.ui.runs import Bound, Run, Runs, Work
from omnifusion.ui.visit import Visit

log = logging.getLogger(__name__)

LEAST_SIDE = 16
"""Shorter side in pixels that the tracker needs at the working size."""

GRACE, MARGIN, SLACK_MIB = 300.0, 5.0, 512.0
"""A run has outgrown its estimate when it takes longer than GRACE seconds and MARGIN times what was expected, or more
memory than half as much again and SLACK_MIB: seconds depend on how busy the machine is, memory does not."""

PAGE_OPTIONS = {
    "force": '"Accept any exemplar" under More choices',
    "frames": '"Frames, from the clip\'s start"',
    "max-side": '"Working size" under More choices',
}
ENDPOINT_OPTIONS = {"frames": "frames"}
"""Where the page and the endpoints have the options that ``InputError.fixes`` name."""


@dataclass(frozen=True)
class Service:
    """What all visitors share."""

    limits: Limits
    archive: Archive
    rates: Rates
    runs: Runs
    stages: Callable[[], Stages]

    @property
    def visits(self) -> Path:
        """The visitors' folders."""
        return self.archive.folder / "visits"

    def bound(
        self, settings: Settings, frames: int, size: tuple[int, int], fitted: bool = False, sides: bool = False
    ) -> Bound:
        """What a run on ``frames`` frames of ``size`` (H, W) may take.

        Args:
            fitted: it has a tracker.
            sides: whether whoever asks may choose another working size.

        Raises:
            InputError: it is expected to take more than the owner allows; says what would not.
        """
        height, width = size
        if min(fit_size(size, settings.max_side)) < LEAST_SIDE:
            raise InputError(
                f"The clip's frames are {width} x {height}, too narrow to be tracked: at a working size of "
                f"{settings.max_side} the shorter side has fewer than {LEAST_SIDE} pixels; crop the clip."
            )
        found = self.rates.estimate(settings, frames, size, fitted)
        if fits(found, self.limits):
            mib = max(1.5 * found.mib, found.mib + SLACK_MIB) * self.limits.runs
            return Bound(min(self.limits.seconds, max(GRACE, MARGIN * found.seconds)), mib)
        most = f"{seconds(self.limits.seconds)} and {memory_mib(self.limits) / 1024:.1f} GiB"
        raise InputError(
            f"This run would take about {seconds(found.seconds)} and {found.mib / 1024:.1f} GiB, more than the {most} "
            f"that this page has for one; {self._advice(settings, frames, size, sides)}."
        )

    def _advice(self, settings: Settings, frames: int, size: tuple[int, int], sides: bool) -> str:
        other = self.that_fits(settings, frames, size, sides)
        if other is None:
            return "a smaller clip is needed"
        named = changes(settings, other[0]) | ({"frames": other[1]} if other[1] != frames else {})
        return "it would fit with " + ", ".join(f"{name} {value}" for name, value in named.items())

    def that_fits(
        self, settings: Settings, frames: int, size: tuple[int, int], sides: bool
    ) -> tuple[Settings, int] | None:
        """The least changed settings and number of frames that fit, if any do; arguments as in ``bound``."""
        for kind, count in smaller(settings, frames, sides):
            wide = min(fit_size(size, kind.max_side)) >= LEAST_SIDE
            if wide and fits(self.rates.estimate(kind, count, size), self.limits):
                return kind, count
        return None

    def run(self, job: work.Job, bound: Bound, request: gr.Request, patience: float = 0.0) -> Run:
        """A run for whoever sent ``request``, still to be submitted; see ``Run`` for ``patience``."""
        token, path = self.archive.new()

        def begin(stopped: Callable[[], bool]) -> Steps[RunFolder]:
            run = yield from work.run(job, path, self.limits, self.stages())
            self.rates.learn(run.report, job.request.settings)
            return run

        return _asked(begin, bound, request, patience, token, job)

    def mending(
        self, run: RunFolder, ask: Callable[[RunFolder], Steps[RunFolder]], request: gr.Request, patience: float = 0.0
    ) -> Run:
        """The same for a correction of a finished run; see ``work.mend``."""
        frames, (height, width) = run.report["frames"], run.report["size"]
        bound = self.bound(run.request.settings, frames, (height, width), fitted=True)
        token, path = self.archive.new()
        return _asked(lambda _: work.mend(run, path, ask), bound, request, patience, token, work.job_of(run))

    def close(self, visit: Visit) -> None:
        """A visitor has gone, or has another clip: their folder is removed, or expires if a run still needs it."""
        if visit.folder is not None and not self.runs.uses(visit.folder):
            shutil.rmtree(visit.folder, ignore_errors=True)


def _asked(begin: Work, bound: Bound, request: gr.Request, *known: Any) -> Run:
    return Run(begin, bound, request.client.host if request.client else "unknown", str(request.session_hash), *known)


def listening() -> Callable[[], bool]:
    """Whether somebody still waits for the answer to the request that is being handled: a question to ask later."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None
    return lambda: event is None or event.alive


class Page(gr.Blocks):
    """A page whose every mistake, wherever it is found, is told in one sentence; tracebacks go to the log alone."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kw: Any) -> list[Any]:
        """See ``gr.Blocks``; what is left out at the end is the default, what is not of its kind a mistake."""
        inputs = [*inputs, *(component.value for component in block_fn.inputs[len(inputs) :])]
        for component, value in zip(block_fn.inputs, inputs, strict=False):
            _check_kind(component, value)
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kw)
        except gr.Error:
            raise
        except Exception as error:
            log.info("refused before it was read: %s", error)
            if isinstance(error.__cause__, Image.DecompressionBombError):
                most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
                raise InputError(f"The picture has more than {most:.0f} million pixels; make it smaller.") from error
            raise InputError(
                "What was given cannot be read: a file has to be whole and of a common kind, an address public and "
                "what it leads to no larger than an upload may be."
            ) from error

    async def process_api(self, block_fn: Any, *args: Any, **kw: Any) -> dict[str, Any]:
        """See ``gr.Blocks``."""
        try:
            return await super().process_api(block_fn, *args, **kw)
        except gr.Error:
            raise
        except InputError as error:
            known = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
            raise _told(in_words(error, known.api_visibility == "public")) from None
        except Exception as error:
            number = secrets.token_hex(4)
            log.exception("fault %s", number, exc_info=error)
            raise _told(
                f"Something went wrong on this side, not yours (fault {number}, which the owner of this page can look "
                "up); try again."
            ) from None


def _told(sentence: str) -> gr.Error:
    return gr.Error(sentence, duration=12, print_exception=False)


def in_words(error: InputError, endpoint: bool) -> str:
    """The sentence of an error for the page or for the endpoints, files by their names alone."""
    sentence = error.sentence((ENDPOINT_OPTIONS if endpoint else PAGE_OPTIONS).get)
    return re.sub(r"(?<![\w./:])/(?:[^/\s]+/)+", "", sentence)


def _check_kind(component: Any, value: Any) -> None:
    """Raise InputError for what no component of this kind would send."""
    if value is None:
        return
    if isinstance(component, gr.Number | gr.Slider):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{component.label} is {_shown(value)}; give a number.")
    elif isinstance(component, gr.Textbox):
        if not isinstance(value, str):
            raise InputError(f"{component.label} is {_shown(value)}; give a text.")
    elif isinstance(component, gr.Video | gr.Image):
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str):
            raise InputError(f"{component.label} is {_shown(value)}; give a file that was uploaded here.")
        uploads = Path(get_upload_folder()).resolve()
        if not path.startswith(("http://", "https://")) and not Path(path).resolve().is_relative_to(uploads):
            raise InputError(f"{component.label} is {_shown(path)}, which was not uploaded here; upload it first.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else text[:36] + "..."
