"""Parts of the page: words and examples, pictures to choose from, films, and a brush."""

import base64
import io
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, wraps
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any
from urllib.parse import quote

import cv2
import gradio as gr
import numpy as np
from PIL import Image
from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from omnifusion.color import TINTS
from omnifusion.correction.scribbles import spread
from omnifusion.geometry import fit_size
from omnifusion.progress import InputError
from omnifusion.run.folder import open_run
from omnifusion.state import Origin

log = logging.getLogger(__name__)

ASSETS = Path(__file__).resolve().parents[2] / "assets"
EXAMPLE_FOLDER = ASSETS / "examples"

Updates = dict[Any, Any]

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
HEAVY: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "heavy"}
"""Events that read clips and pictures: at most two at once."""
LATEST: dict[str, Any] = {"queue": False, "trigger_mode": "always_last"}
"""Events that cost little and go past the queue: states that they changed would not be noticed."""

PAGE_OPTIONS = {
    "force": '"Accept any picture" under Advanced settings',
    "frames": '"How many frames"',
    "max-side": '"Working size" under Advanced settings',
    "prior bundled": '"Model"',
}
ENDPOINT_OPTIONS = {"frames": "frames", "prior bundled": "prior bundled"}
"""Where the page and the endpoints have the options that ``InputError.fixes`` name."""


class Shared(SimpleNamespace):
    """The service, and all components and states of the page by name.

    What a visitor has given, what runs and what is displayed are states of their own: ``visit`` (``store.Visit``),
    ``running`` (the token of the run that the page waits for, or ""), and ``display``: a run's token, or ``CLIP`` and
    the name of the visitor's clip. ``mark`` says that ``visit`` has changed; ``runs`` holds the tokens of this visit's
    runs.
    """

    def on(self, triggers: Any, handler: Callable[..., Updates], inputs: Any, outputs: Any, **options: Any) -> Any:
        """Let a handler, which returns updates of some of ``outputs`` or of the status line, answer events. Its errors
        become a sentence there."""

        @wraps(handler)
        def answer(*values: Any) -> Updates:
            try:
                return handler(*values)
            except Exception as error:
                return {self.status: message(in_words(error), "alert")}

        return gr.on(triggers, answer, inputs, [*outputs, self.status], **QUIET | options)

    def taking(self, triggers: Any, handler: Callable[..., Updates], inputs: Any, outputs: Any, **options: Any) -> Any:
        """As ``on``, for handlers that change inputs of the visitor: the form waits (``head.html``) until the end, so
        that nothing newer is overwritten."""
        js = "(...values) => { taking(1); return values; }"  # only where the event is sent: clicks may be dropped
        event = self.on(triggers, handler, inputs, outputs, js=js, **options)
        event.failure(None, js="() => taking(-1)", **QUIET)  # ``then`` does not follow an error
        return event.then(None, js="() => taking(-1)", **QUIET)


CLIP = "clip/"


@cache
def text(name: str) -> str:
    """A file of ``assets/`` as text."""
    return (ASSETS / name).read_text(encoding="utf-8")


def in_words(error: BaseException, options: dict[str, str] = PAGE_OPTIONS) -> str:
    """An error as one sentence, with file names instead of paths; a bug's has a number that is also in the log."""
    if not isinstance(error, InputError):
        number = secrets.token_hex(4)
        log.error("error %s", number, exc_info=error)
        return f"Something went wrong on our side (error {number}). Please try again."
    return re.sub(r"(?<![\w./:])/(?:[^/\s]+/)+", "", error.sentence(options.get))


def message(sentence: str, role: str = "status", more: str = "") -> str:
    """A message of the page and ``more`` as HTML; ``role`` is "status" or "alert"."""
    return f'<p role="{role}" class="of-message">{escape(sentence)}{more}</p>' if sentence else ""


def seconds(value: float) -> str:
    """A duration in readable form."""
    return f"{value:.0f} s" if value < 90 else f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.0f} h"


def duration(report: dict[str, Any]) -> float:
    """The seconds that a run took."""
    return float(sum(stage["seconds"] for stage in report["stages"]))


WORDS = {Origin.EXEMPLAR: "from your frame", Origin.PROPAGATED: "tracked", Origin.INPAINTED: "filled in"}
"""How a pixel got its color, in words."""

EXAMPLES = {
    name: replace(open_run(EXAMPLE_FOLDER / "results" / name), source=EXAMPLE_FOLDER / f"{name}.mp4")
    for name in ("train", "street", "balloons")
}
"""The finished runs of the clips that ship (``assets/examples/make``), which hold their true colors, by token."""


def legend(parts: Sequence[float]) -> str:
    """The share of pixels of each origin, as a bar and in words."""
    bar, items = "", ""
    for (red, green, blue), word, part in zip(TINTS.values(), WORDS.values(), parts, strict=True):
        tint = f"background:rgb({red},{green},{blue})"
        bar += f'<i style="{tint};width:{100 * part:.2f}%"></i>'
        items += f'<li><b style="{tint}"></b>{word} {100 * part:.1f} %</li>'
    return f'<div class="of-shares" aria-hidden="true">{bar}</div><ul class="of-legend">{items}</ul>'


def picture(name: str, label: str, width: int, **options: Any) -> gr.Image:
    """A read-only picture."""
    options = {"buttons": ["fullscreen"], **options}
    return gr.Image(label=label, interactive=False, min_width=width, elem_id=name, **options)


def slider(count: int, value: int = 0, **options: Any) -> gr.Slider:
    """A slider over ``count`` items, from 0 on; it is fixed if there is only one."""
    return gr.Slider(0, max(1, count - 1), value, step=1, interactive=count > 1, **options)


def picker(name: str, offers: Sequence[dict[str, str]] = ()) -> gr.HTML:
    """Pictures to choose from, by mouse, finger or key; a ``select`` event's data has the ``index``."""
    return gr.HTML(list(offers), html_template=text("picker.html"), js_on_load=text("picker.js"), elem_id=name)


def offer(source: Path | np.ndarray, name: str) -> dict[str, str]:
    """A picture for a ``picker``: a file or ``(H, W, 3)`` uint8."""
    return {"src": address(source) if isinstance(source, Path) else inline(source), "name": name}


def address(file: Path) -> str:
    """The URL of a file of the results or the examples; it changes when the file is written again."""
    return f"gradio_api/file={quote(str(file))}?of={file.stat().st_mtime_ns}"


def inline(image: np.ndarray) -> str:
    """A picture ``(H, W, 3)`` uint8 as a data URL."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(data, "webp", quality=90)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def film(file: Path, name: str, wipe: bool) -> str:
    """A film as HTML; with ``wipe`` it is gray to the left of a line that pointers and keys move."""
    label = f"{name}, gray to the left of the line and in color to the right" if wipe else name
    line, gray, color = (text("wipe.html"), "<b>gray</b>", "<b>color</b>") if wipe else ("", "", "")
    video = (
        f'<video src="{address(file)}" aria-label="{escape(label)}" autoplay loop muted controls playsinline></video>'
    )
    caption = f"<figcaption>{gray}<span>{escape(name)}</span>{color}</figcaption>"
    return f'<figure class="of-film">{video}{line}{caption}</figure>'


PALETTE = ["#b5483a", "#d9894a", "#d8b45c", "#6f9a4a", "#3f7f6d", "#4f86b8", "#6f9fd0", "#7a5c8f", "#d6a88f", "#8a6242"]
"""Colors that films need, for clips of which no color is known: brick to sky, skin and wood."""

Length = Annotated[float, Field(gt=-10, lt=10)]

Scribble = tuple[
    Annotated[str, Field(pattern="^(#[0-9a-fA-F]{6}|keep|erase)$")],
    Annotated[float, Field(gt=0, lt=1)],
    Annotated[list[tuple[Length, Length]], Field(min_length=1, max_length=50_000)],
]
"""A paint (a color, "keep" for pixels to keep, or "erase"), a radius and points (x, y), all in widths of the frame."""

ALL_SCRIBBLES = TypeAdapter(dict[NonNegativeInt, list[Scribble]])


def brush(name: str) -> gr.HTML:
    """A brush over a picture; its value holds the scribbles of every frame that has some."""
    template, script = text("brush.html"), text("brush.js")
    return gr.HTML({}, html_template=template, js_on_load=script, elem_id=name, picture="", frame=0, palette=PALETTE)


def on_frame(image: np.ndarray, frame: int, palette: Sequence[str], **value: Any) -> gr.HTML:
    """The brush over frame ``frame``, ``(H, W, 3)`` uint8; the scribbles stay unless another ``value`` is given."""
    h, w = fit_size((image.shape[0], image.shape[1]), 960)
    small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    return gr.HTML(**value, picture=inline(small), frame=frame, palette=list(palette))


def palette_of(image: np.ndarray, count: int = 8) -> list[str]:
    """The colors of a picture ``(H, W, 3)`` uint8, most frequent first."""
    reduced = Image.fromarray(image).convert("RGB").resize((160, 120), Image.Resampling.NEAREST).quantize(count)
    colors, counts = np.unique(np.asarray(reduced.convert("RGB")).reshape(-1, 3), axis=0, return_counts=True)
    return [f"#{color.tobytes().hex()}" for color in colors[np.argsort(-counts)]]


def read_scribbles(value: Any) -> dict[int, list[Scribble]]:
    """The scribbles that the brush sent, by frame, where there are any; InputError if it is something else."""
    try:
        frames = ALL_SCRIBBLES.validate_python(value or {})
    except ValidationError:
        raise InputError("These are no scribbles that can be used; paint on the frame.") from None
    return {frame: scribbles for frame, scribbles in frames.items() if scribbles}


def painted(scribbles: Sequence[Scribble], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scribbles on a frame of ``size`` (H, W): ``(4, H, W)`` uint8, transparent where there is no color, and ``(H, W)``
    bool, the pixels to keep."""
    canvas, keep = np.zeros((*size, 4), np.uint8), np.zeros(size, np.uint8)
    for paint, radius, points in scribbles:
        path = [np.rint(np.array([points[0], *points]) * size[1] * 8).astype(np.int32)]
        color = (*bytes.fromhex(paint[1:]), 255) if paint.startswith("#") else (0, 0, 0, 0)
        for layer, value in ((canvas, color), (keep, (paint == "keep",))):
            cv2.polylines(layer, path, False, tuple(map(int, value)), max(1, round(2 * radius * size[1])), shift=3)
    return canvas.transpose(2, 0, 1), keep > 0


def patch(frame: np.ndarray, scribbles: Sequence[Scribble]) -> np.ndarray:
    """The new colors of a frame ``(3, H, W)`` uint8, gray or in the colors to be corrected, by scribbles: ``(4, H, W)``
    uint8, transparent where no scribble colors it."""
    return spread(frame, *painted(scribbles, frame.shape[1:]))


def preview(frame: np.ndarray, scribbles: Sequence[Scribble] | None) -> np.ndarray | None:
    """A frame ``(H, W, 3)`` uint8 with the colors that scribbles give it; None without scribbles."""
    if not scribbles:
        return None
    colored = patch(frame.transpose(2, 0, 1), scribbles).transpose(1, 2, 0)
    return np.where(colored[..., 3:] > 127, colored[..., :3], frame)
