"""The paper's figures 3 to 7 for any clips, from the frames that a measurement kept. Images are ``(H, W, 3)`` uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from omnifusion.evaluation.evaluate import frames_file, full_size, read_frames
from omnifusion.evaluation.methods import Outcome
from omnifusion.picture import crop, frame_box, resize, sheet
from omnifusion.state import InputError, Origin

Box = tuple[int, int, int, int]
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


def outcomes(scores: Path, clip: str, methods: Sequence[str]) -> dict[str, Outcome]:
    """What a measurement kept of a clip, by method.

    Raises:
        InputError: it kept none of a method.
    """
    found = {method: frames_file(scores, clip, method) for method in methods}
    missing = [method for method, file in found.items() if not file.exists()]
    if missing:
        raise InputError(
            f"{scores} has no frames of {', '.join(missing)} on {clip}; run `evaluate --json` with it first."
        )
    return {method: read_frames(file) for method, file in found.items()}


def most_different(clip: str, made: Mapping[str, Outcome], frames: Sequence[int]) -> Region:
    """Where the methods' pictures differ most: over ``frames``, the box with the largest spread in Lab."""
    best = Region(clip, frames[0], (0, 0, 1, 1), -1.0)
    for t in frames:
        lab = [cv2.cvtColor(_picture(o, t).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for o in made.values()]
        spread = np.std(lab, axis=0).sum(-1)
        box, difference = densest(spread)
        if difference > best.difference:
            best = Region(clip, t, box, difference)
    return best


def densest(values: np.ndarray, share: float = ZOOM) -> tuple[Box, float]:
    """The box of ``share`` of the sides of ``values`` ``(H, W)`` with the highest mean, and that mean."""
    height, width = (max(1, round(side * share)) for side in values.shape)
    total = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    means = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = (int(v) for v in np.unravel_index(np.argmax(means), means.shape))
    return (left, top, left + width, top + height), float(means[top, left] / (height * width))


def gallery(
    clip: str, made: Mapping[str, Outcome], frames: Sequence[int], box: Box | None = None, width: int = 320
) -> np.ndarray:
    """Figures 3 to 5: rows of methods, columns of frames, each frame with a zoomed region at its right.

    Args:
        made: by method; "truth", if there, is the first row.
        box: the region; None = where the methods differ most.
    """
    box = box or most_different(clip, {m: o for m, o in made.items() if m != "truth"}, frames).box
    rows = [[zoomed(_picture(outcome, t), box) for t in frames] for outcome in made.values()]
    return sheet(rows, list(made), [f"{clip}, frame {t}" for t in frames], width)


def zoomed(image: np.ndarray, box: Box) -> np.ndarray:
    """``image`` with ``box`` outlined, and at its right what is in it, as high as the image."""
    part = crop(image, box)
    part = resize(part, round(part.shape[1] * image.shape[0] / part.shape[0]))
    part = part[: image.shape[0]]
    part = np.pad(part, ((0, image.shape[0] - part.shape[0]), (0, 0), (0, 0)), mode="edge")
    gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([frame_box(image, box), gap, part], axis=1)


def details(regions: Sequence[Region], made: Mapping[str, Mapping[str, Outcome]], first: str) -> np.ndarray:
    """Figure 7: per region, the partly coloured input of the inpainting step, the truth, and every method's detail.

    Args:
        made: clip -> method -> frames, "truth" among them.
        first: the method whose inpainted pixels are grey in the partly coloured input.
    """
    rows, methods = [], [m for m in next(iter(made.values())) if m != "truth"]
    for region in regions:
        of_clip = made[region.clip]
        parts = [crop(_picture(of_clip[m], region.frame), region.box) for m in ["truth", *methods]]
        rows.append([frame_box(partly_coloured(of_clip[first], region.frame), region.box), *parts])
    labels = [f"{region.clip} {region.frame}" for region in regions]
    return sheet(rows, labels, ["before inpainting", "truth", *methods], width=190)


def partly_coloured(outcome: Outcome, frame: int) -> np.ndarray:
    """A frame as it was before its inpainting step: what that step coloured is grey."""
    image = _picture(outcome, frame)
    if outcome.kind is None:
        return image
    kind = full_size(outcome.kind[frame : frame + 1], (image.shape[0], image.shape[1]))[0]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.where((kind == Origin.INPAINTED)[..., None], grey, image)


def _picture(outcome: Outcome, frame: int) -> np.ndarray:
    return np.ascontiguousarray(outcome.frames[frame].transpose(1, 2, 0))
