"""A run on the page from the button to its end, whoever began it; and how it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import gradio as gr

from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder
from omnifusion.ui.live import Live, message, seconds
from omnifusion.ui.panels import CHOOSE
from omnifusion.ui.runs import Run
from omnifusion.ui.service import in_words, listening
from omnifusion.ui.showing import Showing, Updates, fold, link_to
from omnifusion.ui.visit import Visit


class Going(Showing):
    """The handlers of runs that go on."""

    async def going(self, visit: Visit, request: gr.Request, run: Run) -> AsyncGenerator[Updates, None]:
        """Submit a run and show it to its end: one event, for between chained ones an answer can be lost."""
        ahead = self.service.runs.submit(run, alone=True)
        said = f"{ahead} other run{'s' * (ahead > 1)} first; yours starts by itself." if ahead else "Starting."
        visit = replace(visit, going=run.token)
        yield {self.visit: visit, **self._going(run, said, request)}
        async with aclosing(self.follow(visit, request, run)) as rest:
            async for updates in rest:
                yield updates

    def _going(self, run: Run, said: str, request: gr.Request) -> Updates:
        """A run goes on: its link, and what can be done meanwhile."""
        assert run.job is not None
        asked = run.job.request
        return {
            self.start.progress: message(said),
            self.choose: fold(CHOOSE, f"{asked.settings.preset}, {asked.frames} frames", open=False),
            self.watch.film: gr.HTML(visible=False),
            self.watch.link: gr.Textbox(link_to(run.token, asked.settings, request), visible=True),
            self.start.run: gr.Button(interactive=False),
            self.start.cancel: gr.Button(visible=True, interactive=True),
        }

    async def follow(self, visit: Visit, request: gr.Request, run: Run | None = None) -> AsyncGenerator[Updates, None]:
        """Show the run that is waited for, whoever began it, to its end."""
        run, live, fault = run or self.service.runs.find(visit.going), Live(), None
        if run is not None:
            try:
                async with aclosing(run.follow(listening())) as steps:
                    async for step in steps:
                        if (shown := await asyncio.to_thread(live.show, step)) is not None:
                            yield self._live(shown)
            except InputError as error:
                run.why = in_words(error, endpoint=False)
            except Exception as error:
                fault = error
        yield await asyncio.to_thread(self._settled, visit, request, run)
        if fault is not None:
            raise fault

    def _settled(self, visit: Visit, request: gr.Request, run: Run | None) -> Updates:
        """After a run, however it ended, or where there was none to follow."""
        archive, why = self.service.archive, "" if run is None else run.why
        updates: Updates = {
            self.visit: replace(visit, going=""),
            self.start.run: gr.Button(interactive=True),
            self.start.cancel: gr.Button(visible=False),
        }
        if archive.has(visit.going):
            result, visit = archive.open(visit.going), visit.with_run(visit.going)
            done = message(f"{_ending(result)} {why}".strip())
            shown = {self.visit: visit, self.start.progress: done, **self._show(result, request), **self._lists(visit)}
            return updates | shown
        if visit.going:
            updates[self.watch.film] = gr.HTML(visible=True)
            updates[self.start.progress] = message(why or "Canceled before there was anything to keep.")
        return updates

    def _live(self, shown: dict[str, object]) -> Updates:
        caption, progress = shown.pop("caption", None), shown.pop("progress")
        updates: Updates = {self.start.progress: progress}
        updates |= {getattr(self.watch, name): value for name, value in shown.items()}
        if caption is not None:
            updates |= {self.watch.film: gr.HTML(visible=False), self.watch.box: gr.Accordion(open=True, visible=True)}
            for name in {"before", "mask", "after"} & shown.keys():
                updates[getattr(self.watch, name)] = gr.Image(shown[name], label=f"{name}: {caption}")
        if "tracks" in shown:
            updates[self.watch.tracks] = gr.Image(shown["tracks"], visible=True)
        return updates

    def cancel(self, visit: Visit) -> Updates:
        """Stop after the step that is going on, and keep what is done."""
        found = self.service.runs.cancel(visit.going)
        said = "Stopping; what is colored so far is kept." if found else "Nothing is running."
        return {self.start.progress: message(said), self.start.cancel: gr.Button(interactive=False)}

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.service.runs.leave(str(request.session_hash))


def _ending(run: RunFolder) -> str:
    if fixed := run.report.get("corrections"):
        return f"Fixed in {len(fixed[-1]['changed_frames'])} frames; nothing else has changed."
    total = seconds(sum(stage["seconds"] for stage in run.report["stages"]))
    return f"Finished in {total}." if run.report["complete"] else "Stopped; what was colored by then is shown below."
