"""From what a visitor gives to what the method works on: luminance at the working size, exemplars in place, shots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.register import register
from omnifusion.clip.shots import find_shots
from omnifusion.color import compose, from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.errors import go_on
from omnifusion.geometry import fit_size, resize
from omnifusion.state import ColorState, Exemplar, InputError, Video
from omnifusion.video import is_grey


@dataclass(frozen=True)
class Clip:
    """A clip ready to be coloured.

    Attributes:
        video: as decoded; its luminance at full size is what the result keeps.
        size: the working size (h, w).
        exemplars: frame index -> coloured picture ``(3, H, W)`` uint8, lined up with the frame at full size.
        shots: ranges between cuts that cover the clip.
        truth: whether ``video`` holds the true colours, so that the result can be scored.
        notes: sentences that the user should read before the run.
    """

    video: Video
    size: tuple[int, int]
    exemplars: dict[int, np.ndarray]
    shots: list[range]
    truth: bool
    notes: tuple[str, ...]

    @cached_property
    def L(self) -> Tensor:
        """``(T, 1, h, w)`` luminance at the working size of the whole clip, kept."""
        return self.luminance(range(len(self.video)))

    def luminance(self, frames: range) -> Tensor:
        """``(T, 1, h, w)`` luminance at the working size of some frames in a row."""
        return working_luminance((self.video.frames[t] for t in frames), self.size)

    def exemplar_ab(self) -> dict[int, Tensor]:
        """The exemplars' chroma at the working size, frame index -> ``(2, h, w)``."""
        return {i: resize(_ab(image)[None], self.size)[0] for i, image in self.exemplars.items()}

    def full_size(self, state: ColorState, frame: int) -> np.ndarray:
        """Frame ``frame`` of the result, ``(3, H, W)`` uint8: the input's own luminance with the colours of ``state``.

        Chroma is brought to full size by bicubic interpolation (guided filters measured worse, docs/propagation.md);
        an exemplar gives its frame its chroma at full size, unsoftened.
        """
        L = _L(self.video.frames[frame])
        exemplar = self.exemplars.get(frame)
        ab = resize(state.ab[frame][None], self.video.size)[0] if exemplar is None else _ab(exemplar)
        return to_uint8(compose(L, ab)).numpy()


def prepare(video: Video, exemplars: Sequence[Exemplar], max_side: int, force: bool = False) -> Clip:
    """Check and register what was given.

    A colour clip without exemplars is the paper's protocol: its first frame is the exemplar. A grey clip without
    exemplars is left to the prior.

    Args:
        video: the clip; colour is used only as an exemplar and as truth.
        exemplars: coloured pictures and the frames they show.
        max_side: longest side of the working size in pixels.
        force: accept an exemplar that does not seem to show its frame.

    Raises:
        InputError: an exemplar that does not fit its frame.
    """
    notes, truth, placed = [], not is_grey(video), {}
    for given in exemplars:
        if not 0 <= given.index < len(video):
            raise InputError(
                f"The exemplar is for frame {given.index}, but the clip has frames 0 to {len(video) - 1}; pick one."
            )
        registered = register(given.image, _grey(video.frames[given.index]), force=force)
        placed[given.index] = registered.image
        if registered.warning:
            notes.append(f"Exemplar of frame {given.index}: {registered.warning}")
    if not placed and truth:
        placed[0] = np.asarray(video.frames[0])
        notes.append("The clip is in colour: it is made grey, its first frame is the exemplar, the result is scored.")
    elif not placed:
        notes.append("No exemplar was given: the prior invents the colours of the first frame.")
    shots = find_shots(video)
    if len(shots) > 1:
        cuts = ", ".join(str(shot.start) for shot in shots[1:])
        notes.append(
            f"The clip has cuts at frame {cuts}: each shot is tracked by itself, best with an exemplar of its own."
        )
    return Clip(video, fit_size(video.size, max_side), placed, shots, truth, tuple(notes))


def working_luminance(frames: Iterable[np.ndarray], size: tuple[int, int]) -> Tensor:
    """L* ``(T, 1, h, w)`` at the working ``size`` (h, w) of ``frames``, each ``(3, H, W)`` uint8."""

    def small(frame: np.ndarray) -> Tensor:
        go_on()
        return resize(_L(frame)[None], size)

    return torch.cat([small(frame) for frame in frames])


def _L(frame: np.ndarray) -> Tensor:
    return luminance(from_uint8(frame))


def _ab(image: np.ndarray) -> Tensor:
    return rgb_to_lab(from_uint8(image))[1:]


def _grey(frame: np.ndarray) -> np.ndarray:
    """A frame without its colour, ``(3, H, W)`` uint8 with three equal channels of the same L*."""
    L = _L(frame)
    return to_uint8(compose(L, torch.zeros(2, *L.shape[1:]))).numpy()
