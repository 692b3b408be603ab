"""The page's panels: one function each, which makes its components and knows nothing of what they do."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from omnifusion.settings import PRESETS
from omnifusion.ui.examples import thumbnails
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import message
from omnifusion.ui.texts import help_of, text


@dataclass(frozen=True)
class Panel:
    """Named components."""

    def all(self) -> list[Any]:
        """The components in order."""
        return [getattr(self, f.name) for f in fields(self)]


@dataclass(frozen=True)
class Clip(Panel):
    """What is to be coloured."""

    clip: gr.Video
    examples: gr.Gallery
    notes: gr.Markdown
    frame: gr.Slider
    preview: gr.Image
    picture: gr.Image
    own: gr.Button
    pictures: gr.Gallery
    forget: gr.Button


@dataclass(frozen=True)
class Choices(Panel):
    """How it is to be coloured; the order is that of ``handlers.Chosen``."""

    preset: gr.Radio
    prior: gr.Radio
    frames: gr.Slider
    max_side: gr.Slider
    seed: gr.Number
    eta: gr.Number
    steps: gr.Slider
    optimizations: gr.Slider
    prompt: gr.Textbox
    color_condition: gr.Checkbox
    grey_constraint: gr.Checkbox
    force: gr.Checkbox


@dataclass(frozen=True)
class Start(Panel):
    """What sets a run going and stops it."""

    estimate: gr.Markdown
    fit: gr.Button
    run: gr.Button
    again: gr.Button
    cancel: gr.Button


@dataclass(frozen=True)
class Watch(Panel):
    """A run while it goes on."""

    progress: gr.HTML
    box: gr.Column
    before: gr.Image
    mask: gr.Image
    after: gr.Image
    coverage: gr.HTML
    tracks: gr.Image


@dataclass(frozen=True)
class Outcome(Panel):
    """A finished run."""

    box: gr.Column
    heading: gr.Markdown
    colorized: gr.Video
    origin: gr.Video
    slider: gr.ImageSlider
    frame: gr.Slider
    iteration: gr.Slider
    then: gr.Image
    where: gr.Image
    parts: gr.HTML
    stages: gr.Dataframe
    scores: gr.Markdown
    files: gr.File
    link: gr.Textbox


@dataclass(frozen=True)
class Compare(Panel):
    """Runs side by side."""

    left: gr.Dropdown
    right: gr.Dropdown
    frame: gr.Slider
    slider: gr.ImageSlider
    table: gr.Dataframe


def clip_panel() -> Clip:
    """Upload, examples, frames and exemplars."""
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
        preview = gr.Image(
            label="This frame, grey",
            elem_id="preview",
            interactive=False,
            height=190,
            min_width=140,
            buttons=["download", "fullscreen"],
        )
        picture = gr.Image(
            label="The same frame in colour", sources=["upload", "clipboard"], type="filepath", height=190,
            min_width=140, image_mode="RGB", elem_id="exemplar",
        )  # fmt: skip
    own = gr.Button("Take this frame's own colours", size="sm", visible=False, elem_id="own")
    pictures = gr.Gallery(label="Exemplars", columns=4, height=120, visible=False, interactive=False, buttons=[])
    forget = gr.Button("Remove all exemplars", size="sm", visible=False)
    return Clip(clip, examples, notes, frame, preview, picture, own, pictures, forget)


def choices_panel(limits: Limits, priors: list[tuple[str, str]]) -> Choices:
    """Preset, prior and everything else that may be chosen; ``priors`` are (label, name)."""
    gr.Markdown("### 3 · Choices")
    draft = PRESETS["draft"]
    preset = gr.Radio(list(PRESETS), value="draft", label="Preset", info=help_of("preset"), elem_id="preset")
    prior = gr.Radio(priors, value=draft.prior, label="Prior", info=help_of("prior"), elem_id="prior")
    frames = gr.Slider(
        1, limits.frames, min(24, limits.frames), step=1, label="Frames", info=help_of("frames"), elem_id="frames"
    )
    with gr.Accordion("Advanced", open=False):
        max_side = gr.Slider(
            64, 768, draft.max_side, step=16, label="Working size", info=help_of("max_side"), elem_id="side"
        )
        seed = gr.Number(draft.seed, precision=0, minimum=0, label="Seed", info=help_of("seed"))
        eta = gr.Number(draft.eta, label="Eta", info=help_of("eta"), elem_id="eta")
        steps = gr.Slider(1, 100, draft.steps, step=1, label="Denoising steps", info=help_of("steps"), elem_id="steps")
        optimizations = gr.Slider(
            0, 10, draft.optimizations, step=1, label="Optimizations per step", info=help_of("optimizations")
        )
        prompt = gr.Textbox(draft.prompt, label="Prompt", info=help_of("prompt"), max_length=300)
        color = gr.Checkbox(draft.color_condition, label="Colour condition", info=help_of("color_condition"))
        grey = gr.Checkbox(draft.grey_constraint, label="Greyscale constraint", info=help_of("grey_constraint"))
        force = gr.Checkbox(False, label="Accept any exemplar", info=help_of("force"))
    return Choices(preset, prior, frames, max_side, seed, eta, steps, optimizations, prompt, color, grey, force)


def start_panel() -> Start:
    """The estimate and the buttons."""
    estimate = gr.Markdown(elem_id="estimate", elem_classes="of-note")
    fit = gr.Button("Make it fit this machine", size="sm", visible=False, elem_id="fit")
    with gr.Row():
        run = gr.Button("Colour", variant="primary", elem_id="run", min_width=100)
        again = gr.Button("Recolour", visible=False, elem_id="again", min_width=100)
        cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel", min_width=100)
    return Start(estimate, fit, run, again, cancel)


def watch_panel() -> Watch:
    """Progress, the last step's pictures and the coverage curve."""
    progress = gr.HTML(message("Upload a clip or click an example."), elem_id="progress")
    with gr.Column(visible=False) as box:
        with gr.Row(elem_classes="of-pictures"):
            before, mask, after = (
                gr.Image(label=name, interactive=False, min_width=150, buttons=["fullscreen"], elem_id=name)
                for name in ("before", "mask", "after")
            )
        coverage = gr.HTML(elem_id="coverage")
        with gr.Accordion("Tracks: where points of the middle frame go", open=True):
            tracks = gr.Image(show_label=False, interactive=False, height=240, buttons=["fullscreen"], elem_id="tracks")
    return Watch(progress, box, before, mask, after, coverage, tracks)


def outcome_panel() -> Outcome:
    """Everything about a finished run."""
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
            then = gr.Image(
                label="This frame after this iteration",
                interactive=False,
                min_width=220,
                buttons=["fullscreen", "download"],
                elem_id="then",
            )
            where = gr.Image(
                label="Where its colours came from",
                interactive=False,
                min_width=220,
                buttons=["fullscreen", "download"],
                elem_id="where",
            )
        parts = gr.HTML(elem_id="parts")
        with gr.Accordion("Time, memory and downloads", open=False):
            stages = gr.Dataframe(headers=["stage", "seconds", "peak MiB"], interactive=False, elem_id="stages")
            files = gr.File(label="Downloads", file_count="multiple", interactive=False, elem_id="files")
    return Outcome(
        box, heading, colorized, origin, slider, frame, iteration, then, where, parts, stages, scores, files, link
    )


def compare_panel() -> Compare:
    """Two results on the same frame, and a table of all."""
    gr.Markdown(text("compare"))
    with gr.Row():
        left = gr.Dropdown([], label="Left", elem_id="left")
        right = gr.Dropdown([], label="Right", elem_id="right")
    frame = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="comparedframe")
    slider = gr.ImageSlider(label="Left | right", interactive=False, elem_id="compared", max_height=480)
    table = gr.Dataframe(label="The runs of this visit", interactive=False, elem_id="runs", wrap=True)
    return Compare(left, right, frame, slider, table)
