"""What each part is worth: table 2 of the paper, and our own parts switched off one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from omnifusion.evaluation.methods import Case, Method, Outcome, omnifusion
from omnifusion.evaluation.scores import Scoreboard
from omnifusion.evaluation.tables import CDC, COMPARED, CPU_SECONDS, DELTA_E, PSNR, SECONDS, SSIM, Table, forms
from omnifusion.settings import Settings
from omnifusion.steps import Steps

Change = Callable[[Settings], Settings]

WHOLE = "whole method"

PARTS: dict[str, Change] = {
    "fitted volume": lambda s: replace(s, fit="none"),
    "judge": lambda s: replace(s, literal=True),
    "diffusion": lambda s: replace(s, diffusion="auto"),
    "colour condition, eq. (2)": lambda s: replace(s, color_condition=False),
    "grey constraint, eq. (3)-(4)": lambda s: replace(s, grey_constraint=False),
    "hint": lambda s: replace(s, start=None),
    "keyframes first": lambda s: replace(s, order="next"),
}
"""Our own parts: what becomes of the settings without each. A part that the settings do not use is not measured."""


def inpainted(settings: Settings, **changes: Any) -> Settings:
    """Settings under which the prior inpaints every frame, as in the paper, with some changes."""
    return replace(settings, diffusion="always", **changes)


ROWS: dict[str, tuple[Change, tuple[str, str, str]]] = {
    WHOLE: (lambda s: inpainted(s, optimizations=1), ("27.87", "0.970", "0.070")),
    "twice the steps": (
        lambda s: inpainted(s, optimizations=1, steps=2 * s.steps),
        ("27.99", "0.965", "0.075"),
    ),
    "3 optimisations": (lambda s: inpainted(s, optimizations=3), ("27.17", "0.941", "0.103")),
    "no colour condition": (
        lambda s: inpainted(s, optimizations=1, color_condition=False),
        ("25.37", "0.922", "0.111"),
    ),
    "no grey constraint": (
        lambda s: inpainted(s, optimizations=1, grey_constraint=False),
        ("26.24", "0.904", "0.127"),
    ),
    "neither": (
        lambda s: inpainted(s, optimizations=1, color_condition=False, grey_constraint=False),
        ("24.78", "0.892", "0.155"),
    ),
}
"""The rows of table 2, from the last to the first: what becomes of the settings, and the paper's PSNR, SSIM, LPIPS."""


def rows_of_table_2() -> dict[str, Method]:
    """The rows as methods; the whole first, as the others are also scored on the pixels that it inpainted."""
    return {name: partial(_sharing, change) for name, (change, _) in ROWS.items()}


def without_each_part(settings: Settings) -> dict[str, Method]:
    """The whole method, and it without each part that ``settings`` use."""
    parts = {name: change for name, change in PARTS.items() if change(settings) != settings}
    return {name: partial(_alone, change) for name, change in ({WHOLE: replace} | parts).items()}


def _sharing(change: Change, case: Case) -> Steps[Outcome]:
    """OmniFusion under changed settings, with the clip's own trackers."""
    return omnifusion(replace(case, settings=change(case.settings)))


def _alone(change: Change, case: Case) -> Steps[Outcome]:
    """OmniFusion under changed settings, with trackers of its own: the change may concern them, and they cost."""
    return omnifusion(Case(case.truth, change(case.settings), case.stages, seen=case.seen))


def paper_ablation(scores: Scoreboard, settings: Settings) -> Table:
    """Table 2 with the paper's figures beside ours."""
    columns = [*COMPARED, PSNR.within("inpainted"), SSIM.within("inpainted"), SECONDS]
    rows: list[Sequence[Any]] = []
    for name, (change, paper) in ROWS.items():
        s, found = change(settings), scores.entries(name).values()
        switches = ["✓" if on else "×" for on in (s.color_condition, s.grey_constraint)]
        rows.append([name, s.steps, s.optimizations, *switches, *(column.mean(found) for column in columns), *paper])
    heads = dict.fromkeys(["row", "steps", "optim.", "inpaint", "L_gray"], "") | forms(columns)
    heads |= dict.fromkeys(["paper PSNR", "paper SSIM", "paper LPIPS"], "")
    note = (
        "Columns as in the paper's table 2; its figures are of Stable Diffusion v2.0 on the 20 clips of DAVIS with 50 "
        "and 100 steps. All rows share each clip's tracker; inpainted pixels are those that the whole method inpainted."
    )
    return Table("Beside table 2 of the paper", heads, rows, [note, *scores.notes()])


def part_table(scores: Scoreboard) -> Table:
    """What each part earns and takes: scores and CPU seconds without it, beside the whole method's."""
    columns = (PSNR, DELTA_E, CDC, CPU_SECONDS)
    whole = scores.entries(WHOLE)
    rows: list[Sequence[Any]] = [[WHOLE, *(column.mean(whole.values()) for column in columns), "", "", ""]]
    for name in scores.methods:
        without = scores.entries(name)
        both = whole.keys() & without.keys()
        if name == WHOLE or not both:
            continue
        psnr, seconds = (
            [column.mean(entries[clip] for clip in both) for entries in (whole, without)]
            for column in (PSNR, CPU_SECONDS)
        )
        earned, share = psnr[0] - psnr[1], 1 - seconds[1] / seconds[0]
        worth = earned / (10 * share) if share > 0 else "costs nothing"
        rows.append([f"without {name}", *(c.mean(without.values()) for c in columns), earned, share, worth])
    gains = {"it earns, dB": "+.2f", "of the CPU time": ".1%", "dB per tenth of the time": "+.2f"}
    note = "A row is the method without one part; what the part earns is the whole method's PSNR above that row's."
    heads = {"row": "", **forms(columns), **gains}
    return Table("Our own parts, switched off one by one", heads, rows, [note, *scores.notes()])
