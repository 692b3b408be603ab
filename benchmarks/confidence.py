"""Fit match confidence (``omnifusion.flow.confidence``) and check it and that of color transfer on other clips.

    PYTHONPATH=. python benchmarks/confidence.py $OMNIFUSION_CLIPS/davis

Fitted on the clips ``FITTED``, tested on all others of the folder: 24 frames at half size, colors of the first frame.
Prints the weights that fit best, and for every tenth of a probability how many pixels got it, its mean, and the share
of them whose color was right.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.optimize
import torch

from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.evaluation.evaluate import discover, read_clip
from omnifusion.flow import confidence, match
from omnifusion.flow.dis import to_bytes
from omnifusion.flow.tracker import FlowTracker
from omnifusion.inpaint import ReferenceFrame
from omnifusion.propagate import SourceFrame, warp
from omnifusion.state import ColorState
from omnifusion.transfer import Transferrer, gray_features

FITTED = ("blackswan", "kite-surf", "libby", "scooter-black")
FRAMES, EVERY = 24, 37
"""Length of the clips, and of the pixels every n-th is taken."""

Samples = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Figures ``(N, F)`` that a logistic weighs, the probability ``(N,)`` in use, and whether a color is right."""


def right(ab: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether colors ``(..., N)`` are those of the ground truth; a* and b* are the axis before the last."""
    return np.linalg.norm(ab - truth, axis=-2) < confidence.RIGHT


def warped(frames: np.ndarray) -> Samples:
    """Colors of the first frame warped into the others: logarithms of residual, cycle error and chroma spread."""
    lab = rgb_to_lab(from_uint8(frames))
    L, ab = lab[:, :1], lab[:, 1:]
    state = ColorState.of_exemplars(L, {0: ab[0]})
    tracker, source = FlowTracker(to_bytes(L[:, 0])), SourceFrame.of(state, 0)
    tracker.reach(0, range(1, len(L)))
    everywhere, samples = np.arange(L[0].numel()), []
    for j in range(1, len(L)):
        ((points, cycle),) = tracker.matches(everywhere, j, 0)
        residual = match.luminance_residual(everywhere, points, L[j, 0].numpy(), source.L, confidence.RESIDUAL_WINDOW)
        figures = np.stack([residual, cycle, match.sample(source.spread, points)], 1)
        estimate, _ = warp(tracker, state, source, j, 0)
        labels = right(estimate.ab.flatten(1).numpy(), ab[j].flatten(1).numpy())
        chosen = np.flatnonzero(np.isfinite(cycle))[::EVERY]
        p = estimate.confidence.flatten().numpy()
        samples.append((np.log(figures[chosen] + confidence.FLOOR), p[chosen], labels[chosen]))
    return join(samples)


def transferred(frames: np.ndarray) -> Samples:
    """Colors transferred from the first frame into every sixth: the logit of the confidence in use."""
    lab = rgb_to_lab(from_uint8(frames))
    everywhere, samples = torch.ones(lab.shape[-2:], dtype=torch.bool), []
    answer = Transferrer([ReferenceFrame(lab[0, :1], lab[0, 1:], everywhere).candidates()])
    for j in range(4, len(lab), 6):
        features = gray_features(lab[j, 0].numpy()).reshape(everywhere.numel(), -1)[::EVERY]
        transfer = answer(features)
        labels = right(transfer.ab.T, lab[j, 1:].flatten(1).numpy()[:, ::EVERY])
        p = np.clip(transfer.confidence, 1e-6, 1 - 1e-6)
        samples.append((np.log(p / (1 - p))[:, None], p, labels))
    return join(samples)


def join(samples: list[Samples]) -> Samples:
    """Several as one."""
    figures, p, labels = (np.concatenate(part) for part in zip(*samples, strict=True))
    return figures, p, labels


def logistic(figures: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights and bias ``(F + 1,)`` of the likeliest logistic."""
    x, sign = np.column_stack([figures, np.ones(len(figures))]).astype(np.float64), np.where(labels, -1.0, 1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = sign * (x @ w)
        return np.logaddexp(0, z).mean(), x.T @ (sign / (1 + np.exp(-z))) / len(x)

    return scipy.optimize.minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x


def reliability(p: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Tenths of a probability: how many pixels, its mean, and the share that is right."""
    tenth = np.minimum((10 * p).astype(int), 9) / 10
    table = pd.DataFrame({"from": tenth, "pixels": 1, "mean": p, "right": labels}).groupby("from")
    return table.agg({"pixels": "sum", "mean": "mean", "right": "mean"})


def calibrate(
    fitted: Mapping[str, np.ndarray], tested: Mapping[str, np.ndarray], sample: Callable[[np.ndarray], Samples]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Fit on some clips; returns weights and bias, and how reliable the probability in use is on others."""
    figures, _, labels = join([sample(frames) for frames in fitted.values()])
    _, p, labels_elsewhere = join([sample(frames) for frames in tested.values()])
    return logistic(figures, labels), reliability(p, labels_elsewhere)


def main() -> None:
    """Fit, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a set of clips, such as davis")
    clips = {name: read_clip(path, FRAMES, 0.5) for name, path in discover(parser.parse_args().folder).items()}
    fitted = {name: clips.pop(name) for name in FITTED if name in clips}
    used = {warped: [*confidence.WEIGHTS, confidence.BIAS], transferred: [1.0, 0.0]}
    for sample, weights in used.items():
        best, table = calibrate(fitted, clips, sample)
        print(f"\n{sample.__name__}: weights and bias that fit best {best.round(3).tolist()}, in use {weights}\n")
        print(table.to_markdown(floatfmt=(".1f", ".0f", ".3f", ".3f")))


if __name__ == "__main__":
    main()
