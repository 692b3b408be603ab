"""Cuts inside a clip: each shot is tracked by itself."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from omnifusion.geometry import fit_size
from omnifusion.state import Video

THUMBNAIL = 256  # px, longest side: enough to see a cut
SHORTEST = 5  # frames between two cuts
WINDOW = 5  # changes that are looked at together
LEAST_CHANGE = 15.0  # grey levels of 255
STANDS_OUT = 3.0  # times the mean of the window's other changes


def find_shots(video: Video) -> list[range]:
    """The shots of a clip: ranges of frames that follow one another and cover it.

    A cut is a mean change of luminance that stands out from the two on either side; where the clip begins or ends, from
    the nearest four, twice as clearly. Fast motion, fades and dissolves are none. (The same as AdaptiveDetector of
    PySceneDetect, with its constants, but for the ends; that package brings a desktop's OpenCV along.)
    """
    pairs = pairwise(map(_thumbnail, video.frames))
    changes = np.array([cv2.norm(a, b, cv2.NORM_L1) / a.size for a, b in pairs])
    cuts = [0]
    for k in range(len(changes)):
        if _stands_out(changes, k) and (k + 1 - cuts[-1] >= SHORTEST or cuts == [0]):
            cuts.append(k + 1)
    return [range(a, b) for a, b in pairwise([*cuts, len(video)])]


def _stands_out(changes: np.ndarray, k: int) -> bool:
    middle = max(WINDOW // 2, min(k, len(changes) - 1 - WINDOW // 2))
    others = [changes[i] for i in range(middle - WINDOW // 2, middle + WINDOW // 2 + 1) if i != k and i < len(changes)]
    clearly = STANDS_OUT if k == middle else 2 * STANDS_OUT
    return len(others) > 1 and changes[k] >= max(LEAST_CHANGE, clearly * np.mean(others))


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """A small grey picture ``(h, w)`` uint8 of a frame; green stands for luminance, most of which it is."""
    h, w = fit_size(frame.shape[1:], THUMBNAIL)
    return cv2.resize(np.ascontiguousarray(frame[1]), (w, h), interpolation=cv2.INTER_AREA)
