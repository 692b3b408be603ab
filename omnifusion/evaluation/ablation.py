"""What each part is worth: table 2 of the paper, and our own parts switched off one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from omnifusion.evaluation.methods import Case, Method, Outcome, omnifusion
from omnifusion.evaluation.scores import Scoreboard
from omnifusion.evaluation.tables import CDC, COMPARED, CPU_SECONDS, DELTA_E, PSNR, SECONDS, SSIM, Table, forms
from omnifusion.progress import Costs, Steps
from omnifusion.settings import Settings

Change = Callable[[Settings], Settings]

WHOLE = "whole method"

PARTS: dict[str, tuple[str, str]] = {
    "judge": (WHOLE, "all believed"),
    "keyframes first": (WHOLE, "next in time"),
    "fitted volume": ("a volume", WHOLE),
    "diffusion": ("diffusion", WHOLE),
    "color condition, eq. (2)": ("diffusion", "diffusion without eq. (2)"),
    "gray constraint, eq. (3)-(4)": ("diffusion", "diffusion without eq. (3)-(4)"),
    "hint, where diffusion starts": ("diffusion", "diffusion from noise"),
}
"""Our own parts: the variants with and without each."""


def _variants() -> dict[str, Callable[[Case], Case]]:
    """What becomes of a case in each variant; trackers are its own: the change may concern them, and they cost."""

    def choosing(**changes: Any) -> Callable[[Case], Case]:
        return lambda case: replace(case, settings=replace(case.settings, **changes), trackers={}, fitting=Costs())

    return {
        WHOLE: choosing(),
        "all believed": choosing(trust_tracker=True),
        "next in time": choosing(order="next"),
        "a volume": choosing(omnimotion="draft"),
        "diffusion": choosing(diffusion="always"),
        "diffusion without eq. (2)": choosing(diffusion="always", color_condition=False),
        "diffusion without eq. (3)-(4)": choosing(diffusion="always", gray_constraint=False),
        "diffusion from noise": choosing(diffusion="always", strength=None),
    }


VARIANTS = _variants()


def inpainted(settings: Settings, **changes: Any) -> Settings:
    """Settings under which the prior inpaints every frame, as in the paper, with some changes."""
    return replace(settings, diffusion="always", **changes)


ROWS: dict[str, tuple[Change, tuple[str, str, str]]] = {
    WHOLE: (lambda s: inpainted(s, optimizations=1), ("27.87", "0.970", "0.070")),
    "twice the steps": (
        lambda s: inpainted(s, optimizations=1, steps=2 * s.steps),
        ("27.99", "0.965", "0.075"),
    ),
    "3 optimizations": (lambda s: inpainted(s, optimizations=3), ("27.17", "0.941", "0.103")),
    "no color condition": (
        lambda s: inpainted(s, optimizations=1, color_condition=False),
        ("25.37", "0.922", "0.111"),
    ),
    "no gray constraint": (
        lambda s: inpainted(s, optimizations=1, gray_constraint=False),
        ("26.24", "0.904", "0.127"),
    ),
    "neither": (
        lambda s: inpainted(s, optimizations=1, color_condition=False, gray_constraint=False),
        ("24.78", "0.892", "0.155"),
    ),
}
"""The rows of table 2, from the last to the first: what becomes of the settings, and the paper's PSNR, SSIM, LPIPS."""


def rows_of_table_2() -> dict[str, Method]:
    """The rows as methods; the whole first, as the others are also scored on the pixels that it inpainted."""
    return {name: partial(_sharing, change) for name, (change, _) in ROWS.items()}


def with_and_without_parts() -> dict[str, Method]:
    """The variants that ``PARTS`` compares, as methods."""
    return {name: partial(_varied, change) for name, change in VARIANTS.items()}


def _sharing(change: Change, case: Case) -> Steps[Outcome]:
    """OmniFusion under changed settings, with the clip's own trackers."""
    return omnifusion(replace(case, settings=change(case.settings)))


def _varied(change: Callable[[Case], Case], case: Case) -> Steps[Outcome]:
    """OmniFusion in a variant."""
    return omnifusion(change(case))


def paper_ablation(scores: Scoreboard, settings: Settings) -> Table:
    """Table 2 with the paper's figures beside ours."""
    columns = [*COMPARED, PSNR.within("inpainted"), SSIM.within("inpainted"), SECONDS]
    rows: list[Sequence[Any]] = []
    for name, (change, paper) in ROWS.items():
        s, found = change(settings), scores.entries(name).values()
        switches = ["✓" if on else "×" for on in (s.color_condition, s.gray_constraint)]
        rows.append([name, s.steps, s.optimizations, *switches, *(column.mean(found) for column in columns), *paper])
    heads = dict.fromkeys(["row", "steps", "optim.", "inpaint", "L_gray"], "") | forms(columns)
    heads |= dict.fromkeys(["paper PSNR", "paper SSIM", "paper LPIPS"], "")
    note = (
        "Columns as in the paper's table 2; its figures are of Stable Diffusion v2.0 on the 20 clips of DAVIS with 50 "
        "and 100 steps. All rows share each clip's tracker; inpainted pixels are those that the whole method inpainted."
    )
    return Table("Beside table 2 of the paper", heads, rows, [note, *scores.notes()])


def part_table(scores: Scoreboard) -> Table:
    """What each part earns and takes: the mean scores with it, and how they change by it."""
    columns = (PSNR, DELTA_E, CDC, CPU_SECONDS)
    rows: list[Sequence[Any]] = []
    for part, names in PARTS.items():
        entries = [scores.entries(name) for name in names]
        both = entries[0].keys() & entries[1].keys()
        if both:
            found, without = ([c.mean(e[clip] for clip in both) for c in columns] for e in entries)
            earned = [a - b for a, b in zip(found, without, strict=True)]
            share = earned[-1] / found[-1]
            worth = earned[0] / (10 * share) if share > 0 else "costs nothing"
            rows.append([part, len(both), found[0], *earned, share, worth])
    heads = {"part": "", "clips": "", "PSNR with it": ".2f", "earned, dB": "+.2f", "ΔE00": "+.2f", "CDC": "+.6f"}
    heads |= {"CPU s a clip": "+.1f", "of the time with it": ".1%", "dB per tenth of the time": "+.2f"}
    note = "Each part with and without it; what belongs to the diffusion, where that is always asked."
    return Table("Our own parts, switched one by one", heads, rows, [note, *scores.notes()])
