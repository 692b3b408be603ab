"""Table 2 of the paper: OmniFusion with parts of its inpainting step taken away or repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from omnifusion.evaluation.methods import Case, Method, Outcome, omnifusion
from omnifusion.evaluation.tables import COMPARED, PSNR, SSIM, Table, entries
from omnifusion.settings import Settings
from omnifusion.state import Steps

Change = Callable[[Settings], Settings]

ROWS: dict[str, Change] = {
    "whole method": lambda s: replace(s, optimizations=1),
    "twice the steps": lambda s: replace(s, optimizations=1, steps=2 * s.steps),
    "3 optimisations": lambda s: replace(s, optimizations=3),
    "no colour condition": lambda s: replace(s, optimizations=1, color_condition=False),
    "no grey constraint": lambda s: replace(s, optimizations=1, grey_constraint=False),
    "neither": lambda s: replace(s, optimizations=1, color_condition=False, grey_constraint=False),
}
"""The rows of table 2, from the last to the first: what becomes of the settings."""

PAPER = {
    "whole method": ("27.87", "0.970", "0.070"),
    "twice the steps": ("27.99", "0.965", "0.075"),
    "3 optimisations": ("27.17", "0.941", "0.103"),
    "no colour condition": ("25.37", "0.922", "0.111"),
    "no grey constraint": ("26.24", "0.904", "0.127"),
    "neither": ("24.78", "0.892", "0.155"),
}
"""PSNR, SSIM and LPIPS of the paper's table 2."""


def method_of(change: Change) -> Method:
    """OmniFusion under changed settings, with the clip's own tracker."""

    def run(case: Case) -> Steps[Outcome]:
        changed = replace(case, settings=change(case.settings))
        outcome = yield from omnifusion(changed)
        case.trackers, case.fit_seconds = changed.trackers, changed.fit_seconds
        return outcome

    return run


METHODS: dict[str, Method] = {name: method_of(change) for name, change in ROWS.items()}
"""The rows as methods; the whole method first, as the others are also scored on its inpainted pixels."""


def table(data: dict[str, Any], settings: Settings) -> Table:
    """Table 2 from the content of a scores file, with the paper's figures beside ours."""
    rows = []
    for name, change in ROWS.items():
        s, found = change(settings), list(entries(data, name).values())
        choices = [
            str(s.steps),
            str(s.optimizations),
            "✓" if s.color_condition else "×",
            "✓" if s.grey_constraint else "×",
        ]
        whole = [column.cell(e["scores"].get(column.key) for e in found) for column in COMPARED]
        inpainted = [
            column.cell(e["regions"].get("inpainted", {}).get(column.key) for e in found) for column in (PSNR, SSIM)
        ]
        seconds = format(sum(e["seconds"] for e in found) / len(found), ".1f") if found else "–"
        rows.append([name, *choices, *whole, *inpainted, seconds, *PAPER[name]])
    head = ["row", "steps", "optim.", "inpaint", "L_gray", *(c.head for c in COMPARED)]
    head += ["inpainted PSNR", "inpainted SSIM", "s per clip", "paper PSNR", "paper SSIM", "paper LPIPS"]
    note = (
        "Columns as in the paper's table 2; its figures are of Stable Diffusion v2.0 on the 20 clips of DAVIS with 50 "
        "and 100 steps. All rows share each clip's tracker; inpainted pixels are those that the whole method inpainted."
    )
    missing = data.get("lpips_missing")
    return Table("Beside table 2 of the paper", head, rows, [note, *([f"No LPIPS: {missing}"] if missing else [])])
