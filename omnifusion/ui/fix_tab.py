"""Step 4: what is wrong in a result is painted over, or a picture is laid over a frame; and taken back."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import torch

from omnifusion.correction.history import Correction
from omnifusion.correction.suggest import drawn, suggest, uncertainty
from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.ui import clip_tab, parts
from omnifusion.ui.live import message
from omnifusion.ui.parts import CHANGING, CLIP, HEAVY, LATEST, Shared, Updates, offer
from omnifusion.ui.run_tab import submit
from omnifusion.ui.session import Given, receive_run
from omnifusion.video import read_image

HINT = "Paint over what is wrong in any frame. The same thing changes in every frame; nothing else does."
SHIPPED = "This example is precomputed and cannot be edited yet. Run it here first (a few seconds)."


def build(s: Shared) -> None:
    """The components."""
    with gr.Accordion("4 · Fix", visible=False, open=False, elem_id="step4") as s.step4:
        s.hint = gr.Markdown(elem_classes="of-note", elem_id="hint")
        s.anew = gr.Button("Run this example here", size="sm", elem_id="anew")
        with gr.Column() as s.tools:
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
    """The handlers."""
    service = s.service

    def show(shown: str) -> Updates:
        """Another run is shown."""
        if shown.startswith(CLIP) or not shown:
            return {s.step4: gr.Accordion(visible=False), s.fixbrush: gr.HTML({})}
        run, own = service.store.open(shown), service.store.has(shown)
        return {
            s.step4: gr.Accordion(visible=run.can_correct or not own),
            s.hint: HINT if own else SHIPPED,
            s.anew: gr.Button(visible=not own),
            s.tools: gr.Column(visible=own),
            s.places: [],
            s.fixframe: parts.slider(run.report["frames"]),
            s.undo: gr.Button(visible=bool(service.parent(run))),
            s.patch: None,
            s.fixed: None,
            **over(run, 0, value={}),
        }

    def over(run: RunFolder, frame: int, **value: Any) -> Updates:
        shown = run.frame(frame)
        return {s.fixbrush: parts.on_frame(shown, frame, parts.inks_of(shown), **value)}

    def seek(shown: str, frame: int, scribbles: Any) -> Updates:
        """Another frame is to be painted over; what was painted on it is still there."""
        return {**over(service.store.open(shown), int(frame)), **preview(shown, frame, scribbles)}

    def preview(shown: str, frame: int, scribbles: Any) -> Updates:
        """A stroke was drawn: what the frame would become."""
        strokes = parts.read_scribbles(scribbles).get(int(frame))
        return {s.fixed: parts.preview(service.store.open(shown).frame(int(frame)), strokes)}

    def advise(shown: str) -> Updates:
        """Where would another frame, or a stroke, help most?"""
        run = service.store.open(shown)
        h, w = run.report["working_size"]
        state = run.state(torch.zeros(run.report["frames"], 1, h, w))
        found, unsure = suggest(state), uncertainty(state)
        if not found:
            return {s.hint: "Every frame has its colors from a picture; nothing is left to ask for."}
        names = ", then ".join(str(place.frame) for place in found)
        frames = [(run.frame(place.frame).transpose(2, 0, 1), unsure[place.frame], place.region) for place in found]
        pictures = [drawn(*frame).transpose(1, 2, 0) for frame in frames]
        return {
            s.hint: f"Coloring frame {names} would help most. Uncertain areas are orange. Click a frame to paint it.",
            s.places: [offer(shown, f"frame {at.frame}") for shown, at in zip(pictures, found, strict=True)],
        }

    def pick(shown: str, places: list[dict[str, str]], scribbles: Any, event: gr.EventData) -> Updates:
        """One of the frames that are worth coloring next was clicked."""
        frame = int(places[event.index]["name"].split()[-1])
        return {s.fixframe: frame, **seek(shown, frame, scribbles)}

    def fix(shown: str, frame: int, scribbles: Any, given: Given, path: str | None, asker: gr.Request) -> Updates:
        """Correct the run that is shown; what comes of it is a run of its own."""
        run, patches = service.store.open(shown), dict[int, np.ndarray]()
        for index, strokes in parts.read_scribbles(scribbles).items():
            if index < run.report["frames"]:
                patches[index] = parts.patch(run.frame(index).transpose(2, 0, 1), strokes)
        if path is not None:
            patches[int(frame)] = read_image(path, service.limits.pixels, alpha=True)
        if not patches:
            raise InputError("There is no stroke yet. Paint over what is wrong, or upload an edited frame.")
        job = service.correct(run, Correction(patches), asker, service.limits.vanished)
        return submit(s, job, given)

    def anew(shown: str, given: Given, asker: gr.Request) -> Updates:
        """Color an example that was colored beforehand, so that it can be fixed."""
        run = service.store.open(shown)
        if given.clip is None:
            given.exchange(receive_run(run, service.limits, service.store.visits))
        clip = given.require()
        asked = RunRequest(run.request.name, run.request.settings, clip.frames)
        longest = service.longest(asked.settings, clip.frames, clip.size)
        job = service.color(clip.file, asked, {}, longest, asker, service.limits.vanished)
        return {**clip_tab.view(s, given, clip.frames), **submit(s, job, given)}

    def undo(shown: str) -> Updates:
        """Show the run before the last correction again."""
        parent = service.parent(service.store.open(shown))
        return {s.shown: parent, s.status: message("The last fix is undone.")}

    painted, canvas = [s.shown, s.fixframe, s.fixbrush], [s.fixbrush, s.fixed]
    step = [s.step4, s.hint, s.anew, s.tools, s.places, s.fixframe, s.undo, s.patch, *canvas]
    s.on(s.shown.change, show, [s.shown], step, **LATEST)
    s.on([s.fixframe.input, s.fixframe.release], seek, painted, canvas, **LATEST)
    s.on(s.fixbrush.input, preview, painted, canvas, **HEAVY, trigger_mode="always_last")
    s.on(s.advise.click, advise, [s.shown], [s.hint, s.places], **HEAVY)
    s.on(s.places.select, pick, [s.shown, s.places, s.fixbrush], [s.fixframe, *canvas], **LATEST)
    s.on(s.go.click, fix, [*painted, s.given, s.patch], [s.running], **HEAVY)
    s.taking(s.anew.click, anew, [s.shown, s.given], [*s.steps, s.settings["frames"], s.running], **HEAVY)
    s.on(s.undo.click, undo, [s.shown], [s.shown], **CHANGING)
