"""A run: the bar that starts and stops it, always in sight; its progress; and its link."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from omnifusion.progress import Canceled, InputError
from omnifusion.run.folder import RunFolder, open_run
from omnifusion.ui import clip_tab, parts, settings_tab
from omnifusion.ui.jobs import Job
from omnifusion.ui.live import legend
from omnifusion.ui.parts import CHANGING, LATEST, QUIET, Running, Shared, Updates, message, picture, seconds
from omnifusion.ui.session import Visit, receive_run

POLL = 0.5
"""Seconds between updates of a run's progress."""

PENDING = (
    "You have painted over the result, and that is not applied yet. Press “Fix this” to apply it, or clear the paint "
    "and press Colorize to run the clip anew."
)
STOPPING = "Stopping; what is colored so far is kept."

SHOW_FILM = """() => {
  if (new URLSearchParams(location.search).has("run")) document.getElementById("show")?.scrollIntoView();
}"""
"""Scrolls to the film when the link of a run is opened."""


def build_bar(s: Shared) -> None:
    """Build the button, the estimate, and the status line."""
    with gr.Column(elem_id="bar"):
        with gr.Row():
            s.run = gr.Button("Colorize", variant="primary", size="lg", elem_id="run", min_width=140, scale=3)
            s.cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", min_width=80, scale=1)
            s.fit = gr.Button("Fit to this machine", visible=False, elem_id="fit", min_width=100, scale=1)
        s.estimate = gr.Markdown(elem_id="estimate", elem_classes="of-note")
        s.progress = gr.HTML(elem_id="progress")
        s.status = gr.HTML(message("Upload a clip, or click an example."), elem_id="status")
    s.timer = gr.Timer(POLL, active=False)


def build_show(s: Shared) -> None:
    """Build the link of a run, and its progress."""
    s.link = gr.Textbox(interactive=False, buttons=["copy"], elem_id="link", visible=False, max_lines=1)
    with gr.Column(visible=False, elem_id="live") as s.live:
        s.after = picture("after", "After this step", 200)
        with gr.Row(elem_classes="of-pictures"):
            s.before, s.fresh = picture("before", "Before", 120), picture("mask", "New colors", 120)
        s.coverage = gr.HTML(elem_id="coverage")


def link_to(token: str, asker: gr.Request) -> str:
    """The address of a run."""
    return f"{(asker.headers.get('referer') or '').partition('?')[0]}?run={token}"


def show_link(token: str, clip: str, asker: gr.Request) -> gr.Textbox:
    """The address of a run of a clip; nothing without a token."""
    label = f"Link to the run of {clip}. Save it, and you can close this page."
    return gr.Textbox(link_to(token, asker) if token else "", label=label, visible=bool(token))


def submit(s: Shared, job: Job, visit: Visit) -> Updates:
    """Submit a run of the page."""
    s.service.jobs.submit(job, alone=True)
    return {s.running: Running(job.token, visit.name)}


def wire(s: Shared) -> None:
    """Connect the handlers."""
    service, jobs, limits = s.service, s.service.jobs, s.service.limits
    controls = list(s.settings.values())

    def idle(yes: bool) -> Updates:
        """Enable or disable the start of another run."""
        return {
            **{button: gr.Button(interactive=yes) for button in (s.run, s.go, s.undo)},
            s.cancel: gr.Button(visible=not yes, interactive=True),
            s.timer: gr.Timer(active=not yes),
            s.progress: "",
        }

    def start(visit: Visit, runs: Any, scribbles: Any, fixes: Any, asker: gr.Request, *values: Any) -> Updates:
        """Start a run, with colors that were painted but not taken yet, too."""
        clip = visit.require()
        if parts.read_scribbles(fixes):
            raise InputError(PENDING)
        sentence = clip_tab.take_scribbles(clip, scribbles)
        painted = {**clip_tab.exemplars(s, visit), s.brush: gr.HTML({}), s.spread: None} if sentence else {}
        request = settings_tab.read(s, clip, values)
        exemplars = {frame: clip.exemplars[frame] for frame in request.exemplars}
        reuse = [service.store.folder / token for token in runs]
        job = service.color(clip.file, clip.size, request, exemplars, asker, page=True, reuse=reuse)
        return {**submit(s, job, visit), **painted, s.status: message(sentence)}

    def begun(running: Running, visit: Visit, asker: gr.Request) -> Updates:
        """Update the page after a run has begun, or the one it waited for has ended."""
        if not running.token:
            return idle(True)
        job = jobs.find(running.token)
        own_clip = running.clip == visit.name and not (job and job.parent)
        return {
            **idle(False),
            s.step3: gr.Accordion(open=False),
            s.link: show_link(running.token, job.name if job else "this clip", asker),
            **({s.display: parts.CLIP + running.clip} if own_clip else {}),
        }

    def poll(running: Running, visit: Visit, runs: Any, step: int, asker: gr.Request) -> Updates:
        job, mine = jobs.find(running.token), visit.name == running.clip
        if job is None or job.result.done():
            return ended(running, job, runs, mine, asker)
        job.look()
        name, live, others = "" if mine else f"{job.name}: ", job.live, jobs.unfinished()
        if not job.began and (ahead := others.index(job) if job in others else 0):
            waiting = f"{ahead} run{'s' * (ahead > 1)} ahead of yours; it starts automatically."
            return {s.progress: message(name + waiting)}
        if job.stopped:
            return {s.progress: message(name + STOPPING)}
        updates: Updates = {s.step: live.number, s.progress: live.html(name)}
        pictures = live.pictures() if mine and live.number != step else {}
        if pictures:
            updates |= {s.live: gr.Column(visible=True), s.coverage: legend(live.shares)}
            updates |= {s.before: pictures.get("before"), s.fresh: pictures.get("mask")}
            updates[s.after] = gr.Image(pictures.get("after"), label=f"After this step: {live.caption}")
        return updates

    def ended(running: Running, job: Job | None, runs: Any, mine: bool, asker: gr.Request) -> Updates:
        updates: Updates = {s.running: Running(), s.live: gr.Column(visible=False), **idle(True)}
        if not service.store.has(running.token):
            why = (job and job.why) or "The run was canceled before anything was colored."
            if job and job.error and not isinstance(job.error, Canceled):
                why = parts.in_words(job.error)
            return {**updates, s.link: show_link("", "", asker), s.status: message(why, "alert")}
        run = service.store.open(running.token)
        updates[s.runs] = (*(token for token in runs if token != run.token), run.token)
        if mine:
            sentence = f"{_ending(run.report)} {job.why if job else ''}".strip()
            return {**updates, s.display: run.token, s.status: message(sentence)}
        anchor = f'<a href="{escape(link_to(run.token, asker))}" target="_blank">Open its result</a>'
        return {**updates, s.status: message(f"{escape(run.request.name)} is finished. {anchor}", escaped=True)}

    def cancel(running: Running) -> Updates:
        """Stop after the current step, and keep what is done."""
        if (job := jobs.find(running.token)) is not None:
            job.stop(keep=True)
        return {s.cancel: gr.Button(interactive=False), s.progress: message(STOPPING)}

    def open_link(visit: Visit, asker: gr.Request) -> Updates:
        """Show the run of the link, if any, by which the page was opened; it may still be at work."""
        token = str(dict(asker.query_params or {}).get("run", ""))
        if not token:
            return {s.display: parts.EXAMPLES[0].name}
        job = jobs.find(token)
        if job is None or job.result.done():
            run = service.store.open(token)
            return {**give(visit, run), s.display: token, s.runs: (token,), s.status: message(_ending(run.report))}
        run = service.store.open(job.parent) if job.parent else open_run(job.folder)
        return {**give(visit, run), s.running: Running(token, visit.name), s.status: message("Still running.")}

    def give(visit: Visit, run: RunFolder) -> Updates:
        visit.exchange(receive_run(run, limits, service.store.visits))
        frames = run.request.frames or limits.frames
        return {**clip_tab.view(s, visit, frames), **settings_tab.restore(s, run.request)}

    bar = [s.run, s.go, s.undo, s.cancel, s.timer, s.progress, s.link, s.display]
    live = [s.live, s.before, s.fresh, s.after, s.coverage]
    polled = [*bar, *live, s.running, s.runs, s.step]
    s.taking(s.run.click, start, [s.visit, s.runs, s.brush, s.fixbrush, *controls], [s.running, *s.tied])
    s.on(s.running.change, begun, [s.running, s.visit], [*bar, s.step3], **CHANGING)
    s.on(s.timer.tick, poll, [s.running, s.visit, s.runs, s.step], polled, **CHANGING)
    s.on(s.cancel.click, cancel, [s.running], [s.cancel, s.progress], **LATEST)
    opened = s.taking(s.page.load, open_link, [s.visit], [*s.steps, *controls, s.running, s.display, s.runs])
    opened.then(None, js=SHOW_FILM, **QUIET)
    s.link.change(None, s.link, js="link => showAddress(link)", **QUIET)


def _ending(report: dict[str, Any]) -> str:
    """The outcome of a run, in a sentence."""
    if corrections := report.get("corrections"):
        return f"Fixed in {len(corrections[-1]['changed_frames'])} frames; all other pixels are unchanged."
    total = seconds(sum(stage["seconds"] for stage in report["stages"]))
    return f"Finished in {total}." if report["complete"] else "Stopped. What was colored so far is kept."
