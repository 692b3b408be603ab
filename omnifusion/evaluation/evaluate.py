"""Run methods over a set of clips and score them as the paper does (section 4)."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omnifusion import metrics
from omnifusion.evaluation.dataset import read_clip
from omnifusion.evaluation.methods import Method, Sample
from omnifusion.evaluation.tables import COLUMNS, GROUND_TRUTH
from omnifusion.pool import cores
from omnifusion.prior.source import check_source
from omnifusion.progress import Canceled, Costs, InputError, Measured, Step, StepIterator, Steps
from omnifusion.run.files import write_text
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import Origin
from omnifusion.visualize import stretch


@dataclass(frozen=True)
class Protocol:
    """What is measured: the first ``frames`` (None = all) of each clip of a set, resized by ``scale`` with area
    averaging, colored under ``settings``."""

    dataset: str
    settings: Settings
    frames: int | None = None
    scale: float = 1.0


def evaluate(
    clips: Mapping[str, Path], methods: Mapping[str, Method], protocol: Protocol, out: Path,
    stages: Stages | None = None, lpips_weights: Path | None = None,
) -> Steps[pd.DataFrame]:  # fmt: skip
    """Run every method on every clip and score what it made; returns the rows, see ``read``.

    The methods of a clip run together, as they share its trackers and are all scored on what the first one inpainted.
    Scores are means over the frames after the first, which is the exemplar.

    Args:
        out: a JSON file, written after every clip; clips that it holds without an error are not run again.
        lpips_weights: see ``metrics.load_lpips``; if torchvision's own are not available, there is no LPIPS.

    Raises:
        InputError: ``out`` holds something else, or ``lpips_weights`` or the prior cannot be read.
        OSError: ``out`` cannot be written.
    """
    check_source(protocol.settings)  # a missing prior is reported before any work
    stages = stages or Stages()
    content: dict[str, Any] = {"protocol": asdict(protocol) | {"methods": list(methods)}, "no_lpips": "", "rows": []}
    content["machine"] = f"{platform.machine()}, {stages.threads or cores()} threads"
    if out.exists():
        earlier = read(out)
        if earlier.attrs["protocol"] != content["protocol"]:
            raise InputError(f"{out} holds an evaluation with other choices; name another file.")
        whole = ~earlier["clip"].isin(earlier.loc[earlier["error"].notna(), "clip"])
        content["rows"] = [row.dropna().to_dict() for _, row in earlier[whole].iterrows()]
    scores = metrics.COMPARISONS | {"psnr_uint8": metrics.psnr_uint8}
    try:
        scores["lpips"] = metrics.load_lpips(lpips_weights)
    except InputError as error:
        if lpips_weights is not None:
            raise
        content["no_lpips"] = str(error)
    done = {row["clip"] for row in content["rows"]}
    out.parent.mkdir(parents=True, exist_ok=True)
    for n, clip in enumerate(clips):
        if clip not in done:
            for step in _measure(clips[clip], methods, protocol, stages, scores):
                if isinstance(step, Measured):
                    content["rows"].append({"clip": clip} | step.row)
                yield replace(step, message=f"{clip}: {step.message}", done=n / len(clips))
        write_text(out, json.dumps(content, indent=1) + "\n")
    return read(out)


def read(path: Path) -> pd.DataFrame:
    """Read an evaluation: a row for each clip and method with the scores of ``COLUMNS``, or an "error"; a clip that
    could not be read has one row. ``attrs`` say how it was made: "protocol", "machine", "no_lpips". InputError if the
    file does not hold one.
    """
    try:
        content = json.loads(path.read_text())
        rows = pd.DataFrame(content["rows"], columns=["clip", "method", *COLUMNS, "error"])
        rows.attrs = {key: content[key] for key in ("protocol", "machine", "no_lpips")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} does not hold an evaluation; name another file.") from error
    return rows


def _measure(
    path: Path, methods: Mapping[str, Method], protocol: Protocol, stages: Stages, scores: Mapping[str, metrics.Score]
) -> Steps[None]:
    """Run methods on one clip; whatever goes wrong with one, the others are still measured."""
    try:
        ground_truth = read_clip(path, protocol.frames, protocol.scale)
    except Exception as error:
        yield _failure("reading", error)
        return
    row = {"method": GROUND_TRUTH, "cdc": metrics.cdc(ground_truth)}
    yield Measured("evaluate", f"{len(ground_truth)} frames", row=row)
    sample, inpainted = Sample(ground_truth, protocol.settings, stages), None
    for name, method in methods.items():
        costs, row = Costs(), {"method": name}
        work = StepIterator(costs.of(name, method(sample)))
        try:
            for step in work:
                yield Step("evaluate", f"{name}: {step.message}")
            frames, kind = work.result
            row |= {key: float(score(frames[1:], ground_truth[1:]).mean()) for key, score in scores.items()}
        except Canceled:
            raise
        except Exception as error:
            yield _failure(name, error)
            continue
        if kind is not None:
            row["propagated"] = float((kind[1:] == Origin.PROPAGATED).mean())
            row["inpainted"] = float((kind[1:] == Origin.INPAINTED).mean())
            if inpainted is None:
                inpainted = stretch(kind, ground_truth.shape[2:]) == Origin.INPAINTED
        if inpainted is not None and inpainted.any():
            squares = ((frames.astype(np.float32) - ground_truth) ** 2).mean(1)
            row["inpainted_psnr"] = float(10 * np.log10(255**2 / squares[inpainted].mean()))
        row |= {key: getattr(costs, key)[name] for key in ("seconds", "cpu_seconds", "peak_mib")}
        row["cdc"] = metrics.cdc(frames)
        yield Measured("evaluate", f"{name}: {row['psnr']:.2f} dB in {row['seconds']:.0f} s", row=row)


def _failure(name: str, error: Exception) -> Measured:
    sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return Measured("evaluate", f"{name} failed: {sentence}", row={"method": name, "error": sentence})
