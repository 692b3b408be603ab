"""Corrections: painted pixels, and all pixels that show the same, get new colors.

Every pixel names the one that its color mainly came from (``ColorState.source``): its provenance. A propagated pixel
shows the same as its source; an inpainted one starts a new track, since similarity is not identity. So a track starts
at one pixel and holds all pixels whose sources lead there, earlier and later in the clip.
"""

from collections.abc import Mapping
from dataclasses import fields

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from torch import Tensor

from omnifusion.flow import match
from omnifusion.geometry import pixel_grid
from omnifusion.progress import Colored, InputError, Steps
from omnifusion.propagate import LUMINANCE_SIGMA, MOVING_SIGMA
from omnifusion.state import ColorState, Origin
from omnifusion.transfer import MAX_CANDIDATES, NEIGHBORS, subset

CLOSING_RADIUS = 3.0  # px, for gaps in a traced region: sources are whole pixels, so that some are missing
# Distance in a*, b* and half of L* within which pixels that a patch's frame does not show join those that it shows, and
# the distance in the same that the longer side of a frame is worth
SIMILAR, POSITION_WEIGHT = 3.0, 30.0


def sources(state: ColorState) -> Tensor:
    """The number ``(N,)`` of the pixel that each pixel's color mainly came from; its own if there is none."""
    return torch.arange(state.source.numel()) + state.source.flatten()


def resolve(pointers: Tensor) -> Tensor:
    """Follow ``pointers`` ``(N,)`` to those that point at themselves; InputError if some form a cycle."""
    for _ in range(len(pointers).bit_length() + 1):
        if torch.equal(further := pointers[pointers], pointers):
            return pointers
        pointers = further
    raise InputError("The run's colors are damaged: they come from one another in a circle. Color the clip again.")


def first_sources(state: ColorState) -> Tensor:
    """The number ``(T, h, w)`` of the pixel that each pixel's color first came from, before any correction."""
    return resolve(sources(state)).reshape(state.source.shape)


def track_ids(state: ColorState) -> Tensor:
    """The number ``(T, h, w)`` of the pixel at which each pixel's track starts."""
    start = (state.kind == Origin.INPAINTED).flatten()
    pointers = torch.where(start, torch.arange(len(start)), sources(state))
    return resolve(pointers).reshape(state.source.shape)


class ColorLineage:
    """The tracks of a finished run, and the pixels that its colors came through."""

    def __init__(self, state: ColorState) -> None:
        self.state, self.sources, self.track_ids = state, sources(state), track_ids(state)

    def trace(self, frame: int, region: Tensor) -> Tensor:
        """Find all pixels that show the same as a region ``(h, w)`` bool of a frame: ``(T, h, w)``, for each of them
        the number in the frame of the region's pixel that it corresponds to; -1 for all others."""
        shows, pointers = torch.full_like(self.sources, -1), self.sources.clone()
        for start, pixel in self._track_starts(frame, region):
            shows[start], pointers[start] = pixel, start
        return shows[resolve(pointers)].reshape(self.track_ids.shape)

    def _track_starts(self, frame: int, region: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The pixels at which tracks through a region start, and the region's pixel that shows each; its own pixels
        come last. An inpainted pixel's track starts where the nearest one that is not inpainted would have it: objects
        are locally rigid."""
        (h, w), inside = region.shape, region.numpy()
        area, own = h * w, np.flatnonzero(inside)
        starts, tracked = [], inside & (self.state.kind[frame] != Origin.INPAINTED).numpy()
        if tracked.any():
            y, x = distance_transform_edt(~tracked, return_distances=False, return_indices=True)
            nearest = (y * w + x).flatten()[own]
            t, place = np.divmod(self.track_ids[frame].flatten().numpy()[nearest], area)
            rows = place // w + own // w - nearest // w
            columns = place % w + own % w - nearest % w
            within = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
            outside = self._ancestors(frame * area + np.flatnonzero(~inside))
            for j in set(t) - {frame}:
                here = (t == j) & within
                shows = np.full((h, w), -1)
                shows[rows[here], columns[here]] = own[here]
                side = (2 * round(CLOSING_RADIUS) + 1,) * 2
                density, rest = (cv2.blur(x.astype(np.float32), side) for x in (shows >= 0, outside[j]))
                shows = self._extended(j, np.where(density > rest, _closed(shows), -1), outside[j])
                start = np.flatnonzero(shows >= 0)
                starts.append((torch.from_numpy(start + j * area), torch.from_numpy(shows.flatten()[start])))
        return [*starts, (torch.from_numpy(own + frame * area), torch.from_numpy(own))]

    def _ancestors(self, numbers: np.ndarray) -> np.ndarray:
        """The pixels ``(T, h, w)`` bool that the colors of the pixels ``numbers`` came through."""
        passed, pixels = torch.zeros(self.sources.shape, dtype=torch.bool), torch.from_numpy(numbers)
        while len(pixels):
            pixels = self.sources[pixels]
            pixels = pixels[~passed[pixels]].unique()
            passed[pixels] = True
        return passed.reshape(self.track_ids.shape).numpy()

    def _extended(self, frame: int, shows: np.ndarray, outside: np.ndarray) -> np.ndarray:
        """``shows`` ``(h, w)`` (-1 = not the region) extended to pixels that the region's frame shows neither in the
        region nor ``outside`` it, by a vote of the most similar pixels around."""
        decided, size = (shows >= 0) | outside, shows.shape
        if decided.all() or not (shows >= 0).any():
            return shows
        place = pixel_grid(*size).permute(2, 0, 1) * POSITION_WEIGHT / max(size)
        features = torch.cat([self.state.ab[frame], self.state.L[frame] / 2, place]).permute(1, 2, 0).numpy()
        chosen = subset(decided, MAX_CANDIDATES)
        tree, queries, answers = cKDTree(features[chosen]), features[~decided], shows[chosen]
        distance, neighbors = tree.query(queries, k=range(1, min(NEIGHBORS, tree.n) + 1), eps=0.5)
        similar = np.linalg.norm((tree.data[neighbors] - queries[:, None])[..., :3], axis=-1) < SIMILAR
        weight = 1 / (distance**2 + 1e-4)
        votes = weight * (similar & (answers[neighbors] >= 0))
        nearest = np.take_along_axis(answers[neighbors], votes.argmax(1)[:, None], 1)[:, 0]
        shows[~decided] = np.where(votes.sum(1) > weight.sum(1) / 2, nearest, -1)
        return shows


def _closed(values: np.ndarray) -> np.ndarray:
    """``values`` ``(h, w)``, -1 where there is none, with gaps of up to twice ``CLOSING_RADIUS`` closed."""
    if (values < 0).all():
        return values
    distance, (y, x) = distance_transform_edt(values < 0, return_indices=True)
    near = distance <= CLOSING_RADIUS
    filled = near & (distance_transform_edt(near) > CLOSING_RADIUS)
    return np.where(filled | (values >= 0), values[y, x], -1)


def correct(
    state: ColorState, patches: Mapping[int, Tensor], locks: Mapping[int, Tensor] | None = None,
    frames: range | None = None, iteration: int | None = None,
) -> Steps[ColorState]:  # fmt: skip
    """Give painted pixels, and all that show the same, the colors of the patches.

    All other pixels and all locked ones stay bit-identical. Frames come in order of their distance from a patch.
    InputError for a picture or ``frames`` outside the clip, or if all that is painted is locked or outside ``frames``.

    Args:
        patches: frame -> ab ``(2, h, w)``, NaN where it has no color.
        locks: frame -> ``(h, w)`` bool: pixels to keep, with all that show the same in other frames.
        frames: those that may change; None = all.
        iteration: number that identifies the corrected pixels; None = the next.
    """
    locks, frames, last = locks or {}, range(len(state)) if frames is None else frames, len(state) - 1
    for frame in (*patches, *locks):
        if not 0 <= frame <= last:
            raise InputError(f"A picture is for frame {frame}, but the run has frames 0 to {last}; pick one.")
    if not 0 <= frames.start < frames.stop <= last + 1:
        names = f"Frames {frames.start} to {frames.stop - 1}"
        raise InputError(f"{names} are not in the run, which has frames 0 to {last}; name others.")
    lineage, free = ColorLineage(state), torch.zeros(state.source.shape, dtype=torch.bool)
    free[list(frames)] = True
    for frame, locked in locks.items():
        free &= lineage.trace(frame, locked) < 0
    painted = {i: ab[0].isfinite() for i, ab in patches.items()}
    for i, region in painted.items():  # painted pixels change unless their own frame is locked there
        if i in frames:
            free[i] |= region & ~locks.get(i, torch.zeros_like(region))
    painted = {i: region & free[i] for i, region in painted.items() if bool((region & free[i]).any())}
    if not painted:
        raise InputError("All that is painted is locked or outside the frames to be corrected; paint something else.")
    shows = {i: lineage.trace(i, region) for i, region in painted.items()}
    new = ColorState(*(getattr(state, f.name).clone() for f in fields(state)))
    number = int(state.iteration.max()) + 1 if iteration is None else iteration
    for j in sorted(range(len(state)), key=lambda j: min(abs(j - i) for i in painted)):
        done = painted.get(j, torch.zeros_like(free[j])).clone()
        if bool(done.any()):
            new.ab[j][:, done] = patches[j][:, done]
            new.confidence[j][done] = 1.0
            new.source[j][done & (state.kind[j] == Origin.INPAINTED)] = 0
            new.origin[j][done] = 3 * number + int(Origin.EXEMPLAR)
        for i in sorted(painted, key=lambda i: abs(i - j)):
            region = (shows[i][j] >= 0) & free[j] & ~done
            done |= region
            if bool(region.any()):
                source = shows[i][j].clamp_min(0)
                new.ab[j][:, region] = _gathered(state, patches[i], painted[i], i, j, region, source)
                new.confidence[j][region] = (state.confidence[j] * state.confidence[i].flatten()[source])[region]
                kind = torch.where(state.kind[j] == Origin.INPAINTED, int(Origin.INPAINTED), int(Origin.PROPAGATED))
                new.origin[j][region] = (3 * number + kind).to(new.origin.dtype)[region]
        if bool(done.any()):
            yield Colored("correct", f"frame {j} is corrected", 1.0, state=new, iteration=number, frame=j)
    return new


def _gathered(
    state: ColorState, patch: Tensor, painted: Tensor, i: int, j: int, region: Tensor, source: Tensor
) -> Tensor:
    """The colors ``(2, N)`` of the pixels ``source`` of the painted frame ``i`` for a region of frame ``j``."""
    _, (y, x) = distance_transform_edt(~painted.numpy(), return_indices=True)
    paint = patch[:, y, x].numpy()  # beyond its rim the patch has its nearest colors
    pixels, points = np.flatnonzero(region), match.points_of(source[region].numpy(), region.shape[1])
    sigma = np.full(len(pixels), MOVING_SIGMA, np.float32)
    target_L, source_L = state.L[j, 0].numpy(), state.L[i, 0].numpy()
    return torch.from_numpy(match.gather(pixels, points, sigma, target_L, source_L, paint, LUMINANCE_SIGMA).T)
