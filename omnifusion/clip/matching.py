"""Which shots look alike: a shot without an exemplar takes its colors from one that shows the same, or from none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache

import cv2
import numpy as np

from omnifusion.clip.register import AGREEING, detail
from omnifusion.clip.shots import Shot
from omnifusion.flow import features

FEATURES = 1000
"""Features looked at per frame."""

AREA = 0.02
"""Least share of the frame that agreeing features span: a logo or a line of subtitles is in every shot."""

NEAREST = 12
"""So many colored shots, nearest in time, are asked."""

Features = tuple[np.ndarray, np.ndarray]


def find_references(
    shots: Sequence[Shot], exemplars: Collection[int], luminance: Callable[[int], np.ndarray]
) -> list[Shot]:
    """The shots in an order in which they can be colored, each without an exemplar with the frame that lends to it.

    Two shots look alike where ``AGREEING`` features of a frame of one are found in a frame of the other under one
    turn, scale and shift (docs/experiments.md: no two unlike shots had more than 5). Exemplars and the first, middle
    and last frames are looked at. A shot that is like no colored one is colored from nothing, and may lend after that.

    Args:
        shots: in the order of time.
        exemplars: the frames that have one.
        luminance: of a frame, L* ``(h, w)``.
    """

    @cache
    def described(frame: int) -> Features:
        return features.describe(detail(luminance(frame)), FEATURES)

    @cache
    def shown(start: int) -> list[int]:
        shot = by_start[start]
        ends = (shot.start, (shot.start + shot.stop) // 2, shot.stop - 1)
        return list(dict.fromkeys([*(e for e in exemplars if e in shot), *(shot.duplicates.get(t, t) for t in ends)]))

    @cache
    def best(start: int, other: int) -> tuple[int, int]:
        """How many features agree, and in which frame of the other shot, where they are most."""
        h, w = luminance(start).shape
        pairs = ((described(i), described(j), j) for i in shown(start) for j in shown(other))
        return max((agreement(here, there, AREA * h * w), j) for here, there, j in pairs)

    by_start = {shot.start: shot for shot in shots}
    ready = [shot for shot in shots if any(e in shot for e in exemplars)]
    waiting = [shot for shot in shots if shot not in ready]
    while waiting:
        for shot in waiting:
            near = sorted(ready, key=lambda other: abs(other.start - shot.start))[:NEAREST]
            count, frame = max((best(shot.start, other.start) for other in near), default=(0, 0))
            if count >= AGREEING:
                break
        else:
            shot, frame = waiting[0], None
        waiting.remove(shot)
        ready.append(replace(shot, reference_frame=frame))
    return ready


def agreement(a: Features, b: Features, area: float) -> int:
    """How many features of two pictures agree on one turn, scale and shift; 0 where they span less than ``area`` px."""
    here, there = features.matches(a, b, 0.8, mutual=True)
    _, agree = features.affine_motion(here, there, within=4.0, partial=True)
    if not agree.any() or cv2.contourArea(cv2.convexHull(here[agree])) < area:
        return 0
    return int(agree.sum())
