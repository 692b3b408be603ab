"""Draws what a second buys: dB over the better classical peer against CPU seconds a clip.

    PYTHONPATH=. python benchmarks/curve.py standard.json draft.json parts.json --out docs/curve.svg

Takes files that ``evaluate --json`` and ``ablate --parts --json`` wrote under one protocol, preset apart; the first
holds the peers. Means over the clips that all of them hold. Needs matplotlib (``requirements-dev.txt``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from omnifusion.evaluation.ablation import VARIANTS, WHOLE
from omnifusion.evaluation.scores import Scoreboard

matplotlib.use("svg")
import matplotlib.pyplot as plt

PEERS = {"flow-warp": "flow warp", "levin": "flow warp + Levin"}


def mean(scores: Scoreboard, method: str, clips: list[str]) -> tuple[float, float]:
    """CPU seconds and PSNR of a method."""
    entries = scores.entries(method)
    return tuple(np.mean([[entries[c]["cpu_seconds"], entries[c]["psnr"]] for c in clips], axis=0))


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    boards = [Scoreboard.read(path) for path in args.scores]
    clips = sorted(set.intersection(*(set(board.entries(m)) for board in boards for m in board.methods)))
    points = {label: mean(boards[0], peer, clips) for peer, label in PEERS.items()}
    base = max(psnr for _, psnr in points.values())
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for board in boards:
        preset = board.protocol["settings"]["preset"]
        for method in board.methods:
            if method == "omnifusion":
                points[preset] = mean(board, method, clips)
            elif method in VARIANTS and method != WHOLE and "eq." not in method:
                seconds, psnr = mean(board, method, clips)
                axes.plot(seconds, psnr - base, "o", markersize=6, label=f"{preset}: {method}")
    for label, (seconds, psnr) in points.items():
        axes.plot(seconds, psnr - base, "ks" if label in PEERS.values() else "kD", markersize=8)
        axes.annotate(label, (seconds, psnr - base), (6, 5), textcoords="offset points")
    figure.legend(loc="outside right upper", fontsize=8)
    axes.set(xscale="log", xlabel="CPU seconds a clip", ylabel="dB over the better classical peer")
    axes.set_title(f"{boards[0].protocol['dataset']}, {len(clips)} clips, 24 frames of 427x240", fontsize=10)
    axes.grid(alpha=0.25)
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
