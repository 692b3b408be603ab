"""Two results on the same frame, and a table of this visit's runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from omnifusion.evaluation import baselines
from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder
from omnifusion.run.pipeline import Resources, prepared
from omnifusion.settings import CHOICES
from omnifusion.state import ColorState
from omnifusion.ui.live import WORDS, seconds
from omnifusion.ui.parts import HEAVY, LATEST, Shared, Updates
from omnifusion.ui.result_tab import gray_of
from omnifusion.video import Writer, read

ABOUT = (
    "Compare two results on the same frame: your own runs, a classical method without learning, or the original colors."
)
OTHERS = {"gray": "in gray", "truth": "original colors", "classical": "classical method (flow and Levin)"}
"""What a run can be compared with beside other runs; such a thing is named by the run's token, a slash and the key."""


def build(s: Shared) -> None:
    """The components."""
    gr.Markdown(ABOUT)
    with gr.Row():
        s.left, s.right = gr.Dropdown([], label="Left", elem_id="left"), gr.Dropdown([], label="Right", elem_id="right")
    s.compared = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="comparedframe")
    s.pair = gr.ImageSlider(label="Left | right", interactive=False, elem_id="compared", max_height=480)
    s.table = gr.Dataframe(label="The runs of this visit", interactive=False, elem_id="runs", wrap=True)


def names(runs: Sequence[RunFolder]) -> list[str]:
    """What to call each run: its number, and what differs between them, corrections included."""
    facts = [
        {
            "clip": run.request.name,
            "colored frames": list(run.request.exemplars) or "none",
            **asdict(run.request.settings),
            "fixes": len(run.report.get("corrections", ())),
        }
        for run in runs
    ]
    differ = [key for key in (facts[0] if facts else {}) if len({str(fact[key]) for fact in facts}) > 1]
    return [f"{k}: {', '.join(_say(key, fact[key]) for key in differ or ['clip'])}" for k, fact in enumerate(facts, 1)]


def _say(key: str, value: Any) -> str:
    label = str(CHOICES[key].label).lower() if key in CHOICES else key
    return str(value) if key in ("clip", "preset") else f"{label} {str(value).strip('[]')}"


def table(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """One row for each run."""
    rows, scores = [], ("psnr", "ssim", "ciede2000")
    for run, name in zip(runs, names(runs), strict=True):
        report, total = run.report, max(1, sum(run.report["origin"].values()))
        shares = [f"{100 * report['origin'].get(origin.name.lower(), 0) / total:.1f} %" for origin in WORDS]
        known = [f"{report['scores'][key]:.2f}" if key in report["scores"] else "" for key in scores]
        rows.append([name, seconds(sum(stage["seconds"] for stage in report["stages"])), *shares, *known])
    return {"headers": ["run", "time", *WORDS.values(), "PSNR", "SSIM", "ΔE00"], "data": rows}


def classical(run: RunFolder) -> Path:
    """The same clip and exemplar by the strongest classical baseline; made when first asked for, and kept."""
    path = run.folder / "classical.mp4"
    if not path.is_file():
        clip = prepared(run, Resources())
        ab = baselines.BASELINES["levin"](clip.L, clip.exemplar_ab()[0])
        with Writer(path, clip.video) as writer:
            for t in range(len(ab)):
                writer.add(clip.full_size(replace(ColorState.gray(clip.L), ab=ab), t))
    return path


def compared(run: RunFolder, what: str, frame: int) -> np.ndarray:
    """A frame of a run or of what it is compared with (see ``OTHERS``), ``(H, W, 3)`` uint8."""
    frame = min(frame, run.report["frames"] - 1)
    if what in ("", "gray"):
        return gray_of(run.frame(frame)) if what else run.frame(frame)
    shown = read(run.clip).frames[frame] if what == "truth" else read(classical(run)).frames[frame]
    return np.ascontiguousarray(np.asarray(shown).transpose(1, 2, 0))


def wire(s: Shared) -> None:
    """The handlers."""
    store, jobs = s.service.store, s.service.jobs

    def lists(tokens: tuple[str, ...]) -> Updates:
        """There is another run."""
        runs = [store.open(token) for token in tokens if store.has(token)]
        offers = [(name, run.token) for name, run in zip(names(runs), runs, strict=True)]
        for number, run in enumerate(runs, 1):
            known = {"gray": True, "truth": run.report["scores"], "classical": 0 in run.report["exemplars"]}
            offers += [(f"{number}: {OTHERS[key]}", f"{run.token}/{key}") for key, there in known.items() if there]
        right = runs[-1].token if runs else None
        left = (
            runs[-2].token if len(runs) > 1 else next((v for _, v in offers if v.endswith("/truth")), f"{right}/gray")
        )
        frames = max((run.report["frames"] for run in runs), default=2)
        return {
            s.left: gr.Dropdown(offers, value=left if runs else None),
            s.right: gr.Dropdown(offers, value=right),
            s.compared: gr.Slider(maximum=max(1, frames - 1), value=frames // 2, interactive=frames > 1),
            s.table: table(runs),
        }

    def side_by_side(left: str | None, right: str | None, frame: int) -> Updates:
        """Another pair or frame was chosen."""
        shown = []
        for name in filter(None, (left, right)):
            token, _, what = name.partition("/")
            run = store.open(token)
            with nullcontext() if what != "classical" or (run.folder / "classical.mp4").is_file() else jobs.beside():
                shown.append(compared(run, what, int(frame)))
        if len({picture.shape for picture in shown}) > 1:
            raise InputError("These two results have frames of different sizes. Compare runs on the same clip.")
        return {s.pair: tuple(shown) if len(shown) == 2 else None}

    chosen = [s.left, s.right, s.compared]
    s.on(s.runs.change, lists, [s.runs], [*chosen, s.table], **LATEST)
    changes = [s.left.change, s.right.change, s.compared.input]
    s.on(changes, side_by_side, chosen, [s.pair], **HEAVY, trigger_mode="always_last")
