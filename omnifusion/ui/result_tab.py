"""A finished run: its film, its downloads, and a look into every frame and iteration."""

from __future__ import annotations

import re
import zipfile
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr
import numpy as np

from omnifusion.clip.prepare import without_color
from omnifusion.progress import run_to_end
from omnifusion.run.export import export_chroma
from omnifusion.run.folder import RunFolder
from omnifusion.state import Origin
from omnifusion.ui.live import WORDS, legend, seconds
from omnifusion.ui.parts import CLIP, EXAMPLES, HEAVY, LATEST, QUIET, Shared, Updates, address, film, picture, slider
from omnifusion.ui.run_tab import link_to
from omnifusion.ui.session import Given
from omnifusion.visualize import overlay, stretch

FRAMES, CHROMA = "frames.zip", "chroma.mkv"

DOWNLOADS = {
    "colorized.mp4": "Film (MP4)",
    "origin.mp4": "Color sources (MP4)",
    "report.json": "Report (JSON)",
    FRAMES: "All frames (ZIP)",
    CHROMA: "Chroma, 16-bit (MKV)",
}
"""What a visitor may download, and what it is called."""

UNCERTAIN = (213, 94, 0)
"""Vermilion of Okabe and Ito's palette: where nothing is sure."""


def build_film(s: Shared) -> None:
    """The film, first of all that one sees, and its downloads."""
    s.film = gr.HTML(film(EXAMPLES[0].result.folder / "colorized.mp4", EXAMPLES[0].title, True), elem_id="film")
    s.downloads = gr.HTML(elem_id="downloads")


def build_details(s: Shared) -> None:
    """Everything else about a run."""
    with gr.Column(visible=False, elem_id="outcome") as s.outcome:
        s.heading = gr.Markdown(elem_id="heading")
        with gr.Row():
            s.shownframe = slider(2, label="Frame", elem_id="shown", min_width=220)
            s.iteration = slider(2, label="Iteration", elem_id="iteration", min_width=220)
        s.slider = gr.ImageSlider(label="Gray | color", interactive=False, elem_id="graycolor", max_height=420)
        with gr.Row(elem_classes="of-pictures"):
            kept: dict[str, Any] = {"buttons": ["fullscreen", "download"]}
            s.then = picture("then", "After iteration", 160, **kept)
            s.where = picture("where", "Color source", 160, **kept)
            s.uncertain = picture("uncertain", "Uncertainty", 160, **kept)
        s.parts = gr.HTML(elem_id="parts")
        with gr.Accordion("More downloads, time and memory", open=False):
            with gr.Row():
                s.pack = gr.Button("Pack all frames (PNG in a ZIP)", size="sm", elem_id="pack")
                s.chroma = gr.Button("Export chroma only, 16-bit (for grading)", size="sm", elem_id="chroma")
            s.stages = gr.Dataframe(headers=["stage", "seconds", "peak MiB"], interactive=False, elem_id="stages")


def gray_of(shown: np.ndarray) -> np.ndarray:
    """A picture ``(H, W, 3)`` uint8 without its color, its L* kept."""
    return without_color(shown.transpose(2, 0, 1)).transpose(1, 2, 0)


def last_iteration(report: dict[str, Any]) -> int:
    """The number of the last iteration; every correction is one, too."""
    fixes = (fix["iteration"] for fix in report.get("corrections", ()))
    return max([0, *(iteration["index"] for iteration in report["iterations"]), *fixes])


def at_iteration(run: RunFolder, frame: int, iteration: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A frame as it was at the end of an iteration, where its colors came from, and the shares as HTML."""
    origin = run.colors(frame)["origin"].numpy() if run.can_correct else run.origin()[frame]
    shown = run.frame(frame)
    kind = np.where((origin >= 0) & (origin // 3 <= iteration), origin % 3, -1)
    gray = gray_of(shown)
    then = np.where(stretch(kind >= 0, shown.shape[:2])[..., None], shown, gray)
    return then, overlay(gray, kind, 0.65), legend([float((kind == int(how)).mean()) for how in Origin])


def uncertainty(run: RunFolder, frame: int) -> np.ndarray | None:
    """A frame in gray, the redder the less sure its colors are; None where that is not kept."""
    if not run.can_correct:
        return None
    sure, gray = run.colors(frame)["confidence"].float().numpy(), gray_of(run.frame(frame)).astype(np.float32)
    share = 0.8 * (1 - stretch(sure, gray.shape[:2]))[..., None]
    return (gray + share * (np.array(UNCERTAIN, np.float32) - gray)).round().astype(np.uint8)


def heading(run: RunFolder) -> str:
    """What a run was, how close it came, and what went otherwise than wished."""
    report, name = run.report, run.request.name
    total, pixels = sum(stage["seconds"] for stage in report["stages"]), max(1, sum(report["origin"].values()))
    shares = {WORDS[o]: report["origin"].get(o.name.lower(), 0) / pixels for o in Origin}
    lines = [
        f"### {escape(name)}" + ("" if report["complete"] else " · **stopped early**, the rest is gray"),
        f"{report['frames']} frames, {run.request.settings.preset}" + f", {seconds(total)}" * (total > 0) + ". "
        + ", ".join(f"{100 * share:.0f} % {word}" for word, share in shares.items()) + ".",
    ]  # fmt: skip
    if report["scores"]:
        scores = " · ".join(f"{metric.upper()} {value:.2f}" for metric, value in report["scores"].items())
        lines.append(
            f"Compared with the original colors: **{scores}** (PSNR, SSIM: higher is closer; CIEDE2000: lower)"
        )
    return "\n\n".join([*lines, *map(escape, report.get("warnings", report.get("notes", ())))])


def downloads(run: RunFolder) -> str:
    """Links to what there is, the files named after the clip."""
    stem = re.sub(r"[^\w. -]", "_", run.request.name.rpartition(".")[0] or run.request.name)
    links = [
        f'<a href="{address(run.folder / file)}&as={quote(stem)}_{file}" download="{escape(stem)}_{file}">{word}</a>'
        for file, word in DOWNLOADS.items()
        if (run.folder / file).is_file()
    ]
    return f"<p>Download: {' · '.join(links)}</p>"


def wire(s: Shared) -> None:
    """The handlers."""
    service = s.service

    def show(shown: str, given: Given, asker: gr.Request) -> Updates:
        """A run, or the visitor's own clip, is what the page is to show."""
        if shown.startswith(CLIP) or not shown:
            clip = given.clip
            about = f"{clip.name}, not colorized yet" if clip else ""
            return {
                s.film: gr.HTML(film(clip.film, about, False) if clip else "", visible=clip is not None),
                s.downloads: "",
                s.outcome: gr.Column(visible=False),
            }
        run = service.store.open(shown)
        last, rounds = run.report["frames"] - 1, last_iteration(run.report)
        frame, own = min(last, max(1, last // 2)), service.store.has(shown)
        return {
            s.film: gr.HTML(film(run.folder / "colorized.mp4", run.request.name, True), visible=True),
            s.downloads: downloads(run),
            s.link: gr.Textbox(link_to(shown, asker) if own else "", visible=own),
            s.outcome: gr.Column(visible=True),
            s.heading: heading(run),
            s.shownframe: gr.Slider(maximum=max(1, last), value=frame, interactive=last > 0),
            s.iteration: gr.Slider(maximum=max(1, rounds), value=rounds, interactive=rounds > 0),
            s.stages: [[stage["name"], stage["seconds"], stage["peak_mib"]] for stage in run.report["stages"]],
            s.pack: gr.Button(visible=(run.folder / "frames").is_dir()),
            s.chroma: gr.Button(visible=run.can_correct),
            **look(run, frame, rounds),
        }

    def look(run: RunFolder, frame: int, iteration: int) -> Updates:
        then, where, parts = at_iteration(run, frame, iteration)
        sure, shown = uncertainty(run, frame), run.frame(frame)
        return {s.slider: (gray_of(shown), shown), s.then: then, s.where: where, s.parts: parts,
                s.uncertain: gr.Image(sure, visible=sure is not None)}  # fmt: skip

    def browse(shown: str, frame: int, iteration: int) -> Updates:
        """A slider of the result was moved."""
        return look(service.store.open(shown), int(frame), int(iteration))

    def pack(shown: str) -> Updates:
        """The frames are wanted in one file."""
        run = service.store.open(shown)
        with zipfile.ZipFile(run.folder / FRAMES, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted((run.folder / "frames").glob("*.png")):
                archive.write(path, path.name)
        return {s.downloads: downloads(run)}

    def chroma(shown: str) -> Updates:
        """The chroma alone is wanted; the film is made when first asked for, and kept."""
        run = service.store.open(shown)
        if not (run.folder / CHROMA).is_file():
            with service.jobs.beside():
                run_to_end(export_chroma(run, run.folder / CHROMA))
        return {s.downloads: downloads(run)}

    views = [s.slider, s.then, s.where, s.uncertain, s.parts]
    result = [s.film, s.downloads, s.link, s.outcome, s.heading, s.shownframe, s.iteration, s.stages, s.pack, s.chroma]
    s.on(s.shown.change, show, [s.shown, s.given], [*result, *views], **LATEST)
    s.on([s.shownframe.input, s.iteration.input], browse, [s.shown, s.shownframe, s.iteration], views, **LATEST)
    for button, make, file in ((s.pack, pack, FRAMES), (s.chroma, chroma, CHROMA)):
        click = f"() => document.querySelector('#downloads a[download$=\"{file}\"]')?.click()"
        s.on(button.click, make, [s.shown], [s.downloads], **HEAVY).success(None, js=click, **QUIET)
