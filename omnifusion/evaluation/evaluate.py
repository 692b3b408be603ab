"""Runs methods over a set of clips, scores them as the paper does (section 4), and keeps all that is done in a file."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from omnifusion import metrics
from omnifusion.evaluation.dataset import read_clip
from omnifusion.evaluation.degrade import degrade
from omnifusion.evaluation.methods import Case, Method, Outcome
from omnifusion.evaluation.scores import Protocol, Scoreboard
from omnifusion.progress import Costs, InputError, Measured, Step, Steps
from omnifusion.stages import Stages
from omnifusion.state import Origin

REGIONS = {"propagated": Origin.PROPAGATED, "inpainted": Origin.INPAINTED}
"""The parts of a clip that all methods are also scored on alone: what the first method propagated and inpainted."""


class Scorer:
    """All scores of a clip; LPIPS where its network can be had, else ``lpips_missing`` says why not."""

    def __init__(self, weights: Path | None = None) -> None:
        self.network: nn.Module | None = None
        self.lpips_missing: str | None = None
        try:
            self.network = metrics.lpips_network(weights)
        except InputError as error:
            if weights is not None:
                raise
            self.lpips_missing = str(error)

    def compare(self, result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Every score that compares frames, each ``(T,)``, on all pixels or on those of ``where``."""
        scores = {name: score(result, truth, where) for name, score in metrics.COMPARISONS.items()}
        if self.network is not None:
            scores["lpips"] = metrics.lpips(self.network, result, truth, where)
        return scores

    def score(self, truth: np.ndarray, outcome: Outcome, reference: Outcome) -> dict[str, Any]:
        """Scores of one method on one clip; the first frame is the exemplar and is only seen by CDC.

        Args:
            truth: ``(T, 3, H, W)`` uint8.
            reference: says which pixels are propagated and inpainted, if it knows.

        Returns:
            The figures by name, means over frames: scores, those of a region as "REGION SCORE", the share of a region
            under its name; and "curves", those that are known per frame.
        """
        result, true = outcome.frames[1:], truth[1:]
        curves = self.compare(result, true)
        regions: dict[str, float] = {}
        for region, origin in REGIONS.items():
            where = reference.came_by(origin)
            if where is not None and where[1:].any():
                counts, scores = where[1:].sum((1, 2)), self.compare(result, true, where[1:])
                regions |= {f"{region} {name}": pooled(name, values, counts) for name, values in scores.items()}
            if outcome.kind is not None:
                curves[region] = (outcome.kind[1:] == origin).mean((1, 2))
        return {
            **{name: float(values.mean()) for name, values in curves.items()},
            "psnr_uint8": float(metrics.psnr_uint8(result, true).mean()),
            "cdc": metrics.cdc(outcome.frames),
            "flicker": metrics.flicker(outcome.frames, truth),
            "color": float(metrics.colorfulness(result).mean() / metrics.colorfulness(true).mean()),
            **regions,
            "curves": {name: np.round(values, 4).tolist() for name, values in curves.items()},
        }


def pooled(name: str, values: np.ndarray, counts: np.ndarray) -> float:
    """One figure for a region: frames ``(T,)`` weighted by their pixels ``(T,)``; PSNR of the mean squared error."""
    values, weights = values[counts > 0], counts[counts > 0] / counts.sum()
    if name == "psnr":
        return float(-10 * np.log10((weights * 10 ** (-values / 10)).sum()))
    return float((weights * values).sum())


@dataclass(frozen=True)
class Evaluation:
    """One measurement: what is measured, where its scores go, who scores, and where the heavy stages run."""

    protocol: Protocol
    scores: Scoreboard
    scorer: Scorer
    stages: Stages = field(default_factory=Stages)

    def run(self, clips: Mapping[str, Path], methods: Mapping[str, Method]) -> Steps[Scoreboard]:
        """Run ``methods`` on every clip; returns the scores.

        A clip or method that fails is noted with its reason, and the rest goes on. What is scored is not run again,
        except that a new run of the first method takes the others along, as all are scored on the regions of the first.
        """
        first = next(iter(methods))
        self.scores.lpips_missing = self.scorer.lpips_missing
        for n, (clip, path) in enumerate(clips.items()):
            todo = {m: run for m, run in methods.items() if clip not in self.scores.entries(m)}
            if first in todo:
                todo = dict(methods)
            for step in self._measure(clip, path, todo, first) if todo else ():
                told = step if isinstance(step, Measured) else Step("evaluate")
                yield replace(told, message=f"{clip}: {step.message}", done=n / len(clips))
        return self.scores

    def _measure(self, clip: str, path: Path, methods: Mapping[str, Method], first: str) -> Steps[None]:
        """Methods on one clip, into the scores."""
        scores = self.scores
        try:
            truth, seen = read_clip(path, self.protocol.frames, self.protocol.scale), None
            if self.protocol.degrade:
                aged = degrade(truth)
                truth, seen = aged.truth, aged.frames
        except Exception as error:  # whatever is wrong with one clip, the others are still measured
            scores.clips[clip] = {"error": _reason(error), "methods": {}}
            scores.save()
            yield Measured("evaluate", f"cannot be read: {_reason(error)}", row=scores.clips[clip])
            return
        entries = scores.clips.get(clip, {}).get("methods", {})
        about = {"frames": len(truth), "size": list(truth.shape[2:]), "cdc": metrics.cdc(truth)}
        scores.clips[clip] = about | {"methods": entries}
        scores.keep(clip, "truth", Outcome(truth))
        case = Case(truth, self.protocol.settings, self.stages, seen=seen)
        for method, run in methods.items():
            try:
                costs = Costs()
                with costs.during(method):
                    outcome = yield from run(case)
                scores.keep(clip, method, outcome)
                known = first if method == first or clip in scores.entries(first) else "truth"  # which has no regions
                reference = scores.outcomes(clip, [known])[known]
                spent = np.add([costs.seconds[method], costs.cpu_seconds[method]], outcome.borrowed).round(2).tolist()
                cost = dict(zip(("seconds", "cpu_seconds"), spent, strict=True)) | {
                    "peak_mib": round(costs.peak_mib[method])
                }
                entry = self.scorer.score(truth, outcome, reference) | cost
                message = f"{method} {entry['psnr']:.2f} dB in {entry['seconds']:.0f} s"
            except Exception as error:  # one method's failure must not cost the others their scores
                entry = {"error": _reason(error)}
                message = f"{method} failed: {entry['error']}"
            entries[method] = entry
            scores.machine = f"{platform.machine()}, {os.cpu_count()} cores"
            scores.save()
            yield Measured("evaluate", message, row=entry)


def _reason(error: Exception) -> str:
    """One line."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
