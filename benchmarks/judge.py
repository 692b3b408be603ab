"""Fits the judge (``omnifusion.flow.confidence``) and the lookup's confidence (``omnifusion.hint``), and tests both.

    PYTHONPATH=. python benchmarks/judge.py $OMNIFUSION_CLIPS/davis

Fitted on ``FITTED`` and on made scenes, tested on all other clips of the folder: for every tenth of the probability,
how many pixels, the mean probability, and the share that was right. Uses true colors, 24 frames at half size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import synthetic
import torch
from torch import Tensor

from omnifusion import hint
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.evaluation.dataset import read_clip
from omnifusion.flow import confidence as judge
from omnifusion.flow import dis as of
from omnifusion.flow.tracker import DirectFlow

FITTED = ("blackswan", "kite-surf", "libby", "scooter-black")
SCENES = ("two-layers", "three-layers", "occlusion", "rotation", "nonrigid", "zoom")
FRAMES, EVERY = 24, 37
"""Length of the clips, and of the pixels every so many-th is taken."""


def fetched(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of colors fetched from the first frame: the judge's three figures ``(N, 3)``, and whether each is right."""
    lab = rgb_to_lab(from_uint8(frames))
    L, ab = lab[:, 0].numpy(), lab[:, 1:].permute(0, 2, 3, 1).contiguous().numpy()
    tracker, grid, spread = DirectFlow(of.to_bytes(lab[:, 0])), of.grid(*L[0].shape), judge.chroma_spread(ab[0])
    figures, right = [], []
    for j in range(1, len(L)):
        (answer,) = tracker.pairs(j, 0)
        points = grid + answer.flow
        row = judge.residual(L[j], of.remap(L[0], points)), answer.cycle, of.remap(spread, points)
        good = np.linalg.norm(of.remap(ab[0], points) - ab[j], axis=-1) < judge.RIGHT
        seen = np.flatnonzero(np.isfinite(answer.cycle))[::EVERY]
        figures.append(np.log(np.stack([x.ravel()[seen] for x in row], 1) + judge.FLOOR))
        right.append(good.ravel()[seen])
    return np.concatenate(figures), np.concatenate(right)


def looked_up(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of colors looked up in the first frame: logit of the confidence in use ``(N, 1)``, and whether each is right."""
    lab = rgb_to_lab(from_uint8(frames))
    everywhere = torch.ones(lab.shape[-2:], dtype=torch.bool)
    first, asked = hint.Reference(lab[0, :1], lab[0, 1:], everywhere), torch.zeros_like(everywhere)
    asked.view(-1)[::EVERY] = True
    figures, right = [], []
    for j in range(4, len(lab), 6):
        found = hint.lookup(hint.Reference(lab[j, :1], lab[j, 1:], ~everywhere), asked, [first])
        figures.append(torch.logit(found.confidence[asked], eps=1e-6)[:, None].numpy())
        right.append(((found.ab - lab[j, 1:]).norm(dim=0) < judge.RIGHT)[asked].numpy())
    return np.concatenate(figures), np.concatenate(right)


def logistic(figures: np.ndarray, right: np.ndarray) -> Tensor:
    """Weights and bias of the likeliest logistic."""
    x = torch.from_numpy(np.column_stack([figures, np.ones(len(figures))]))
    w, y = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True), torch.from_numpy(right).to(x.dtype)
    search = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y)
        value.backward()
        return value

    search.step(loss)
    return w.detach()


def table(p: np.ndarray, right: np.ndarray) -> None:
    """The reliability of probabilities ``p``, tenth by tenth."""
    print("| probability | pixels | mean | right |\n|---|---|---|---|")
    for k in range(10):
        here = (p >= k / 10) & (p < (k + 1) / 10 if k < 9 else p <= 1)
        if here.sum() >= 100:
            print(
                f"| {k / 10:.1f}-{(k + 1) / 10:.1f} | {here.sum()} | {p[here].mean():.3f} | {right[here].mean():.3f} |"
            )


def main(folder: Path) -> None:
    """Fit, test, print."""
    clips = {c.name: read_clip(c, FRAMES, 0.5) for c in sorted(folder.iterdir()) if c.is_dir()}
    made = {name: synthetic.make(name, FRAMES, (120, 214)).video.frames for name in SCENES}
    for title, figures in (("fetched along flow", fetched), ("looked up", looked_up)):
        rows = {name: figures(frames) for name, frames in clips.items()}
        if figures is fetched:
            rows |= {name: fetched(frames) for name, frames in made.items()}
        fitted = [rows[name] for name in rows if name in FITTED or name in made]
        tested = [rows[name] for name in rows if name not in FITTED and name not in made]
        w = logistic(*(np.concatenate(part) for part in zip(*fitted, strict=True)))
        x, right = (np.concatenate(part) for part in zip(*tested, strict=True))
        print(
            f"\n{title}: weights and bias {[round(v, 3) for v in w.tolist()]}; tested on other clips, refitted / in use"
        )
        table(torch.sigmoid(torch.from_numpy(np.column_stack([x, np.ones(len(x))])) @ w).numpy(), right)
        use = np.array([*judge.WEIGHTS, judge.BIAS]) if figures is fetched else np.array([1.0, 0.0])
        table(1 / (1 + np.exp(-(np.column_stack([x, np.ones(len(x))]) @ use))), right)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
