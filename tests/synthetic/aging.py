"""Clips aged by script, with their ground truth."""

from __future__ import annotations

import cv2
import numpy as np

from omnifusion.color import from_uint8, gray, to_uint8

GRAIN = 10.0  # standard deviation, gray levels
FLICKER = 0.15  # largest relative error of a frame's brightness
WEAVE = 2.0  # largest displacement of a frame in x and in y, pixels
SCRATCHES, SPECKS = 3, 12  # scratches stay for the whole clip, specks of dust are new in every frame
DUPLICATE_EVERY = 4  # every n-th frame is duplicated, as in a film of 19.2 frames a second shown at 24


def degrade(clip: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Age ``clip`` ``(T, 3, H, W)`` uint8 by grain, flicker, weave, scratches, dust and duplicate frames.

    Returns the aged clip in gray, and its ground truth, the same frames moved and duplicated, but clean and in color.
    """
    random = np.random.default_rng(seed)
    h, w = clip.shape[2:]
    scratches = random.uniform(0.05, 0.95, SCRATCHES) * w
    aged, ground_truth = [], []
    for t, frame in enumerate(clip):
        shift = np.column_stack([np.eye(2), random.uniform(-WEAVE, WEAVE, 2)])
        how = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REFLECT}
        moved = np.stack([cv2.warpAffine(channel, shift, (w, h), **how) for channel in frame])
        old = to_uint8(gray(from_uint8(moved)))[0].numpy().astype(np.float64)
        old *= 1 + FLICKER * random.uniform(-1, 1)
        old += random.normal(0, GRAIN, (h, w))
        for x in scratches + random.uniform(-1, 1, SCRATCHES):
            old[:, int(x)] += 60
        for y, x in random.uniform(0, 1, (SPECKS, 2)) * (h, w):
            cv2.circle(old, (int(x), int(y)), int(random.integers(1, 3)), float(random.choice((10, 245))), -1)
        for _ in range(1 + (t % DUPLICATE_EVERY == DUPLICATE_EVERY - 1)):
            aged.append(np.clip(np.rint(old), 0, 255).astype(np.uint8)[None].repeat(3, 0))
            ground_truth.append(moved)
    return np.stack(aged), np.stack(ground_truth)
