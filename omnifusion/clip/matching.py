"""Which shots look alike: a shot without an exemplar takes its colors from one that shows the same, or from none."""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache

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

KEPT = 64
"""Frames whose features are kept, half a MiB each: those of a shot and of all that are asked for it."""

Features = tuple[np.ndarray, np.ndarray]


def find_references(
    shots: Sequence[Shot], exemplars: Collection[int], luminance: Callable[[int], np.ndarray]
) -> list[Shot]:
    """The shots in an order in which they can be colored, each without an exemplar with its reference frame.

    Two shots look alike where ``AGREEING`` features of a frame of one are found in a frame of the other under one
    turn, scale and shift (docs/experiments.md: no two unlike shots had more than 5). Exemplars and the first, middle
    and last frames are looked at. A shot that is like no colored one is colored from nothing, and others may follow.

    Args:
        shots: in the order of time.
        exemplars: the frames that have one.
        luminance: of a frame, L* ``(h, w)``.
    """

    @lru_cache(KEPT)
    def described(frame: int) -> tuple[Features, float]:
        picture = detail(luminance(frame))
        return features.describe(picture, FEATURES), AREA * picture.size

    def shown(start: int) -> list[int]:
        shot = by_start[start]
        ends = (shot.start, (shot.start + shot.stop) // 2, shot.stop - 1)
        return list(dict.fromkeys([*(e for e in exemplars if e in shot), *(shot.duplicates.get(t, t) for t in ends)]))

    def best(start: int, other: int) -> tuple[int, int]:
        """How many features agree, and in which frame of the other shot, where they are most."""
        pairs = ((described(i), described(j), j) for j in shown(other) for i in shown(start))
        return max((agreement(here, there, area), j) for (here, area), (there, _), j in pairs)

    by_start = {shot.start: shot for shot in shots}
    ordered = [shot for shot in shots if any(e in shot for e in exemplars)]
    colored = sorted(shot.start for shot in ordered)
    waiting = sorted(set(by_start) - set(colored))
    asking, compared = set(waiting), set[tuple[int, int]]()
    while waiting:
        start, frame = min(asking, default=waiting[0]), None
        if asking:
            asking.remove(start)
            place = bisect(colored, start)
            around = sorted(colored[max(0, place - NEAREST) : place + NEAREST], key=lambda other: abs(other - start))
            new = [other for other in around[:NEAREST] if (start, other) not in compared]
            compared.update((start, other) for other in new)
            count, frame = max((best(start, other) for other in new), default=(0, 0))
            if count < AGREEING:
                continue
        waiting.remove(start)
        insort(colored, start)
        ordered.append(replace(by_start[start], reference_frame=frame))
        place = bisect(colored, start)  # those that have it among their nearest lie between the nearest on either side
        low, high = colored[max(0, place - 1 - NEAREST)], colored[min(len(colored), place + NEAREST) - 1]
        first = 0 if place <= NEAREST else bisect(waiting, low)
        asking.update(waiting[first : None if place + NEAREST > len(colored) else bisect(waiting, high)])
    return ordered


def agreement(a: Features, b: Features, area: float) -> int:
    """How many features of two pictures agree on one turn, scale and shift; 0 where they span less than ``area`` px."""
    here, there = features.matches(a, b, 0.8, mutual=True)
    _, agree = features.affine_motion(here, there, within=4.0, partial=True)
    if not agree.any() or cv2.contourArea(cv2.convexHull(here[agree])) < area:
        return 0
    return int(agree.sum())
