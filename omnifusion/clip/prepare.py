"""A clip ready to be colored: registered exemplars, shots, luminance at the working size."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.film import INTERLACED, MARGIN, Film, inspect
from omnifusion.clip.register import LARGEST_ASPECT_ERROR, register
from omnifusion.clip.shots import Shot, find_references
from omnifusion.color import compose, from_uint8, luminance_of, rgb_to_lab, to_uint8
from omnifusion.geometry import fit_size, resize, stretch
from omnifusion.progress import InputError, check_canceled
from omnifusion.state import ColorState, Video
from omnifusion.video import GRAY_SPREAD

PAINTED = 0.75  # opaque share below which a picture is taken as painted over its frame
COMPARED_SIDE = 448  # longest side in pixels of the frames in which shots are compared


@dataclass(frozen=True)
class Clip:
    """A clip ready to be colored."""

    video: Video  # as decoded; its luminance at full size is what the result keeps
    size: tuple[int, int]  # the working size (h, w)
    exemplars: dict[int, np.ndarray]  # by frame, (3, H, W) uint8, aligned; (4, H, W) is used where it is opaque
    fits: dict[int, tuple[float, float]]  # by frame, correlation of luminance as given and once registered
    film: Film
    shots: list[Shot]  # of the whole clip, in coloring order
    truth: bool  # whether the video holds the true colors, so that the result can be scored
    notes: tuple[str, ...]  # sentences that the user should read before the run
    colored: tuple[Shot, ...] = ()  # shots in color of an otherwise gray clip, which keep their colors
    overlay: np.ndarray | None = None  # (h, w) bool, colored parts of a gray clip, such as a logo, which keep theirs

    @cached_property
    def L(self) -> Tensor:
        """``(T, 1, h, w)`` luminance at the working size of the whole clip, kept."""
        return self.luminance(range(len(self.video)))

    def luminance(self, frames: Iterable[int]) -> Tensor:
        """``(T, 1, h, w)`` luminance at the working size of some frames; of an old film, that of its clean copy."""
        chosen = list(frames)
        L = working_luminance((self.video.frames[t] for t in chosen), self.size, self.film.gain[chosen])
        return self.film.cleaned(L)

    def exemplar_ab(self) -> dict[int, Tensor]:
        """The exemplars' chroma at the working size, frame index -> ``(2, h, w)``, NaN where one is not opaque."""
        return {i: working_chroma(image, self.size) for i, image in self.exemplars.items()}

    def report(self) -> dict[str, Any]:
        """The entries of ``report.json`` on registration, film, and the sources of each shot's colors."""
        return {
            "registration": [
                {"frame": frame, "before": round(before, 4), "after": round(after, 4)}
                for frame, (before, after) in sorted(self.fits.items())
            ],
            "film": {
                "grain": round(self.film.grain, 2),
                "flicker": round(self.film.flicker, 4),
                "repeated": self.film.repeated,
                "cleaned": self.film.old,
            },
            "shots": [
                {name: getattr(shot, name) for name in ("start", "stop", "reference_frame")}
                | {"colors": self._source(shot)}
                for shot in sorted(self.shots, key=lambda shot: shot.start)
            ],
        }

    def _source(self, shot: Shot) -> str:
        if any(e in shot for e in self.exemplars):
            return "exemplars"
        return "prior" if shot.reference_frame is None else "matched_shot"

    def full_size(self, state: ColorState, frame: int, first: int = 0, decoded: np.ndarray | None = None) -> np.ndarray:
        """Frame ``frame`` of the result, ``(3, H, W)`` uint8: the input's own luminance with the colors of ``state``,
        which begins with frame ``first``; ``decoded``: the input's frame, if at hand. Shots in color stay as they are.

        Chroma is brought to full size by bicubic interpolation (guided filters measured worse, docs/experiments.md);
        an exemplar gives its frame its chroma at full size, unsoftened.
        """
        decoded = self.video.frames[frame] if decoded is None else decoded
        if any(frame in shot for shot in self.colored):
            return np.array(decoded)
        L, shot = luminance_of(decoded), next(shot for shot in self.shots if frame in shot)
        ab = resize(state.ab[frame - first][None], self.video.size)[0] * self._fade(L, frame, shot)
        if (exemplar := self.exemplars.get(shot.duplicates.get(frame, frame))) is not None:
            ab = torch.where(torch.from_numpy(opaque(exemplar)), _ab(exemplar), ab)
        for text in self.film.texts:
            if text.start <= frame < text.stop:
                mask = np.zeros(self.size, np.uint8)
                mask.flat[text.pixels] = 1
                around = stretch(cv2.dilate(mask, np.ones((3, 3))), self.video.size) > 0
                ab = ab * ~torch.from_numpy(around & (np.asarray(decoded[1]) > text.level - MARGIN))
        if self.overlay is not None:
            own = _ab(decoded)
            kept = torch.from_numpy(stretch(self.overlay, self.video.size)) & (own.norm(dim=0) > GRAY_SPREAD)
            ab = torch.where(kept, own, ab)
        return to_uint8(compose(L, ab)).numpy()

    def _fade(self, L: Tensor, frame: int, shot: Shot) -> Tensor | float:
        """The share of chroma that a frame of L* ``L`` keeps if it is darker than the one that its colors come from.

        CIELAB's chroma grows with the cube root of light, as L* + 16 does; in the dark with light, as L* does.
        """
        brightest = shot.start + int(self.film.light[shot.start : shot.stop].sum(1).argmax())
        lit = min((e for e in self.exemplars if e in shot), key=lambda e: abs(e - frame), default=brightest)
        if (share := self.film.fade(frame, lit)) == 1:
            return 1.0
        in_full_light = (L + 16) * share ** (-1 / 3) - 16
        ours, theirs = (torch.where(x > 8, x + 16, 3 * x) for x in (L, in_full_light))
        return (ours / theirs.clamp_min(1)).clamp_max(1)


def prepare(video: Video, exemplars: Mapping[int, np.ndarray], max_side: int, force: bool = False) -> Clip:
    """Check a clip and its exemplars, and register these.

    A color clip without exemplars is the paper's protocol: its first frame is the exemplar. A gray clip without
    exemplars is left to the prior.

    Args:
        video: the clip; color is used only as an exemplar and as ground truth.
        exemplars: frame -> colored picture of it, ``(3 or 4, h, w)`` uint8 sRGB; used where it is opaque.
        max_side: longest side of the working size in pixels.
        force: accept an exemplar that does not seem to show its frame, and a clip that seems to be interlaced; they
            cost an InputError otherwise.
    """
    notes, placed, fits = list(video.warnings), dict[int, np.ndarray](), {}
    size, aspect = fit_size(video.size, max_side), float(video.pixel_aspect)
    for frame, image in exemplars.items():
        if not 0 <= frame < len(video):
            last = len(video) - 1
            raise InputError(f"The exemplar is for frame {frame}, but the clip has frames 0 to {last}; pick one.")
        if opaque(image).mean() < PAINTED:
            placed[frame] = overlaid(image, video.size, aspect)
            continue
        registered = register(image, without_color(video.frames[frame]), force, aspect)
        placed[frame], fits[frame] = registered.image, (registered.before, registered.after)
        if registered.warning:
            notes.append(f"Colored frame {frame}: {registered.warning}")
    film = inspect(video, size)
    if film.interlaced >= INTERLACED and not force:
        raise InputError(
            "The clip is interlaced, its frames hold two moments in alternate lines",
            {"": "make whole frames of them first, such as with ffmpeg -i CLIP -vf bwdif OUT.mp4 (telecined film: -vf "
             "fieldmatch,decimate)", "force": "use it as it is"},
        )  # fmt: skip
    colored, overlay = film.colors()
    truth = len(colored) == len(film.shots)
    own = () if truth else tuple(colored)
    for shot in own:
        notes.append(f"Frames {shot.start} to {shot.stop - 1} are in color and keep their own colors.")
        placed.setdefault(shot.frames[0], np.asarray(video.frames[shot.frames[0]]))
    if overlay is not None:
        notes.append("A part of the gray clip, such as a logo, is in color and keeps its own colors.")
    if truth and not placed:
        placed[0] = np.asarray(video.frames[0])
        notes.append("The clip is in color: it is made gray, and its first frame gives the colors.")
    elif not placed:
        notes.append("No colored frame was given, so the first frame's colors are guessed.")
    notes += film.notes()
    compared = fit_size(video.size, COMPARED_SIDE)
    shots = find_references(
        [shot.with_processed(placed) for shot in film.shots],
        placed,
        lambda t: resize(luminance_of(video.frames[t])[None], compared)[0, 0].numpy(),
    )
    if len(shots) > 1:
        cuts = ", ".join(str(start) for start in sorted(shot.start for shot in shots)[1:])
        notes.append(f"The clip has cuts at frame {cuts}: each shot is colored by itself.")
        notes += [note for shot in shots if (note := _note(shot, placed))]
    return Clip(video, size, placed, fits, film, shots, truth, tuple(notes), own, overlay)


def _note(shot: Shot, exemplars: Collection[int]) -> str:
    """The sentence on a shot's colors; empty if it has an exemplar."""
    if any(e in shot for e in exemplars):
        return ""
    where = f"Frames {shot.start} to {shot.stop - 1} have no colored frame"
    if shot.reference_frame is not None:
        source = f"frame {shot.reference_frame}, which shows the same scene"
        return f"{where} of their own, so they take their colors from {source}."
    return (
        f"{where} and look like no other shot, so their colors are guessed, with restraint; give one of them in color, "
        f"such as frame {(shot.start + shot.stop) // 2}."
    )


def working_luminance(
    frames: Iterable[np.ndarray], size: tuple[int, int], gains: Iterable[float] = repeat(1.0)
) -> Tensor:
    """L* ``(T, 1, h, w)`` at the working ``size`` (h, w) of ``frames``, each ``(3, H, W)`` uint8, times their gains."""
    L = []
    for frame, gain in zip(frames, gains, strict=False):
        check_canceled()
        L.append(resize(luminance_of(frame, gain)[None], size))
    return torch.cat(L)


def overlaid(image: np.ndarray, size: tuple[int, int], pixel_aspect: float = 1.0) -> np.ndarray:
    """A picture painted over a frame, ``(4, h, w)`` uint8, at the frame's ``size`` (H, W); InputError if it is of
    another shape, or nothing of it is opaque."""
    (h, w), (H, W) = image.shape[1:], size
    shape = w * H / (h * W)
    if min(abs(shape - 1), abs(shape / pixel_aspect - 1)) > LARGEST_ASPECT_ERROR:
        raise InputError(f"The painted picture is {w}x{h}, the clip {W}x{H}: paint over a frame of the clip.")
    image = stretch(image, size)
    if not opaque(image).any():
        raise InputError("Nothing of the painted picture is opaque; paint what is to get color.")
    return image


def opaque(image: np.ndarray) -> np.ndarray:
    """Where a picture ``(3 or 4, H, W)`` is opaque, ``(H, W)`` bool."""
    return np.ones(image.shape[1:], bool) if len(image) == 3 else image[3] >= 128


def working_chroma(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Chroma ``(2, h, w)`` of a picture ``(3 or 4, H, W)`` uint8 at another ``size``, NaN where it is less than half as
    opaque as anywhere: thin scribbles count, too."""
    if len(image) == 3:
        return resize(_ab(image)[None], size)[0]
    counts = torch.from_numpy(opaque(image))[None]
    both = resize(torch.cat([_ab(image) * counts, counts.float()])[None], size)[0]
    least = both[2].max().clamp_min(1e-3) / 2
    return torch.where(both[2] >= least, both[:2] / both[2].clamp_min(least), torch.nan)


def _ab(image: np.ndarray) -> Tensor:
    return rgb_to_lab(from_uint8(image[:3]))[1:]


def without_color(frame: np.ndarray) -> np.ndarray:
    """A frame without its color, ``(3, H, W)`` uint8 with three equal channels of the same L*."""
    L = luminance_of(frame)
    return to_uint8(compose(L, torch.zeros(2, *L.shape[1:]))).numpy()
