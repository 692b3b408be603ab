"""Tables of measurements as text, Markdown and HTML, the paper's own rows beside ours."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnifusion.state import InputError


@dataclass(frozen=True)
class Table:
    """Cells are text; the first column is a name, the others are figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """For a terminal."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[c]) for line in lines) for c in range(len(self.head))]
        body = [
            "  ".join(
                cell.rjust(w) if c else cell.ljust(w) for c, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([self.title, *body, *self.notes])

    def markdown(self) -> str:
        """For a page of the documentation."""
        lines = [f"| {' | '.join(line)} |" for line in [self.head, ["---"] * len(self.head), *self.rows]]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", *lines, *notes]) + "\n"

    def html(self) -> str:
        """For the report."""

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        notes = "".join(f"<p class=note>{html.escape(note)}</p>" for note in self.notes)
        return f"<h2>{html.escape(self.title)}</h2><table>{row(self.head, 'th')}{body}</table>{notes}"


@dataclass(frozen=True)
class Column:
    """A score: its key in an entry's ``scores``, its heading, and how to write it."""

    key: str
    head: str
    form: str

    def cell(self, values: Iterable[float | None]) -> str:
        """The mean of what was measured, or a dash."""
        mean = _mean(v for v in values if v is not None)
        return format(mean, self.form) if np.isfinite(mean) else "–"


PSNR = Column("psnr", "PSNR ↑", ".2f")
SSIM = Column("ssim", "SSIM ↑", ".4f")
LPIPS = Column("lpips", "LPIPS ↓", ".4f")
CDC = Column("cdc", "CDC ↓", ".6f")
DELTA_E = Column("ciede2000", "ΔE00 ↓", ".2f")
COLOUR = Column("colour", "colour", ".2f")
SCORES = (PSNR, SSIM, LPIPS, CDC, DELTA_E, COLOUR)
COMPARED = (PSNR, SSIM, LPIPS, DELTA_E)

PAPER_DAVIS = {
    "DeepRemaster": ("27.03", "0.964", "0.057", "0.005098"),
    "OmniFusion, SD v1.5": ("27.32", "0.968", "0.077", "0.004143"),
    "OmniFusion, SD v2.0": ("27.87", "0.970", "0.070", "0.004026"),
}
"""PSNR, SSIM, LPIPS and CDC of the paper's table 1, DAVIS."""


def entries(data: dict[str, Any], method: str) -> dict[str, dict[str, Any]]:
    """The scored entries of a method by clip."""
    every = {clip: about["methods"].get(method, {}) for clip, about in data["clips"].items()}
    return {clip: entry for clip, entry in every.items() if "scores" in entry}


def measured(data: dict[str, Any]) -> list[str]:
    """The methods that have scores, in the order they were run."""
    return list(
        dict.fromkeys(m for about in data["clips"].values() for m, e in about["methods"].items() if "scores" in e)
    )


def failures(data: dict[str, Any]) -> list[str]:
    """One sentence for everything that failed."""
    clips = data["clips"].items()
    whole = [f"{clip} could not be measured: {about['error']}" for clip, about in clips if "error" in about]
    single = [
        f"{m} failed on {clip}: {e['error']}" for clip, a in clips for m, e in a["methods"].items() if "error" in e
    ]
    return whole + single


def label(data: dict[str, Any], method: str) -> str:
    """A method's name, with the prior where it has one."""
    prior = data["protocol"]["settings"]["prior"]
    return f"{method}, {prior} prior" if method in ("omnifusion", "inpainting-only") else method


def main_table(data: dict[str, Any]) -> Table:
    """Means over the clips, every method a row."""
    rows = []
    for method in measured(data):
        found = entries(data, method).values()
        shares = [
            Column("", "", ".1%").cell(e.get("shares", {}).get(region) for e in found)
            for region in ("propagated", "inpainted")
        ]
        scores = [column.cell(e["scores"].get(column.key) for e in found) for column in SCORES]
        cost = [Column("", "", ".1f").cell(e["seconds"] for e in found), f"{max(e['peak_mib'] for e in found)}"]
        rows.append([label(data, method), str(len(found)), *scores, *shares, *cost])
    cdc = Column("", "", ".6f").cell(about["truth"]["cdc"] for about in data["clips"].values() if "truth" in about)
    rows.append(["the truth", str(len(data["clips"])), "", "", "", cdc, "", "1.00", "", "", "", ""])
    head = ["method", "clips", *(c.head for c in SCORES), "propagated", "inpainted", "s per clip", "peak MiB"]
    missing = data.get("lpips_missing")
    notes = [f"No LPIPS: {missing}"] if missing else []
    return Table("Means over the clips", head, rows, notes + failures(data))


def title(data: dict[str, Any]) -> str:
    """What was measured, in one line."""
    p = data["protocol"]
    frames = f"first {p['frames']} frames" if p["frames"] else "whole clips"
    return f"{p['dataset']}, {_clips(data)}, {frames}, scale {p['scale']:g}, {p['settings']['preset']} preset"


def _clips(data: dict[str, Any]) -> str:
    """How many clips, in words."""
    count = len(data["clips"])
    return f"{count} clip{'' if count == 1 else 's'}"


def clip_table(data: dict[str, Any], column: Column = PSNR) -> Table:
    """One score of every method on every clip."""
    rows = []
    for method in measured(data):
        found = entries(data, method)
        one = [column.cell([found.get(clip, {}).get("scores", {}).get(column.key)]) for clip in data["clips"]]
        rows.append([label(data, method), *one, column.cell(e["scores"].get(column.key) for e in found.values())])
    return Table(f"{column.head} per clip", ["method", *data["clips"], "mean"], rows)


PEERS = ("levin", "flow-warp")
"""The classical rows that OmniFusion is held against."""


def gain_table(data: dict[str, Any]) -> Table | None:
    """OmniFusion against the better of the classical peers, per clip, or None where either was not run.

    The last column compares means over the clips: the better peer is then the one with the better mean.
    """
    ours, peers = entries(data, "omnifusion"), [entries(data, peer) for peer in PEERS]
    clips = [clip for clip in ours if any(clip in peer for peer in peers)]
    if not clips:
        return None

    def gains(
        key: str, better: Callable[[Iterable[float]], float], region: str | None = None
    ) -> list[tuple[float, float]]:
        def score(entry: dict[str, Any]) -> float:
            return (entry["regions"].get(region, {}) if region else entry["scores"]).get(key, np.nan)

        pairs = [(score(ours[c]), better(score(peer[c]) for peer in peers if c in peer)) for c in clips]
        whole = [[score(peer[c]) for c in clips] for peer in peers if all(c in peer for c in clips)]
        mean = better(_mean(row) for row in whole) if whole else np.nan
        return [*pairs, (_mean([score(ours[c]) for c in clips]), mean)]

    def decibels(region: str | None = None) -> list[str]:
        return [f"{a - b:+.2f}" if np.isfinite(a - b) else "–" for a, b in gains("psnr", max, region)]

    def percents(key: str) -> list[str]:
        return [f"{100 * (a / b - 1):+.1f} %" for a, b in gains(key, min)]

    rows = [
        ["PSNR, dB", *decibels()],
        ["PSNR of inpainted pixels, dB", *decibels("inpainted")],
        ["PSNR of propagated pixels, dB", *decibels("propagated")],
        ["ΔE00", *percents("ciede2000")],
        ["CDC", *percents("cdc")],
    ]
    note = (
        "Targets: PSNR at least 1.5 dB up and ΔE00 at least 8 % down in the mean, CDC no worse, no clip below its peer."
    )
    return Table(
        f"OmniFusion against the better of {' and '.join(PEERS)}", ["difference", *clips, "mean"], rows, [note]
    )


def _mean(values: Iterable[float]) -> float:
    """The mean of what is known, NaN where nothing is."""
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def region_table(data: dict[str, Any]) -> Table | None:
    """Scores on OmniFusion's inpainted and propagated pixels alone, or None where it was not run."""
    rows = []
    for region in ("inpainted", "propagated"):
        for method in measured(data):
            found = [e["regions"][region] for e in entries(data, method).values() if region in e["regions"]]
            if found:
                cells = [column.cell(e.get(column.key) for e in found) for column in COMPARED]
                rows.append([f"{region}: {label(data, method)}", str(len(found)), *cells])
    head = ["pixels and method", "clips", *(c.head for c in COMPARED)]
    note = "All methods on the same pixels: those that OmniFusion inpainted, and those that it propagated."
    return Table("By where OmniFusion's colour comes from", head, rows, [note]) if rows else None


def paper_table(data: dict[str, Any]) -> Table:
    """Our row beside the paper's, and what differs between them."""
    p, columns = data["protocol"], (PSNR, SSIM, LPIPS, CDC)
    found = list(entries(data, "omnifusion").values())
    prior = p["settings"]["prior"]
    ours = {prior: [c.cell(e["scores"].get(c.key) for e in found) for c in columns]} if found else {}
    names = {"bundled": "ours, bundled prior", "sd15": "ours, SD v1.5", "sd20": "ours, SD v2.0"}
    rows = [[f"paper: {name}", *row] for name, row in PAPER_DAVIS.items()]
    rows += [[name, *ours.get(key, ["not run"] * 4)] for key, name in names.items()]
    frames = f"the first {p['frames']} frames" if p["frames"] else "whole clips"
    command = (
        "python -m omnifusion evaluate DAVIS --clips DAVIS/ImageSets/2016/val.txt "
        "--methods omnifusion,levin,flow-warp --preset paper --prior sd20 --json sd20.json"
    )
    note = (
        "Not the same protocol: the paper takes the 20 clips of its DAVIS test set, at a size it does not name, with "
        f"Stable Diffusion on RTX 3090 cards; here {_clips(data)}, {frames}, frames resized by "
        f"{p['scale']:g}, the {p['settings']['preset']} preset with the {prior} prior on {data['machine']}. Rows that "
        f'say "not run" need Stable Diffusion\'s weights and a GPU: `{command}` (or `--prior sd15`).'
    )
    return Table("Beside table 1 of the paper (DAVIS)", ["row", *(c.head for c in columns)], rows, [note])


def evaluation_tables(data: dict[str, Any]) -> list[Table]:
    """All that one measurement has to say."""
    tables = [main_table(data), gain_table(data), clip_table(data), clip_table(data, DELTA_E), region_table(data)]
    return [table for table in tables if table is not None]


PAGE_HEAD = "# Results\n\nThe commands at the end of each section wrote it; nothing here is typed by hand.\n"


def put_section(page: Path, key: str, heading: str, body: str) -> None:
    """Write a section of a Markdown page that commands keep: the one named ``key`` is replaced, a new one is appended.

    A page that is not there begins with ``PAGE_HEAD``.

    Raises:
        InputError: the page cannot be written.
    """
    begin, end = f"<!-- begin {key} -->", f"<!-- end {key} -->"
    section = f"{begin}\n## {heading}\n\n{body.strip()}\n{end}"
    old = page.read_text() if page.exists() else PAGE_HEAD
    before, found, rest = old.partition(begin)
    new = (
        before + section + rest.partition(end)[2] if found else old.rstrip() + ("\n\n" if old else "") + section + "\n"
    )
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(new)
    except OSError as error:
        raise InputError(f"{page} cannot be written ({error}).") from error
