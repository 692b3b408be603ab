"""The report of a measurement: one HTML file that opens offline, with tables, curves over frames and worst frames."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from omnifusion.evaluation.scores import Scoreboard
from omnifusion.evaluation.tables import Table
from omnifusion.state import Origin
from omnifusion.visualize import TINTS, overlay, sheet

INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
"""One color per method: Okabe and Ito's palette."""

SHARES = {origin.name.lower(): f"rgb{TINTS[origin]}" for origin in (Origin.PROPAGATED, Origin.INPAINTED)}
"""The curves of shares, in the tints of tinted pictures."""

WORST = 2
"""How many frames of each clip are shown."""

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:84rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left}.note{color:#555;font-size:13px;max-width:60rem}
.key span{display:inline-block;width:.9em;height:.9em;margin:0 .3em 0 1em;vertical-align:-.1em}
.charts{display:flex;flex-wrap:wrap;gap:1rem}img{max-width:100%}
figure{margin:1rem 0}figcaption{font-size:13px;color:#555}
"""


def html_report(scores: Scoreboard, tables: Sequence[Table]) -> str:
    """The page for ``scores``, with ``tables``."""
    name, inks = html.escape(scores.title()), dict(zip(scores.methods, INKS, strict=False))
    key = {scores.label(method): ink for method, ink in inks.items()} | SHARES
    spans = "".join(f"<span style='background:{ink}'></span>{html.escape(text)}" for text, ink in key.items())
    clips = "\n".join(clip_section(scores, clip, inks) for clip in scores.clips)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{name}</title><style>{STYLE}</style></head><body><h1>{name}</h1>"
        + "\n".join(table.html() for table in tables)
        + f"<h2>Frame by frame</h2><p class=key>{spans}</p>{clips}</body></html>\n"
    )


def clip_section(scores: Scoreboard, clip: str, inks: dict[str, str]) -> str:
    """Curves and worst frames of one clip; ``inks`` by method."""
    found = {m: scores.entries(m)[clip]["curves"] for m in inks if clip in scores.entries(m)}
    if not found:
        return ""
    charts = chart("PSNR in dB", {inks[method]: curves["psnr"] for method, curves in found.items()})
    if ours := next((curves for curves in found.values() if "propagated" in curves), None):
        charts += chart("share of pixels", {ink: ours[name] for name, ink in SHARES.items()}, (0.0, 1.0))
    pictures = worst_frames(scores, clip, found)
    return f"<h3>{html.escape(clip)}</h3><div class=charts>{charts}</div>{pictures}"


def chart(name: str, curves: dict[str, Sequence[float]], bounds: tuple[float, float] | None = None) -> str:
    """Curves over frames, from frame 1 on, as inline SVG: values by ink."""
    width, height, left, top = 400, 150, 42, 18  # of the plot; the picture has margins for labels
    values = np.concatenate(list(curves.values()))
    low, high = bounds or (np.floor(values.min()), np.floor(values.max()) + 1)
    last = max(len(curve) for curve in curves.values())

    def x(frame: int) -> float:
        return left + width * (frame - 1) / max(last - 1, 1)

    def y(value: float) -> float:
        return top + height * (high - value) / (high - low)

    def text(x: float, y: float, words: str, anchor: str) -> str:
        return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{words}</text>"

    drawn = [text(left, 12, name, "start")]
    for value in np.linspace(low, high, 5):
        drawn.append(f"<path d='M{left} {y(value):.1f}h{width}' stroke='#ddd'/>")
        drawn.append(text(left - 5, y(value) + 4, f"{value:.4g}", "end"))
    drawn += [text(x(frame), top + height + 16, str(frame), "middle") for frame in {1, last, *range(10, last, 10)}]
    for ink, curve in curves.items():
        points = " ".join(f"{x(t):.1f},{y(value):.1f}" for t, value in enumerate(curve, 1))
        drawn.append(f"<polyline points='{points}' fill='none' stroke='{ink}' stroke-width='1.8'/>")
    size = f"width='{left + width + 12}' height='{top + height + 22}'"
    return f"<svg {size} role='img' aria-label='{name} over frames' font-size='11' fill='#444'>{''.join(drawn)}</svg>"


def worst_frames(scores: Scoreboard, clip: str, curves: dict[str, Any]) -> str:
    """The frames where the first method scores lowest: the truth, every method, and where its colors come from."""
    first = next(iter(curves))
    outcomes = scores.outcomes(clip, ["truth", *curves])
    pick, kind = lowest(curves[first]["psnr"]), outcomes[first].kind
    rows = [[outcome.picture(t) for outcome in outcomes.values()] for t in pick]
    if kind is not None:
        rows = [[*row, overlay(outcomes[first].picture(t), kind[t])] for row, t in zip(rows, pick, strict=True)]
    picture = io.BytesIO()
    page = sheet(rows, [str(t) for t in pick], [*outcomes, *(["origin"] if kind is not None else [])], width=230)
    Image.fromarray(page).save(picture, "JPEG", quality=85)
    code = base64.b64encode(picture.getvalue()).decode()
    caption = html.escape(f"The frames of {clip} where {first} is farthest from the truth")
    image = f"<img alt='{caption}' src='data:image/jpeg;base64,{code}'>"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def lowest(curve: Sequence[float]) -> list[int]:
    """The ``WORST`` frames with the lowest values (the curve starts at frame 1), a quarter of the clip apart."""
    pick: list[int] = []
    for t in np.argsort(curve) + 1:
        if all(abs(int(t) - other) >= len(curve) / 4 for other in pick):
            pick.append(int(t))
    return sorted(pick[:WORST])
