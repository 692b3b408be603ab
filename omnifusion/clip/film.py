"""Old film: what age did to a clip is found, and frames are cleaned of it for matching; what is delivered is untouched.

One pass over small pictures finds repeated frames, flicker and grain. Only where there is flicker or grain are
frames cleaned: brightness evened out, grain and dust taken out by what the frames
before and after show at the same spot. All other clips are matched as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import uniform_filter1d
from torch import Tensor, from_numpy

from omnifusion.clip.shots import FLASH, LEAST_CHANGE, Shot, change, cut, flash, thumbnail
from omnifusion.clip.text import SHORTEST, Text, TextFinder
from omnifusion.color import luminance_of
from omnifusion.flow import dis as of
from omnifusion.geometry import resize
from omnifusion.pool import parallel
from omnifusion.progress import check_canceled
from omnifusion.state import Video
from omnifusion.video.images import GRAY_SPREAD, color_deviation, overlay_of

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

INTERLACED, EXPLAINED = 0.25, 0.6
"""Share of frames of two moments from which a clip is refused: of telecined ones, two in five are; and what is left of
the difference between their lines once these are brought to one moment."""

SAMPLES = 12
"""About so many frames in which grain, combing and colors are looked for."""

PARTS = (50, 75, 90, 98)
"""Percentiles of a frame's light that all fall by the same share in a fade."""

COLORFUL = 0.05
"""Share of the picture in color from which a shot is no doubt in color."""

FADED, DARK, BLACK = 0.8, 0.1, 1e-4
"""Share of light from which on there is no fade, at which any fall is one, and the light of what is black."""

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
        combed: share of the frames looked at in which lines alternate as if they held two moments.
        interlaced: the same, where they hold two moments for certain: movement explains the lines.
        light: ``(T, 4)`` light of the darker, middle, lighter and lightest parts of the frames, 1 = white.
        deviations: frame -> ``video.color_deviation`` of some frames, at least one of each shot.
        texts: burned-in text that comes on in the middle of a shot; pixels of the working size.
    """

    shots: list[Shot]
    gain: Array
    flicker: float
    grain: float
    combed: float
    interlaced: float
    light: Array
    deviations: dict[int, Array]
    texts: list[Text]

    @property
    def old(self) -> bool:
        """Whether frames are cleaned for matching."""
        return self.grain > GRAIN or self.flicker > FLICKER

    def brightest(self, shot: Shot) -> int:
        """The frame of a shot that has the most light."""
        return shot.start + int(self.light[shot.start : shot.stop].sum(1).argmax())

    def colors(self) -> tuple[list[Shot], Array]:
        """The shots that are in color; and where the others bear color all the same, ``(h, w)`` bool.

        Black frames and little color do not part a clip: it is in color as a whole, or not at all.
        """
        known = {shot.start: [d for t, d in self.deviations.items() if t in shot] for shot in self.shots}
        overlays = {start: overlay_of(deviations) for start, deviations in known.items()}
        colored = [shot for shot in self.shots if overlays[shot.start] is None]
        gray = [shot for shot in self.shots if shot not in colored]
        clearly = any((np.stack(known[shot.start]) > GRAY_SPREAD).mean() > COLORFUL for shot in colored)
        lit = any(self.light[shot.start : shot.stop].max() > DARK for shot in gray)
        if colored and not (clearly and lit):
            colored = self.shots
        found = [overlay for overlay in overlays.values() if overlay is not None]
        return colored, np.logical_or.reduce([np.zeros_like(next(iter(self.deviations.values())), bool), *found])

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
        if self.combed >= INTERLACED > self.interlaced:
            told.append("Lines alternate as in an interlaced film, but do not move so: the clip is used as it is.")
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

    def fade(self, frame: int, other: int) -> float:
        """How much of the light of ``other`` a frame has, 1 where it is no fade: all of it, or not everywhere alike."""
        share = (self.light[frame] + BLACK) / (self.light[other] + BLACK)
        alike = np.clip(2 - 4 * np.log(share.max() / share.min()), share.max() < DARK, 1)
        return float(min(1.0, np.median(share) / FADED) ** alike)

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
    changes, worst, gains, light = list[float](), list[float](), list[float](), list[Array]()
    noise, combed, deviations, flashes = list[float](), list[tuple[bool, bool]](), dict[int, Array](), set[int]()
    step, recent, finder = max(2, len(video) // SAMPLES), deque[Array](maxlen=FLASH + 1), TextFinder()
    before = np.zeros(size, np.float32)
    for t, frame in enumerate(video.frames):
        check_canceled()
        small = thumbnail(frame)
        light.append(np.percentile((small / 255) ** 2.2, PARTS))
        finder.add(t, cv2.resize(np.ascontiguousarray(frame[1]), size[::-1], interpolation=cv2.INTER_AREA))
        large = resize(luminance_of(frame)[None], size)[0, 0].numpy() if t % step < 2 else before
        if recent:
            gain, changed = change(recent[-1], small)
            gains.append(gain)
            changes.append(float(changed.mean()))
            worst.append(float(cv2.blur(changed, (BLOCK, BLOCK)).max()))
            flashes |= flash(changes, recent, small)
            if t % step == 1 and changes[-1] > 0:
                noise.append(_noise(before, large))
        if t % step == 0:
            combed.append(_combed(frame[1]))
        if t % step == 0 or changes[-1] >= LEAST_CHANGE:  # at least where a shot begins
            deviations[t] = color_deviation(frame).clip(0, 255).astype(np.uint8)
        recent.append(small)
        before = large
    shots = [_with_duplicates(shot, np.array(changes), np.array(worst)) for shot in cut(changes, flashes)]
    grain = float(np.median(noise)) if noise else 0.0
    if grain > GRAIN:  # or texture that moves with the scene
        grain = min(grain, _grain(video, size))
    lines, moments = (float(share) for share in np.mean(combed, axis=0))
    factors, begins = _even(np.array(gains), shots), {shot.start for shot in shots}
    ends = begins | {len(video)}
    texts = [x for x in finder.texts if x.start not in begins and (x.stop - x.start >= SHORTEST or x.stop in ends)]
    return Film(shots, factors, _flicker(gains), grain, lines, moments, np.array(light), deviations, texts)


def _with_duplicates(shot: Shot, changes: Array, worst: Array) -> Shot:
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


def _combed(picture: Array) -> tuple[bool, bool]:
    """Whether a picture ``(H, W)`` seems to hold two moments, and whether it does for certain.

    It seems so where, somewhere, lines stand out from both neighbors, which are alike, far more often than lines do
    from the next but one. Blinds and the lines of a tube do that, too; but only two moments become alike by movement.
    """

    def share(rows: int) -> Array:
        above, line, below = (
            x.astype(np.int32) for x in (picture[: -2 * rows], picture[rows:-rows], picture[2 * rows :])
        )
        out = ((line - above) * (line - below) > STANDS_OUT**2) & (np.abs(above - below) < ALIKE)
        padded = np.pad(out.astype(np.float32), ((rows, rows), (0, 0)))
        return cv2.blur(padded, (2 * BLOCK, 2 * BLOCK))[BLOCK :: 2 * BLOCK, BLOCK :: 2 * BLOCK]

    if picture.shape[0] <= 4 * BLOCK:
        return False, False
    combed = share(1) > 2 * share(2) + 0.1
    if combed.mean() <= COMBED:
        return False, False
    odd, above, below = picture[1:-1:2], picture[:-2:2], picture[2::2]
    even = cv2.addWeighted(above, 0.5, below, 0.5, 0)
    flow = of.dis(np.ascontiguousarray(odd), even)
    moved = of.remap(even.astype(np.float32), of.grid(*odd.shape) + flow)
    apart, left = (
        cv2.blur(np.abs(odd - x), (2 * BLOCK, BLOCK))[BLOCK // 2 :: BLOCK, BLOCK :: 2 * BLOCK]
        for x in (even.astype(np.float32), moved)
    )
    rows, columns = (min(sides) for sides in zip(combed.shape, apart.shape, strict=True))
    chosen = combed[:rows, :columns]
    explained = np.median((left / (apart + 1))[:rows, :columns][chosen]) if chosen.any() else 1.0
    return True, bool(explained < EXPLAINED)


def _noise(a: Array, b: Array) -> float:
    """Standard deviation of grain in two successive frames ``(h, w)``: in the calmest blocks of one or between both."""
    single, pair = (_blocks(cv2.filter2D(x, -1, HIGH) ** 2) for x in (b, (b - a) / 2**0.5))
    return float(np.sqrt(max(0.0, np.quantile(np.minimum(single, pair), 0.05))))


def _grain(video: Video, size: tuple[int, int]) -> float:
    """The same for a clip in which texture may move with the scene, by how far frames explain their flattest blocks.

    Grain is not in the neighboring frames that flow brings to a frame. Texture is, but for what interpolation takes off
    it, which is no more than it leaves: the correlation counts twice.
    """
    found = []
    for t in np.unique(np.linspace(1, len(video) - 2, SAMPLES).round().astype(int)) if len(video) > 2 else ():
        check_canceled()
        pictures = [resize(luminance_of(x)[None], size)[0, 0].numpy() for x in video.frames[t - 1 : t + 2]]
        smooth = [of.to_bytes(from_numpy(cv2.GaussianBlur(picture, (0, 0), 1.0))) for picture in pictures]
        high = cv2.filter2D(pictures[1], -1, HIGH)
        power = _blocks(high**2)
        flat, explained = power <= np.quantile(power, 0.08), 0.0
        for other in (0, 2):
            brought = of.remap(pictures[other], of.grid(*size) + of.dis(smooth[1], smooth[other]))
            same = cv2.filter2D(brought, -1, HIGH)
            both, its = (_blocks(x)[flat].mean() for x in (high * same, same**2))
            explained = max(explained, both / np.sqrt(its * power[flat].mean() + 1e-9))
        found.append(np.sqrt(power[flat].mean() * (1 - explained**2)) * (1 - explained))
    return float(np.median(found)) if found else np.inf


def _blocks(values: Array) -> Array:
    """The means of ``values`` ``(h, w)`` in blocks."""
    return cv2.blur(values, (BLOCK, BLOCK))[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK]


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
