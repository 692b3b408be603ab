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
from omnifusion.ui.paint import painter

CLIP, EXEMPLAR, CHOOSE, FIX = "1 · Clip", "2 · A frame in color", "3 · Choices", "4 · Fix"
"""The steps, as their folds are called."""


class Panel(SimpleNamespace):
    """Components by name."""

    def all(self) -> list[Any]:
        """The components in order."""
        return list(vars(self).values())


def clip_panel() -> Panel:
    """What is to be colored: upload, examples, frames and exemplars."""
    with gr.Accordion(CLIP, elem_id="step1") as step, gr.Row():
        clip = gr.Video(show_label=False, sources=["upload", "webcam"], include_audio=True, height=150, scale=3,
                        min_width=220, elem_id="clip")  # fmt: skip
        with gr.Column(scale=2, min_width=200):
            gr.Markdown("Or see an example:", elem_classes="of-note")
            examples = gr.Gallery(
                thumbnails(), show_label=False, columns=3, height=60, allow_preview=False, object_fit="cover",
                interactive=False, buttons=[], container=False, elem_id="examples",
            )  # fmt: skip
    with gr.Accordion(EXEMPLAR, open=False, elem_id="step2") as exemplar:
        gr.Markdown("One frame of the clip in color; best several, where much of the scene changes.",
                    elem_classes="of-note")  # fmt: skip
        with gr.Column(visible=False) as given:
            frame = gr.Slider(0, 1, 0, step=1, label="Frame", interactive=True, elem_id="frame")
            with gr.Tabs():
                with gr.Tab("Upload it"):
                    with gr.Row():
                        preview = _picture("preview", "This frame, gray", 140, height=190, buttons=["download"])
                        picture = gr.Image(
                            label="The same in color", sources=["upload", "clipboard"], type="filepath", height=190,
                            min_width=140, image_mode=None, elem_id="exemplar",
                        )  # fmt: skip
                    own = gr.Button("Take this frame's own colors", size="sm", visible=False, elem_id="own")
                with gr.Tab("Paint it"):
                    gr.Markdown("A stroke or two in each thing; color spreads to its edges.", elem_classes="of-note")
                    brush = painter("brush")
                    spread = _picture("spread", "What your scribbles give", 220)
                    take = gr.Button("Take it as exemplar", size="sm", elem_id="take")
                with gr.Tab("Have it guessed"):
                    gr.Markdown("The prior makes three versions of this frame.", elem_classes="of-note")
                    guess = gr.Button("Color this frame for me", size="sm", elem_id="guess")
                    versions = gr.Gallery(
                        label="Click the one to take", columns=3, height=150, allow_preview=False, interactive=False,
                        buttons=[], elem_id="versions",
                    )  # fmt: skip
        pictures = gr.Gallery(label="Exemplars", columns=4, height=120, visible=False, interactive=False, buttons=[])
        forget = gr.Button("Remove all exemplars", size="sm", visible=False)
    notes = gr.Markdown(elem_id="notes", elem_classes="of-note")
    return Panel(**locals())


def choices_panel(limits: Limits, priors: list[tuple[str, str]], presets: list[tuple[str, str]]) -> dict[str, Any]:
    """A control for every choice of ``Settings``, and "frames" and "force".

    Args:
        limits: the owner's.
        priors, presets: (label, name).
    """
    controls = {
        "preset": _control("preset", presets, label="Preset: time here, gain over the classical method", info=None)
    }
    with gr.Row():
        controls["prior"] = _control("prior", priors, gr.Dropdown, scale=3, min_width=150)
        controls["steps"] = _control("steps", scale=2, min_width=130)
        controls["eta"] = _control("eta", scale=2, min_width=130)
    frames = gr.Slider(1, limits.frames, min(24, limits.frames), step=1, label="Frames, from the clip's start",
                       elem_id="frames")  # fmt: skip
    with gr.Accordion("More choices", open=False):
        controls |= {name: _control(name) for name in CHOICES if name not in controls}
        force = gr.Checkbox(
            False, label="Accept any exemplar", info="Accept an exemplar that does not seem to show its frame."
        )
    return {**controls, "frames": frames, "force": force}


SHORT = {
    "prior": "It invents what no frame shows.",
    "steps": "The prior's.",
    "eta": "Holds it to the gray.",
}
"""What there is room for beside the choices that are in sight."""


def _control(name: str, options: Sequence[Any] = (), kind: Any = gr.Radio, **looks: Any) -> Any:
    """The control of a choice, at its draft value."""
    choice = CHOICES[name]
    value = choice.presets["draft"]
    about: dict[str, Any] = {"label": choice.label, "info": SHORT.get(name, choice.help), "elem_id": name, **looks}
    if options or choice.options:
        return kind(list(options or choice.options), value=value, **about)
    if choice.kind is bool:
        return gr.Checkbox(value, **about)
    if choice.slider is not None and name not in SHORT:
        least, most, step = choice.slider
        return gr.Slider(least, most, value, step=step, **about)
    if choice.kind is str:
        return gr.Textbox(value, max_length=300, **about)
    return gr.Number(value, precision=0 if choice.kind is int else None, **about)


def fix_panel() -> Panel:
    """What mends a finished run."""
    with gr.Accordion(FIX, visible=False, open=False, elem_id="step4") as box:
        hint = gr.Markdown(elem_classes="of-note", elem_id="hint")
        anew = gr.Button("Color it here", size="sm", elem_id="anew")
        with gr.Column() as tools:
            advise = gr.Button("Which frame would help most?", size="sm", elem_id="advise")
            places = gr.Gallery(
                show_label=False, columns=3, height=175, allow_preview=False, object_fit="contain", interactive=False,
                buttons=[], container=False, visible=False, elem_id="places",
            )  # fmt: skip
            frame = gr.Slider(0, 1, 0, step=1, label="Frame", interactive=True, elem_id="fixframe")
            brush = painter("fixbrush")
            spread = _picture("fixed", "What your scribbles give", 220)
            with gr.Accordion("Or give a picture of the frame, transparent where it is good as it is", open=False):
                picture = gr.Image(show_label=False, sources=["upload", "clipboard"], type="filepath", height=150,
                                   image_mode=None, elem_id="patch")  # fmt: skip
            with gr.Row():
                go = gr.Button("Fix this", elem_id="fixit", min_width=100)
                undo = gr.Button("Undo the last fix", visible=False, elem_id="unfix", min_width=100)
    return Panel(**locals())


def start_panel() -> Panel:
    """What sets a run going and stops it, always in sight: the estimate, the buttons, the progress."""
    with gr.Column(elem_id="bar"):
        with gr.Row():
            run = gr.Button("Colorize", variant="primary", elem_id="run", min_width=100, scale=2)
            cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", min_width=80)
            fit = gr.Button("Make it fit this machine", visible=False, elem_id="fit", min_width=100)
        estimate = gr.Markdown(elem_id="estimate", elem_classes="of-note")
        progress = gr.HTML(message("Choose a clip, or click an example."), elem_id="progress")
    return Panel(**locals())


def watch_panel(film: str) -> Panel:
    """The film, first of all that one sees; the run's link; and a run while it goes on."""
    shown = gr.HTML(film, elem_id="film")
    link = gr.Textbox(
        label="Link to this run: keep it, then you may close the page", interactive=False, buttons=["copy"],
        elem_id="link", visible=False, max_lines=1,
    )  # fmt: skip
    with gr.Accordion("The run, step by step", visible=False, elem_id="live") as box:
        after = _picture("after", "after", 200)
        with gr.Row(elem_classes="of-pictures"):
            before, mask = _picture("before", "before", 120), _picture("mask", "mask", 120)
            tracks = _picture("tracks", "tracks of the middle frame", 120, visible=False)
        coverage = gr.HTML(elem_id="coverage")
    return Panel(film=shown, link=link, box=box, before=before, mask=mask, after=after, coverage=coverage,
                 tracks=tracks)  # fmt: skip


def outcome_panel() -> Panel:
    """Everything about a finished run."""
    with gr.Column(visible=False, elem_id="outcome") as box:
        heading = gr.Markdown(elem_id="heading")
        scores = gr.Markdown(elem_id="scores")
        gr.Markdown("### Look closer")
        with gr.Row():
            frame = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="shown", min_width=220)
            iteration = gr.Slider(0, 1, 1, step=1, label="Iteration", elem_id="iteration", min_width=220)
        slider = gr.ImageSlider(label="Gray | colored", interactive=False, elem_id="graycolor", max_height=420)
        with gr.Row(elem_classes="of-pictures"):
            then = _picture("then", "This frame after this iteration", 160, buttons=["fullscreen", "download"])
            where = _picture("where", "Where its colors came from", 160, buttons=["fullscreen", "download"])
            doubt = _picture("doubt", "Where they are doubtful", 160, buttons=["fullscreen", "download"])
        parts = gr.HTML(elem_id="parts")
        with gr.Accordion("Time, memory and downloads", open=False):
            stages = gr.Dataframe(headers=["stage", "seconds", "peak MiB"], interactive=False, elem_id="stages")
            chroma = gr.Button("Make a film of chroma alone, 16 bits, for grading", size="sm", elem_id="chroma")
            files = gr.File(label="Downloads", file_count="multiple", interactive=False, elem_id="files")
    return Panel(**locals())


def compare_panel() -> Panel:
    """Two results on the same frame, and a table of all."""
    gr.Markdown(text("compare"))
    with gr.Row():
        left, right = gr.Dropdown([], label="Left", elem_id="left"), gr.Dropdown([], label="Right", elem_id="right")
    frame = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="comparedframe")
    slider = gr.ImageSlider(label="Left | right", interactive=False, elem_id="compared", max_height=480)
    table = gr.Dataframe(label="The runs of this visit", interactive=False, elem_id="runs", wrap=True)
    return Panel(**locals())


def _picture(name: str, label: str | None, width: int, **options: Any) -> Any:
    """A picture that is only shown."""
    known = {"buttons": ["fullscreen"], **options}
    return gr.Image(label=label, interactive=False, min_width=width, elem_id=name, **known)
