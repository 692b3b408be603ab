"""Steps 1 and 2: the clip, and colored frames of it: uploaded, painted, or suggested."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from omnifusion.clip.prepare import without_color
from omnifusion.color import compose, from_uint8, luminance, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.inpaint import suggest
from omnifusion.progress import InputError, count, run_to_end
from omnifusion.run.folder import RunFolder
from omnifusion.ui import parts, settings_tab, zerogpu
from omnifusion.ui.parts import CLIP, EXAMPLES, HEAVY, LATEST, Shared, Updates, message, offer
from omnifusion.ui.store import Visit, VisitorClip, receive_file, receive_run
from omnifusion.video import read_image, write_image

VERSIONS = 3  # how many suggestions the built-in model makes of a frame


def build(s: Shared) -> None:
    """Build the components."""
    with gr.Accordion("1 · Clip", elem_id="step1") as s.step1:
        s.clip = gr.Video(label="Your clip", show_label=False, sources=["upload", "webcam"], include_audio=True,
                          height=150, elem_id="clip")  # fmt: skip
        gr.Markdown("Or try an example", elem_classes="of-note")
        offers = [offer(run.clip.with_suffix(".jpg"), run.request.name) for run in EXAMPLES.values()]
        s.examples = parts.picker("examples", offers)
    with gr.Accordion("2 · A frame in color", open=False, elem_id="step2") as s.step2:
        gr.Markdown("Give one frame of the clip in color; several if the scene changes a lot.", elem_classes="of-note")
        with gr.Column(visible=False) as s.ways:
            s.frame = parts.slider(2, label="Frame", elem_id="frame")
            with gr.Tabs():
                with gr.Tab("Upload"):
                    with gr.Row():
                        name = "This frame in gray"
                        s.preview = parts.picture("preview", name, 140, height=190, buttons=["download"])
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


def view(s: Shared, visit: Visit, frames: int) -> Updates:
    """Update steps 1 and 2, and how many ``frames`` are to be colored, after a clip was given or removed."""
    clip = visit.clip
    name = f": {clip.name}, {count(clip.frames, 'frame')}" if clip else ""
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
        **exemplars(s, visit),
    }


def take_run(s: Shared, visit: Visit, run: RunFolder) -> Updates:
    """Take the clip, the exemplars and the settings of a run as the visitor's."""
    limits = s.service.limits
    visit.exchange(receive_run(run, limits, s.service.store.visits))
    return {**view(s, visit, run.request.frames or limits.frames), **settings_tab.restore(s, run.request)}


def _seek(s: Shared, clip: VisitorClip, frame: int, **value: Any) -> Updates:
    image, palette = clip.preview(frame), parts.PALETTE
    for path in list(clip.exemplars.values())[:1]:
        palette = parts.palette_of(np.ascontiguousarray(read_image(path).transpose(1, 2, 0)))
    return {s.preview: image, s.brush: parts.on_frame(image, frame, palette, **value)}


def exemplars(s: Shared, visit: Visit) -> Updates:
    """Update the list of exemplars."""
    clip = visit.clip
    pictures = {f"frame {frame}": path for frame, path in sorted(clip.exemplars.items())} if clip else {}
    names = ", ".join(pictures) or ("the clip's own first frame" if clip and clip.color else "")
    label = f"2 · A frame in color: {names}" if names else "2 · A frame in color"
    return {
        s.step2: gr.Accordion(label=label, open=clip is not None and not names),
        s.picture: None,
        s.exemplars: [offer(path, name) for name, path in pictures.items()],
        s.forget: gr.Button(visible=bool(pictures)),
        s.mark: visit.mark,
    }


def take_scribbles(clip: VisitorClip, value: Any) -> str:
    """Take the scribbles that the brush sent as exemplars of their frames; returns that in words, "" without any."""
    frames = {frame: lines for frame, lines in parts.read_scribbles(value).items() if frame < clip.frames}
    for frame, scribbles in frames.items():
        clip.attach(frame, parts.patch(without_color(clip.frame(frame)), scribbles))
    names = ", ".join(map(str, sorted(frames)))
    return f"Your scribbles give the colors of frame{'s' * (len(frames) > 1)} {names}." if frames else ""


def wire(s: Shared) -> None:
    """Connect the handlers."""
    service, limits = s.service, s.service.limits

    def upload(visit: Visit, path: str | None) -> Updates:
        try:
            clip = receive_file(Path(path), limits, service.store.visits) if path else None
        except InputError as error:  # the earlier one stays
            kept = str(visit.clip.file) if visit.clip else None
            return {s.clip: kept, s.status: message(parts.in_words(error), "alert")}
        visit.exchange(clip)
        sentence = clip.about(limits.frames) if clip else "The clip is removed."
        return {**view(s, visit, settings_tab.USUAL[0]), s.display: CLIP + visit.name, s.status: message(sentence)}

    def example(visit: Visit, event: gr.EventData) -> Updates:
        run = list(EXAMPLES.values())[event.index]  # type: ignore[attr-defined]
        sentence = message("Precomputed. Press Colorize to run it yourself.")
        return {**take_run(s, visit, run), s.display: run.token, s.status: sentence}

    def seek(visit: Visit, frame: int, scribbles: Any) -> Updates:
        return {**_seek(s, visit.require(), int(frame)), **spread(visit, frame, scribbles)}

    def spread(visit: Visit, frame: int, scribbles: Any) -> Updates:
        image = visit.require().preview(int(frame))
        return {s.spread: parts.preview(image, parts.read_scribbles(scribbles).get(int(frame)))}

    def tied(visit: Visit, clip: VisitorClip, sentence: str) -> Updates:
        if clip is not visit.clip:
            return {s.status: message("The clip was exchanged meanwhile; its colored frame is gone with it.")}
        return {**exemplars(s, visit), s.status: message(sentence)}

    def add(visit: Visit, frame: int, path: str | None, force: bool) -> Updates:
        clip = visit.require()
        return tied(visit, clip, clip.attach_picture(int(frame), path or "", limits, force))

    def own(visit: Visit, frame: int) -> Updates:
        clip = visit.require()
        return tied(visit, clip, clip.attach(int(frame), clip.frame(int(frame)), "They are the clip's own."))

    def take(visit: Visit, scribbles: Any) -> Updates:
        clip = visit.require()
        if not (sentence := take_scribbles(clip, scribbles)):
            raise InputError("There is no stroke yet. Paint some color over the frame.")
        return {**tied(visit, clip, sentence), s.brush: gr.HTML({}), s.spread: None}

    def guess(visit: Visit, frame: int, *values: Any) -> Updates:
        clip = visit.require()
        settings = replace(settings_tab.read(s, clip, values).settings, diffusion="always", omnimotion="off")
        service.require_fit(settings, VERSIONS, clip.size)
        L, stages = luminance(from_uint8(clip.frame(int(frame)))), zerogpu.stages()
        small = resize(L[None], fit_size(clip.size, settings.max_side))[0]
        seeds = range(settings.seed, settings.seed + VERSIONS)
        suggestions = suggest(small, seeds, lambda tasks: stages.inpaint(tasks, settings))
        colors = service.jobs.beside(lambda: run_to_end(suggestions))
        paths = tuple(clip.file.with_name(f"version_{seed}.png") for seed in seeds)
        for path, ab in zip(paths, colors, strict=True):
            write_image(path, to_uint8(compose(L, resize(ab[None], clip.size)[0])).numpy())
        clip.versions = int(frame), paths
        sentence = message(f"Three suggestions for frame {int(frame)}. Click the one you want.")
        return {s.versions: [offer(path, f"suggestion {k}") for k, path in enumerate(paths, 1)], s.status: sentence}

    def take_version(visit: Visit, event: gr.EventData) -> Updates:
        clip = visit.require()
        frame, paths = clip.versions
        image = read_image(paths[event.index])  # type: ignore[attr-defined]
        return tied(visit, clip, clip.attach(frame, image, "They are suggested; you can still paint over them."))

    def forget(visit: Visit) -> Updates:
        visit.require().exemplars.clear()
        return {**exemplars(s, visit), s.status: message("All colored frames are removed.")}

    controls, painted = list(s.settings.values()), [s.visit, s.frame, s.brush]
    clips = [s.clip.upload, s.clip.stop_recording, s.clip.clear]
    s.taking(clips, upload, [s.visit, s.clip], [*s.steps, s.settings["frames"], s.display], **HEAVY)
    s.taking(s.examples.select, example, [s.visit], [*s.steps, s.display, *controls], **HEAVY)
    s.taking(s.picture.upload, add, [s.visit, s.frame, s.picture, s.settings["force"]], s.tied, **HEAVY)
    s.taking(s.own.click, own, [s.visit, s.frame], s.tied, **HEAVY)
    s.taking(s.take.click, take, [s.visit, s.brush], s.tied, **HEAVY)
    s.taking(s.versions.select, take_version, [s.visit], s.tied, **HEAVY)
    s.on([s.frame.input, s.frame.release], seek, painted, [s.preview, s.brush, s.spread], **LATEST)
    s.on(s.brush.input, spread, painted, [s.spread], **HEAVY, trigger_mode="always_last")
    s.on(s.guess.click, guess, [s.visit, s.frame, *controls], [s.versions], **HEAVY)
    s.on(s.forget.click, forget, [s.visit], s.tied)
