"""Tables of measurements, the paper's own rows beside ours."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnifusion.evaluation.scores import Scoreboard


@dataclass(frozen=True)
class Table:
    """Figures under headings; as text it is Markdown, its columns aligned.

    Attributes:
        forms: heading -> how figures below it are written, as ``format`` has it; the first column holds names.
        rows: figures (None or NaN = a dash), or text that stands as it is.
        notes: paragraphs below.
    """

    title: str
    forms: Mapping[str, str]
    rows: list[Sequence[Any]]
    notes: Sequence[str] = ()

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[written(v, form) for v, form in zip(row, self.forms.values(), strict=True)] for row in self.rows]

    def __str__(self) -> str:
        cells = self.cells()
        widths = [max(3, *(len(cell) for cell in column)) for column in zip(self.forms, *cells, strict=True)]
        rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
        form = "| " + " | ".join(f"{{:{'>' if k else '<'}{width}}}" for k, width in enumerate(widths)) + " |"
        lines = [form.format(*row) for row in (self.forms, rule, *cells)]
        return "\n".join([f"**{self.title}**", "", *lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def html(self) -> str:
        """For the report."""

        def row(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = row(self.forms, "th") + "".join(row(cells, "td") for cells in self.cells())
        notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in self.notes)
        return f"<h2>{html.escape(self.title)}</h2><table>{body}</table>{notes}"


def written(value: Any, form: str) -> str:
    """A figure as text, a dash where there is none; text stands as it is."""
    if isinstance(value, str):
        return value
    return "–" if value is None or np.isnan(value) else format(value, form)


@dataclass(frozen=True)
class Column:
    """A figure of an entry: its key, its heading, and how to write it."""

    key: str
    head: str
    form: str

    def within(self, region: str) -> Column:
        """The same figure of a region's pixels alone."""
        return Column(f"{region} {self.key}", f"{region} {self.head}", self.form)

    def mean(self, entries: Iterable[dict[str, Any]]) -> float:
        """The mean over the entries that have it."""
        return mean(entry.get(self.key, np.nan) for entry in entries)


def mean(values: Iterable[float]) -> float:
    """The mean of what is known, NaN where nothing is."""
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def forms(columns: Iterable[Column]) -> dict[str, str]:
    """The headings of columns and their forms."""
    return {column.head: column.form for column in columns}


PSNR = Column("psnr", "PSNR ↑", ".2f")
PSNR_UINT8 = Column("psnr_uint8", "uint8 PSNR ↑", ".2f")
SSIM = Column("ssim", "SSIM ↑", ".4f")
LPIPS = Column("lpips", "LPIPS ↓", ".4f")
CDC = Column("cdc", "CDC ↓", ".6f")
DELTA_E = Column("ciede2000", "ΔE00 ↓", ".2f")
FLICKER = Column("flicker", "flicker ↓", ".2f")
COLOR = Column("color", "color", ".2f")
SHARES = tuple(Column(region, region, ".1%") for region in ("propagated", "inpainted"))
SECONDS = Column("seconds", "s per clip", ".1f")
CPU_SECONDS = Column("cpu_seconds", "CPU s per clip", ".1f")
SUMMARY = (PSNR, PSNR_UINT8, SSIM, LPIPS, CDC, DELTA_E, FLICKER, COLOR, *SHARES, SECONDS, CPU_SECONDS)
COMPARED = (PSNR, SSIM, LPIPS, DELTA_E)

PAPER_DAVIS = {
    "DeepRemaster": ("27.03", "0.964", "0.057", "0.005098"),
    "OmniFusion, SD v1.5": ("27.32", "0.968", "0.077", "0.004143"),
    "OmniFusion, SD v2.0": ("27.87", "0.970", "0.070", "0.004026"),
}
"""PSNR, SSIM, LPIPS and CDC of the paper's table 1, DAVIS."""


def main_table(scores: Scoreboard) -> Table:
    """Means over the clips, every method a row."""
    rows: list[Sequence[Any]] = []
    for method in scores.methods:
        found = scores.entries(method).values()
        means = [column.mean(found) for column in SUMMARY]
        rows.append([scores.label(method), len(found), *means, max(entry["peak_mib"] for entry in found)])
    truth = {CDC: CDC.mean(scores.clips.values()), COLOR: 1.0}
    rows.append(["the truth", len(scores.clips), *(truth.get(column, "") for column in SUMMARY), ""])
    ruler = (
        "uint8 PSNR is ColorMNet's released formula, in which differences and their squares wrap at 256: the ruler of "
        "some published figures, on which gray scores about 6 dB more than it has."
    )
    heads = {"method": "", "clips": "", **forms(SUMMARY), "peak MiB": ""}
    return Table("Means over the clips", heads, rows, [ruler, *scores.notes()])


def clip_table(scores: Scoreboard, column: Column = PSNR) -> Table:
    """One score of every method on every clip."""
    rows: list[Sequence[Any]] = []
    for method in scores.methods:
        found = scores.entries(method)
        every = [found.get(clip, {}).get(column.key) for clip in scores.clips]
        rows.append([scores.label(method), *every, column.mean(found.values())])
    heads = ["method", *scores.clips, "mean"]
    return Table(f"{column.head} per clip", dict.fromkeys(heads, column.form), rows)


RIVALS = ("levin", "flow-warp")
"""The classical rows that OmniFusion is held against."""


def gain_table(scores: Scoreboard) -> Table | None:
    """OmniFusion against the better of its rivals, per clip, or None where either was not run.

    The last column compares means over the clips: the better rival is then the one with the better mean.
    """
    ours, rivals = scores.entries("omnifusion"), [scores.entries(rival) for rival in RIVALS]
    clips = [clip for clip in ours if any(clip in rival for rival in rivals)]
    if not clips:
        return None

    def pairs(column: Column, better: Callable[[Iterable[float]], float]) -> list[tuple[float, float]]:
        each = [(column.mean([ours[c]]), better(column.mean([r[c]]) for r in rivals if c in r)) for c in clips]
        means = [column.mean(rival[c] for c in clips) for rival in rivals if all(c in rival for c in clips)]
        return [*each, (column.mean(ours[c] for c in clips), better(means) if means else np.nan)]

    regions = {f"PSNR of {region} pixels, dB": PSNR.within(region) for region in ("inpainted", "propagated")}
    rows: list[Sequence[Any]] = []
    for name, column in ({"PSNR, dB": PSNR} | regions).items():
        rows.append([name, *(a - b for a, b in pairs(column, max))])
    for name, column in {"ΔE00": DELTA_E, "CDC": CDC}.items():
        rows.append([name, *(written(a / b - 1, "+.1%") for a, b in pairs(column, min))])
    title = f"OmniFusion against the better of {' and '.join(RIVALS)}"
    note = "Targets: PSNR at least 1.5 dB up and ΔE00 at least 8 % down in the mean, CDC no worse, no clip below its baseline."
    return Table(title, dict.fromkeys(["difference", *clips, "mean"], "+.2f"), rows, [note])


def region_table(scores: Scoreboard) -> Table | None:
    """Scores on OmniFusion's inpainted and propagated pixels alone, or None where it was not run."""
    rows: list[Sequence[Any]] = []
    for region in ("inpainted", "propagated"):
        for method in scores.methods:
            found = [entry for entry in scores.entries(method).values() if f"{region} psnr" in entry]
            if found:
                means = [column.within(region).mean(found) for column in COMPARED]
                rows.append([f"{region}: {scores.label(method)}", len(found), *means])
    heads = {"pixels and method": "", "clips": "", **forms(COMPARED)}
    note = "All methods on the same pixels: those that OmniFusion inpainted, and those that it propagated."
    return Table("By where OmniFusion's color comes from", heads, rows, [note]) if rows else None


def paper_table(scores: Scoreboard) -> Table:
    """Our row beside the paper's, and what differs between them."""
    columns, found, prior = (PSNR, SSIM, LPIPS, CDC), scores.entries("omnifusion").values(), scores.prior
    ours = {prior: [column.mean(found) for column in columns]} if found else {}
    names = {"bundled": "ours, bundled prior", "sd15": "ours, SD v1.5", "sd20": "ours, SD v2.0"}
    rows: list[Sequence[Any]] = [[f"paper: {name}", *row] for name, row in PAPER_DAVIS.items()]
    rows += [[name, *ours.get(key, ["not run"] * len(columns))] for key, name in names.items()]
    command = (
        "python -m omnifusion evaluate DAVIS --clips DAVIS/ImageSets/2016/val.txt "
        "--methods omnifusion,levin,flow-warp --preset paper --prior sd20 --json sd20.json"
    )
    note = (
        "Not the same protocol: the paper takes the 20 clips of its DAVIS test set, at a size it does not name, with "
        f"Stable Diffusion on RTX 3090 cards; here {scores.title()} with the {prior} prior on {scores.machine}."
        f' Rows that say "not run" need Stable Diffusion\'s weights and a GPU: `{command}` (or `--prior sd15`).'
    )
    return Table("Beside table 1 of the paper (DAVIS)", {"row": "", **forms(columns)}, rows, [note])


def evaluation_tables(scores: Scoreboard) -> list[Table]:
    """All that one measurement has to say."""
    tables = [
        main_table(scores),
        gain_table(scores),
        clip_table(scores),
        clip_table(scores, DELTA_E),
        region_table(scores),
        paper_table(scores),
    ]
    return [table for table in tables if table is not None]
