"""A finished run is corrected: painted pixels, and all that descends from the things they show, get other colors.

Every pixel points at the one that its color mainly came from (``ColorState.source``). A propagated pixel shows the
same thing as the one it points at; an inpainted one begins a thing of its own, for likeness alone is no sameness. So a
thing is where the pointers of a painted pixel begin, and its descendants are all whose pointers pass there, in both
directions of time. No flow is searched: pointers lead from a descendant to its thing, and from there to the paint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

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

GAP = 3.0
"""Radius in pixels of the closing of what a frame shows of a thing: pointers go to whole pixels, some are missing."""

ALIKE = 3.0
"""Distance in a*, b* and half of L* up to which what a patch's frame does not show goes with what it shows."""

FAR = 30.0
"""Distance in the same that the longer side of a frame is worth."""


@dataclass(frozen=True)
class Edit:
    """What is to be corrected, at the working size.

    Attributes:
        patches: frame -> ab ``(2, h, w)``, NaN where it is open.
        locks: frame -> ``(h, w)`` bool: what is to stay as it is, with all that shows the same in other frames.
        frames: those that may change; None = all.
    """

    patches: Mapping[int, Tensor]
    locks: Mapping[int, Tensor] = field(default_factory=dict)
    frames: range | None = None


def parents(state: ColorState) -> Tensor:
    """For every pixel of a clip the number ``(N,)`` of the one that its color mainly came from; a root's own."""
    return torch.arange(state.source.numel()) + state.source.flatten()


def followed(pointers: Tensor) -> Tensor:
    """Where each chain of ``pointers`` ``(N,)`` ends: at one that points at itself.

    Raises:
        InputError: some go round in a circle, which no run writes.
    """
    for _ in range(len(pointers).bit_length() + 1):
        if torch.equal(further := pointers[pointers], pointers):
            return pointers
        pointers = further
    raise InputError("The run's ab.npz is damaged: colors come from one another in a circle. Color the clip again.")


def roots(state: ColorState) -> Tensor:
    """The number ``(T, h, w)`` of the pixel that each pixel's color came from in the run, before any correction."""
    return followed(parents(state)).reshape(state.source.shape)


def things(state: ColorState) -> Tensor:
    """The number ``(N,)`` of the pixel at which what each pixel shows was colored first."""
    begins = (state.kind == Origin.INPAINTED).flatten()
    return followed(torch.where(begins, torch.arange(len(begins)), parents(state)))


class Lineage:
    """Who shows what, and who descends from whom, in a finished run."""

    def __init__(self, state: ColorState) -> None:
        self.shape, self.parents, self.things = state.source.shape, parents(state), things(state)
        self.inpainted, self.state = state.kind == Origin.INPAINTED, state

    def descendants(self, frame: int, where: Tensor) -> Tensor:
        """For every pixel ``(T, h, w)`` that descends from what the region ``where`` ``(h, w)`` bool of a frame shows,
        the pixel of the region that shows it, by its number in the frame; -1 for all others."""
        told, pointers = torch.full_like(self.parents, -1), self.parents.clone()
        for begin, shows in self._shown(frame, where):
            told[begin], pointers[begin] = shows, begin
        return told[followed(pointers)].reshape(self.shape)

    def _shown(self, frame: int, where: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The pixels at which what a region shows was colored first, and which pixel of it shows each; the region's
        own pixels come last. An inpainted pixel is where the nearest one that is not would have it: things are rigid
        in the small."""
        (h, w), inside = where.shape, where.numpy()
        area, first = h * w, self.things.reshape(-1, h * w)[frame].numpy()
        own = np.flatnonzero(inside)
        found, solid = [], inside & ~self.inpainted[frame].numpy()
        if solid.any():
            y, x = distance_transform_edt(~solid, return_distances=False, return_indices=True)
            nearest = (y * w + x).flatten()[own]
            t, place = np.divmod(first[nearest], area)
            rows = place // w + own // w - nearest // w
            columns = place % w + own % w - nearest % w
            within = (rows.clip(0, h - 1) == rows) & (columns.clip(0, w - 1) == columns)
            passed = self._passed(frame * area + np.flatnonzero(~inside))
            for frame_of in set(t) - {frame}:
                here = (t == frame_of) & within
                shows = np.full((h, w), -1)
                shows[rows[here], columns[here]] = own[here]
                side = (2 * round(GAP) + 1,) * 2
                density, rest = (cv2.blur(x.astype(np.float32), side) for x in (shows >= 0, passed[frame_of]))
                shows = self._further(frame_of, np.where(density > rest, _closed(shows), -1), passed[frame_of])
                begin = np.flatnonzero(shows >= 0)
                found.append((torch.from_numpy(begin + frame_of * area), torch.from_numpy(shows.flatten()[begin])))
        return [*found, (torch.from_numpy(own + frame * area), torch.from_numpy(own))]

    def _passed(self, numbers: np.ndarray) -> np.ndarray:
        """Which pixels ``(T, h, w)`` bool the colors of those called ``numbers`` came through."""
        passed, at = torch.zeros(self.parents.shape, dtype=torch.bool), torch.from_numpy(numbers)
        while len(at):
            at = self.parents[at]
            at = at[~passed[at]].unique()
            passed[at] = True
        return passed.reshape(self.shape).numpy()

    def _further(self, frame: int, shows: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """``shows`` ``(h, w)``, -1 where it is none of the region's, and with it what the region's frame has no part
        in, neither in the region nor in the ``rest``: the most alike pixels around vote."""
        told, size = (shows >= 0) | rest, shows.shape
        if told.all() or not (shows >= 0).any():
            return shows
        place = pixel_grid(*size).permute(2, 0, 1) * FAR / max(size)
        look = torch.cat([self.state.ab[frame], self.state.L[frame] / 2, place]).permute(1, 2, 0).numpy()
        chosen = subset(told, MAX_CANDIDATES)
        tree, asks, answers = cKDTree(look[chosen]), look[~told], shows[chosen]
        distance, found = tree.query(asks, k=range(1, min(NEIGHBORS, tree.n) + 1), eps=0.5)
        alike = np.linalg.norm((tree.data[found] - asks[:, None])[..., :3], axis=-1) < ALIKE
        weight, mine = 1 / (distance**2 + 1e-4), alike & (answers[found] >= 0)
        nearest = np.take_along_axis(answers[found], (weight * mine).argmax(1)[:, None], 1)[:, 0]
        out = shows.copy()
        out[~told] = np.where((weight * mine).sum(1) > weight.sum(1) / 2, nearest, -1)
        return out


def _closed(values: np.ndarray) -> np.ndarray:
    """``values`` ``(h, w)``, -1 where there is none, with gaps of up to twice ``GAP`` pixels filled from beside."""
    if (values < 0).all():
        return values
    distance, (y, x) = distance_transform_edt(values < 0, return_indices=True)
    filled = (distance <= GAP) & (distance_transform_edt(distance <= GAP) > GAP)
    return np.where(filled | (values >= 0), values[y, x], -1)


def correct(state: ColorState, edit: Edit, iteration: int | None = None) -> Steps[ColorState]:
    """The state with the painted pixels, and all that descends from what they show, in the colors of the patches.

    Every other pixel, and what is locked, is the same bit for bit. The corrected pixels' ``iteration`` is a new one,
    which tells them from all others; None = the next. Frames come by their distance from a patch.

    Raises:
        InputError: a patch or a lock outside the clip, or nothing that is painted may change.
    """
    _check(state, edit)
    lineage, free = Lineage(state), torch.zeros(state.source.shape, dtype=torch.bool)
    free[list(edit.frames or range(len(state)))] = True
    for frame, where in edit.locks.items():
        free &= lineage.descendants(frame, where) < 0
    painted = {i: ab[0].isfinite() for i, ab in edit.patches.items()}
    for i, where in painted.items():  # what is painted itself changes unless its own frame is locked there
        if edit.frames is None or i in edit.frames:
            free[i] |= where & ~edit.locks.get(i, torch.zeros_like(where))
    painted = {i: where & free[i] for i, where in painted.items() if bool((where & free[i]).any())}
    if not painted:
        raise InputError("All that is painted is locked or outside the frames to be corrected; paint something else.")
    told = {i: lineage.descendants(i, where) for i, where in painted.items()}
    new = ColorState(*(getattr(state, f.name).clone() for f in fields(state)))
    number = int(state.iteration.max()) + 1 if iteration is None else iteration
    for j in sorted(range(len(state)), key=lambda j: min(abs(j - i) for i in painted)):
        done = painted.get(j, torch.zeros_like(free[j])).clone()
        if bool(done.any()):
            new.ab[j][:, done] = edit.patches[j][:, done]
            new.confidence[j][done] = 1.0
            new.source[j][done & (state.kind[j] == Origin.INPAINTED)] = 0
            new.origin[j][done] = 3 * number + int(Origin.EXEMPLAR)
        for i in sorted(painted, key=lambda i: abs(i - j)):
            where = (told[i][j] >= 0) & free[j] & ~done
            done |= where
            _descend(state, new, i, edit.patches[i], painted[i], j, where, told[i][j], number)
        if bool(done.any()):
            yield Colored("correct", f"frame {j} is corrected", 1.0, state=new, iteration=number, frame=j)
    return new


def _descend(
    state: ColorState, new: ColorState, i: int, patch: Tensor, painted: Tensor, j: int, where: Tensor, shows: Tensor,
    number: int,
) -> None:  # fmt: skip
    """Give the pixels ``where`` of frame ``j`` the colors of what they descend from, painted in frame ``i``."""
    if not bool(where.any()):
        return
    w = where.shape[1]
    _, (y, x) = distance_transform_edt(~painted.numpy(), return_indices=True)
    paint = patch[:, y, x].contiguous()  # beyond its rim the patch goes on as it ends
    there = shows.clamp_min(0)
    pixels = where.flatten().nonzero()[:, 0].numpy()
    points = match.points_of(there[where].numpy(), w)
    sigma = np.full(len(pixels), MOVING_SIGMA, np.float32)
    target_L, source_L = state.L[j, 0].numpy(), state.L[i, 0].numpy()
    colors = match.gather(pixels, points, sigma, target_L, source_L, paint.numpy(), LUMINANCE_SIGMA)
    new.ab[j][:, where] = torch.from_numpy(colors.T)
    of_source = state.confidence[i].flatten()[there]
    new.confidence[j][where] = (state.confidence[j] * of_source)[where]
    kind = torch.where(state.kind[j] == Origin.INPAINTED, int(Origin.INPAINTED), int(Origin.PROPAGATED))
    new.origin[j][where] = (3 * number + kind).to(new.origin.dtype)[where]


def _check(state: ColorState, edit: Edit) -> None:
    last = len(state) - 1
    for frame in (*edit.patches, *edit.locks):
        if not 0 <= frame <= last:
            raise InputError(f"A picture is for frame {frame}, but the run has frames 0 to {last}; pick one.")
    if edit.frames is not None and not 0 <= edit.frames.start < edit.frames.stop <= last + 1:
        first, final = edit.frames.start, edit.frames.stop - 1
        raise InputError(f"Frames {first} to {final} are not in the run, which has frames 0 to {last}; name others.")
