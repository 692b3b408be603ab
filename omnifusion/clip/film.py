"""Old film: what age did to a clip is found, and frames are cleaned of it for matching; what is delivered is untouched.

One pass over small pictures finds repeated frames, flicker and grain. Only where there is flicker or grain are
frames cleaned: brightness evened out, grain and dust taken out by what the frames
before and after show at the same spot. All other clips are matched as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import uniform_filter1d
from torch import Tensor, from_numpy

from omnifusion.clip.shots import Shot, change, cut, thumbnail
from omnifusion.color import luminance_of
from omnifusion.flow import dis as of
from omnifusion.geometry import resize
from omnifusion.pool import parallel
from omnifusion.progress import check_canceled
from omnifusion.state import Video

Array = np.ndarray

BLOCK = 16
"""Side in pixels of the blocks in which pictures are compared."""

REPEATS, REPEATS_BLOCK = 0.2, 0.5
"""Of what changes nearby, at most so much changes where a frame is repeated: on the mean, and in the worst block."""

NEARBY, EVEN = 4, 12
"""Frames on either side that are nearby, and over which brightness is evened out."""

GRAIN, FLICKER = 0.6, 0.03
"""L* of grain, or standard deviation of the logarithm of brightness, from which a film is old (docs/experiments.md)."""

STANDS_OUT, ALIKE, COMBED = 15, 10, 0.005
"""Gray levels by which a line stands out, and to which its neighbors are alike; share of the picture that is so."""

INTERLACED = 0.25
"""Share of combed frames from which a clip is refused: of telecined ones, two in five are."""

SAMPLES = 12
"""About so many frames in which grain and combing are looked for."""

OUTLIER = 3.0
"""Standard deviations (of the difference between two frames) from the median at which a pixel has no say."""

SMOOTH = 1.5
"""Radius in pixels by which frames are smoothed before one is brought to another."""

HIGH = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Passes white noise as strong as it is, and little else (Immerkaer 1996)."""


@dataclass(frozen=True)
class Film:
    """What was found in a clip.

    Attributes:
        shots: those of the clip, with their repeated frames.
        gain: ``(T,)`` by which brightness is multiplied to be even.
        flicker: standard deviation of the logarithm of brightness from frame to frame.
        grain: standard deviation in L* at the working size.
        combed: share of the frames looked at that hold two moments, in lines that alternate.
    """

    shots: list[Shot]
    gain: Array
    flicker: float
    grain: float
    combed: float

    @property
    def old(self) -> bool:
        """Whether frames are cleaned for matching."""
        return self.grain > GRAIN or self.flicker > FLICKER

    def report(self) -> dict[str, Any]:
        """What ``report.json`` says of it."""
        return {
            "grain": round(self.grain, 2),
            "flicker": round(self.flicker, 4),
            "repeated": sum(len(shot.duplicates) for shot in self.shots),
            "cleaned": self.old,
        }

    def notes(self) -> list[str]:
        """What is to be said of it before a run."""
        repeated, told = sum(len(shot.duplicates) for shot in self.shots), []
        if repeated:
            told.append(f"{repeated} frames repeat the one before them and get its colors.")
        if self.old:
            told.append(
                f"The film is old (grain of {self.grain:.1f} L*, brightness off by {self.flicker:.0%}): colors are "
                "matched on a clean copy, its own brightness is kept."
            )
        return told

    def around(self, frames: Collection[int]) -> list[int]:
        """``frames`` and their neighbors in the shot, repeated frames apart, in the order of time."""
        runs = [shot.frames for shot in self.shots]
        beside = {t for run in runs for a, b in pairwise(run) for t, other in ((a, b), (b, a)) if other in frames}
        return sorted(beside.union(frames))

    def cleaned(self, L: Tensor, frames: Sequence[int]) -> Tensor:
        """Luminance ``(n, 1, h, w)`` of ``frames``, in the order of time and evened out, without grain and dust.

        Each frame becomes the mean of itself and of its neighbors in the shot, brought to it by flow, where they
        agree; where they agree against it (dust), theirs. Weave needs no step of its own: flow follows it.
        """
        clean, place = L.clone(), {t: k for k, t in enumerate(frames)}
        for shot in self.shots:
            for known, run in groupby(shot.frames, place.__contains__):
                ks = [place[t] for t in run] if known else []
                for k, picture in zip(ks, _cleaned([L[k, 0].numpy() for k in ks]), strict=True):
                    clean[k, 0] = from_numpy(picture)
        return clean


def inspect(video: Video, size: tuple[int, int]) -> Film:
    """Look at a clip that is worked on at ``size`` (h, w)."""
    changes, worst, gains, noise, combed = [], [], [], [], []
    step = max(2, len(video) // SAMPLES)
    before: tuple[Array, Array | None] | None = None
    for t, frame in enumerate(video.frames):
        check_canceled()
        small = thumbnail(frame)
        large = resize(luminance_of(frame)[None], size)[0, 0].numpy() if t % step < 2 else None
        if before is not None:
            gain, changed = change(before[0], small)
            gains.append(gain)
            changes.append(float(changed.mean()))
            worst.append(float(cv2.blur(changed, (BLOCK, BLOCK)).max()))
            if large is not None and before[1] is not None and changes[-1] > 0:
                noise.append(_noise(before[1], large))
        if t % step == 0:
            combed.append(_combed(frame[1]))
        before = small, large
    shots = [_with_twins(shot, np.array(changes), np.array(worst)) for shot in cut(changes)]
    grain = float(np.median(noise)) if noise else 0.0
    return Film(shots, _even(np.array(gains), shots), _flicker(gains), grain, float(np.mean(combed)))


def _with_twins(shot: Shot, changes: Array, worst: Array) -> Shot:
    """A shot with its repeated frames, from the changes between all frames of the clip."""
    duplicates: dict[int, int] = {}
    for t in range(shot.start + 1, shot.stop):
        near = slice(max(shot.start, t - 1 - NEARBY), min(shot.stop - 1, t + NEARBY))
        usual, usual_worst = (np.quantile(x[near], 0.75) for x in (changes, worst))
        if changes[t - 1] <= REPEATS * usual and worst[t - 1] <= REPEATS_BLOCK * usual_worst:
            duplicates[t] = duplicates.get(t - 1, t - 1)
    return replace(shot, duplicates=duplicates)


def _even(gains: Array, shots: Sequence[Shot]) -> Array:
    """``(T,)`` factors that take what is not smooth out of the brightness; ``gains`` are logarithms, frame to frame."""
    factors = np.ones(shots[-1].stop)
    for shot in shots:
        track = np.concatenate([[0], np.cumsum(gains[shot.start : shot.stop - 1])])
        factors[shot.start : shot.stop] = np.exp(uniform_filter1d(track, 2 * EVEN + 1, mode="mirror") - track)
    return factors


def _flicker(gains: Sequence[float]) -> float:
    """Standard deviation of brightness if it were independent from frame to frame; cuts and fades do not count."""
    return 1.48 / 6**0.5 * float(np.median(np.abs(np.diff(gains)))) if len(gains) > 1 else 0.0


def _combed(picture: Array) -> bool:
    """Whether a picture ``(H, W)`` holds two moments: somewhere, lines stand out from both neighbors, which are alike,
    far more often than lines do from the next but one."""

    def share(rows: int) -> Array:
        above, line, below = (
            x.astype(np.int32) for x in (picture[: -2 * rows], picture[rows:-rows], picture[2 * rows :])
        )
        out = ((line - above) * (line - below) > STANDS_OUT**2) & (np.abs(above - below) < ALIKE)
        padded = np.pad(out.astype(np.float32), ((rows, rows), (0, 0)))
        return cv2.blur(padded, (2 * BLOCK, 2 * BLOCK))[BLOCK :: 2 * BLOCK, BLOCK :: 2 * BLOCK]

    return picture.shape[0] > 4 and bool((share(1) > 2 * share(2) + 0.1).mean() > COMBED)


def _noise(a: Array, b: Array) -> float:
    """Standard deviation of grain in two successive frames ``(h, w)``: in the calmest blocks of one or between both."""
    single, pair = (cv2.blur(cv2.filter2D(x, -1, HIGH) ** 2, (BLOCK, BLOCK)) for x in (b, (b - a) / 2**0.5))
    calmest = np.quantile(np.minimum(single, pair)[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK], 0.05)
    return float(np.sqrt(max(0.0, calmest)))


def _cleaned(pictures: Sequence[Array]) -> list[Array]:
    """Frames ``(h, w)`` of one shot without grain and dust."""
    smooth = [of.to_bytes(from_numpy(cv2.GaussianBlur(picture, (0, 0), SMOOTH))) for picture in pictures]

    def brought(k: int, other: int) -> tuple[Array, Array]:
        """Another frame brought to frame ``k``, and where that can be relied on ``(h, w)`` bool."""
        there, back = of.dis(smooth[k], smooth[other]), of.dis(smooth[other], smooth[k])
        return of.remap(pictures[other], of.grid(*there.shape[:2]) + there), of.cycle_error(there, back) < 1.0

    def clean(k: int) -> Array:
        if len(pictures) == 1:
            return pictures[k]
        seen, sure = [pictures[k]], [np.ones(pictures[k].shape, bool)]
        for other in (k - 1, k + 1):
            if 0 <= other < len(pictures):
                for found, kept in zip(brought(k, other), (seen, sure), strict=True):
                    kept.append(found)
        all_sure = np.logical_and.reduce(sure) & (len(seen) == 3)
        most = np.where(all_sure, np.median(seen, 0), pictures[k])
        off = np.abs(seen - most)
        agree = np.stack(sure) & (off <= OUTLIER * 1.48 * np.median(np.abs(np.stack(seen[1:]) - seen[0])))
        return ((np.stack(seen) * agree).sum(0) / agree.sum(0)).astype(np.float32)

    return parallel(clean, list(range(len(pictures))))
