"""Where another exemplar would help most: what is doubted, and how much of it a frame shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.correction.provenance import things
from omnifusion.state import ColorState, Origin
from omnifusion.visualize import TINTS, stretch

FADING = 8.0
"""Frames over which what a colored frame settles of the doubts about the things that it shows falls to a third."""

ASKED = 48
"""At most so many frames, spread over the clip, are looked at as candidates."""

FLOOR = 0.05
"""Share of a frame's doubt that no exemplar settles."""

WINDOW = 0.03
"""Radius, as a share of the frame's longer side, in which doubts are joined to regions."""


@dataclass(frozen=True)
class Suggestion:
    """A frame worth coloring next.

    Attributes:
        frame: its index.
        share: the share of all doubt that it would settle.
        region: ``(h, w)`` bool, where in it most of that doubt lies.
    """

    frame: int
    share: float
    region: Tensor


def doubt(state: ColorState) -> Tensor:
    """The probability ``(T, h, w)`` that each pixel's color is wrong; 1 while it is gray."""
    return 1 - state.confidence.float()


def suggest(state: ColorState, most: int = 3) -> list[Suggestion]:
    """Up to ``most`` frames that would help most together, best first.

    A frame settles doubts about the things that it shows, in it and, less and less, in the frames around it. Halving
    the doubt of a good frame is worth as much as halving that of a bad one, as it is in decibels.
    """
    frames = [
        i for i in range(0, len(state), -(-len(state) // ASKED)) if not state.kind[i].eq(int(Origin.EXEMPLAR)).all()
    ]
    left = _left(state, frames)
    chosen: list[int] = []
    for _ in range(min(most, len(frames))):
        chosen.append(max((i for i in range(len(frames)) if i not in chosen), key=lambda i: _worth(left, [*chosen, i])))
    for k in range(len(chosen)):  # what came first was chosen alone
        others = [*chosen[:k], *chosen[k + 1 :]]
        free = [i for i in range(len(frames)) if i not in others]
        chosen[k] = max(free, key=lambda i: _worth(left, [*others, i]))
    chosen.sort(key=lambda i: -_worth(left, [i]))
    doubts = doubt(state)
    share = {
        i: float(doubts.sum() - (left[i] * doubts.sum((1, 2))).sum()) / max(float(doubts.sum()), 1e-6) for i in chosen
    }
    return [Suggestion(frames[i], share[i], _region(doubts[frames[i]])) for i in chosen]


def _left(state: ColorState, frames: list[int]) -> Tensor:
    """The share of each frame's doubt that each of ``frames`` leaves, ``(len(frames), T)``."""
    doubts, thing = doubt(state), things(state).reshape(state.source.shape)
    seen = torch.zeros(state.source.numel(), dtype=torch.bool)
    left = torch.ones(len(frames), len(state))
    for k, i in enumerate(frames):
        seen[thing[i].flatten()] = True
        for j in range(len(state)):
            settled = (doubts[j] * seen[thing[j]]).sum() / doubts[j].sum().clamp_min(1e-6)
            left[k, j] -= _help(i, j) * settled
        seen[thing[i].flatten()] = False
    return left


def _worth(left: Tensor, chosen: list[int]) -> float:
    """How far ``chosen`` frames reduce the logarithm of doubt, summed over the clip; each frame has its best helper."""
    return float(-(left[chosen].amin(0) + FLOOR).log().sum())


def _help(i: int, j: int) -> float:
    return float(np.exp(-abs(i - j) / FADING))


def _region(doubts: Tensor) -> Tensor:
    """Where doubt is dense: at least half as dense as where it is densest."""
    density = cv2.GaussianBlur(doubts.numpy(), (0, 0), WINDOW * max(doubts.shape))
    return torch.from_numpy(density > 0.5 * density.max())


def drawn(picture: np.ndarray, doubts: Tensor, region: Tensor) -> np.ndarray:
    """A frame ``(3, H, W)`` uint8, gray, with its doubts ``(h, w)`` laid over it in orange and the region's outline."""
    size, image = picture.shape[1:], picture.transpose(1, 2, 0)
    gray = np.repeat(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None], 3, -1).astype(np.float32)
    amount = cv2.resize(doubts.numpy(), size[::-1])[..., None]
    out = (gray + 0.8 * amount * (np.array(TINTS[Origin.INPAINTED], np.float32) - gray)).astype(np.uint8)
    outlines, _ = cv2.findContours(stretch(region.numpy(), size).astype(np.uint8), cv2.RETR_EXTERNAL, 2)
    return cv2.drawContours(np.ascontiguousarray(out), outlines, -1, (255, 255, 255), 2).transpose(2, 0, 1)
