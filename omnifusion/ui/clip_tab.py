"""Steps 1 and 2: the clip, and colored frames of it: uploaded, painted, or suggested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from omnifusion.clip.prepare import without_color
from omnifusion.color import compose, from_uint8, luminance, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.inpaint import suggest
from omnifusion.progress import InputError, run_to_end
from omnifusion.ui import parts, settings_tab
from omnifusion.ui.guards import in_words
from omnifusion.ui.live import message
from omnifusion.ui.parts import CHANGING, CLIP, EXAMPLES, HEAVY, LATEST, Shared, Updates, offer
from omnifusion.ui.session import Given, VisitorClip, attach, attach_picture, receive_file
from omnifusion.video import read_image, write_image

VERSIONS = 3
"""So many suggestions does the built-in model make of a frame."""


def build(s: Shared) -> None:
    """The components."""
    with gr.Accordion("1 · Clip", elem_id="step1") as s.step1:
        s.clip = gr.Video(label="Your clip", show_label=False, sources=["upload", "webcam"], include_audio=True,
                          height=150, elem_id="clip")  # fmt: skip
        gr.Markdown("Or try an example", elem_classes="of-note")
        s.examples = parts.picker(
            "examples", [offer(example.clip.with_suffix(".jpg"), example.title) for example in EXAMPLES]
        )
    with gr.Accordion("2 · A frame in color", open=False, elem_id="step2") as s.step2:
        gr.Markdown("Give one frame of the clip in color; several if the scene changes a lot.", elem_classes="of-note")
        with gr.Column(visible=False) as s.ways:
            s.frame = parts.slider(2, label="Frame", elem_id="frame")
            with gr.Tabs():
                with gr.Tab("Upload"):
                    with gr.Row():
                        s.preview = parts.picture(
                            "preview", "This frame in gray", 140, height=190, buttons=["download"]
                        )
                        s.picture = gr.Image(
                            label="The same frame in color", sources=["upload", "clipboard"], type="filepath",
                            height=190, min_width=140, image_mode=None, elem_id="exemplar",
                        )  # fmt: skip
                    s.own = gr.Button("Use this frame's own colors", size="sm", visible=False, elem_id="own")
                with gr.Tab("Paint"):
                    about = "Put a stroke or two on each object; the color spreads to similar pixels around it."
                    gr.Markdown(about, elem_classes="of-note")
                    s.brush = parts.brush("brush")
                    s.spread = parts.picture("spread", "Preview", 220)
                    s.take = gr.Button("Use as colored frame", size="sm", elem_id="take")
                with gr.Tab("Suggest"):
                    about = "The built-in model suggests three colorings of this frame. Click the one you want."
                    gr.Markdown(about, elem_classes="of-note")
                    s.guess = gr.Button("Suggest colors for this frame", size="sm", elem_id="guess")
                    s.versions = parts.picker("versions")
        s.exemplars = parts.picker("exemplars")
        s.forget = gr.Button("Remove all colored frames", size="sm", visible=False, elem_id="forget")
    s.tied = [s.picture, s.brush, s.spread, s.step2, s.exemplars, s.forget, s.mark]
    s.steps = [s.step1, s.clip, s.ways, s.frame, s.own, s.versions, s.preview, *s.tied]


def view(s: Shared, given: Given, frames: int) -> Updates:
    """Steps 1 and 2 as they are when a clip was just given, or removed, of which ``frames`` are to be colored."""
    clip = given.clip
    name = f": {clip.name}, {clip.frames} frame{'s' * (clip.frames > 1)}" if clip else ""
    return {
        s.step1: gr.Accordion(label=f"1 · Clip{name}", open=clip is None),
        s.clip: str(clip.file) if clip else None,
        s.ways: gr.Column(visible=clip is not None),
        s.frame: parts.slider(clip.frames if clip else 1),
        s.settings["frames"]: settings_tab.frames_slider(clip.frames if clip else s.service.limits.frames, frames),
        s.own: gr.Button(visible=clip is not None and clip.color),
        s.versions: [],
        s.spread: None,
        **(_seek(s, clip, 0, value={}) if clip else {}),
        **exemplars(s, given),
    }


def _seek(s: Shared, clip: VisitorClip, frame: int, **value: Any) -> Updates:
    shown, inks = clip.preview(frame), parts.INKS
    for path in list(clip.exemplars.values())[:1]:
        inks = parts.inks_of(np.ascontiguousarray(read_image(path).transpose(1, 2, 0)))
    return {s.preview: shown, s.brush: parts.on_frame(shown, frame, inks, **value)}


def exemplars(s: Shared, given: Given) -> Updates:
    """The colored frames that were given so far."""
    clip = given.clip
    pictures = {f"frame {frame}": path for frame, path in sorted(clip.exemplars.items())} if clip else {}
    done = ", ".join(pictures) or ("the clip's own first frame" if clip and clip.color else "")
    return {
        s.step2: gr.Accordion(label=f"2 · A frame in color{': ' if done else ''}{done}", open=bool(clip) and not done),
        s.picture: None,
        s.exemplars: [offer(path, name) for name, path in pictures.items()],
        s.forget: gr.Button(visible=bool(pictures)),
        s.mark: given.mark,
    }


def take_scribbles(clip: VisitorClip, given: Any) -> str:
    """Take the scribbles that the brush sent as exemplars of their frames; returns that in words, "" without any.

    Raises:
        InputError: some cannot be used.
    """
    scribbles = {frame: found for frame, found in parts.read_scribbles(given).items() if frame < clip.frames}
    for frame, found in scribbles.items():
        attach(clip, frame, parts.patch(without_color(clip.frame(frame)), found), "")
    names = ", ".join(map(str, sorted(scribbles)))
    return f"Your strokes give the colors of frame{'s' * (len(scribbles) > 1)} {names}." if scribbles else ""


def wire(s: Shared) -> None:
    """The handlers."""
    service, limits, home = s.service, s.service.limits, s.service.store.visits

    def upload(given: Given, path: str | None, frames: int) -> Updates:
        """A clip was given, or taken away."""
        try:
            clip = receive_file(Path(path), limits, home) if path else None
        except InputError as error:  # the earlier one stays
            return {s.clip: str(given.clip.file) if given.clip else None, s.status: message(in_words(error), "alert")}
        given.exchange(clip)
        said = clip.about(limits.frames) if clip else "The clip is removed."
        return {**view(s, given, frames), s.shown: CLIP + given.name, s.status: message(said)}

    def example(given: Given, event: gr.EventData) -> Updates:
        """An example was clicked: its clip, and its finished result."""
        chosen = EXAMPLES[event.index]  # type: ignore[attr-defined]
        given.exchange(receive_file(chosen.clip, limits, home, chosen.title))
        said = message("Precomputed. Press Colorize to run it yourself.")
        request = chosen.result.request
        settings = settings_tab.restore(s, request)
        return {**view(s, given, request.frames or limits.frames), **settings, s.shown: chosen.name, s.status: said}

    def seek(given: Given, frame: int, scribbles: Any) -> Updates:
        """Another frame is to be looked at; what was painted on it is still there."""
        return {**_seek(s, given.require(), int(frame)), **spread(given, frame, scribbles)}

    def spread(given: Given, frame: int, scribbles: Any) -> Updates:
        """A stroke was drawn: where its color would go."""
        shown = given.require().preview(int(frame))
        return {s.spread: parts.preview(shown, parts.read_scribbles(scribbles).get(int(frame)))}

    def tied(given: Given, clip: VisitorClip, said: str) -> Updates:
        if clip is not given.clip:
            return {s.status: message("The clip was exchanged meanwhile; its colored frame is gone with it.")}
        return {**exemplars(s, given), s.status: message(said)}

    def add(given: Given, frame: int, path: str | None, force: bool) -> Updates:
        """A colored picture was given for the frame on the slider."""
        clip = given.require()
        return tied(given, clip, attach_picture(clip, int(frame), path or "", limits, force))

    def own(given: Given, frame: int) -> Updates:
        """The clip's own colors serve as exemplar."""
        clip = given.require()
        return tied(given, clip, attach(clip, int(frame), clip.frame(int(frame)), "They are the clip's own."))

    def take(given: Given, scribbles: Any) -> Updates:
        """The scribbles are good as they are."""
        clip = given.require()
        if not (said := take_scribbles(clip, scribbles)):
            raise InputError("There is no stroke yet. Paint some color over the frame.")
        return {**tied(given, clip, said), s.brush: gr.HTML({}), s.spread: None}

    def guess(given: Given, frame: int, *chosen: Any) -> Updates:
        """Nobody knows the colors: the built-in model suggests some."""
        clip = given.require()
        asked = replace(settings_tab.request(s, clip, chosen).settings, diffusion="always", omnimotion="off")
        service.longest(asked, VERSIONS, clip.size)
        L, stages = luminance(from_uint8(clip.frame(int(frame)))), service.stages()
        small = resize(L[None], fit_size(clip.size, asked.max_side))[0]
        seeds = range(asked.seed, asked.seed + VERSIONS)
        with service.jobs.beside():
            found = run_to_end(suggest(small, seeds, lambda tasks: stages.inpaint(tasks, asked)))
        paths = tuple(clip.file.with_name(f"version_{seed}.png") for seed in seeds)
        for path, ab in zip(paths, found, strict=True):
            write_image(path, to_uint8(compose(L, resize(ab[None], clip.size)[0])).numpy())
        clip.versions = int(frame), paths
        said = message(f"Three suggestions for frame {int(frame)}. Click the one you want.")
        return {s.versions: [offer(path, f"suggestion {k}") for k, path in enumerate(paths, 1)], s.status: said}

    def take_version(given: Given, event: gr.EventData) -> Updates:
        """One of the suggestions was chosen."""
        clip = given.require()
        frame, paths = clip.versions
        image = read_image(paths[event.index])  # type: ignore[attr-defined]
        return tied(given, clip, attach(clip, frame, image, "They are suggested; you can still paint over them."))

    def forget(given: Given) -> Updates:
        """All colored frames are dropped."""
        given.require().exemplars.clear()
        return {**exemplars(s, given), s.status: message("All colored frames are removed.")}

    controls, painted = list(s.settings.values()), [s.given, s.frame, s.brush]
    frames, clips = s.settings["frames"], [s.clip.upload, s.clip.stop_recording, s.clip.clear]
    s.taking(clips, upload, [s.given, s.clip, frames], [*s.steps, frames, s.shown], **HEAVY)
    s.taking(s.examples.select, example, [s.given], [*s.steps, s.shown, *controls], **HEAVY)
    s.taking(s.picture.upload, add, [s.given, s.frame, s.picture, s.settings["force"]], s.tied, **HEAVY)
    s.taking(s.own.click, own, [s.given, s.frame], s.tied, **HEAVY)
    s.taking(s.take.click, take, [s.given, s.brush], s.tied, **HEAVY)
    s.taking(s.versions.select, take_version, [s.given], s.tied, **HEAVY)
    s.on([s.frame.input, s.frame.release], seek, painted, [s.preview, s.brush, s.spread], **LATEST)
    s.on(s.brush.input, spread, painted, [s.spread], **HEAVY, trigger_mode="always_last")
    s.on(s.guess.click, guess, [s.given, s.frame, *controls], [s.versions], **HEAVY)
    s.on(s.forget.click, forget, [s.given], s.tied, **CHANGING)
