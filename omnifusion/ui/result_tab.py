"""Finished runs: the film, the downloads and a look into every frame and iteration of one; two side by side."""

import re
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr
import numpy as np

from omnifusion.clip.prepare import without_color
from omnifusion.color import overlay
from omnifusion.correction.suggest import drawn
from omnifusion.geometry import stretch
from omnifusion.progress import InputError, count, run_to_end
from omnifusion.run.export import export_chroma
from omnifusion.run.folder import RunFolder
from omnifusion.settings import CHOICES
from omnifusion.state import Origin
from omnifusion.ui import parts
from omnifusion.ui.parts import HEAVY, LATEST, QUIET, WORDS, Shared, Updates, duration, picture, seconds, slider
from omnifusion.ui.run_tab import show_link
from omnifusion.ui.store import Visit
from omnifusion.video.common import replacing

FRAMES, CHROMA = "frames.zip", "chroma.mkv"

DOWNLOADS = {
    "colorized.mp4": "Film (MP4)",
    "origin.mp4": "Color sources (MP4)",
    "report.json": "Report (JSON)",
    FRAMES: "All frames (ZIP)",
    CHROMA: "Chroma, 16-bit (MKV)",
}

OTHERS = {"gray": "in gray", "original": "original colors"}
"""What a run can be compared with besides other runs, named by the run's token, a slash and the key."""


def build_film(s: Shared) -> None:
    """Build the film, at the top of the page, and its downloads."""
    example = next(iter(parts.EXAMPLES.values()))
    s.film = gr.HTML(show_film(example), elem_id="film")
    s.downloads = gr.HTML(elem_id="downloads")


def build_details(s: Shared) -> None:
    """Build the details of a run."""
    with gr.Column(visible=False, elem_id="outcome") as s.outcome:
        s.heading = gr.Markdown(elem_id="heading")
        with gr.Row():
            s.result_frame = slider(2, label="Frame", elem_id="shown", min_width=220)
            s.iteration = slider(2, label="Iteration", elem_id="iteration", min_width=220)
        s.slider = gr.ImageSlider(label="Gray | color", interactive=False, elem_id="graycolor", max_height=420)
        with gr.Row(elem_classes="of-pictures"):
            buttons = ["fullscreen", "download"]
            s.then = picture("then", "After iteration", 160, buttons=buttons)
            s.where = picture("where", "Color source", 160, buttons=buttons)
            s.uncertain = picture("uncertain", "Uncertainty", 160, buttons=buttons)
        s.parts = gr.HTML(elem_id="parts")
        with gr.Accordion("More downloads", open=False), gr.Row():
            s.pack = gr.Button("Pack all frames (PNG in a ZIP)", size="sm", elem_id="pack")
            s.chroma = gr.Button("Export chroma only, 16-bit (for grading)", size="sm", elem_id="chroma")


def build_compare(s: Shared) -> None:
    """Build the comparison of two results on one frame, and the table of this visit's runs."""
    gr.Markdown("Compare two results on the same frame: your own runs, the clip in gray, or the original colors.")
    with gr.Row():
        s.left, s.right = gr.Dropdown([], label="Left", elem_id="left"), gr.Dropdown([], label="Right", elem_id="right")
    s.compared = slider(2, label="Frame", elem_id="comparedframe")
    s.pair = gr.ImageSlider(label="Left | right", interactive=False, elem_id="compared", max_height=480)
    s.table = gr.Dataframe(label="The runs of this visit", interactive=False, elem_id="runs", wrap=True)


def show_film(run: RunFolder) -> str:
    """The film of a run as HTML."""
    return parts.film(run.folder / "colorized.mp4", run.request.name, True)


def gray_of(image: np.ndarray) -> np.ndarray:
    """A picture ``(H, W, 3)`` uint8 without its color, its L* kept."""
    return without_color(image.transpose(2, 0, 1)).transpose(1, 2, 0)


def last_iteration(report: dict[str, Any]) -> int:
    """The number of the last iteration; every correction is one, too."""
    return max((iteration["index"] for iteration in report["iterations"]), default=0)


def at_iteration(run: RunFolder, frame: int, iteration: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A frame as it was at the end of an iteration, where its colors came from, and the shares as HTML."""
    origin = run.colors(frame)["origin"].numpy() if run.can_correct else run.origin()[frame]
    image = run.frame(frame)
    kind = np.where((origin >= 0) & (origin // 3 <= iteration), origin % 3, -1)
    gray = gray_of(image)
    then = np.where(stretch(kind >= 0, image.shape[:2])[..., None], image, gray)
    return then, overlay(gray, kind, 0.65), parts.legend([float((kind == int(o)).mean()) for o in Origin])


def shares(report: dict[str, Any]) -> list[float]:
    """The share of pixels of each origin."""
    pixels = max(1, sum(report["origin"].values()))
    return [report["origin"].get(origin.name.lower(), 0) / pixels for origin in Origin]


def heading(run: RunFolder) -> str:
    """The heading of a run: its settings, scores and warnings."""
    report, took = run.report, duration(run.report)
    early = "" if report["complete"] else " · **stopped early**, the rest is gray"
    time = f", {seconds(took)}" if took else ""
    origins = zip(WORDS.values(), shares(report), strict=True)
    origin = ", ".join(f"{100 * share:.0f} % {word}" for word, share in origins)
    lines = [
        f"### {escape(run.request.name)}{early}",
        f"{count(report['frames'], 'frame')}, {run.request.settings.preset}{time}. {origin}.",
    ]
    if report["scores"]:
        scores = " · ".join(f"{metric.upper()} {value:.2f}" for metric, value in report["scores"].items())
        lines.append(
            f"Compared with the original colors: **{scores}** (PSNR, SSIM: higher is closer; CIEDE2000: lower)"
        )
    return "\n\n".join([*lines, *map(escape, report.get("warnings", report.get("notes", ())))])


def downloads(run: RunFolder) -> str:
    """Links to the files of a run, named after the clip."""
    stem = re.sub(r"[^\w. -]", "_", run.request.name.rpartition(".")[0] or run.request.name)
    links = []
    for file, word in DOWNLOADS.items():
        if (run.folder / file).is_file():
            link = f"{parts.address(run.folder / file)}&as={quote(stem)}_{file}"
            links.append(f'<a href="{link}" download="{escape(stem)}_{file}">{word}</a>')
    return f"<p>Download: {' · '.join(links)}</p>"


def names(runs: Sequence[RunFolder]) -> list[str]:
    """What to call each run: its number, and what differs between them, corrections included."""
    facts = [
        {
            "clip": run.request.name,
            "colored frames": ", ".join(map(str, run.request.exemplars)) or "none",
            **{str(CHOICES[key].label).lower(): value for key, value in asdict(run.request.settings).items()},
            "fixes": len(run.report.get("corrections", ())),
        }
        for run in runs
    ]
    differ = [key for key in (facts[0] if facts else {}) if len({str(fact[key]) for fact in facts}) > 1] or ["clip"]
    labels = {key: "" if key in ("clip", "preset") else f"{key} " for key in differ}
    return [f"{k}: {', '.join(f'{labels[key]}{fact[key]}' for key in differ)}" for k, fact in enumerate(facts, 1)]


def table(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """One row for each run."""
    rows = []
    for run, name in zip(runs, names(runs), strict=True):
        scores = run.report["scores"]
        numbers = [f"{scores[key]:.2f}" if key in scores else "" for key in ("psnr", "ssim", "ciede2000")]
        percents = [f"{100 * share:.1f} %" for share in shares(run.report)]
        rows.append([name, seconds(duration(run.report)), *percents, *numbers])
    return {"headers": ["run", "time", *WORDS.values(), "PSNR", "SSIM", "ΔE00"], "data": rows}


def compared(run: RunFolder, what: str, frame: int) -> np.ndarray:
    """A frame of a run or of what it is compared with (see ``OTHERS``), ``(H, W, 3)`` uint8."""
    frame = min(frame, run.report["frames"] - 1)
    if what == "original":
        return np.ascontiguousarray(np.asarray(run.video().frames[frame]).transpose(1, 2, 0))
    return gray_of(run.frame(frame)) if what == "gray" else run.frame(frame)


def wire(s: Shared) -> None:
    """Connect the handlers."""
    service, store = s.service, s.service.store
    making = threading.Lock()  # two visitors may want the same file

    def show(display: str, visit: Visit, running: str, asker: gr.Request) -> Updates:
        if display.startswith(parts.CLIP) or not display:
            clip = visit.clip
            return {
                s.film: gr.HTML(parts.film(clip.film, f"{clip.name}, not colorized yet", False) if clip else "",
                                visible=clip is not None),
                s.downloads: "",
                s.outcome: gr.Column(visible=False),
                **({} if running else {s.link: show_link("", "", asker)}),
            }  # fmt: skip
        run = store.open(display)
        last, rounds = run.report["frames"] - 1, last_iteration(run.report)
        frame, own = min(last, max(1, last // 2)), store.has(display)
        return {
            s.film: gr.HTML(show_film(run), visible=True),
            s.downloads: downloads(run),
            s.link: show_link(display if own else "", run.request.name, asker),
            s.outcome: gr.Column(visible=True),
            s.heading: heading(run),
            s.result_frame: slider(last + 1, frame),
            s.iteration: slider(rounds + 1, rounds),
            s.pack: gr.Button(visible=(run.folder / "frames").is_dir()),
            s.chroma: gr.Button(visible=run.can_correct),
            **browse(display, frame, rounds),
        }

    def browse(display: str, frame: int, iteration: int) -> Updates:
        run, frame = store.open(display), int(frame)
        then, where, bar = at_iteration(run, frame, int(iteration))
        image, unsure = run.frame(frame), None
        if run.can_correct:
            share = 1 - run.colors(frame)["confidence"].float()
            unsure = drawn(image.transpose(2, 0, 1), share).transpose(1, 2, 0)
        return {s.slider: (gray_of(image), image), s.then: then, s.where: where, s.parts: bar,
                s.uncertain: gr.Image(unsure, visible=unsure is not None)}  # fmt: skip

    def pack(display: str) -> Updates:
        run = store.open(display)
        with making:
            if not (run.folder / FRAMES).is_file():
                with replacing(run.folder / FRAMES) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                    for path in sorted((run.folder / "frames").glob("*.png")):
                        archive.write(path, path.name)
        return {s.downloads: downloads(run)}

    def chroma(display: str) -> Updates:
        run = store.open(display)
        with making:
            if not (run.folder / CHROMA).is_file():
                service.jobs.beside(lambda: run_to_end(export_chroma(run, run.folder / CHROMA)))
        return {s.downloads: downloads(run)}

    def lists(tokens: tuple[str, ...]) -> Updates:
        """Update the lists of runs, and compare the newest with the one before it or else with its own clip."""
        runs = [store.open(token) for token in tokens if store.has(token)]
        choices = [(name, run.token) for name, run in zip(names(runs), runs, strict=True)]
        for number, run in enumerate(runs, 1):
            keys = ("gray", "original") if run.report["scores"] else ("gray",)
            choices += [(f"{number}: {OTHERS[key]}", f"{run.token}/{key}") for key in keys]
        size, newest = runs[-1].report["size"], runs[-1].token
        earlier = [run.token for run in runs[:-1] if run.report["size"] == size]
        other = earlier[-1] if earlier else choices[-1][1]
        frames = max(run.report["frames"] for run in runs)
        return {
            s.left: gr.Dropdown(choices, value=other),
            s.right: gr.Dropdown(choices, value=newest),
            s.compared: slider(frames, frames // 2),
            s.table: table(runs),
            **side_by_side(other, newest, frames // 2),
        }

    def side_by_side(one: str | None, other: str | None, frame: int) -> Updates:
        images = []
        for name in filter(None, (one, other)):
            token, _, what = name.partition("/")
            images.append(compared(store.open(token), what, int(frame)))
        if len({image.shape for image in images}) > 1:
            raise InputError("These two results have frames of different sizes. Compare runs on the same clip.")
        return {s.pair: tuple(images) if len(images) == 2 else None}

    views = [s.slider, s.then, s.where, s.uncertain, s.parts]
    result = [s.film, s.downloads, s.link, s.outcome, s.heading, s.pack, s.chroma]
    sliders, pair = [s.result_frame, s.iteration], [s.left, s.right, s.compared]
    s.on(s.display.change, show, [s.display, s.visit, s.running], [*result, *sliders, *views], **LATEST)
    s.on([control.input for control in sliders], browse, [s.display, *sliders], views, **LATEST)
    for button, make, file in ((s.pack, pack, FRAMES), (s.chroma, chroma, CHROMA)):
        click = f"() => document.querySelector('#downloads a[download$=\"{file}\"]')?.click()"
        s.on(button.click, make, [s.display], [s.downloads], **HEAVY).success(None, js=click, **QUIET)
    s.on(s.runs.change, lists, [s.runs], [*pair, s.table, s.pair], **LATEST)
    s.on([control.input for control in pair], side_by_side, pair, [s.pair], **HEAVY, trigger_mode="always_last")
