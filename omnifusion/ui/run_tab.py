"""Runs: the bar that starts and stops them, always in sight; their progress and links; and step 4, their fixes."""

from typing import Any

import gradio as gr

from omnifusion.correction.history import Correction
from omnifusion.correction.suggest import drawn, suggest, uncertainty
from omnifusion.progress import Canceled, InputError, count
from omnifusion.run.folder import RunFolder, open_run
from omnifusion.ui import clip_tab, parts, settings_tab
from omnifusion.ui.jobs import Job
from omnifusion.ui.parts import CLIP, HEAVY, LATEST, QUIET, Shared, Updates, duration, message, offer, seconds
from omnifusion.ui.store import Visit, VisitorClip
from omnifusion.video import read_image

POLL = 0.5  # seconds between updates of a run's progress

PENDING = (
    "You have painted over the result, and that is not applied yet. Press “Fix this” to apply it, or clear the paint "
    "and press Colorize to run the clip anew."
)
STOPPING = "Stopping."
HOW = "Paint over what is wrong in any frame. The same thing changes in every frame; nothing else does."
SHIPPED = "This example is precomputed and cannot be edited yet. Click it in step 1 and press Colorize first."


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


def build_fix(s: Shared) -> None:
    """Build step 4: corrections of a result by paint or by an edited frame, and taking them back."""
    with gr.Accordion("4 · Fix", visible=False, open=False, elem_id="step4") as s.step4:
        s.advice = gr.Markdown(elem_classes="of-note", elem_id="advice")
        with gr.Column(elem_id="tools") as s.tools:
            s.advise = gr.Button("Which frame would help most?", size="sm", elem_id="advise")
            s.places = parts.picker("places")
            s.fixframe = parts.slider(2, label="Frame", elem_id="fixframe")
            s.fixbrush = parts.brush("fixbrush")
            s.fixed = parts.picture("fixed", "Preview", 220)
            with gr.Row():
                s.go = gr.Button("Fix this", variant="primary", elem_id="fixit", min_width=100)
                s.undo = gr.Button("Undo the last fix", visible=False, elem_id="unfix", min_width=100)
            with gr.Accordion("Or upload an edited frame, transparent where nothing should change", open=False):
                s.patch = gr.Image(show_label=False, sources=["upload", "clipboard"], type="filepath", height=150,
                                   image_mode=None, elem_id="patch")  # fmt: skip


def show_link(token: str, clip: str, asker: gr.Request) -> gr.Textbox:
    """The address of a run of a clip; nothing without a token."""
    label = f"Link to the run of {clip}. Save it: it opens the run again."
    page = (asker.headers.get("referer") or "").partition("?")[0]
    return gr.Textbox(f"{page}?run={token}" if token else "", label=label, visible=bool(token))


def submit(s: Shared, job: Job, clip: VisitorClip | None) -> Updates:
    """Submit a run of the page, on a clip that the visitor has given or, a fix, maybe not."""
    s.service.jobs.submit(job, alone=True)
    if clip is not None:
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
            **({} if elsewhere else {s.display: CLIP + visit.name}),
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
        number = live.number
        pictures = {s.live: live.figures()} if mine and number != step else {}
        return {s.step: number, s.progress: live.progress(name), **pictures}

    def ended(token: str, job: Job | None, runs: Any, mine: bool, asker: gr.Request) -> Updates:
        updates: Updates = {s.running: "", s.live: "", **idle(True)}
        if not service.store.has(token):
            why = (job and job.why) or "It was canceled before there was a result."
            if job and job.error and not isinstance(job.error, Canceled):
                why = parts.in_words(job.error)
            link = show_link(job.parent if job else "", job.name if job else "", asker)  # a fix: the run as it was
            return {**updates, s.link: link, s.status: message(why, "alert")}
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
    s.taking(s.run.click, start, [s.visit, s.runs, s.brush, s.fixbrush, *controls], [s.running, *s.tied], **HEAVY)
    s.on(s.running.change, begun, [s.running, s.visit], [*bar, s.step3])
    s.on(s.timer.tick, poll, [s.running, s.visit, s.runs, s.step], [*bar, s.live, s.running, s.runs, s.step])
    s.on(s.cancel.click, cancel, [s.running], [s.cancel, s.progress], **LATEST)
    opened = s.taking(
        s.page.load, open_link, [s.visit], [*s.steps, *controls, s.running, s.display, s.runs], concurrency_limit=8
    )
    opened.then(None, js="() => showFilm()", **QUIET)
    s.link.change(None, s.link, js="link => showAddress(link)", **QUIET)


def wire_fix(s: Shared) -> None:
    """Connect the handlers of step 4."""
    service = s.service

    def show(display: str) -> Updates:
        if display.startswith(CLIP) or not display:
            return {s.step4: gr.Accordion(visible=False), s.fixbrush: gr.HTML({})}
        run, own = service.store.open(display), service.store.has(display)
        return {
            s.step4: gr.Accordion(visible=run.can_correct or not own),
            s.advice: HOW if own else SHIPPED,
            s.tools: gr.Column(visible=own),
            s.places: [],
            s.fixframe: parts.slider(run.report["frames"]),
            s.undo: gr.Button(visible=bool(service.parent(run))),
            s.patch: None,
            s.fixed: None,
            **over(run, 0, value={}),
        }

    def over(run: RunFolder, frame: int, **value: Any) -> Updates:
        image = run.frame(frame)
        return {s.fixbrush: parts.on_frame(image, frame, parts.palette_of(image), **value)}

    def seek(display: str, frame: int, scribbles: Any) -> Updates:
        return {**over(service.store.open(display), int(frame)), **preview(display, frame, scribbles)}

    def preview(display: str, frame: int, scribbles: Any) -> Updates:
        painted = parts.read_scribbles(scribbles).get(int(frame))
        return {s.fixed: parts.preview(service.store.open(display).frame(int(frame)), painted)}

    def advise(display: str) -> Updates:
        run = service.store.open(display)
        state = run.state()
        places, unsure = suggest(state), uncertainty(state)
        if not places:
            return {s.advice: "Every frame has its colors from a picture; nothing more would help."}
        names = ", then ".join(str(place.frame) for place in places)
        advice = f"Coloring frame {names} would help most. Uncertain areas are orange. Click a frame to paint it."
        offers = []
        for place in places:
            image = drawn(run.frame(place.frame).transpose(2, 0, 1), unsure[place.frame], place.region)
            offers.append(offer(image.transpose(1, 2, 0), f"frame {place.frame}"))
        return {s.advice: advice, s.places: offers}

    def pick(display: str, places: list[dict[str, str]], scribbles: Any, event: gr.EventData) -> Updates:
        frame = int(places[event.index]["name"].split()[-1])  # type: ignore[attr-defined]
        return {s.fixframe: frame, **seek(display, frame, scribbles)}

    def fix(display: str, frame: int, scribbles: Any, visit: Visit, path: str | None, asker: gr.Request) -> Updates:
        run = service.store.open(display)
        frames = {t: painted for t, painted in parts.read_scribbles(scribbles).items() if t < run.report["frames"]}
        patches = {t: parts.patch(run.frame(t).transpose(2, 0, 1), painted) for t, painted in frames.items()}
        if path is not None:
            patches[int(frame)] = read_image(path, service.limits.pixels, alpha=True)
        if not patches:
            raise InputError("There is no stroke yet. Paint over what is wrong, or upload an edited frame.")
        return submit(s, service.correct(run, Correction(patches), asker, page=True), visit.clip)

    def undo(display: str) -> Updates:
        parent = service.parent(service.store.open(display))
        return {s.display: parent, s.status: message("The last fix is undone.")}

    painted, canvas = [s.display, s.fixframe, s.fixbrush], [s.fixbrush, s.fixed]
    step = [s.step4, s.advice, s.tools, s.places, s.fixframe, s.undo, s.patch, *canvas]
    s.on(s.display.change, show, [s.display], step, **LATEST)
    s.on([s.fixframe.input, s.fixframe.release], seek, painted, canvas, **LATEST)
    s.on(s.fixbrush.input, preview, painted, canvas, **HEAVY, trigger_mode="always_last")
    s.on(s.advise.click, advise, [s.display], [s.advice, s.places], **HEAVY)
    s.on(s.places.select, pick, [s.display, s.places, s.fixbrush], [s.fixframe, *canvas], **LATEST)
    s.on(s.go.click, fix, [*painted, s.visit, s.patch], [s.running], **HEAVY)
    s.on(s.undo.click, undo, [s.display], [s.display])


def _ending(report: dict[str, Any]) -> str:
    """The outcome of a run, in a sentence."""
    if corrections := report.get("corrections"):
        return f"Fixed in {count(len(corrections[-1]['changed_frames']), 'frame')}; all other pixels are unchanged."
    if not report["complete"]:
        return "Stopped. What was colored so far is kept."
    return f"Finished in {seconds(duration(report))}."
