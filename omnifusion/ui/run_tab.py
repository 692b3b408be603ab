"""A run: the bar that starts and stops it, always in sight; its progress; and its link."""

from __future__ import annotations

from typing import Any

import gradio as gr

from omnifusion.progress import Canceled, InputError
from omnifusion.run.folder import open_run
from omnifusion.ui import clip_tab, parts, settings_tab
from omnifusion.ui.jobs import Job
from omnifusion.ui.parts import LATEST, QUIET, Shared, Updates, count, duration, message, seconds
from omnifusion.ui.store import Visit, VisitorClip

POLL = 0.5  # seconds between updates of a run's progress

PENDING = (
    "You have painted over the result, and that is not applied yet. Press “Fix this” to apply it, or clear the paint "
    "and press Colorize to run the clip anew."
)
STOPPING = "Stopping; what is colored so far is kept."


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
    """Build the link of a run, and its pictures while it is at work."""
    s.link = gr.Textbox(interactive=False, buttons=["copy"], elem_id="link", visible=False, max_lines=1)
    s.live = gr.HTML(elem_id="live")


def show_link(token: str, clip: str, asker: gr.Request) -> gr.Textbox:
    """The address of a run of a clip; nothing without a token."""
    label = f"Link to the run of {clip}. Save it, and you can close this page."
    page = (asker.headers.get("referer") or "").partition("?")[0]
    return gr.Textbox(f"{page}?run={token}" if token else "", label=label, visible=bool(token))


def submit(s: Shared, job: Job, clip: VisitorClip) -> Updates:
    """Submit a run of the page."""
    s.service.jobs.submit(job, alone=True)
    clip.runs.add(job.token)
    return {s.running: job.token}


def wire(s: Shared) -> None:
    """Connect the handlers."""
    service, jobs = s.service, s.service.jobs
    controls = list(s.settings.values())

    def idle(yes: bool) -> Updates:
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
        return {**submit(s, job, clip), **painted, s.status: message(sentence)}

    def begun(token: str, visit: Visit, asker: gr.Request) -> Updates:
        """Update the page after a run has begun, or the one it waited for has ended."""
        if not token:
            return idle(True)
        job = jobs.find(token)
        elsewhere = not visit.began(token) or (job is not None and job.parent)  # on another clip, or a fix
        return {
            **idle(False),
            s.step3: gr.Accordion(open=False),
            s.link: show_link(token, job.name if job else "this clip", asker),
            **({} if elsewhere else {s.display: parts.CLIP + visit.name}),
        }

    def poll(token: str, visit: Visit, runs: Any, step: int, asker: gr.Request) -> Updates:
        job, mine = jobs.find(token), visit.began(token)
        if job is None or job.result.done():
            return ended(token, job, runs, mine, asker)
        job.look()
        name, live, others = "" if mine else f"{job.name}: ", job.live, jobs.unfinished()
        if not job.began and (ahead := others.index(job) if job in others else 0):
            return {s.progress: message(f"{name}{count(ahead, 'run')} ahead of yours; it starts automatically.")}
        if job.stopped:
            return {s.progress: message(name + STOPPING)}
        pictures = {s.live: live.figures()} if mine and live.number != step else {}
        return {s.step: live.number, s.progress: live.progress(name), **pictures}

    def ended(token: str, job: Job | None, runs: Any, mine: bool, asker: gr.Request) -> Updates:
        updates: Updates = {s.running: "", s.live: "", **idle(True)}
        if not service.store.has(token):
            why = (job and job.why) or "The run was canceled before anything was colored."
            if job and job.error and not isinstance(job.error, Canceled):
                why = parts.in_words(job.error)
            return {**updates, s.link: show_link("", "", asker), s.status: message(why, "alert")}
        run = service.store.open(token)
        updates[s.runs] = (*(other for other in runs if other != token), token)
        if mine:
            sentence = f"{_ending(run.report)} {job.why if job else ''}".strip()
            return {**updates, s.display: token, s.status: message(sentence)}
        link = f' <a href="?run={token}" target="_blank">Open its result</a>'
        return {**updates, s.status: message(f"{run.request.name} is finished.", more=link)}

    def cancel(token: str) -> Updates:
        if (job := jobs.find(token)) is not None:
            job.stop(keep=True)
        return {s.cancel: gr.Button(interactive=False), s.progress: message(STOPPING)}

    def open_link(visit: Visit, asker: gr.Request) -> Updates:
        """Show the run of the link, if any, by which the page was opened; it may still be at work."""
        token = str(dict(asker.query_params or {}).get("run", ""))
        if not token:
            return {s.display: next(iter(parts.EXAMPLES))}
        job = jobs.find(token)
        if job is None or job.result.done():
            run = service.store.open(token)
            sentence = message(_ending(run.report))
            return {**clip_tab.take_run(s, visit, run), s.display: token, s.runs: (token,), s.status: sentence}
        run = service.store.open(job.parent) if job.parent else open_run(job.folder)
        updates = clip_tab.take_run(s, visit, run)
        visit.require().runs.add(token)
        return {**updates, s.running: token, s.status: message("Still running.")}

    bar = [s.run, s.go, s.undo, s.cancel, s.timer, s.progress, s.link, s.display]
    s.taking(s.run.click, start, [s.visit, s.runs, s.brush, s.fixbrush, *controls], [s.running, *s.tied])
    s.on(s.running.change, begun, [s.running, s.visit], [*bar, s.step3])
    s.on(s.timer.tick, poll, [s.running, s.visit, s.runs, s.step], [*bar, s.live, s.running, s.runs, s.step])
    s.on(s.cancel.click, cancel, [s.running], [s.cancel, s.progress], **LATEST)
    opened = s.taking(s.page.load, open_link, [s.visit], [*s.steps, *controls, s.running, s.display, s.runs])
    opened.then(None, js="() => showFilm()", **QUIET)
    s.link.change(None, s.link, js="link => showAddress(link)", **QUIET)


def _ending(report: dict[str, Any]) -> str:
    """The outcome of a run, in a sentence."""
    if corrections := report.get("corrections"):
        return f"Fixed in {len(corrections[-1]['changed_frames'])} frames; all other pixels are unchanged."
    if not report["complete"]:
        return "Stopped. What was colored so far is kept."
    return f"Finished in {seconds(duration(report))}."
