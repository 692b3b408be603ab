"""Finished runs on the page: the result, its browser, the comparison, and the choices that a run brings back."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from omnifusion.correction.finishing import export_chroma
from omnifusion.progress import InputError, run_to_end
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.settings import PRESETS, Settings
from omnifusion.ui import gpu, results
from omnifusion.ui.assets import EXAMPLES
from omnifusion.ui.panels import Panel
from omnifusion.ui.service import Service
from omnifusion.ui.visit import Visit

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Showing:
    """The panels, and the handlers that show finished runs in them."""

    service: Service
    clip: Panel
    choices: dict[str, Any]
    start: Panel
    watch: Panel
    outcome: Panel
    compare: Panel
    fix: Panel
    choose: gr.Accordion
    visit: gr.State

    def named(self, chosen: tuple[Any, ...]) -> dict[str, Any]:
        """The values of the choices by name."""
        return dict(zip(self.choices, chosen, strict=True))

    def asked(self, visit: Visit, chosen: tuple[Any, ...]) -> RunRequest:
        """What was asked."""
        values = self.named(chosen)
        settings = Settings.from_mapping(values)
        gpu.check_prior(settings.prior)
        frames = max(1, min(int(values["frames"] or 1), visit.frames))
        return RunRequest(visit.name, settings, frames, tuple(sorted(visit.pictures)), bool(values["force"]))

    def _show(self, run: RunFolder, request: gr.Request) -> Updates:
        last, rounds = run.report["frames"] - 1, len(run.report["iterations"]) - 1
        frame = min(last, max(1, last // 2))
        outcome = self.outcome
        return {
            outcome.box: gr.Column(visible=True),
            outcome.heading: results.heading(run),
            self.watch.film: gr.HTML(results.film(run), visible=True),
            self.watch.box: gr.Accordion(open=False),
            outcome.frame: gr.Slider(maximum=max(1, last), value=frame, interactive=last > 0),
            outcome.iteration: gr.Slider(maximum=max(1, rounds), value=max(0, rounds), interactive=rounds > 0),
            outcome.stages: [[s["name"], s["seconds"], s["peak_mib"]] for s in run.report["stages"]],
            outcome.scores: results.scores(run.report),
            outcome.files: results.files(run),
            outcome.chroma: gr.Button(visible=run.can_correct),
            self.watch.link: gr.Textbox(
                link_to(run.token, run.request.settings, request), visible=self.service.archive.has(run.token)
            ),
            **self._browse(run, frame, rounds),
        }

    def _browse(self, run: RunFolder, frame: int, iteration: int) -> Updates:
        then, where, parts = results.at_iteration(run, frame, iteration)
        sure = results.doubt(run, frame)
        outcome = self.outcome
        return {
            outcome.slider: results.pair(run, frame),
            outcome.then: then,
            outcome.where: where,
            outcome.doubt: gr.Image(sure, visible=sure is not None),
            outcome.parts: parts,
        }

    def _run_of(self, token: str) -> RunFolder:
        for example in EXAMPLES:
            if token == example.name and example.result is not None:
                return example.result
        return self.service.archive.open(token)

    def _runs(self, visit: Visit) -> list[RunFolder]:
        return [self.service.archive.open(token) for token in visit.runs if self.service.archive.has(token)]

    def browse(self, visit: Visit, frame: int, iteration: int) -> Updates:
        """A slider of the result was moved."""
        return (
            self._browse(self._run_of(visit.token), int(frame), int(iteration))
            if visit.token
            else {self.outcome.parts: ""}
        )

    def chroma(self, visit: Visit) -> Updates:
        """The result's chroma alone is wanted; the film is made when first asked for, and kept."""
        run = self._run_of(visit.token)
        film = run.folder / results.CHROMA
        if not film.is_file():
            with self.service.runs.beside():
                run_to_end(export_chroma(run, film))
        return {self.outcome.files: results.files(run)}

    def restore(self, visit: Visit, asked: RunRequest) -> Updates:
        """The choices of a run, for the visitor's clip."""
        updates: Updates = dict(zip(self.choices.values(), self._values(asked), strict=True))
        frames = min(asked.frames or visit.frames, visit.frames)
        return updates | {self.choices["frames"]: gr.Slider(maximum=max(1, visit.frames), value=frames)}

    def _values(self, asked: RunRequest) -> tuple[Any, ...]:
        """A run's choices, in the order of the page's controls."""
        known = asdict(asked.settings) | {"frames": asked.frames or self.service.limits.frames, "force": asked.force}
        return tuple(known[name] for name in self.choices)

    def _lists(self, visit: Visit) -> Updates:
        runs = self._runs(visit)
        found = results.choices(runs)
        right, left = (runs[-1].token if runs else None), (runs[-2].token if len(runs) > 1 else None)
        if left is None and found:
            left = next((name for _, name in found if name.endswith(results.TRUTH)), f"{right}/{results.GRAY}")
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
            run = self._run_of(token)
            with nullcontext() if results.is_made(run, what) else self.service.runs.beside():
                pictures.append(results.compared(run, what, int(frame), self.service.limits))
        height, width = pictures[0].shape[:2]
        if pictures[1].shape[:2] != (height, width):
            raise InputError("These two results have frames of different sizes; compare runs on the same clip.")
        runs = self._runs(visit)
        table = {"headers": results.HEADERS, "data": results.table(runs)}
        return {self.compare.slider: (pictures[0], pictures[1]), self.compare.table: table}


def link_to(token: str, settings: Settings, request: gr.Request) -> str:
    """The address of a run, with the choices that are not the preset's own."""
    base = (request.headers.get("referer") or "").partition("?")[0]
    usual = asdict(PRESETS[settings.preset])
    known = {name: value for name, value in asdict(settings).items() if name == "preset" or value != usual[name]}
    return f"{base}?{urlencode({'run': token, **known})}"


def fold(title: str, done: object, open: bool) -> gr.Accordion:
    """A step's fold; its title says what was done in it."""
    return gr.Accordion(label=f"{title}: {done}" if done else title, open=open)
