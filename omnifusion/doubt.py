"""Where another exemplar would help most: what is doubted, and how much of it a frame shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.correct import things
from omnifusion.picture import TINTS, stretch
from omnifusion.state import ColorState, Origin

FADING = 8.0
"""Frames over which what a coloured frame settles of the doubts about the things that it shows falls to a third."""

ASKED = 48
"""At most so many frames, spread over the clip, are looked at as candidates."""

WINDOW = 0.03
"""Radius, as a share of the frame's longer side, in which doubts are joined to regions."""


@dataclass(frozen=True)
class Suggestion:
    """A frame worth colouring next.

    Attributes:
        frame: its index.
        share: the share of all doubt that it would settle.
        region: ``(h, w)`` bool, where in it most of that doubt lies.
    """

    frame: int
    share: float
    region: Tensor


def doubt(state: ColorState) -> Tensor:
    """The probability ``(T, h, w)`` that each pixel's colour is wrong; 1 while it is grey."""
    return 1 - state.confidence.float()


def suggest(state: ColorState, most: int = 3) -> list[Suggestion]:
    """Up to ``most`` frames, best first, each for what those before it leave in doubt.

    A frame settles the doubts about the things that it shows, in it and, less and less, in the frames around it.
    """
    doubts, thing = doubt(state), things(state).reshape(state.source.shape)
    frames = range(0, len(state), -(-len(state) // ASKED))
    left, found = doubts.clone(), list[Suggestion]()
    given = (state.kind == Origin.EXEMPLAR).flatten(1).all(1)
    seen = torch.zeros(state.source.numel(), dtype=torch.bool)
    while len(found) < most:
        settled = {}
        for i in (i for i in frames if not given[i] and i not in [s.frame for s in found]):
            seen[thing[i].flatten()] = True
            settled[i] = sum(float((left[j] * seen[thing[j]]).sum()) * _help(i, j) for j in range(len(state)))
            seen[thing[i].flatten()] = False
        if not settled:
            break
        best = max(settled, key=lambda i: settled[i])
        found.append(Suggestion(best, settled[best] / max(float(doubts.sum()), 1e-6), _region(left[best])))
        seen[thing[best].flatten()] = True
        for j in range(len(state)):
            left[j] *= 1 - _help(best, j) * seen[thing[j]].float()
        seen[thing[best].flatten()] = False
    return found


def _help(i: int, j: int) -> float:
    return float(np.exp(-abs(i - j) / FADING))


def _region(doubts: Tensor) -> Tensor:
    """Where doubt is dense: at least half as dense as where it is densest."""
    density = cv2.GaussianBlur(doubts.numpy(), (0, 0), WINDOW * max(doubts.shape))
    return torch.from_numpy(density > 0.5 * density.max())


def drawn(picture: np.ndarray, doubts: Tensor, region: Tensor) -> np.ndarray:
    """A frame ``(3, H, W)`` uint8, grey, with its doubts ``(h, w)`` laid over it in orange and the region's outline."""
    size, image = picture.shape[1:], picture.transpose(1, 2, 0)
    grey = np.repeat(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)[..., None], 3, -1).astype(np.float32)
    amount = cv2.resize(doubts.numpy(), size[::-1])[..., None]
    out = (grey + 0.8 * amount * (np.array(TINTS[Origin.INPAINTED], np.float32) - grey)).astype(np.uint8)
    outlines, _ = cv2.findContours(stretch(region.numpy(), size).astype(np.uint8), cv2.RETR_EXTERNAL, 2)
    return cv2.drawContours(np.ascontiguousarray(out), outlines, -1, (255, 255, 255), 2).transpose(2, 0, 1)
