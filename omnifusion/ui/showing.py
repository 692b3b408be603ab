"""Finished runs on the page: the result, its browser, the comparison, and the choices that a run brings back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from omnifusion.state import InputError
from omnifusion.ui import results
from omnifusion.ui.archive import Stored
from omnifusion.ui.examples import EXAMPLES
from omnifusion.ui.panels import Choices, Clip, Compare, Outcome, Start, Watch
from omnifusion.ui.service import Service
from omnifusion.ui.visit import Visit

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Showing:
    """The panels, and the handlers that show finished runs in them."""

    service: Service
    clip: Clip
    choices: Choices
    start: Start
    watch: Watch
    outcome: Outcome
    compare: Compare
    visit: gr.State

    def _show(self, run: Stored, request: gr.Request) -> Updates:
        last, rounds = run.report["frames"] - 1, len(run.report["iterations"]) - 1
        frame = min(last, max(1, last // 2))
        outcome = self.outcome
        return {
            outcome.box: gr.Column(visible=True),
            outcome.heading: results.heading(run),
            outcome.colorized: str(run.folder / "colorized.mp4"),
            outcome.origin: str(run.folder / "origin.mp4"),
            outcome.frame: gr.Slider(maximum=max(1, last), value=frame, interactive=last > 0),
            outcome.iteration: gr.Slider(maximum=max(1, rounds), value=max(0, rounds), interactive=rounds > 0),
            outcome.stages: [[s["name"], s["seconds"], s["peak_mib"]] for s in run.report["stages"]],
            outcome.scores: results.scores(run.report),
            outcome.files: results.files(run),
            outcome.link: _link(run, request),
            **self._browse(run, frame, rounds),
        }

    def _browse(self, run: Stored, frame: int, iteration: int) -> Updates:
        then, where, parts = results.at_iteration(run, frame, iteration)
        outcome = self.outcome
        return {
            outcome.slider: results.pair(run, frame),
            outcome.then: then,
            outcome.where: where,
            outcome.parts: parts,
        }

    def _run_of(self, token: str) -> Stored:
        for example in EXAMPLES:
            if token == example.name and example.result is not None:
                return example.result
        return self.service.archive.open(token)

    def _runs(self, visit: Visit) -> list[Stored]:
        return [self.service.archive.open(token) for token in visit.runs if self.service.archive.has(token)]

    def browse(self, visit: Visit, frame: int, iteration: int) -> Updates:
        """A slider of the result was moved."""
        return (
            self._browse(self._run_of(visit.token), int(frame), int(iteration))
            if visit.token
            else {self.outcome.parts: ""}
        )

    def restore(self, run: Stored, visit: Visit) -> Updates:
        """The choices of a run, for the visitor's clip."""
        updates = dict(zip(self.choices.all(), self._chosen(run), strict=True))
        updates[self.choices.frames] = gr.Slider(maximum=max(1, visit.frames), value=run.report["frames"])
        return updates

    def _chosen(self, run: Stored) -> tuple[Any, ...]:
        """A run's choices in their order."""
        known = asdict(run.request.settings) | {"frames": run.report["frames"], "force": run.request.force}
        return tuple(known[name] for name in Choices.__dataclass_fields__)

    def _lists(self, visit: Visit) -> Updates:
        runs = self._runs(visit)
        found = results.choices(runs)
        right, left = (runs[-1].token if runs else None), (runs[-2].token if len(runs) > 1 else None)
        if left is None and found:
            left = next((name for _, name in found if name.endswith(results.TRUTH)), f"{right}/{results.GREY}")
        frames = max((run.report["frames"] for run in runs), default=2)
        return {
            self.compare.left: gr.Dropdown(found, value=left),
            self.compare.right: gr.Dropdown(found, value=right),
            self.compare.frame: gr.Slider(maximum=max(1, frames - 1), value=frames // 2),
            self.compare.table: {"headers": results.HEADERS, "data": results.table(runs)},
        }

    def side_by_side(self, visit: Visit, left: str | None, right: str | None, frame: int) -> Updates:
        """Another pair or frame was chosen."""
        if not left or not right:
            return {self.compare.slider: None}
        pictures = []
        for name in (left, right):
            token, _, what = name.partition("/")
            pictures.append(results.compared(self._run_of(token), what, int(frame), self.service.limits))
        height, width = pictures[0].shape[:2]
        if pictures[1].shape[:2] != (height, width):
            raise InputError("These two results have frames of different sizes; compare runs on the same clip.")
        runs = self._runs(visit)
        table = {"headers": results.HEADERS, "data": results.table(runs)}
        return {self.compare.slider: (pictures[0], pictures[1]), self.compare.table: table}


def _link(run: Stored, request: gr.Request) -> str:
    base = (request.headers.get("referer") or "").partition("?")[0]
    settings = run.request.settings
    known = {name: getattr(settings, name) for name in ("preset", "prior", "eta", "steps", "seed")}
    return f"{base}?{urlencode({'run': run.token, **known})}"
