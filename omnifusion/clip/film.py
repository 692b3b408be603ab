"""One pass over a clip before a run: duplicates, flicker, grain, interlacing, fades, text, shots in color.

Duplicate frames are colored once; for matching only, flicker is evened out and grain smoothed. Interlacing, fades,
shots in color, logos and burned-in text are detected, too.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from omnifusion.clip.shots import FLASH, LEAST_CHANGE, Shot, change, cut, flash, thumbnail
from omnifusion.color import luminance_of
from omnifusion.flow import dis as of
from omnifusion.geometry import resize
from omnifusion.progress import check_canceled, count
from omnifusion.state import Video
from omnifusion.video.images import GRAY_SPREAD, color_deviation, overlay_of

Array = np.ndarray

BLOCK = 16  # side in pixels of the blocks in which pictures are compared

REPEATS, REPEATS_BLOCK = 0.2, 0.5
"""The largest change of a duplicate frame, as a share of changes nearby: in the mean, and in the worst block."""

NEARBY, EVEN = 4, 12  # frames on either side that are nearby, and over which brightness is evened out

FLICKER, GRAIN = 0.03, 0.9
"""Standard deviations of the logarithm of brightness from which it is evened out, and of L* from which grain is
smoothed (docs/experiments.md)."""

SMOOTH = 0.8  # radius in pixels by which grain is smoothed

HIGH = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""A filter that keeps the strength of white noise, and little else (Immerkaer 1996)."""

STANDS_OUT, ALIKE, COMBED = 15, 10, 0.005
"""Gray levels by which a line differs from both neighbors, and within which these agree; share of such pixels."""

INTERLACED, EXPLAINED = 0.25, 0.6
"""Share of frames of two moments from which a clip is refused (telecined: two in five); and the largest share of the
difference between their lines that remains once these are warped to one moment."""

SAMPLES = 12  # about how many frames are searched for grain, combing and colors
PARTS = (50, 75, 90, 98)  # percentiles of a frame's light that all fall by the same share in a fade
COLORFUL = 0.05  # share of the picture in color from which a shot is certainly in color

FADED, DARK, BLACK = 0.8, 0.1, 1e-4
"""Shares of light above which nothing is a fade, and below which any loss is one; and the light of black."""

TEXT_LINE = 1 / 20  # of the frame's height: lines of letters are narrower
TEXT_CONTRAST, TEXT_LIGHT, TEXT_JUMP, TEXT_SPREAD = 50, 170, 50, 15
"""Gray levels of text: least contrast to its surroundings, least level, least sudden rise, and largest spread."""
STEADY, STILL, MARGIN = 25, 15, 30
"""More gray levels: largest median change of the picture meanwhile, largest later change of a pixel, darkening at
edges."""
TEXT_AREA, SETTLED, SHORTEST = 3e-3, 2, 8
"""Least share of the picture that appears at once; least frames that a pixel, and that a text stays."""
NEVER = -1000


@dataclass
class Text:
    """Burned-in text of frames ``start`` to ``stop`` - 1: the ``pixels`` of the flattened frame, and their gray."""

    start: int
    stop: int
    pixels: Array
    level: float


@dataclass(frozen=True)
class Film:
    """The findings of one pass over a clip."""

    shots: list[Shot]  # of the clip, with their duplicates
    gain: Array  # (T,) by which brightness is multiplied to be even; 1 where nothing flickers
    flicker: float  # standard deviation of the logarithm of brightness from frame to frame
    grain: float  # standard deviation in L* at the working size
    combed: float  # share of the sampled frames whose lines alternate as if they held two moments
    interlaced: float  # share of those that certainly hold two moments: motion explains the lines
    light: Array  # (T, 4), of the darker, middle, lighter and lightest parts of the frames, 1 = white
    deviations: dict[int, Array]  # video.color_deviation of some frames, at least one of each shot
    texts: list[Text]  # burned-in text that appears in mid-shot; pixels of the working size

    @property
    def repeated(self) -> int:
        """How many frames are duplicates."""
        return sum(len(shot.duplicates) for shot in self.shots)

    @property
    def old(self) -> bool:
        """Whether frames are cleaned for matching."""
        return self.flicker > FLICKER or self.grain > GRAIN

    def cleaned(self, L: Tensor) -> Tensor:
        """Luminance ``(T, 1, h, w)`` with its grain smoothed, if it has any."""
        if self.grain <= GRAIN:
            return L
        return torch.from_numpy(np.stack([cv2.GaussianBlur(frame[0], (0, 0), SMOOTH) for frame in L.numpy()]))[:, None]

    def colors(self) -> tuple[list[Shot], Array | None]:
        """The shots that are in color, and a mask ``(h, w)`` bool of colored parts (such as a logo) in the others, None
        if there are none.

        Black frames and little color do not divide a clip: it is in color as a whole, or not at all.
        """
        deviations = {shot.start: [d for t, d in self.deviations.items() if t in shot] for shot in self.shots}
        overlays = {start: overlay_of(samples) for start, samples in deviations.items()}
        colored = [shot for shot in self.shots if overlays[shot.start] is None]
        gray = [shot for shot in self.shots if shot not in colored]
        clearly = any((np.stack(deviations[shot.start]) > GRAY_SPREAD).mean() > COLORFUL for shot in colored)
        lit = any(self.light[shot.start : shot.stop].max() > DARK for shot in gray)
        if colored and not (clearly and lit):
            return self.shots, None
        overlay = np.logical_or.reduce([x for x in overlays.values() if x is not None])
        return colored, overlay if overlay.any() else None

    def notes(self) -> list[str]:
        """Sentences for the user to read before a run."""
        notes = []
        if self.repeated:
            notes.append(f"Found {count(self.repeated, 'duplicate frame')}, colored like the frame before.")
        if self.combed >= INTERLACED > self.interlaced:
            notes.append("Lines alternate as in an interlaced film, but do not move so: the clip is used as it is.")
        if self.old:
            notes.append(
                f"The film is old (grain of {self.grain:.1f} L*, brightness off by {self.flicker:.0%}): colors are "
                "matched on a clean copy, its own brightness is kept."
            )
        return notes

    def fade(self, frame: int, other: int) -> float:
        """The brightness of a frame relative to ``other`` if one is a fade of the other, else 1."""
        share = (self.light[frame] + BLACK) / (self.light[other] + BLACK)
        alike = np.clip(2 - 4 * np.log(share.max() / share.min()), share.max() < DARK, 1)
        return float(min(1.0, np.median(share) / FADED) ** alike)


def inspect(video: Video, size: tuple[int, int]) -> Film:
    """Inspect a clip whose working size is ``size`` (h, w)."""
    changes, worst, gains, light = list[float](), list[float](), list[float](), list[Array]()
    noise, combed, deviations, flashes = list[float](), list[tuple[bool, bool]](), dict[int, Array](), set[int]()
    step, recent, finder = max(2, len(video) // SAMPLES), deque[Array](maxlen=FLASH + 1), TextFinder()
    for t, frame in enumerate(video.frames):
        check_canceled()
        small = thumbnail(frame)
        light.append(np.percentile((small / 255) ** 2.2, PARTS))
        finder.add(t, cv2.resize(np.ascontiguousarray(frame[1]), size[::-1], interpolation=cv2.INTER_AREA))
        if recent:
            gain, changed = change(recent[-1], small)
            gains.append(gain)
            changes.append(float(changed.mean()))
            worst.append(float(cv2.blur(changed, (BLOCK, BLOCK)).max()))
            flashes |= flash(changes, recent, small)
        if t % step == 0:
            noise.append(_noise(resize(luminance_of(frame)[None], size)[0, 0].numpy()))
            combed.append(_combed(frame[1]))
        if t % step == 0 or changes[-1] >= LEAST_CHANGE:  # at least where a shot begins
            deviations[t] = color_deviation(frame).clip(0, 255).astype(np.uint8)
        recent.append(small)
    shots = [_with_duplicates(shot, np.array(changes), np.array(worst)) for shot in cut(changes, flashes)]
    # as if brightness were independent from frame to frame; cuts and fades do not count
    flicker = 1.48 / 6**0.5 * float(np.median(np.abs(np.diff(gains)))) if len(gains) > 1 else 0.0
    factors = _even(np.array(gains), shots) if flicker > FLICKER else np.ones(len(video))
    lines, moments = (float(share) for share in np.mean(combed, axis=0))
    begins = {shot.start for shot in shots}
    ends = begins | {len(video)}
    texts = [x for x in finder.texts if x.start not in begins and (x.stop - x.start >= SHORTEST or x.stop in ends)]
    return Film(shots, factors, flicker, float(np.median(noise)), lines, moments, np.array(light), deviations, texts)


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
    """``(T,)`` factors that remove flicker: what is not smooth in time; ``gains``: logarithms, frame to frame."""
    factors = np.ones(shots[-1].stop)
    for shot in shots:
        track = np.concatenate([[0], np.cumsum(gains[shot.start : shot.stop - 1])])
        factors[shot.start : shot.stop] = np.exp(uniform_filter1d(track, 2 * EVEN + 1, mode="mirror") - track)
    return factors


def _noise(L: Array) -> float:
    """Standard deviation of the grain of a frame ``(h, w)``, in its calmest blocks."""
    power = cv2.blur(cv2.filter2D(L, -1, HIGH) ** 2, (BLOCK, BLOCK))
    first_row, first_column = (min(BLOCK, side) // 2 for side in L.shape)
    return float(np.sqrt(np.quantile(power[first_row::BLOCK, first_column::BLOCK], 0.05)))


def _combed(picture: Array) -> tuple[bool, bool]:
    """Whether a picture ``(H, W)`` seems to hold two moments, and whether it does for certain.

    It seems so if, somewhere, lines differ from both neighbors, which agree, far more often than from the next but one.
    So do blinds and the lines of a CRT; but only lines of two moments can be matched by motion.
    """

    def share(rows: int) -> Array:
        above, line, below = (
            x.astype(np.int32) for x in (picture[: -2 * rows], picture[rows:-rows], picture[2 * rows :])
        )
        out = ((line - above) * (line - below) > STANDS_OUT**2) & (np.abs(above - below) < ALIKE)
        padded = np.pad(out.astype(np.float32), ((rows, rows), (0, 0)))
        return cv2.blur(padded, (2 * BLOCK, 2 * BLOCK))[BLOCK :: 2 * BLOCK, BLOCK :: 2 * BLOCK]

    if min(picture.shape) <= 4 * BLOCK:
        return False, False
    combed = share(1) > 2 * share(2) + 0.1
    if combed.mean() <= COMBED:
        return False, False
    odd, above, below = picture[1:-1:2], picture[:-2:2], picture[2::2]
    even = cv2.addWeighted(above, 0.5, below, 0.5, 0)
    flow = of.dis(np.ascontiguousarray(odd), even)
    moved = of.remap(even.astype(np.float32), of.grid(*odd.shape) + flow)
    apart, remaining = (
        cv2.blur(np.abs(odd - x), (2 * BLOCK, BLOCK))[BLOCK // 2 :: BLOCK, BLOCK :: 2 * BLOCK]
        for x in (even.astype(np.float32), moved)
    )
    rows, columns = (min(sides) for sides in zip(combed.shape, apart.shape, strict=True))
    chosen = combed[:rows, :columns]
    explained = np.median((remaining / (apart + 1))[:rows, :columns][chosen]) if chosen.any() else 1.0
    return True, bool(explained < EXPLAINED)


class TextFinder:
    """Finds text that appears in mid-shot, frame by frame; no earlier frame has its color, so it is colored white."""

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self._before: Array | None = None

    def add(self, t: int, picture: Array) -> None:
        """Add frame ``t``, ``(h, w)`` uint8."""
        L = picture.astype(np.float32)
        if self._before is None:
            self._born, self._level = np.full(L.shape, NEVER), L
        else:
            side = 2 * round(L.shape[0] * TEXT_LINE / 2) + 1
            contrast = L - cv2.morphologyEx(L, cv2.MORPH_OPEN, np.ones((side, side)))
            letters = (contrast > TEXT_CONTRAST) & (L > TEXT_LIGHT)
            rise = L - self._before
            self._born[np.abs(L - self._level) > STILL] = NEVER
            if np.median(np.abs(rise)) < STEADY:
                new = letters & (rise > TEXT_JUMP)
                self._born[new], self._level = t, np.where(new, L, self._level)
            settled = np.flatnonzero(self._born == t - SETTLED)
            if len(settled) > TEXT_AREA * L.size and np.ptp(np.percentile(L.ravel()[settled], (10, 90))) < TEXT_SPREAD:
                self.texts.append(Text(t - SETTLED, t, settled, float(np.median(L.ravel()[settled]))))
            for text in reversed(self.texts):
                if text.stop == t and (self._born.ravel()[text.pixels] == text.start).mean() > 0.5:
                    text.stop = t + 1
        self._before = L
