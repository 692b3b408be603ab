"""What each part is worth: table 2 of the paper, and our own parts switched off one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from omnifusion.evaluation.methods import Case, Method, Outcome, omnifusion
from omnifusion.evaluation.scores import Scores
from omnifusion.evaluation.tables import (
    CDC,
    COMPARED,
    CPU_SECONDS,
    DELTA_E,
    PSNR,
    SECONDS,
    SSIM,
    Table,
    no_lpips,
    written,
)
from omnifusion.settings import Settings
from omnifusion.state import Steps

Change = Callable[[Settings], Settings]

WHOLE = "whole method"

ROWS: dict[str, Change] = {
    WHOLE: lambda s: replace(s, optimizations=1),
    "twice the steps": lambda s: replace(s, optimizations=1, steps=2 * s.steps),
    "3 optimisations": lambda s: replace(s, optimizations=3),
    "no colour condition": lambda s: replace(s, optimizations=1, color_condition=False),
    "no grey constraint": lambda s: replace(s, optimizations=1, grey_constraint=False),
    "neither": lambda s: replace(s, optimizations=1, color_condition=False, grey_constraint=False),
}
"""The rows of table 2, from the last to the first: what becomes of the settings."""

PAPER = {
    WHOLE: ("27.87", "0.970", "0.070"),
    "twice the steps": ("27.99", "0.965", "0.075"),
    "3 optimisations": ("27.17", "0.941", "0.103"),
    "no colour condition": ("25.37", "0.922", "0.111"),
    "no grey constraint": ("26.24", "0.904", "0.127"),
    "neither": ("24.78", "0.892", "0.155"),
}
"""PSNR, SSIM and LPIPS of the paper's table 2."""

PARTS: dict[str, Change] = {
    "colour condition, eq. (2)": lambda s: replace(s, color_condition=False),
    "grey constraint, eq. (3)-(4)": lambda s: replace(s, grey_constraint=False),
    "hint": lambda s: replace(s, start=None),
    "keyframes first": lambda s: replace(s, order="next"),
}
"""Our own parts: what becomes of the settings without each. A part that the settings do not use is not measured."""


def rows_of_table_2() -> dict[str, Method]:
    """The rows as methods that share each clip's tracker; the whole first, whose inpainted pixels all are scored on."""

    def under(change: Change) -> Method:
        return lambda case: omnifusion(replace(case, settings=change(case.settings)))

    return {name: under(change) for name, change in ROWS.items()}


def without_each_part(settings: Settings) -> dict[str, Method]:
    """The whole method, and it without each part that ``settings`` use; each fits its own tracker, as parts may be
    the tracker's."""

    def under(change: Change) -> Method:
        def run(case: Case) -> Steps[Outcome]:
            return omnifusion(Case(case.truth, change(case.settings), case.stages))

        return run

    used = {name: under(change) for name, change in PARTS.items() if change(settings) != settings}
    return {WHOLE: under(lambda s: s), **used}


def paper_ablation(scores: Scores, settings: Settings) -> Table:
    """Table 2 with the paper's figures beside ours."""
    columns = [*COMPARED, *(replace(c, head=f"inpainted {c.head}", part="inpainted") for c in (PSNR, SSIM)), SECONDS]
    rows = []
    for name, change in ROWS.items():
        s, found = change(settings), scores.entries(name).values()
        switches = ["✓" if on else "×" for on in (s.color_condition, s.grey_constraint)]
        ours = [column.cell(found) for column in columns]
        rows.append([name, str(s.steps), str(s.optimizations), *switches, *ours, *PAPER[name]])
    head = ["row", "steps", "optim.", "inpaint", "L_gray", *(column.head for column in columns)]
    head += ["paper PSNR", "paper SSIM", "paper LPIPS"]
    note = (
        "Columns as in the paper's table 2; its figures are of Stable Diffusion v2.0 on the 20 clips of DAVIS with 50 "
        "and 100 steps. All rows share each clip's tracker; inpainted pixels are those that the whole method inpainted."
    )
    return Table("Beside table 2 of the paper", head, rows, [note, *no_lpips(scores), *scores.failures()])


def part_table(scores: Scores) -> Table:
    """What each part earns and takes: scores and CPU seconds without it, beside the whole method's."""
    columns = (PSNR, DELTA_E, CDC, CPU_SECONDS)
    whole, rows = scores.entries(WHOLE), []
    for name in scores.methods:
        without = scores.entries(name)
        both = whole.keys() & without.keys()
        psnr, seconds = (
            (column.mean(whole[clip] for clip in both), column.mean(without[clip] for clip in both))
            for column in (PSNR, CPU_SECONDS)
        )
        earned, share = psnr[0] - psnr[1], (seconds[0] - seconds[1]) / seconds[0]
        worth = written(earned / (10 * share), "+.2f") if share > 0 else "costs nothing"
        gain = ["", "", ""] if name == WHOLE else [written(earned, "+.2f"), written(share, ".1%"), worth]
        rows.append([name if name == WHOLE else f"without {name}", *(c.cell(without.values()) for c in columns), *gain])
    head = ["row", *(column.head for column in columns), "it earns, dB", "of the CPU time", "dB per tenth of the time"]
    note = "A row is the method without one part; what the part earns is the whole method's PSNR above that row's."
    return Table("Our own parts, switched off one by one", head, rows, [note, *scores.failures()])
