"""Which frame would help most as another exemplar: an uncertain one, far from all exemplars."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.color import TINTS
from omnifusion.geometry import stretch
from omnifusion.state import ColorState, Origin


@dataclass(frozen=True)
class Suggestion:
    """A frame worth coloring next; the share of the clip's uncertainty that it would resolve if that is proportional to
    the distance from an exemplar; and the ``(h, w)`` bool region of most of its own uncertainty."""

    frame: int
    share: float
    region: Tensor


def uncertainty(state: ColorState) -> Tensor:
    """The probability ``(T, h, w)`` that each pixel's color is wrong; 1 while it is gray."""
    return 1 - torch.stack([*state.confidence]).float()


def suggest(state: ColorState, most: int = 3) -> list[Suggestion]:
    """Up to ``most`` frames, best first: each brings exemplars as near to uncertain frames as possible."""
    unsure, frames = uncertainty(state), torch.arange(len(state))
    weight = unsure.mean((1, 2)) + 1e-3
    exemplars = state.kind.eq(int(Origin.EXEMPLAR)).all(-1).all(-1)
    distance = (frames[:, None] - frames).abs()
    nearest = distance[:, exemplars].amin(1) if bool(exemplars.any()) else torch.full_like(frames, len(state))
    suggestions: list[Suggestion] = []
    while len(suggestions) < most and bool(nearest.any()):
        nearer = (nearest[:, None] - distance).clamp_min(0) * weight[:, None]
        best = int(nearer.sum(0).argmax())
        share = float((nearer[:, best] / nearest.clamp_min(1)).sum() / weight.sum())
        density = cv2.GaussianBlur(unsure[best].numpy(), (0, 0), 0.03 * max(unsure.shape[1:]))
        suggestions.append(Suggestion(best, share, torch.from_numpy(density >= 0.5 * density.max())))
        nearest = nearest.minimum(distance[best])
    return suggestions


def drawn(picture: np.ndarray, unsure: Tensor, region: Tensor | None = None) -> np.ndarray:
    """A frame ``(3, H, W)`` uint8 in gray, under its uncertainty ``(h, w)`` in orange and a region's outline."""
    gray, size = picture.mean(0)[..., None], picture.shape[1:]
    amount = 0.8 * cv2.resize(unsure.numpy(), size[::-1])[..., None]
    frame = np.ascontiguousarray(gray + amount * (np.array(TINTS[Origin.INPAINTED]) - gray)).astype(np.uint8)
    if region is not None:
        outlines, _ = cv2.findContours(stretch(region.numpy(), size).astype(np.uint8), cv2.RETR_EXTERNAL, 2)
        cv2.drawContours(frame, outlines, -1, (255, 255, 255), 2)
    return frame.transpose(2, 0, 1)
