"""What the page does when something is clicked; every handler gets values and answers with updates of components."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr

from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.settings import CHOICES, Settings
from omnifusion.ui import work
from omnifusion.ui.assets import EXAMPLES
from omnifusion.ui.estimate import fits, memory_mib
from omnifusion.ui.exemplars import Exemplars
from omnifusion.ui.live import message, seconds
from omnifusion.ui.mending import Mending
from omnifusion.ui.panels import CLIP
from omnifusion.ui.runs import Run
from omnifusion.ui.showing import Updates, fold
from omnifusion.ui.visit import Visit, receive_file, receive_job


class Handlers(Exemplars, Mending):
    """The page's handlers; each method takes the visit first where it needs it."""

    # -- the clip and its exemplars

    def upload(self, visit: Visit, path: str | None, *chosen: Any) -> Updates:
        """A clip was given, or taken away."""
        self.service.close(visit)
        if path is None:
            visit, notes = Visit(runs=visit.runs, token=visit.token), list[str]()
        else:
            visit, notes = receive_file(visit, Path(path), self.service.limits, self.service.visits)
        return {self.visit: visit, **self._clip_view(visit, notes, *chosen)}

    def example(self, visit: Visit, event: gr.SelectData, request: gr.Request, *chosen: Any) -> Updates:
        """An example was clicked: its clip, and its finished result."""
        example = EXAMPLES[event.index]
        self.service.close(visit)
        visit, notes = receive_file(visit, example.clip, self.service.limits, self.service.visits, example.title)
        updates: Updates = {self.clip.clip: str(example.clip)}
        if (stored := example.result) is not None:
            visit = replace(visit, token=example.name)
            updates |= self.restore(visit, stored.request) | self._show(stored, request)
            updates[self.start.progress] = message("Colored beforehand; color it yourself with the button.")
            chosen = self._values(stored.request)
        return {**self._clip_view(visit, notes, *chosen), **updates, self.visit: visit}

    def _clip_view(self, visit: Visit, notes: list[str], *chosen: Any) -> Updates:
        there, frames = visit.clip is not None, self.named(chosen)["frames"]
        return {
            self.clip.step: fold(CLIP, visit.name and f"{visit.name}, {visit.frames} frames", open=not there),
            self.clip.notes: "\n\n".join(notes),
            self.clip.frame: gr.Slider(maximum=max(1, visit.frames - 1), value=0, interactive=visit.frames > 1),
            self.clip.given: gr.Column(visible=there),
            **self.seek(visit, 0),
            self.clip.picture: None,
            self.clip.own: gr.Button(visible=visit.color),
            **self._pictures(visit),
            self.choices["frames"]: gr.Slider(
                maximum=max(1, visit.frames) if there else self.service.limits.frames,
                value=min(int(frames or 1), visit.frames) if there else frames,
            ),
            **self.estimate(visit, *chosen),
        }

    # -- choices and their price

    def preset(self, name: str) -> Updates:
        """A preset brings its own values."""
        known = {n: c.presets for n, c in CHOICES.items() if n != "preset" and len({*c.presets.values()}) > 1}
        return {self.choices[n]: presets[name] for n, presets in known.items()}

    def estimate(self, visit: Visit, *chosen: Any) -> Updates:
        """What the run would cost, and what each preset would."""
        if visit.clip is None:
            return {self.start.estimate: "", self.start.fit: gr.Button(visible=False)}
        asked, limits = self.asked(visit, chosen), self.service.limits
        fitted = self._earlier(visit, asked) is not None
        found = self.service.rates.estimate(asked.settings, asked.frames or 1, visit.size, fitted)
        most = memory_mib(limits) / 1024
        line = f"About **{seconds(found.seconds)}** and {found.mib / 1024:.1f} GiB of {most:.1f}."
        if not (fitting := fits(found, limits)):
            line += f" That is more than this machine gives a run ({seconds(limits.seconds)}): trim or shrink it."
        presets = self.service.rates.presets(asked.frames or 1, visit.size)
        return {
            self.start.estimate: line,
            self.start.fit: gr.Button(visible=not fitting),
            self.choices["preset"]: gr.Radio(presets, value=asked.settings.preset),
        }

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

    async def run(self, visit: Visit, request: gr.Request, *chosen: Any) -> AsyncIterator[Updates]:
        """The button was pressed."""
        run = await asyncio.to_thread(self._asked_run, visit, request, *chosen)
        async for updates in self.going(visit, request, run):
            yield updates

    def _asked_run(self, visit: Visit, request: gr.Request, *chosen: Any) -> Run:
        clip, asked = visit.require_clip(), self.asked(visit, chosen)
        earlier = self._earlier(visit, asked)
        job = work.Job(clip, asked, visit.pictures, earlier)
        bound = self.service.bound(asked.settings, asked.frames or 1, visit.size, earlier is not None, sides=True)
        return self.service.run(job, bound, request, self.service.limits.vanished)

    def _earlier(self, visit: Visit, asked: RunRequest) -> RunFolder | None:
        """A run of this visit whose tracker may serve again."""
        return next((run for run in reversed(self._runs(visit)) if work.same_fit(run.request, asked)), None)

    def open_link(self, visit: Visit, request: gr.Request) -> Updates:
        """The page was opened, perhaps by a link to a run, which may still be going on."""
        self.service.archive.expire()
        asked = dict(request.query_params or {})
        token = asked.get("run", "")
        run = self.service.runs.find(token)
        try:
            stored = None if run else self._run_of(token or EXAMPLES[0].name)
        except InputError as error:
            gr.Warning(str(error), duration=20)
            updates = {self.choices[name]: value for name, value in _settings_in(asked).items()}
            return {self.visit: visit, self.start.progress: message(str(error)), **updates}
        if stored is not None and not token:
            return {self.visit: replace(visit, token=EXAMPLES[0].name), **self._show(stored, request)}
        job = run.job if run is not None else work.job_of(stored) if stored is not None else None
        assert job is not None
        visit, notes = receive_job(visit, job, self.service.limits, self.service.visits)
        updates = {
            **self._clip_view(visit, notes, *self._values(job.request)),
            **self.restore(visit, job.request),
            self.clip.clip: str(visit.clip),
        }
        if run is not None:
            return {**updates, self.visit: replace(visit, going=token), **self._going(run, "Going on.", request)}
        assert stored is not None
        visit = visit.with_run(token)
        updates |= {**self._show(stored, request), **self._lists(visit)}
        return {**updates, self.visit: visit, self.start.progress: message("Opened from a link.")}


def _settings_in(link: Mapping[str, Any]) -> dict[str, Any]:
    """The choices that a link carries beside its run; none where one of them cannot be read."""
    try:
        return asdict(Settings.from_mapping(link))
    except InputError:
        return {}
