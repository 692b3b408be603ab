"""What the page does when something is clicked; every handler gets values and answers with updates of components."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from omnifusion.settings import PRESETS, choose
from omnifusion.state import Followed, InputError
from omnifusion.ui import given, gpu, work
from omnifusion.ui.archive import Request, Stored
from omnifusion.ui.examples import EXAMPLES
from omnifusion.ui.live import Live, message, seconds
from omnifusion.ui.panels import Choices
from omnifusion.ui.showing import Showing, Updates
from omnifusion.ui.visit import Visit

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


class Handlers(Showing):
    """The page's handlers; each method takes the visit first where it needs it."""

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
        live = Live()
        try:
            if not service.turns.begin(session):
                yield {self.watch.progress: message("Cancelled before it began.")}
                return
            asked = self.asked(visit, chosen)
            job = work.Job(visit.require_clip(), asked, visit.pictures, self._earlier(visit, asked))
            stopped = functools.partial(service.turns.stopping, session)
            steps = Followed(work.run(job, service.archive, service.limits, lambda: bool(stopped()), service.stages()))
            for step in steps:
                if (shown := live.show(step)) is not None:
                    yield self._live(shown)
                if stopped() == "drop":
                    return
            yield self._finish(visit, steps.result, request)
        finally:
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


def _ending(run: Stored) -> str:
    total = seconds(sum(stage["seconds"] for stage in run.report["stages"]))
    return f"Finished in {total}." if run.report["complete"] else "Stopped; what was coloured by then is shown below."
