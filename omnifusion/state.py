"""The values that flow through a run, and their laws.

A clip is split once into luminance, which never changes, and color, which starts empty and is filled exactly once per
pixel. All values are frozen and hold CPU tensors, so they can be pickled, stored, and sent to another process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor


class Origin(IntEnum):
    """How a pixel got its color."""

    EXEMPLAR = 0
    PROPAGATED = 1
    INPAINTED = 2


@dataclass(frozen=True)
class Video:
    """A decoded clip: ``frames`` ``(T, 3, H, W)`` uint8 sRGB, an array or a lazy sequence (``video.read``); gray has
    three equal channels."""

    frames: np.ndarray
    fps: Fraction = Fraction(24)  # exact mean frame rate
    times: tuple[Fraction, ...] | None = None  # of presentation, in seconds, where the rate varies
    source: Path | None = None  # the film that it was decoded from, which holds its sound, titles and timecode
    start: Fraction = Fraction(0)  # in the source's own time, in seconds
    stop: Fraction | None = None  # None = the source's end
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel by its height (DVD and DV films are squeezed)
    warnings: tuple[str, ...] = ()  # sentences that the user should read before a run

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(f"frames must be (T, 3, H, W) uint8, got {self.frames.shape} {self.frames.dtype}")
        if self.times is not None and len(self.times) != len(self.frames):
            raise ValueError("times must hold one entry per frame")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.frames.shape[2], self.frames.shape[3]


@dataclass(frozen=True)
class ColorEstimate:
    """Colors for a frame, and how far they can be trusted; ``source``: the number of the pixel that each mainly comes
    from, counted through the clip; -1 or None where none is known."""

    ab: Tensor  # (2, H, W)
    confidence: Tensor  # (H, W) in [0, 1], the probability that each is right
    source: Tensor | None = None  # (H, W) int64


Frames: TypeAlias = Any  # what is known of every frame: a Tensor, or a tuple with one of each
COLORS = ("ab", "origin", "confidence", "source")  # what a ``ColorState`` holds of a frame besides its luminance


@dataclass(frozen=True)
class ColorState:
    """The colors of a clip so far (the paper's X and M).

    During a run the colors are kept frame by frame, and states share the frames in which they agree; ``stacked`` they
    are whole tensors. ``source`` is the offset, in the flattened clip, to the pixel that a pixel's color mainly came
    from; 0 if that is an exemplar or the prior, and while it is gray.
    """

    L: Tensor  # (T, 1, H, W) float32, CIE L* in [0, 100]; never changes
    ab: Frames  # (T, 2, H, W) float32, CIE a*, b*; zero where not yet colored
    origin: Frames  # (T, H, W) int32; -1 = still gray, otherwise 3 * iteration + Origin
    confidence: Frames  # (T, H, W) float16 in [0, 1]: the probability that a color is right; 0 = still gray
    source: Frames  # (T, H, W) int32

    @classmethod
    def gray(cls, L: Tensor) -> ColorState:
        """A clip without any color from its luminance ``(T, 1, H, W)``."""
        T, _, H, W = L.shape
        origin = torch.full((T, H, W), -1, dtype=torch.int32)
        source = torch.zeros(T, H, W, dtype=torch.int32)
        return cls(L, torch.zeros(T, 2, H, W), origin, torch.zeros(T, H, W, dtype=torch.float16), source)

    @classmethod
    def of_exemplars(cls, L: Tensor, exemplars: Mapping[int, Tensor]) -> ColorState:
        """A clip that has the colors of ``exemplars`` alone, frame index -> ab ``(2, H, W)``, NaN where it has no
        color."""
        state = cls.gray(L)
        for i, ab in exemplars.items():
            state = state.paint(i, ab[0].isfinite(), ColorEstimate(ab, torch.ones(())), 0, Origin.EXEMPLAR)
        return state

    @property
    def mask(self) -> Tensor:
        """The paper's M, ``(T, H, W)`` bool: true where a pixel has its color."""
        return torch.stack([origin >= 0 for origin in self.origin])

    def colored(self, frame: int) -> Tensor:
        """The mask of one frame, ``(H, W)`` bool."""
        return self.origin[frame] >= 0

    def is_complete(self, frame: int) -> bool:
        """Whether every pixel of a frame has its color."""
        return bool((self.origin[frame] >= 0).all())

    @property
    def kind(self) -> Tensor:
        """``(T, H, W)`` int32: the ``Origin`` of each pixel, -1 = still gray."""
        return torch.stack([torch.where(origin < 0, origin, origin % 3) for origin in self.origin])

    @property
    def iteration(self) -> Tensor:
        """``(T, H, W)`` int32: the iteration that colored each pixel, -1 = still gray."""
        return torch.stack([torch.where(origin < 0, origin, origin // 3) for origin in self.origin])

    def stacked(self) -> ColorState:
        """The same state with all colors in tensors of the whole clip."""
        colors = {name: getattr(self, name) for name in COLORS}
        return replace(self, **{k: v if isinstance(v, Tensor) else torch.stack(v) for k, v in colors.items()})

    def __len__(self) -> int:
        return len(self.L)

    def paint(self, frame: int, where: Tensor, colors: ColorEstimate, iteration: int, how: Origin) -> ColorState:
        """A new state in which the pixels ``where`` ``(H, W)`` bool of a frame have ``colors``, by the step ``how`` of
        an ``iteration`` of Algorithm 1, from 0; those that had a color keep it."""
        new = where & (self.origin[frame] < 0)
        fresh = {"ab": colors.ab, "confidence": colors.confidence, "origin": torch.tensor(3 * iteration + int(how))}
        if colors.source is not None:
            numbers = pixel_numbers(frame, where.shape)
            fresh["source"] = torch.where(colors.source < 0, 0, colors.source - numbers)
        old = {name: getattr(self, name)[frame] for name in fresh}
        return self.with_colors(frame, {k: torch.where(new, v.to(old[k].dtype), old[k]) for k, v in fresh.items()})

    def colors(self, frame: int) -> dict[str, Tensor]:
        """The ``COLORS`` of a frame."""
        return {name: getattr(self, name)[frame] for name in COLORS}

    def with_colors(self, frame: int, colors: Mapping[str, Tensor]) -> ColorState:
        """A new state in which a frame has these of the ``COLORS``."""
        parts = {name: list(getattr(self, name)) for name in colors}
        for name, values in colors.items():
            parts[name][frame] = values
        return replace(self, **{name: tuple(frames) for name, frames in parts.items()})

    def repeated(self, duplicates: Mapping[int, int]) -> ColorState:
        """A new state in which the frames ``duplicates`` -> frame that they repeat have its colors, exactly."""
        state, area = self, self.L[0].numel()
        for duplicate, frame in duplicates.items():
            colors = self.colors(frame)
            state = state.with_colors(duplicate, colors | {"source": colors["source"] + area * (frame - duplicate)})
        return state


def pixel_numbers(frame: int, size: Sequence[int]) -> Tensor:
    """The numbers ``(H, W)`` int64 of a frame's pixels, counted through the clip."""
    first = frame * size[0] * size[1]
    return torch.arange(first, first + size[0] * size[1]).reshape(size[0], size[1])


@dataclass(frozen=True)
class FillTask:
    """One frame to fill, all CPU tensors, so that it can be sent to another process."""

    L: Tensor  # (1, H, W) luminance
    ab: Tensor  # (2, H, W)
    mask: Tensor  # (H, W) bool, true where ab is known
    estimate: ColorEstimate | None  # a start for the unknown pixels, or None for pure noise (the paper)
    seed: int  # the only source of randomness
    references: Sequence[tuple[Tensor, Tensor, Tensor]] = ()  # L, ab and mask of colored frames that may show the same


@dataclass(frozen=True)
class Iteration:
    """One round of Algorithm 1: the frame that gave its color, and what got color, in pixels at the working size."""

    index: int
    frame: int
    propagated: int
    inpainted: int
    remaining: int


class Tracker(Protocol):
    """Point correspondence through a clip at the working size, in ``geometry``'s pixel coordinates."""

    def matches(self, pixels: np.ndarray, i: int, j: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where ``pixels`` ``(N,)`` of frame ``i`` are in ``j``: at least one answer, each points ``(N, 2)`` and their
        forward-backward errors ``(N,)`` in pixels, inf = not visible."""
        ...
