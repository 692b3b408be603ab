"""Cuts inside a clip: each shot is tracked by itself."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from omnifusion.geometry import fit_size
from omnifusion.state import Video

THUMBNAIL = 256  # px, longest side: enough to see a cut
SHORTEST = 5  # frames between two cuts

_LUMINANCE_ALONE = AdaptiveDetector.Components(delta_hue=0.0, delta_sat=0.0, delta_lum=1.0, delta_edges=0.0)


def find_shots(video: Video) -> list[range]:
    """The shots of a clip: ranges of frames that follow one another and cover it.

    PySceneDetect's adaptive detector on luminance: a cut is a change that stands out from the two frames on either
    side, so that fast motion is none (and a cut within two frames of either end is not seen).
    """
    detector = AdaptiveDetector(weights=_LUMINANCE_ALONE, min_scene_len=SHORTEST, window_width=2)
    time = FrameTimecode(0, float(video.fps))
    cuts: list[FrameTimecode] = []
    for t, frame in enumerate(video.frames):
        time = FrameTimecode(t, float(video.fps))
        cuts += detector.process_frame(time, _thumbnail(frame))
    cuts += detector.post_process(time)
    return [range(a, b) for a, b in pairwise([0, *(cut.frame_num for cut in cuts), len(video)])]


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """A small grey picture ``(h, w, 3)`` uint8 of a frame; green stands for luminance, most of which it is."""
    h, w = fit_size(frame.shape[1:], THUMBNAIL)
    return cv2.cvtColor(
        cv2.resize(np.ascontiguousarray(frame[1]), (w, h), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR
    )
