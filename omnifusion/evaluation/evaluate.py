"""Runs methods over a set of clips, scores them as the paper does (section 4), and keeps all that is done in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from omnifusion import metrics
from omnifusion.driver import Stages
from omnifusion.evaluation.dataset import load
from omnifusion.evaluation.methods import Case, Method, Outcome
from omnifusion.meter import Meter, machine
from omnifusion.settings import Settings
from omnifusion.state import InputError, Origin, Step, Steps

REGIONS = {"propagated": Origin.PROPAGATED, "inpainted": Origin.INPAINTED}
"""The parts of a clip that all methods are also scored on alone: what the first method propagated and inpainted."""

COMPARISONS: dict[str, Callable[..., np.ndarray]] = {
    "psnr": metrics.psnr,
    "ssim": metrics.ssim,
    "ciede2000": metrics.ciede2000,
}


@dataclass(frozen=True)
class Protocol:
    """What is measured and how; results under different protocols are not mixed.

    Attributes:
        dataset: name of the set.
        frames: the first so many of each clip; None = whole clips.
        scale: frames are resized by this with area averaging, before anything else.
        settings: OmniFusion's choices.
        lpips: file with the backbone's weights; None = torchvision's own.
    """

    dataset: str
    frames: int | None
    scale: float
    settings: Settings
    lpips: str | None = None


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
        scores = {name: score(result, truth, where) for name, score in COMPARISONS.items()}
        if self.network is not None:
            scores["lpips"] = metrics.lpips(self.network, result, truth, where)
        return scores

    def score(self, truth: np.ndarray, outcome: Outcome, regions: dict[str, np.ndarray]) -> dict[str, Any]:
        """Scores of one method on one clip; the first frame is the exemplar and is only seen by CDC.

        Args:
            truth: ``(T, 3, H, W)`` uint8.
            regions: name -> ``(T, H, W)`` bool.
        """
        result, T = outcome.frames, len(truth)
        curves = self.compare(result[1:], truth[1:])
        means = {name: float(values.mean()) for name, values in curves.items()}
        means["cdc"] = metrics.cdc(result)
        means["colour"] = float(metrics.colourfulness(result[1:]).mean() / metrics.colourfulness(truth[1:]).mean())
        entry: dict[str, Any] = {"scores": means, "regions": {}, "curves": {k: _rounded(v) for k, v in curves.items()}}
        for name, where in regions.items():
            counts = where[1:].reshape(T - 1, -1).sum(1)
            if counts.any():
                scores = self.compare(result[1:], truth[1:], where[1:])
                entry["regions"][name] = {k: pooled(k, v, counts) for k, v in scores.items()}
        if outcome.kind is not None:
            kind = outcome.kind[1:]
            entry["shares"] = {name: float((kind == origin).mean()) for name, origin in REGIONS.items()}
            entry["curves"]["inpainted"] = _rounded((kind == Origin.INPAINTED).mean((1, 2)))
            entry["curves"]["coverage"] = _rounded((kind >= 0).mean((1, 2)))
            entry["curves"]["propagated"] = _rounded((kind == Origin.PROPAGATED).mean((1, 2)))
        return entry


def pooled(name: str, values: np.ndarray, counts: np.ndarray) -> float:
    """One figure for a region: frames ``(T,)`` weighted by their pixels ``(T,)``; PSNR of the mean squared error."""
    seen = counts > 0
    weights = counts[seen] / counts[seen].sum()
    if name == "psnr":
        return float(-10 * np.log10((weights * 10 ** (-values[seen] / 10)).sum()))
    return float((weights * values[seen]).sum())


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in values]


def full_size(kind: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``kind`` ``(T, h, w)`` at another size ``(H, W)`` by nearest neighbour."""
    rows, columns = (np.arange(n) * k // n for n, k in zip(size, kind.shape[1:], strict=True))
    return kind[:, rows[:, None], columns[None]]


class Store:
    """Scores in a JSON file, pictures beside it in ``NAME.frames/CLIP/METHOD.npz``; resumable.

    Args:
        path: the JSON file.
        protocol: of this run.

    Raises:
        InputError: the file holds something else.
    """

    def __init__(self, path: Path, protocol: Protocol) -> None:
        self.path = path
        wanted = asdict(protocol)
        self.data: dict[str, Any] = {"protocol": wanted, "clips": {}}
        if self.path.exists():
            self.data = read_scores(self.path)
            if self.data["protocol"] != wanted:
                raise InputError(f"{path} holds a measurement with other choices; name another file.")
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def clips(self) -> dict[str, Any]:
        """clip -> {"frames", "size", "truth", "methods": method -> entry} or {"error"}."""
        return self.data["clips"]

    def done(self, clip: str, method: str) -> bool:
        """Whether the file has scores of ``method`` on ``clip``."""
        return "scores" in self.clips.get(clip, {}).get("methods", {}).get(method, {})

    def save(self) -> None:
        """Write the file, whole or not at all."""
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.data, indent=1) + "\n")
        draft.replace(self.path)

    def keep(self, clip: str, method: str, outcome: Outcome) -> None:
        """Keep a method's frames."""
        keep_frames(frames_file(self.path, clip, method), outcome)

    def frames(self, clip: str, method: str) -> Outcome | None:
        """A method's frames, if it has been run."""
        return read_frames(frames_file(self.path, clip, method)) if self.done(clip, method) else None


def read_scores(path: Path) -> dict[str, Any]:
    """The content of a file that ``evaluate`` wrote.

    Raises:
        InputError: it is not one.
    """
    try:
        data = json.loads(path.read_text())
        data["protocol"]["settings"], data["clips"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file that `evaluate --json` wrote.") from error
    return data


def frames_file(scores: Path, clip: str, method: str) -> Path:
    """Where the frames of a method on a clip are, for the scores file ``scores``."""
    return scores.with_suffix(".frames") / clip / f"{method}.npz"


def keep_frames(path: Path, outcome: Outcome) -> None:
    """Write frames and origins to a compressed file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.zeros(0, np.int8) if outcome.kind is None else outcome.kind
    np.savez_compressed(path, frames=outcome.frames, kind=kind)


def read_frames(path: Path) -> Outcome:
    """Frames and origins that ``keep_frames`` wrote."""
    with np.load(path) as file:
        return Outcome(file["frames"], file["kind"] if file["kind"].size else None)


def evaluate(
    clips: dict[str, Path],
    methods: Mapping[str, Method],
    protocol: Protocol,
    store: Store,
    scorer: Scorer,
    stages: Stages | None = None,
) -> Steps[dict[str, Any]]:
    """Run ``methods`` on every clip; returns the store's content.

    A clip or method that fails is noted with its reason, and the rest goes on. What the store has is not run again,
    except that a new run of the first method takes the others along, as all are scored on the regions of the first.
    """
    stages = stages or Stages()
    store.data["lpips_missing"] = scorer.lpips_missing
    store.data.setdefault("machine", machine())
    for n, (name, path) in enumerate(clips.items()):
        todo = {m: method for m, method in methods.items() if not store.done(name, m)}
        if not todo:
            continue
        first = next(iter(methods))
        if first in todo:
            todo = dict(methods)
        try:
            truth = load(path, protocol.frames, protocol.scale)
        except Exception as error:  # whatever is wrong with one clip, the others are still measured
            store.clips[name] = {"error": _reason(error), "methods": {}}
            store.save()
            message = f"{name} cannot be read: {_reason(error)}"
            yield Step("evaluate", message, done=n / len(clips), data={"result": store.clips[name]})
            continue
        for step in _measure(name, truth, todo, first, protocol, store, scorer, stages):
            result = {"result": step.data["result"]} if step.stage == "evaluate" else {}
            message = f"{name}: {step.message}"
            yield Step("evaluate", message, done=n / len(clips), data=result)
    return store.data


def _measure(
    name: str,
    truth: np.ndarray,
    methods: Mapping[str, Method],
    first: str,
    protocol: Protocol,
    store: Store,
    scorer: Scorer,
    stages: Stages,
) -> Steps[None]:
    """All methods on one clip, into the store."""
    case = Case(truth, protocol.settings, stages)
    about = {"frames": len(truth), "size": list(truth.shape[2:]), "truth": {"cdc": metrics.cdc(truth)}}
    entry = store.clips.setdefault(name, {})
    entry.pop("error", None)
    entry.update(about)
    entry.setdefault("methods", {})
    store.keep(name, "truth", Outcome(truth))
    for method, run in methods.items():
        try:
            with Meter() as meter:
                outcome = yield from run(case)
            reference = outcome if method == first else store.frames(name, first)
            scores = scorer.score(truth, outcome, regions(reference, truth))
            scores |= {"seconds": round(meter.seconds + outcome.borrowed, 2), "peak_mib": round(meter.peak_mib)}
            store.keep(name, method, outcome)
            store.data["machine"] = machine()
            message = f"{method} {scores['scores']['psnr']:.2f} dB in {scores['seconds']:.0f} s"
        except Exception as error:  # one method's failure must not cost the others their scores
            scores = {"error": _reason(error)}
            message = f"{method} failed: {scores['error']}"
        entry["methods"][method] = scores
        store.save()
        yield Step("evaluate", message, data={"result": scores})


def regions(reference: Outcome | None, truth: np.ndarray) -> dict[str, np.ndarray]:
    """What ``reference`` propagated and inpainted, each ``(T, H, W)`` bool; empty where that is unknown."""
    if reference is None or reference.kind is None:
        return {}
    kind = full_size(reference.kind, (truth.shape[2], truth.shape[3]))
    return {region: kind == origin for region, origin in REGIONS.items()}


def _reason(error: Exception) -> str:
    """One line."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
