"""Cuts inside a clip, and which shots look alike: each shot is colored by itself, or from one of the same scene."""

from bisect import bisect, insort
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import pairwise

import cv2
import numpy as np

from omnifusion.clip.register import AGREEING, detail
from omnifusion.flow import features
from omnifusion.geometry import fit_size
from omnifusion.state import Video

THUMBNAIL = 256  # px, longest side: enough to see a cut
SHORTEST = 5  # least frames between two cuts; of closer ones, the clearest is kept
WINDOW = 5  # changes that are looked at together
LEAST_CHANGE = 15.0  # gray levels of 255
STANDS_OUT = 3.0  # times the mean of the window's other changes
FLASH = 5  # frames that a flash lasts at most
RETURN = 0.3  # share of a flash's change that may remain between the frames before and after
FEATURES = 1000  # per frame, by which shots are compared
AREA = 0.02  # least share of the frame that agreeing features span: a logo or a line of subtitles is in every shot
NEAREST = 12  # colored shots, nearest in time, to which a shot is compared
KEPT = 64  # frames whose features are kept, half a MiB each: those of a shot and of all to which it is compared

Features = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Shot:
    """The frames from one cut to the next, and where their colors come from."""

    start: int
    stop: int  # the first frame that is not its own
    reference_frame: int | None = None  # of another shot that shows the same and is colored before it
    anchor_frames: tuple[int, ...] = ()  # adjacent ones, colored before it; only a window of a longer shot has them
    duplicates: Mapping[int, int] = field(default_factory=dict)  # frame -> the own one that it repeats, colors and all

    def __contains__(self, frame: int) -> bool:
        return self.start <= frame < self.stop

    def __len__(self) -> int:
        return self.stop - self.start

    def with_processed(self, frames: Collection[int]) -> "Shot":
        """The same shot in which none of ``frames`` is a duplicate: what one of them repeated now repeats it."""
        named = {self.duplicates.get(t, t): t for t in sorted(frames, reverse=True) if t in self}
        duplicates = {
            t: named.get(s, s) for t, s in ((t, self.duplicates.get(t, t)) for t in range(self.start, self.stop))
        }
        return replace(self, duplicates={t: s for t, s in duplicates.items() if t != s and t not in frames})

    @property
    def frames(self) -> list[int]:
        """The frames that are processed (all but duplicates), in the order of time."""
        return [j for j in range(self.start, self.stop) if j not in self.duplicates]

    @property
    def sources(self) -> list[int]:
        """The frames outside the shot that it takes colors from: its anchor frames, else its reference frame."""
        return list(self.anchor_frames) or self.external_frames

    @property
    def tracker_frames(self) -> list[int]:
        """The frames that its tracker knows, in the order of time: ``frames`` and ``sources``."""
        return sorted([*self.frames, *self.sources])

    @property
    def external_frames(self) -> list[int]:
        """All frames outside it whose colors it needs."""
        return [*self.anchor_frames, *([] if self.reference_frame is None else [self.reference_frame])]


def find_shots(video: Video) -> list[Shot]:
    """The shots of a clip."""
    changes, flashes, recent = list[float](), set[int](), deque[np.ndarray](maxlen=FLASH + 1)
    for small in map(thumbnail, video.frames):
        if recent:
            changes.append(float(change(recent[-1], small)[1].mean()))
            flashes |= flash(changes, recent, small)
        recent.append(small)
    return cut(changes, flashes)


def flash(changes: Sequence[float], recent: Sequence[np.ndarray], small: np.ndarray) -> set[int]:
    """Recent changes that are a flash, not cuts: the thumbnail ``small`` again shows what preceded them."""
    for lag in range(2, len(recent) + 1):
        between = range(len(changes) - lag, len(changes))
        peak, usual = max(changes[k] for k in between), float(np.median(changes[-4 * FLASH :]))
        share = RETURN if lag * usual < RETURN * peak else 2 * RETURN  # what moves meanwhile is no cut
        if peak >= LEAST_CHANGE and change(recent[-lag], small)[1].mean() < share * peak:
            return set(between)
    return set()


def cut(changes: Sequence[float], flashes: Collection[int] = ()) -> list[Shot]:
    """The shots of a clip, which follow one another and cover it, by the mean change from each frame to the next;
    ``flashes`` are changes that are no cuts.

    A cut is a mean change of luminance that stands out from the two on either side; where the clip begins or ends, from
    the nearest four, twice as clearly. Fast motion, fades and dissolves are no cuts. (The same as AdaptiveDetector of
    PySceneDetect, with its constants, except at the ends; that package brings a desktop's OpenCV along.)
    """
    clear = [k for k in range(len(changes)) if k not in flashes and _stands_out(changes, k)]
    rivals = {k: [changes[i] for i in clear if abs(i - k) < SHORTEST] for k in clear}
    cuts = [k + 1 for k in clear if changes[k] == max(rivals[k])]
    return [Shot(a, b) for a, b in pairwise([0, *cuts, len(changes) + 1])]


def _stands_out(changes: Sequence[float], k: int) -> bool:
    middle = max(WINDOW // 2, min(k, len(changes) - 1 - WINDOW // 2))
    others = [changes[i] for i in range(middle - WINDOW // 2, middle + WINDOW // 2 + 1) if i != k and i < len(changes)]
    clearly = STANDS_OUT if k == middle else 2 * STANDS_OUT
    return len(others) > 1 and changes[k] >= max(LEAST_CHANGE, clearly * np.mean(others))


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """A small gray picture ``(h, w)`` float32 of a frame, grain smoothed; green stands for luminance."""
    h, w = fit_size(frame.shape[1:], THUMBNAIL)
    small = cv2.resize(np.ascontiguousarray(frame[1]), (w, h), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.0)


def change(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """The change between thumbnails: logarithm of the ratio of brightness, and all other change ``(h, w)``."""
    gain = float(np.median(np.log((b + 8) / (a + 8))))
    return gain, cv2.absdiff(b, a * np.float32(np.exp(gain)))


def find_references(
    shots: Sequence[Shot], exemplars: Collection[int], luminance: Callable[[int], np.ndarray]
) -> list[Shot]:
    """The shots in coloring order, each without an exemplar with a reference frame if an earlier one looks alike.

    Two shots look alike where ``AGREEING`` features of a frame of one are found in a frame of the other under one
    rotation, scale and shift (docs/experiments.md: no two unlike shots had more than 5). Exemplars and the first,
    middle and last frames are compared. A shot like no colored one is colored without reference, and others may follow.
    ``shots`` come in the order of time; ``exemplars`` are the frames that have one; ``luminance`` gives a frame's L*.
    """

    @lru_cache(KEPT)
    def described(frame: int) -> tuple[Features, float]:
        picture = detail(luminance(frame))
        return features.describe(picture, FEATURES), AREA * picture.size

    def views(start: int) -> list[int]:
        shot = by_start[start]
        ends = (shot.start, (shot.start + shot.stop) // 2, shot.stop - 1)
        return list(dict.fromkeys([*(e for e in exemplars if e in shot), *(shot.duplicates.get(t, t) for t in ends)]))

    @cache
    def likeness(start: int, other: int) -> tuple[int, int]:
        """The largest number of agreeing features, and the frame of the other shot that has it."""
        pairs = ((described(i), described(j), j) for j in views(other) for i in views(start))
        return max((agreement(here, there, area), j) for (here, area), (there, _), j in pairs)

    def reference(start: int) -> int | None:
        place = bisect(colored, start)
        nearest = sorted(colored[max(0, place - NEAREST) : place + NEAREST], key=lambda other: abs(other - start))
        count, frame = max((likeness(start, other) for other in nearest[:NEAREST]), default=(0, 0))
        return frame if count >= AGREEING else None

    by_start = {shot.start: shot for shot in shots}
    ordered = [shot for shot in shots if any(e in shot for e in exemplars)]
    colored = [shot.start for shot in ordered]
    waiting = [shot.start for shot in shots if shot.start not in colored]
    while waiting:
        alike = ((start, frame) for start in waiting if (frame := reference(start)) is not None)
        start, frame = next(alike, (waiting[0], None))
        waiting.remove(start)
        insort(colored, start)
        ordered.append(replace(by_start[start], reference_frame=frame))
    return ordered


def agreement(a: Features, b: Features, area: float) -> int:
    """The number of features that agree on one rotation, scale and shift; 0 if they span less than ``area`` px."""
    here, there = features.matches(a, b, 0.8, mutual=True)
    _, agree = features.affine_motion(here, there, within=4.0, partial=True)
    if not agree.any() or cv2.contourArea(cv2.convexHull(here[agree])) < area:
        return 0
    return int(agree.sum())
