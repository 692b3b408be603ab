"""What the page does when something is clicked; every handler gets values and answers with updates of components."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import numpy as np

from omnifusion.presets import PRESETS, choose
from omnifusion.state import InputError
from omnifusion.ui import given, gpu, results, work
from omnifusion.ui.archive import Archive, Request, Stored
from omnifusion.ui.estimate import Rates
from omnifusion.ui.examples import EXAMPLES
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import Live, message, seconds
from omnifusion.ui.panels import Choices, Clip, Compare, Outcome, Start, Watch
from omnifusion.ui.visit import Turns, Visit

Updates = dict[Any, Any]
SETTINGS = (
    "prior",
    "max_side",
    "seed",
    "eta",
    "steps",
    "optimizations",
    "prompt",
    "color_condition",
    "grey_constraint",
)
"""The choices that are fields of ``Settings``; beside them there are preset, frames and force."""

log = logging.getLogger(__name__)


def toast(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what goes wrong into a short message on the page; the traceback goes to the log, never to the visitor."""

    def explain(error: Exception) -> gr.Error:
        if isinstance(error, InputError):
            return gr.Error(given.for_page(str(error)), duration=12, print_exception=False)
        log.exception("%s failed", handler.__name__, exc_info=error)
        return gr.Error("Something went wrong on this side, not yours; try again.", duration=12, print_exception=False)

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def steps(*args: Any, **kw: Any) -> Iterator[Any]:
            try:
                yield from handler(*args, **kw)
            except gr.Error:
                raise
            except Exception as error:
                raise explain(error) from None

        return steps

    @functools.wraps(handler)
    def call(*args: Any, **kw: Any) -> Any:
        try:
            return handler(*args, **kw)
        except gr.Error:
            raise
        except Exception as error:
            raise explain(error) from None

    return call


@dataclass(frozen=True)
class Service:
    """What all visitors share."""

    limits: Limits
    archive: Archive
    rates: Rates
    turns: Turns
    stages: Callable[[], Any]

    @property
    def visits(self) -> Path:
        """The visitors' folders."""
        return self.archive.folder / "visits"


@dataclass(frozen=True)
class Handlers:
    """The page's handlers; each method takes the visit first where it needs it."""

    service: Service
    clip: Clip
    choices: Choices
    start: Start
    watch: Watch
    outcome: Outcome
    compare: Compare
    visit: gr.State

    # -- the clip and its exemplars

    def upload(self, visit: Visit, path: str | None, *chosen: Any) -> Updates:
        """A clip was given, or taken away."""
        if path is None:
            visit.close()
            return {self.visit: Visit(runs=visit.runs, token=visit.token), **self._clip_view(Visit(), *chosen)}
        visit, notes = given.receive_file(visit, Path(path), self.service.limits, self.service.visits)
        return {self.visit: visit, self.clip.notes: "\n\n".join(notes), **self._clip_view(visit, *chosen)}

    def example(self, visit: Visit, event: gr.SelectData, request: gr.Request, *chosen: Any) -> Updates:
        """An example was clicked: its clip, and its finished result."""
        example = EXAMPLES[event.index]
        visit, notes = given.receive_file(visit, example.clip, self.service.limits, self.service.visits, example.title)
        updates = {self.clip.clip: str(example.clip), self.clip.notes: "\n\n".join(notes)}
        if (stored := example.result) is not None:
            visit = replace(visit, token=example.name)
            updates |= self.restore(stored, visit) | self._show(stored, request)
            updates[self.watch.progress] = message("Finished beforehand; colour it yourself with the button.")
            chosen = self._chosen(stored)
        return {**self._clip_view(visit, *chosen), **updates, self.visit: visit}

    def _clip_view(self, visit: Visit, *chosen: Any) -> Updates:
        there = visit.clip is not None
        return {
            self.clip.frame: gr.Slider(maximum=max(1, visit.frames - 1), value=0, interactive=visit.frames > 1),
            self.clip.preview: visit.preview(0) if there else None,
            self.clip.picture: None,
            self.clip.own: gr.Button(visible=visit.color),
            **self._pictures(visit),
            self.choices.frames: gr.Slider(
                maximum=max(1, visit.frames) if there else self.service.limits.frames,
                value=min(int(chosen[2] or 1), visit.frames) if there else chosen[2],
            ),
            self.start.again: gr.Button(visible=False),
            **self.estimate(visit, *chosen),
        }

    def _pictures(self, visit: Visit) -> Updates:
        tied = [(str(path), f"frame {frame}") for frame, path in sorted(visit.pictures.items())]
        return {
            self.clip.pictures: gr.Gallery(tied, visible=bool(tied)),
            self.clip.forget: gr.Button(visible=bool(tied)),
        }

    def seek(self, visit: Visit, frame: int) -> np.ndarray | None:
        """The slider under the clip was moved."""
        return visit.preview(int(frame)) if visit.clip is not None else None

    def add_picture(self, visit: Visit, frame: int, path: str | None, force: bool) -> Updates:
        """A coloured picture was given for the frame on the slider."""
        if path is None:
            return {self.visit: visit}
        visit, note = given.tie(visit, int(frame), Path(path), self.service.limits, force)
        return {self.visit: visit, self.clip.notes: note, self.clip.picture: None, **self._pictures(visit)}

    def own_picture(self, visit: Visit, frame: int) -> Updates:
        """The clip's own colours serve as exemplar."""
        visit, note = given.tie_own(visit, int(frame), self.service.limits)
        return {self.visit: visit, self.clip.notes: note, **self._pictures(visit)}

    def forget_pictures(self, visit: Visit) -> Updates:
        """All exemplars are dropped."""
        visit = replace(visit, pictures={})
        return {self.visit: visit, self.clip.notes: "", **self._pictures(visit)}

    # -- choices and their price

    def preset(self, name: str) -> Updates:
        """A preset brings its own values."""
        settings = PRESETS[name]
        return {
            getattr(self.choices, field): getattr(settings, field)
            for field in ("max_side", "eta", "steps", "optimizations")
        }

    def asked(self, visit: Visit, chosen: tuple[Any, ...]) -> Request:
        """What was asked; ``chosen`` are the values of the choices in their order."""
        values = dict(zip((f for f in Choices.__dataclass_fields__), chosen, strict=True))
        gpu.check_prior(values["prior"])
        settings = choose(values["preset"], **{name: values[name] for name in SETTINGS})
        return Request(
            visit.name, settings, int(values["frames"]), tuple(sorted(visit.pictures)), bool(values["force"])
        )

    def estimate(self, visit: Visit, *chosen: Any) -> Updates:
        """What the run would cost."""
        if visit.clip is None:
            return {self.start.estimate: "", self.start.fit: gr.Button(visible=False)}
        request = self.asked(visit, chosen)
        fitted = any(work.same_fit(run.request, request) for run in self._runs(visit) if run.request.name == visit.name)
        found = self.service.rates.estimate(
            request.settings, min(request.frames or 1, visit.frames), visit.size, fitted
        )
        line = f"About **{seconds(found.seconds)}** and {found.mib / 1024:.1f} GiB of {found.free_mib / 1024:.1f} free."
        if not found.fits:
            line += " That is more than this machine should be asked for: trim or shrink it."
        return {self.start.estimate: line, self.start.fit: gr.Button(visible=not found.fits)}

    def fit(self, visit: Visit, *chosen: Any) -> Updates:
        """Fewer frames, then a smaller working size, until the run fits."""
        values = list(chosen)
        while True:
            request = self.asked(visit, tuple(values))
            found = self.service.rates.estimate(request.settings, min(request.frames or 1, visit.frames), visit.size)
            if found.fits or (values[2] <= 8 and values[3] <= 128):
                break
            if values[2] > 16 or values[3] <= 128:
                values[2] = max(8, int(values[2] * 0.75))
            else:
                values[3] = max(128, int(values[3] * 0.8) // 16 * 16)
        return {self.choices.frames: values[2], self.choices.max_side: values[3], **self.estimate(visit, *values)}

    # -- a run

    def queue(self, visit: Visit, request: gr.Request) -> Updates:
        """Before the run's turn comes."""
        visit.require_clip()
        ahead = self.service.turns.announce(str(request.session_hash))
        others = f"{ahead} other run{'s' if ahead > 1 else ''} first; yours starts by itself."
        shown = {
            self.watch.progress: message(others if ahead else "Starting."),
            self.outcome.box: gr.Column(visible=False),
        }
        return {**shown, **self._busy(True)}

    def _busy(self, busy: bool, again: bool = False) -> Updates:
        return {
            self.start.run: gr.Button(interactive=not busy),
            self.start.again: gr.Button(interactive=not busy, visible=True)
            if busy or again
            else gr.Button(interactive=True),
            self.start.cancel: gr.Button(interactive=busy),
        }

    def run(self, visit: Visit, request: gr.Request, *chosen: Any) -> Iterator[Updates]:
        """Colour the clip; its steps appear as they come."""
        service, session = self.service, str(request.session_hash)
        steps, live = None, Live()
        try:
            if not service.turns.begin(session):
                yield {self.watch.progress: message("Cancelled before it began.")}
                return
            asked = self.asked(visit, chosen)
            job = work.Job(visit.require_clip(), asked, visit.pictures, self._earlier(visit, asked))
            stopped = functools.partial(service.turns.stopping, session)
            steps = work.run(job, service.archive, service.limits, lambda: bool(stopped()), service.stages())
            while stopped() != "drop":
                if (shown := live.show(next(steps))) is not None:
                    yield self._live(shown)
        except StopIteration as stop:
            yield self._finish(visit, stop.value, request)
        finally:
            if steps is not None:
                steps.close()
            service.turns.end(session)

    def _earlier(self, visit: Visit, asked: Request) -> Stored | None:
        """A run of this visit whose tracker may serve again."""
        return next((run for run in reversed(self._runs(visit)) if work.same_fit(run.request, asked)), None)

    def _finish(self, visit: Visit, run: Stored, request: gr.Request) -> Updates:
        self.service.rates.learn(run.report, run.request.settings)
        visit = visit.with_run(run.token)
        shown = {self.visit: visit, self.watch.progress: message(_ending(run))}
        return {**shown, **self._show(run, request), **self._lists(visit)}

    def settle(self, visit: Visit) -> Updates:
        """After a run, however it ended."""
        return {self.outcome.box: gr.Column(visible=bool(visit.token)), **self._busy(False, again=True)}

    def _live(self, shown: dict[str, object]) -> Updates:
        caption = shown.pop("caption", None)
        updates: Updates = {self.watch.box: gr.Column(visible=True)}
        updates |= {getattr(self.watch, name): value for name, value in shown.items()}
        if caption is not None:
            for name in ("before", "mask", "after"):
                component = getattr(self.watch, name)
                updates[component] = gr.Image(updates[component], label=f"{name}: {caption}")
        return updates

    def cancel(self, request: gr.Request) -> Updates:
        """Stop after the step that is going on, and keep what is done."""
        found = self.service.turns.cancel(str(request.session_hash))
        return {
            self.watch.progress: message(
                "Stopping; what is coloured so far is kept." if found else "Nothing is running."
            ),
            self.start.cancel: gr.Button(interactive=False),
        }

    def leave(self, request: gr.Request) -> None:
        """The page was closed: the machine is for others now."""
        self.service.turns.leave(str(request.session_hash))

    # -- results

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

    def open_link(self, visit: Visit, request: gr.Request) -> Updates:
        """The page was opened, perhaps by a link to a run."""
        self.service.archive.expire()
        asked = dict(request.query_params or {})
        token = asked.get("run", "")
        if not token:
            return {self.visit: visit}
        try:
            run = self._run_of(token)
        except InputError as error:
            gr.Warning(str(error), duration=20)
            known = given.settings_of(asked)
            updates: Updates = {getattr(self.choices, name): value for name, value in known.items()}
            return {self.visit: visit, self.watch.progress: message(str(error)), **updates}
        visit, notes = given.receive_run(visit, run, self.service.limits, self.service.visits)
        chosen = self._chosen(run)
        return {
            **self._clip_view(visit, *chosen),
            **self.restore(run, visit),
            **self._show(run, request),
            **self._lists(visit),
            **self._busy(False, again=True),
            self.clip.clip: str(visit.clip),
            self.clip.notes: "\n\n".join(notes),
            self.watch.progress: message("Opened from a link."),
            self.visit: visit,
        }

    # -- comparing

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


def _ending(run: Stored) -> str:
    total = seconds(sum(stage["seconds"] for stage in run.report["stages"]))
    return f"Finished in {total}." if run.report["complete"] else "Stopped; what was coloured by then is shown below."


def _link(run: Stored, request: gr.Request) -> str:
    base = (request.headers.get("referer") or "").partition("?")[0]
    settings = run.request.settings
    known = {name: getattr(settings, name) for name in ("preset", "prior", "eta", "steps", "seed")}
    return f"{base}?{urlencode({'run': run.token, **known})}"
