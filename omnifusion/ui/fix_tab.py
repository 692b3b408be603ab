"""Step 4: corrections of a result, by paint or by an edited frame, and taking them back."""

from __future__ import annotations

from typing import Any

import gradio as gr
import torch

from omnifusion.correction.history import Correction
from omnifusion.correction.suggest import drawn, suggest, uncertainty
from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder
from omnifusion.ui import parts
from omnifusion.ui.parts import CLIP, HEAVY, LATEST, Shared, Updates, message, offer
from omnifusion.ui.run_tab import submit
from omnifusion.ui.store import Visit
from omnifusion.video import read_image

HOW = "Paint over what is wrong in any frame. The same thing changes in every frame; nothing else does."
SHIPPED = "This example is precomputed and cannot be edited yet. Click it in step 1 and press Colorize first."


def build(s: Shared) -> None:
    """Build the components."""
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


def wire(s: Shared) -> None:
    """Connect the handlers."""
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
        h, w = run.report["working_size"]
        state = run.state(torch.zeros(run.report["frames"], 1, h, w))
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
        return submit(s, service.correct(run, Correction(patches), asker, page=True), visit.require())

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
