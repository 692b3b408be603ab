"""The paper's figures 3 to 7 for any clips, from the frames that a measurement kept. Images are ``(H, W, 3)`` uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from omnifusion.evaluation.methods import Outcome
from omnifusion.evaluation.scores import Scoreboard
from omnifusion.state import Origin
from omnifusion.visualize import crop, frame_box, resize, sheet

Box = Sequence[int]
"""left, top, right, bottom in pixels."""

ZOOM = 0.3
"""Side of a zoomed region, as a share of the frame's."""


@dataclass(frozen=True)
class Region:
    """A part of a frame, and how much the methods differ there."""

    clip: str
    frame: int
    box: Box
    difference: float


def most_different(clip: str, made: Mapping[str, Outcome], frames: Sequence[int]) -> Region:
    """Where the methods' pictures differ most: over ``frames``, the box with the largest spread in Lab."""
    rivals, regions = [outcome for method, outcome in made.items() if method != "truth"], []
    for t in frames:
        lab = [cv2.cvtColor(o.picture(t).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for o in rivals]
        regions.append(Region(clip, t, *densest(np.std(lab, axis=0).sum(-1))))
    return max(regions, key=lambda region: region.difference)


def densest(values: np.ndarray, share: float = ZOOM) -> tuple[Box, float]:
    """The box of ``share`` of the sides of ``values`` ``(H, W)`` with the highest mean, and that mean."""
    height, width = (max(1, round(side * share)) for side in values.shape)
    means = cv2.blur(values.astype(np.float64), (width, height), anchor=(0, 0))
    means = means[: values.shape[0] - height + 1, : values.shape[1] - width + 1]
    top, left = (int(v) for v in np.unravel_index(np.argmax(means), means.shape))
    return (left, top, left + width, top + height), float(means[top, left])


def gallery(
    clip: str, made: Mapping[str, Outcome], frames: Sequence[int], box: Box | None = None, width: int = 320
) -> np.ndarray:
    """Figures 3 to 6: rows of methods, columns of frames, each frame with a zoomed region at its right.

    Args:
        made: by method; "truth", if there, is the first row.
        box: the region; None = where the methods differ most.
    """
    box = box or most_different(clip, made, frames).box
    rows = [[zoomed(outcome.picture(t), box) for t in frames] for outcome in made.values()]
    return sheet(rows, list(made), [f"{clip}, frame {t}" for t in frames], width)


def zoomed(image: np.ndarray, box: Box) -> np.ndarray:
    """``image`` with ``box`` outlined, and at its right what is in it, as high as the image."""
    height, part = image.shape[0], crop(image, box)
    part = resize(part, round(part.shape[1] * height / part.shape[0]))[:height]
    part = np.pad(part, ((0, height - part.shape[0]), (4, 0), (0, 0)), constant_values=255)
    return np.concatenate([frame_box(image, box), part], axis=1)


def details(scores: Scoreboard, methods: Sequence[str], count: int) -> np.ndarray:
    """Figure 7: the regions where methods differ most, at most one per clip and ``count`` in all.

    Each is a row: the partly colored input of the inpainting step, the truth, and every method's detail. Clips that
    lack a method are left out; what the first method inpainted is gray in the input.
    """
    clips = [clip for clip, about in scores.clips.items() if set(methods) <= set(about["methods"])]
    made = {clip: scores.outcomes(clip, ["truth", *methods]) for clip in clips}
    found = [most_different(clip, made[clip], range(1, scores.clips[clip]["frames"])) for clip in clips]
    rows, labels = [], []
    for region in sorted(found, key=lambda region: -region.difference)[:count]:
        outcomes = made[region.clip]
        before = frame_box(partly_colored(outcomes[methods[0]], region.frame), region.box)
        rows.append([before, *(crop(outcome.picture(region.frame), region.box) for outcome in outcomes.values())])
        labels.append(f"{region.clip} {region.frame}")
    return sheet(rows, labels, ["before inpainting", "truth", *methods], width=190)


def partly_colored(outcome: Outcome, frame: int) -> np.ndarray:
    """A frame as it was before its inpainting step: what that step colored is gray."""
    image, inpainted = outcome.picture(frame), outcome.came_by(Origin.INPAINTED)
    if inpainted is None:
        return image
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.where(inpainted[frame][..., None], gray, image)
