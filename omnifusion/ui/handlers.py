"""What the page does when something is clicked; every handler gets values and answers with updates of components."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from omnifusion.settings import CHOICES, Settings
from omnifusion.state import InputError
from omnifusion.store import Request, Stored
from omnifusion.ui import gpu, work
from omnifusion.ui.assets import EXAMPLES
from omnifusion.ui.estimate import fits, memory_mib
from omnifusion.ui.live import Live, message, seconds
from omnifusion.ui.service import listening
from omnifusion.ui.showing import Showing, Updates, chosen_of
from omnifusion.ui.visit import Visit, receive_file, receive_run, tie, tie_own


class Handlers(Showing):
    """The page's handlers; each method takes the visit first where it needs it."""

    # -- the clip and its exemplars

    def upload(self, visit: Visit, path: str | None, *chosen: Any) -> Updates:
        """A clip was given, or taken away."""
        if path is None:
            visit.close()
            return {self.visit: Visit(runs=visit.runs, token=visit.token), **self._clip_view(Visit(), *chosen)}
        visit, notes = receive_file(visit, Path(path), self.service.limits, self.service.visits)
        return {self.visit: visit, self.clip.notes: "\n\n".join(notes), **self._clip_view(visit, *chosen)}

    def example(self, visit: Visit, event: gr.SelectData, request: gr.Request, *chosen: Any) -> Updates:
        """An example was clicked: its clip, and its finished result."""
        example = EXAMPLES[event.index]
        visit, notes = receive_file(visit, example.clip, self.service.limits, self.service.visits, example.title)
        updates = {self.clip.clip: str(example.clip), self.clip.notes: "\n\n".join(notes)}
        if (stored := example.result) is not None:
            visit = replace(visit, token=example.name)
            updates |= self.restore(stored, visit) | self._show(stored, request)
            updates[self.watch.progress] = message("Finished beforehand; colour it yourself with the button.")
            chosen = tuple(chosen_of(stored)[name] for name in self.choices)
        return {**self._clip_view(visit, *chosen), **updates, self.visit: visit}

    def _clip_view(self, visit: Visit, *chosen: Any) -> Updates:
        there, frames = visit.clip is not None, self.named(chosen)["frames"]
        return {
            self.clip.frame: gr.Slider(maximum=max(1, visit.frames - 1), value=0, interactive=visit.frames > 1),
            self.clip.preview: visit.preview(0) if there else None,
            self.clip.picture: None,
            self.clip.own: gr.Button(visible=visit.color),
            **self._pictures(visit),
            self.choices["frames"]: gr.Slider(
                maximum=max(1, visit.frames) if there else self.service.limits.frames,
                value=min(int(frames or 1), visit.frames) if there else frames,
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
        visit, note = tie(visit, int(frame), Path(path), self.service.limits, force)
        return {self.visit: visit, self.clip.notes: note, self.clip.picture: None, **self._pictures(visit)}

    def own_picture(self, visit: Visit, frame: int) -> Updates:
        """The clip's own colours serve as exemplar."""
        visit, note = tie_own(visit, int(frame))
        return {self.visit: visit, self.clip.notes: note, **self._pictures(visit)}

    def forget_pictures(self, visit: Visit) -> Updates:
        """All exemplars are dropped."""
        visit = replace(visit, pictures={})
        return {self.visit: visit, self.clip.notes: "", **self._pictures(visit)}

    # -- choices and their price

    def named(self, chosen: tuple[Any, ...]) -> dict[str, Any]:
        """The values of the choices by name."""
        return dict(zip(self.choices, chosen, strict=True))

    def preset(self, name: str) -> Updates:
        """A preset brings its own values."""
        known = {n: c.presets for n, c in CHOICES.items() if n != "preset" and len({*c.presets.values()}) > 1}
        return {self.choices[n]: presets[name] for n, presets in known.items()}

    def asked(self, visit: Visit, chosen: tuple[Any, ...]) -> Request:
        """What was asked."""
        values = self.named(chosen)
        settings = Settings.from_mapping(values)
        gpu.check_prior(settings.prior)
        frames = max(1, min(int(values["frames"] or 1), visit.frames))
        return Request(visit.name, settings, frames, tuple(sorted(visit.pictures)), bool(values["force"]))

    def estimate(self, visit: Visit, *chosen: Any) -> Updates:
        """What the run would cost."""
        if visit.clip is None:
            return {self.start.estimate: "", self.start.fit: gr.Button(visible=False)}
        asked, limits = self.asked(visit, chosen), self.service.limits
        fitted = self._earlier(visit, asked) is not None
        found = self.service.rates.estimate(asked.settings, asked.frames or 1, visit.size, fitted)
        most = memory_mib(limits) / 1024
        line = f"About **{seconds(found.seconds)}** and {found.mib / 1024:.1f} GiB of {most:.1f}."
        if not (fitting := fits(found, limits)):
            line += f" That is more than this machine gives a run ({seconds(limits.seconds)}): trim or shrink it."
        return {self.start.estimate: line, self.start.fit: gr.Button(visible=not fitting)}

    def fit(self, visit: Visit, *chosen: Any) -> Updates:
        """The least changed choices that fit."""
        asked = self.asked(visit, chosen)
        found = self.service.that_fits(asked.settings, asked.frames or 1, visit.size, sides=True)
        if found is None:
            raise InputError("No choice makes this clip fit this machine; give a smaller one.")
        values = self.named(chosen) | asdict(found[0]) | {"frames": found[1]}
        updates = {self.choices[name]: value for name, value in values.items()}
        return {**updates, **self.estimate(visit, *values.values())}

    # -- a run

    def queue(self, visit: Visit) -> Updates:
        """The button was pressed."""
        visit.require_clip()
        shown = {self.watch.progress: message("Starting."), self.outcome.box: gr.Column(visible=False)}
        return {**shown, **self._busy(True)}

    def _busy(self, busy: bool, again: bool = False) -> Updates:
        return {
            self.start.run: gr.Button(interactive=not busy),
            self.start.again: gr.Button(interactive=not busy, visible=True)
            if busy or again
            else gr.Button(interactive=True),
            self.start.cancel: gr.Button(interactive=busy),
        }

    async def run(self, visit: Visit, request: gr.Request, *chosen: Any) -> AsyncIterator[Updates]:
        """Colour the clip; its steps appear as they come."""
        asked = self.asked(visit, chosen)
        earlier = self._earlier(visit, asked)
        job = work.Job(visit.require_clip(), asked, visit.pictures, earlier)
        bound = self.service.bound(asked.settings, asked.frames or 1, visit.size, earlier is not None, sides=True)
        run, live = self.service.run(job, bound, request), Live()
        if ahead := self.service.runs.submit(run, alone=True):
            yield {self.watch.progress: message(f"{ahead} other run{'s' * (ahead > 1)} first; yours starts by itself.")}
        async with aclosing(run.follow(listening())) as steps:
            async for step in steps:
                if (shown := await asyncio.to_thread(live.show, step)) is not None:
                    yield self._live(shown)
        if run.result is None:
            yield {self.watch.progress: message(run.why or "Cancelled before there was anything to keep.")}
        else:
            yield await asyncio.to_thread(self._finish, visit, run.result, run.why, request)

    def _earlier(self, visit: Visit, asked: Request) -> Stored | None:
        """A run of this visit whose tracker may serve again."""
        return next((run for run in reversed(self._runs(visit)) if work.same_fit(run.request, asked)), None)

    def _finish(self, visit: Visit, run: Stored, why: str, request: gr.Request) -> Updates:
        visit = visit.with_run(run.token)
        shown = {self.visit: visit, self.watch.progress: message(f"{_ending(run)} {why}".strip())}
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
        found = self.service.runs.cancel(str(request.session_hash))
        return {
            self.watch.progress: message(
                "Stopping; what is coloured so far is kept." if found else "Nothing is running."
            ),
            self.start.cancel: gr.Button(interactive=False),
        }

    def leave(self, request: gr.Request) -> None:
        """The page was closed: the machine is for others now."""
        self.service.runs.leave(str(request.session_hash))

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
            updates = {self.choices[name]: value for name, value in _settings_in(asked).items()}
            return {self.visit: visit, self.watch.progress: message(str(error)), **updates}
        visit, notes = receive_run(visit, run, self.service.limits, self.service.visits)
        chosen = tuple(chosen_of(run)[name] for name in self.choices)
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


def _settings_in(link: Mapping[str, Any]) -> dict[str, Any]:
    """The choices that a link carries beside its run; none where one of them cannot be read."""
    try:
        return asdict(Settings.from_mapping(link))
    except InputError:
        return {}


def _ending(run: Stored) -> str:
    total = seconds(sum(stage["seconds"] for stage in run.report["stages"]))
    return f"Finished in {total}." if run.report["complete"] else "Stopped; what was coloured by then is shown below."
