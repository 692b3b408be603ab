"""The report of a measurement: one HTML file that opens offline, with tables, curves over frames and worst frames."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omnifusion.evaluation.evaluate import frames_file, full_size, read_frames
from omnifusion.evaluation.tables import Table, entries, label, measured, title
from omnifusion.picture import TINTS, overlay, sheet
from omnifusion.state import Origin

INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
"""One colour per method: Okabe and Ito's palette."""

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


def html_report(data: dict[str, Any], scores: Path, tables: Sequence[Table]) -> str:
    """The page for the content ``data`` of the file ``scores``, beside which its pictures lie, with ``tables``."""
    name = html.escape(title(data))
    parts = [f"<h1>{name}</h1>"]
    parts += [table.html() for table in tables]
    parts += ["<h2>Frame by frame</h2>", legend(data)]
    for clip in data["clips"]:
        parts.append(clip_section(data, clip, scores))
    body = "\n".join(parts)
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{name}</title>"
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n"


def legend(data: dict[str, Any]) -> str:
    """Which ink is which method, which tint which origin."""
    inks = [(ink, label(data, method)) for method, ink in zip(measured(data), INKS, strict=False)]
    tints = [(_ink(origin), origin.name.lower()) for origin in Origin]

    def key(name: str, items: list[tuple[str, str]]) -> str:
        spans = "".join(f"<span style='background:{ink}'></span>{html.escape(text)}" for ink, text in items)
        return f"<p class=key>{name}{spans}</p>"

    return key("PSNR curves:", inks) + key("Share curves and tinted pictures:", tints)


def clip_section(data: dict[str, Any], clip: str, scores: Path) -> str:
    """Curves and worst frames of one clip."""
    methods = measured(data)
    found = {m: entries(data, m)[clip] for m in methods if clip in entries(data, m)}
    if not found:
        return ""
    psnr = [(INKS[methods.index(m)], e["curves"]["psnr"]) for m, e in found.items()]
    charts = chart("PSNR in dB", psnr)
    ours = next((e for e in found.values() if "propagated" in e["curves"]), None)
    if ours:
        shares = [(_ink(Origin.PROPAGATED), "propagated"), (_ink(Origin.INPAINTED), "inpainted")]
        charts += chart("share of pixels", [(ink, ours["curves"][name]) for ink, name in shares], bounds=(0.0, 1.0))
    pictures = worst_frames(list(found), found, scores, clip)
    return f"<h3>{html.escape(clip)}</h3><div class=charts>{charts}</div>{pictures}"


def _ink(origin: Origin) -> str:
    return "#" + "".join(f"{c:02x}" for c in TINTS[origin])


def chart(
    name: str,
    curves: Sequence[tuple[str, Sequence[float]]],
    bounds: tuple[float, float] | None = None,
    size: tuple[int, int] = (460, 200),
) -> str:
    """Curves over frames, from frame 1 on, as inline SVG: (ink, values) each."""
    width, height, left, bottom = *size, 42, 24
    values = [v for _, curve in curves for v in curve]
    low, high = bounds or (float(np.floor(min(values))), float(np.ceil(max(values))))
    high = max(high, low + 1e-6)
    last = max(len(curve) for _, curve in curves)

    def x(frame: float) -> float:
        return left + (frame - 1) / max(last - 1, 1) * (width - left - 8)

    def y(value: float) -> float:
        return 18 + (high - value) / (high - low) * (height - bottom - 18)

    lines = []
    for value in np.linspace(low, high, 5):
        lines.append(f"<path d='M{left} {y(value):.1f}H{width - 8}' stroke='#ddd'/>")
        lines.append(f"<text x='{left - 5}' y='{y(value) + 4:.1f}' text-anchor='end'>{value:.4g}</text>")
    for frame in sorted({1, last, *range(10, last, 10)}):
        lines.append(f"<text x='{x(frame):.1f}' y='{height - 8}' text-anchor='middle'>{frame}</text>")
    for ink, curve in curves:
        points = " ".join(f"{x(t + 1):.1f},{y(v):.1f}" for t, v in enumerate(curve))
        lines.append(f"<polyline points='{points}' fill='none' stroke='{ink}' stroke-width='1.8'/>")
    text = f"<text x='{left}' y='12' font-weight='600'>{html.escape(name)}</text>"
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' role='img' aria-label='{html.escape(name)} over frames' "
        f"font-size='11' font-family='system-ui,sans-serif' fill='#444'>{text}{''.join(lines)}</svg>"
    )


def worst_frames(methods: list[str], found: dict[str, Any], scores: Path, clip: str) -> str:
    """The frames where the first method scores lowest: the truth, every method, and where its colours come from."""
    first = methods[0]
    pick = _lowest(found[first]["curves"]["psnr"])
    outcomes = {name: read_frames(frames_file(scores, clip, name)) for name in ["truth", *methods]}
    rows = [[outcome.frames[t].transpose(1, 2, 0) for outcome in outcomes.values()] for t in pick]
    labels = list(outcomes)
    own = outcomes[first]
    if own.kind is not None:
        kind = full_size(own.kind, (own.frames.shape[2], own.frames.shape[3]))
        for row, t in zip(rows, pick, strict=True):
            row.append(overlay(own.frames[t].transpose(1, 2, 0), kind[t]))
        labels.append("origin")
    picture = sheet(rows, [f"{t}" for t in pick], labels, width=230)
    caption = f"The frames of {clip} where {first} is farthest from the truth"
    return f"<figure>{inline(picture, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _lowest(curve: Sequence[float]) -> list[int]:
    """The ``WORST`` frames with the lowest values (the curve starts at frame 1), a quarter of the clip apart."""
    pick: list[int] = []
    for t in np.argsort(curve):
        if all(abs(int(t) + 1 - other) >= len(curve) / 4 for other in pick):
            pick.append(int(t) + 1)
    return sorted(pick[:WORST])


def inline(picture: np.ndarray, alt: str) -> str:
    """``(H, W, 3)`` uint8 as an image tag that carries its own JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(alt)}' src='data:image/jpeg;base64,{code}'>"
