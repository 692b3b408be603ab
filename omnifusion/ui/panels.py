"""The page's panels: one function each, which makes its components and knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import gradio as gr

from omnifusion.settings import CHOICES
from omnifusion.ui.assets import text, thumbnails
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import message


class Panel(SimpleNamespace):
    """Components by name."""

    def all(self) -> list[Any]:
        """The components in order."""
        return list(vars(self).values())


def clip_panel() -> Panel:
    """What is to be coloured: upload, examples, frames and exemplars."""
    gr.Markdown("### 1 · Clip")
    clip = gr.Video(label="Your clip", sources=["upload", "webcam"], include_audio=True, height=300, elem_id="clip")
    gr.Markdown("Or an example: one click shows it finished.", elem_classes="of-note")
    examples = gr.Gallery(
        thumbnails(), show_label=False, columns=3, height=110, allow_preview=False, object_fit="cover",
        interactive=False, buttons=[], elem_id="examples",
    )  # fmt: skip
    notes = gr.Markdown(elem_id="notes", elem_classes="of-note")
    gr.Markdown("### 2 · Exemplars")
    frame = gr.Slider(0, 1, 0, step=1, label="Frame", interactive=True, elem_id="frame")
    with gr.Row():
        preview = _picture("preview", "This frame, grey", 140, height=190, buttons=["download", "fullscreen"])
        picture = gr.Image(
            label="The same frame in colour", sources=["upload", "clipboard"], type="filepath", height=190,
            min_width=140, image_mode=None, elem_id="exemplar",
        )  # fmt: skip
    own = gr.Button("Take this frame's own colours", size="sm", visible=False, elem_id="own")
    pictures = gr.Gallery(label="Exemplars", columns=4, height=120, visible=False, interactive=False, buttons=[])
    forget = gr.Button("Remove all exemplars", size="sm", visible=False)
    return Panel(clip=clip, examples=examples, notes=notes, frame=frame, preview=preview, picture=picture, own=own,
                 pictures=pictures, forget=forget)  # fmt: skip


def choices_panel(limits: Limits, priors: list[tuple[str, str]]) -> dict[str, Any]:
    """A control for every choice of ``Settings``, and "frames" and "force"; ``priors`` are (label, name)."""
    gr.Markdown("### 3 · Choices")
    controls = {"preset": _control("preset"), "prior": _control("prior", priors)}
    frames = gr.Slider(1, limits.frames, min(24, limits.frames), step=1, label="Frames", elem_id="frames",
                       info="How many frames of the clip to colour, from its start.")  # fmt: skip
    with gr.Accordion("Advanced", open=False):
        controls |= {name: _control(name) for name in CHOICES if name not in controls}
        force = gr.Checkbox(
            False, label="Accept any exemplar", info="Accept an exemplar that does not seem to show its frame."
        )
    return {**controls, "frames": frames, "force": force}


def _control(name: str, options: Sequence[Any] = ()) -> Any:
    """The control of a choice, at its draft value."""
    choice = CHOICES[name]
    value = choice.presets["draft"]
    about: dict[str, Any] = {"label": choice.label, "info": choice.help, "elem_id": name}
    if options or choice.options:
        return gr.Radio(list(options or choice.options), value=value, **about)
    if choice.kind is bool:
        return gr.Checkbox(value, **about)
    if choice.slider is not None:
        least, most, step = choice.slider
        return gr.Slider(least, most, value, step=step, **about)
    if choice.kind is str:
        return gr.Textbox(value, max_length=300, **about)
    return gr.Number(value, precision=0 if choice.kind is int else None, **about)


def start_panel() -> Panel:
    """What sets a run going and stops it: the estimate and the buttons."""
    estimate = gr.Markdown(elem_id="estimate", elem_classes="of-note")
    fit = gr.Button("Make it fit this machine", size="sm", visible=False, elem_id="fit")
    with gr.Row():
        run = gr.Button("Colour", variant="primary", elem_id="run", min_width=100)
        again = gr.Button("Recolour", visible=False, elem_id="again", min_width=100)
        cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel", min_width=100)
    return Panel(estimate=estimate, fit=fit, run=run, again=again, cancel=cancel)


def watch_panel() -> Panel:
    """A run while it goes on: progress, the last step's pictures, the coverage curve and the tracks."""
    progress = gr.HTML(message("Upload a clip or click an example."), elem_id="progress")
    with gr.Column(visible=False) as box:
        with gr.Row(elem_classes="of-pictures"):
            shown = {name: _picture(name, name, 150) for name in ("before", "mask", "after")}
        coverage = gr.HTML(elem_id="coverage")
        with gr.Accordion("Tracks: where points of the middle frame go", open=True):
            tracks = _picture("tracks", None, 160, height=240, show_label=False)
    return Panel(progress=progress, box=box, **shown, coverage=coverage, tracks=tracks)


def outcome_panel() -> Panel:
    """Everything about a finished run."""
    both = ["fullscreen", "download"]
    with gr.Column(visible=False, elem_id="outcome") as box:
        heading = gr.Markdown(elem_id="heading")
        with gr.Row():
            films = {"elem_classes": "of-film", "autoplay": True, "loop": True, "interactive": False, "min_width": 260}
            colorized = gr.Video(label="Coloured", elem_id="colorized", **films)
            origin = gr.Video(label="Origin of every colour", elem_id="origin", **films)
        scores = gr.Markdown(elem_id="scores")
        link = gr.Textbox(
            label="Link to this result and its settings", interactive=False, buttons=["copy"], elem_id="link"
        )
        gr.Markdown("### Look closer")
        with gr.Row():
            frame = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="shown", min_width=220)
            iteration = gr.Slider(0, 1, 1, step=1, label="Iteration", elem_id="iteration", min_width=220)
        slider = gr.ImageSlider(label="Grey | coloured", interactive=False, elem_id="greycolor", max_height=420)
        with gr.Row(elem_classes="of-pictures"):
            then = _picture("then", "This frame after this iteration", 220, buttons=both)
            where = _picture("where", "Where its colours came from", 220, buttons=both)
        parts = gr.HTML(elem_id="parts")
        with gr.Accordion("Time, memory and downloads", open=False):
            stages = gr.Dataframe(headers=["stage", "seconds", "peak MiB"], interactive=False, elem_id="stages")
            files = gr.File(label="Downloads", file_count="multiple", interactive=False, elem_id="files")
    return Panel(box=box, heading=heading, colorized=colorized, origin=origin, slider=slider, frame=frame,
                 iteration=iteration, then=then, where=where, parts=parts, stages=stages, scores=scores, files=files,
                 link=link)  # fmt: skip


def compare_panel() -> Panel:
    """Two results on the same frame, and a table of all."""
    gr.Markdown(text("compare"))
    with gr.Row():
        left, right = gr.Dropdown([], label="Left", elem_id="left"), gr.Dropdown([], label="Right", elem_id="right")
    frame = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="comparedframe")
    slider = gr.ImageSlider(label="Left | right", interactive=False, elem_id="compared", max_height=480)
    table = gr.Dataframe(label="The runs of this visit", interactive=False, elem_id="runs", wrap=True)
    return Panel(left=left, right=right, frame=frame, slider=slider, table=table)


def _picture(name: str, label: str | None, width: int, **options: Any) -> Any:
    """A picture that is only shown."""
    known = {"buttons": ["fullscreen"], **options}
    return gr.Image(label=label, interactive=False, min_width=width, elem_id=name, **known)
