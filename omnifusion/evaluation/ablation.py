"""What each part is worth: table 2 of the paper, and our own parts switched one by one, all of it by settings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from omnifusion.evaluation.methods import Method, Sample, omnifusion
from omnifusion.evaluation.tables import markdown, means, report
from omnifusion.progress import Steps

Changes = dict[str, Any]

ALWAYS: Changes = {"diffusion": "always"}

TABLE_2: dict[str, tuple[Changes, tuple[float, float, float]]] = {
    "whole method": ({}, (27.87, 0.970, 0.070)),
    "twice the steps": ({"steps": lambda settings: 2 * settings.steps}, (27.99, 0.965, 0.075)),
    "3 optimizations": ({"optimizations": 3}, (27.17, 0.941, 0.103)),
    "no color condition": ({"color_condition": False}, (25.37, 0.922, 0.111)),
    "no gray constraint": ({"gray_constraint": False}, (26.24, 0.904, 0.127)),
    "neither": ({"color_condition": False, "gray_constraint": False}, (24.78, 0.892, 0.155)),
}
"""The rows of table 2: what they change of the whole method, and the paper's PSNR, SSIM and LPIPS (Stable Diffusion
v2.0, 50 and 100 steps, 20 clips of DAVIS)."""

PARTS: dict[str, tuple[Changes, Changes]] = {
    "match confidence": ({}, {"trust_tracker": True}),
    "keyframes first": ({}, {"order": "next"}),
    "fitted volume": ({"omnimotion": "draft"}, {}),
    "diffusion": (ALWAYS, {}),
    "color condition, eq. (2)": (ALWAYS, ALWAYS | {"color_condition": False}),
    "gray constraint, eq. (3)-(4)": (ALWAYS, ALWAYS | {"gray_constraint": False}),
    "color estimate, where diffusion starts": (ALWAYS, ALWAYS | {"strength": None}),
}
"""Our own parts: the settings that switch each on, and off."""


def _changed(changes: Changes, sample: Sample) -> Steps[tuple[np.ndarray, np.ndarray | None]]:
    """Run OmniFusion under changed settings; on the shared trackers, unless the fit is another."""
    values = {name: value(sample.settings) if callable(value) else value for name, value in changes.items()}
    settings = replace(sample.settings, **values)
    trackers = sample.trackers if settings.omnimotion == sample.settings.omnimotion else {}
    return omnifusion(replace(sample, settings=settings, trackers=trackers))


def _name(changes: Changes) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "as chosen"


TABLE_2_METHODS: dict[str, Method] = {
    name: partial(_changed, ALWAYS | {"optimizations": 1} | changes) for name, (changes, _) in TABLE_2.items()
}
"""The rows of table 2; the whole method first, as all are also scored on the pixels that it inpainted."""

PART_METHODS: dict[str, Method] = {_name(c): partial(_changed, c) for part in PARTS.values() for c in part}
"""The variants that ``PARTS`` compares."""


def table_2(rows: pd.DataFrame) -> str:
    """Write table 2 with the paper's figures beside ours."""
    ours = means(rows).reindex(TABLE_2)[["psnr", "ssim", "lpips", "inpainted_psnr", "cpu_seconds"]]
    scores = ["paper PSNR", "paper SSIM", "paper LPIPS"]
    paper = pd.DataFrame({name: row for name, (_, row) in TABLE_2.items()}, index=scores).T
    return report(rows, markdown(ours.join(paper).rename_axis("row"), ".3f"))


def part_table(rows: pd.DataFrame) -> str:
    """Write what each part earns and costs: the PSNR with it, and how the mean scores change by it."""
    scores = {"psnr": "PSNR, dB", "ciede2000": "ΔE00", "cdc": "CDC", "cpu_seconds": "CPU s"}
    by_method = rows.set_index(["method", "clip"])[list(scores)]
    table = {}
    for part, (on, off) in PARTS.items():
        change = (by_method.loc[_name(on)] - by_method.loc[_name(off)]).dropna()
        psnr = by_method.loc[_name(on)].loc[change.index, "psnr"].mean()
        changes = change.mean().rename(scores).add_prefix("change of ")
        table[part] = {"clips": len(change), "PSNR with it": psnr, **changes}
    return report(rows, markdown(pd.DataFrame(table).T.rename_axis("part"), ".3f"))
