"""Corrections of a finished run, from scribbles or a picture that covers part of a frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from omnifusion.correction.history import Correction, correct_run, corrections, undo
from omnifusion.correction.suggest import drawn, suggest, uncertainty
from omnifusion.progress import Step, Steps
from omnifusion.run.folder import RunFolder
from omnifusion.ui import paint
from omnifusion.ui.going import Going
from omnifusion.ui.runs import Run
from omnifusion.ui.showing import Updates
from omnifusion.ui.visit import Visit
from omnifusion.ui.work import job_of
from omnifusion.video import read_image

HINT = "Paint over what is wrong, in any frame: all that shows the same thing changes with it, nothing else does."
SHIPPED = (
    "This example was colored beforehand and ships without what a fix needs, where each color came from. Color it "
    "here, within seconds; then paint over what is wrong."
)


class Mending(Going):
    """The handlers of "fix this"."""

    def _show(self, run: RunFolder, request: gr.Request) -> Updates:
        ours, last = self.service.archive.has(run.token), run.report["frames"] - 1
        return super()._show(run, request) | {
            self.fix.box: gr.Accordion(visible=run.can_correct or not ours),
            self.fix.hint: HINT if ours else SHIPPED,
            self.fix.anew: gr.Button(visible=not ours),
            self.fix.tools: gr.Column(visible=ours),
            self.fix.places: gr.Gallery(None, visible=False),
            self.fix.frame: gr.Slider(maximum=max(1, last), value=0, interactive=last > 0),
            self.fix.undo: gr.Button(visible=bool(corrections(run))),
            **self._over(run, 0),
        }

    def _over(self, run: RunFolder, frame: int) -> Updates:
        picture = run.frame(frame)
        brush = paint.on_picture(picture, paint.inks_of(picture))
        return {self.fix.brush: brush, self.fix.spread: None, self.fix.picture: None}

    def seek_fix(self, visit: Visit, frame: int) -> Updates:
        """Another frame is to be painted over."""
        return self._over(self._run_of(visit.token), int(frame)) if visit.token else {self.fix.spread: None}

    def preview_fix(self, visit: Visit, frame: int, scribbles: Any) -> np.ndarray | None:
        """A stroke was drawn: what the frame would become."""
        return paint.shown(self._run_of(visit.token).frame(int(frame)), paint.read_scribbles(scribbles))

    def advise(self, visit: Visit) -> Updates:
        """Where would another frame, or a stroke, help most?"""
        run = self._run_of(visit.token)
        h, w = run.report["working_size"]
        state = run.state(torch.zeros(run.report["frames"], 1, h, w))
        found, doubts = suggest(state), uncertainty(state)
        if not found:
            return {self.fix.hint: "Every frame has an exemplar: nothing is left to ask for."}
        said = ", then ".join(f"frame {told.frame} would settle {told.share:.0%}" for told in found)
        shown = [
            (_placed(run.frame(told.frame), doubts[told.frame], told.region), f"frame {told.frame}") for told in found
        ]
        return {
            self.visit: replace(visit, advised=tuple(told.frame for told in found)),
            self.fix.hint: f"Of all that is doubtful (orange, mostly inside the lines) {said}. Click one to paint it.",
            self.fix.places: gr.Gallery(shown, visible=True),
            self.fix.frame: found[0].frame,
            **self._over(run, found[0].frame),
        }

    def pick(self, visit: Visit, event: gr.SelectData) -> Updates:
        """One of the frames that are worth coloring next was clicked."""
        frame = visit.advised[event.index]
        return {self.fix.frame: frame, **self._over(self._run_of(visit.token), frame)}

    async def color_anew(self, visit: Visit, request: gr.Request) -> AsyncIterator[Updates]:
        """Color an example that was colored beforehand, so that it can be fixed."""
        job = job_of(self._run_of(visit.token))
        report, settings = self._run_of(visit.token).report, job.request.settings
        bound = self.service.bound(settings, report["frames"], tuple(report["size"]))
        run = self.service.run(job, bound, request, self.service.limits.vanished)
        async for updates in self.going(visit, request, run):
            yield updates

    async def fix_it(
        self, visit: Visit, request: gr.Request, frame: int, scribbles: Any, path: str | None
    ) -> AsyncIterator[Updates]:
        """Correct the run that is shown; what comes of it is a run of its own."""
        patch = await asyncio.to_thread(self._patch, visit, int(frame), scribbles, path)
        ask = partial(correct_run, correction=Correction({int(frame): patch}))
        async for updates in self.going(visit, request, self._mending(visit, ask, request)):
            yield updates

    async def unfix(self, visit: Visit, request: gr.Request) -> AsyncIterator[Updates]:
        """Take the last correction back."""
        async for updates in self.going(visit, request, self._mending(visit, undone, request)):
            yield updates

    def _patch(self, visit: Visit, frame: int, scribbles: Any, path: str | None) -> np.ndarray:
        if path is not None:
            return read_image(Path(path), self.service.limits.pixels, alpha=True)
        picture = self._run_of(visit.token).frame(frame)
        return paint.patch(picture.transpose(2, 0, 1), paint.read_scribbles(scribbles), picture.shape[:2])

    def _mending(self, visit: Visit, ask: Callable[[RunFolder], Steps[RunFolder]], request: gr.Request) -> Run:
        return self.service.mending(self._run_of(visit.token), ask, request, self.service.limits.vanished)


def _placed(picture: np.ndarray, doubts: Tensor, region: Tensor) -> np.ndarray:
    """A frame ``(H, W, 3)`` uint8 with where it is doubtful."""
    return drawn(picture.transpose(2, 0, 1), doubts, region).transpose(1, 2, 0)


def undone(run: RunFolder) -> Steps[RunFolder]:
    """The run before its last correction."""
    yield Step("correct", "the last fix is taken back", 1.0)
    return undo(run)
