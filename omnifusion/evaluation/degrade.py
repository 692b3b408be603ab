"""What age does to a film, by script: a clean clip in color becomes an old one whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from omnifusion.color import from_uint8, gray, to_uint8

GRAIN = 10.0
"""Standard deviation of the grain in gray levels."""

FLICKER = 0.15
"""Share by which a frame's brightness is off at most."""

WEAVE = 2.0
"""Pixels by which a frame sits off its place at most, in x and in y."""

DOUBLED = 4
"""Every so manieth frame comes twice, as in a film of 19.2 frames a second shown at 24."""

SCRATCHES, SPECKS = 3, 12
"""Scratches, which stay for the whole clip, and specks of dust, which are new in every frame."""


@dataclass(frozen=True)
class Degraded:
    """An aged clip.

    Attributes:
        frames: ``(T, 3, H, W)`` uint8 gray, all that a method sees but for the first frame's colors.
        truth: ``(T, 3, H, W)`` uint8: the same frames, moved and doubled, but clean and in color.
    """

    frames: np.ndarray
    truth: np.ndarray


def degrade(clip: np.ndarray, seed: int = 0) -> Degraded:
    """Grain, flicker, weave, scratches, dust, and doubled frames on ``clip`` ``(T, 3, H, W)`` uint8."""
    random = np.random.default_rng(seed)
    h, w = clip.shape[2:]
    scratched = random.uniform(0.05, 0.95, SCRATCHES) * w
    frames, truth = [], []
    for t, frame in enumerate(clip):
        moved = _moved(frame, random.uniform(-WEAVE, WEAVE, 2))
        old = to_uint8(gray(from_uint8(moved)))[0].numpy().astype(np.float64)
        old *= 1 + FLICKER * random.uniform(-1, 1)
        old += random.normal(0, GRAIN, (h, w))
        for x in scratched + random.uniform(-1, 1, SCRATCHES):
            old[:, int(x)] += 60
        for y, x in random.uniform(0, 1, (SPECKS, 2)) * (h, w):
            cv2.circle(old, (int(x), int(y)), int(random.integers(1, 3)), float(random.choice((10, 245))), -1)
        for _ in range(1 + (t % DOUBLED == DOUBLED - 1)):
            frames.append(np.clip(np.rint(old), 0, 255).astype(np.uint8)[None].repeat(3, 0))
            truth.append(moved)
    return Degraded(np.stack(frames), np.stack(truth))


def _moved(frame: np.ndarray, by: np.ndarray) -> np.ndarray:
    """``frame`` ``(3, H, W)`` moved by ``by`` (x, y) px, the border reflected."""
    matrix = np.array([[1, 0, by[0]], [0, 1, by[1]]])
    size = frame.shape[2], frame.shape[1]
    planes = [cv2.warpAffine(c, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT) for c in frame]
    return np.stack(planes)
