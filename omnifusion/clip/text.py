"""Burned-in text that comes on in the middle of a shot: nothing before it has its color, and it is white."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Array = np.ndarray

LINE = 1 / 20  # of the frame's height: lines of letters are narrower

STANDS_OUT, LIGHT, JUMP = 50, 170, 50
"""Gray levels by which a line is lighter than what is around, that it has at least, by which it comes on at once."""

CALM, STILL, MARGIN = 25, 15, 30
"""Those by which the rest changes meanwhile at most, in the median, by which it may change later, and by which its
edges are darker."""

SETTLED = 2  # frames that a line must stay

NEVER = -1000

SMALLEST, EVEN, SHORTEST = 3e-3, 15, 8
"""Least share of the picture that comes on at once, gray levels by which it differs, and frames that it stays."""


@dataclass
class Text:
    """Letters that frames ``start`` to ``stop`` - 1 show: the ``pixels`` of the flattened frame, and their gray."""

    start: int
    stop: int
    pixels: Array
    level: float


class TextFinder:
    """Finds ``texts`` in frames that are added one after another."""

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self._before: Array | None = None

    def add(self, t: int, picture: Array) -> None:
        """Look at frame ``t``, ``(h, w)`` uint8."""
        L = picture.astype(np.float32)
        if self._before is None:
            self._born, self._level = np.full(L.shape, NEVER), L
        else:
            side = 2 * round(L.shape[0] * LINE / 2) + 1
            letters = (L - cv2.morphologyEx(L, cv2.MORPH_OPEN, np.ones((side, side))) > STANDS_OUT) & (L > LIGHT)
            change = L - self._before
            self._born[np.abs(L - self._level) > STILL] = NEVER
            if np.median(np.abs(change)) < CALM:
                new = letters & (change > JUMP)
                self._born[new], self._level = t, np.where(new, L, self._level)
            settled = np.flatnonzero(self._born == t - SETTLED)
            if len(settled) > SMALLEST * L.size and np.ptp(np.percentile(L.ravel()[settled], (10, 90))) < EVEN:
                self.texts.append(Text(t - SETTLED, t, settled, float(np.median(L.ravel()[settled]))))
            for text in reversed(self.texts):
                if text.stop == t and (self._born.ravel()[text.pixels] == text.start).mean() > 0.5:
                    text.stop = t + 1
        self._before = L
