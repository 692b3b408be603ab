"""Color estimates for the intra-frame inpainting step (paper, section 3.2, eq. 5; the step: ``algorithm.Run.fill``).

Our addition to the paper: the estimate of each gray pixel's color is the fill, or where diffusion starts. Color
candidates are weighted by the odds that they are right: colors warped from colored frames whose match was not accepted,
and colors transferred from the most similar pixels of colored frames and of the frame itself. Levin's equations (2004)
join them to the known colors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from omnifusion.flow.confidence import odds
from omnifusion.levin import levin
from omnifusion.pool import parallel
from omnifusion.progress import Steps
from omnifusion.propagate import SourceFrame, warp
from omnifusion.state import ColorEstimate, ColorState, FillTask, Tracker, pixel_numbers
from omnifusion.transfer import MAX_CANDIDATES, MAX_QUERIES, Candidates, Transferrer, gray_features, subset

Array = np.ndarray

NEAREST = 2  # how many complete frames, nearest in time, are color candidates besides the exemplars

ISOLATED, ISOLATED_WINDOW = 0.2, 15
"""A known pixel is isolated if at most this share of a window of this side is known: there transfers are tested."""

COARSE = 4  # the step in pixels at which the outcome of that test is carried into the hole

CONTRADICTION_SIGMA = 6.0  # error in a*, b* of transfers at isolated known pixels at which their weight falls to 0.6
DATA_WEIGHT = 0.15  # pull of a candidate at even odds relative to Levin's equations, whose weights sum to 1


@dataclass(frozen=True)
class ReferenceFrame:
    """A frame whose colors may be transferred.

    Attributes:
        L: ``(1, H, W)``, ab: ``(2, H, W)``, mask: ``(H, W)`` bool, true where colored.
        names: ``(H, W)`` int64, the numbers of its pixels, counted through the clip; None = not of the clip.
    """

    L: Tensor
    ab: Tensor
    mask: Tensor
    names: Tensor | None = None

    @classmethod
    def of(cls, state: ColorState, frame: int) -> ReferenceFrame:
        """Frame ``frame`` of a clip."""
        return cls(state.L[frame], state.ab[frame], state.colored(frame), pixel_numbers(frame, state.L.shape[-2:]))

    def candidates(self, features: Array | None = None, mask: Array | None = None) -> Candidates:
        """Some of its colored pixels, or of those in ``mask`` ``(H, W)``; ``features`` where they are known."""
        chosen = subset(self.mask.numpy() if mask is None else mask, MAX_CANDIDATES)
        features = gray_features(self.L[0].numpy()) if features is None else features
        names = np.full(chosen.shape, -1) if self.names is None else self.names.numpy()
        return Candidates(features[chosen], self.ab.numpy()[:, chosen].T, names[chosen])


def estimate_color(
    frame: ReferenceFrame,
    references: Sequence[Candidates | ReferenceFrame],
    warped: Sequence[ColorEstimate] = (),
    features: Array | None = None,
) -> ColorEstimate:
    """The color estimate for a frame's unknown pixels.

    Args:
        frame: its unknown pixels are those outside its mask.
        references: colored frames, of any size, or their candidates; the frame's own known pixels are added.
        warped: colors warped from other frames, with the probability that they are right.
        features: ``gray_features`` of the frame, if known.

    Returns:
        ``ab``: known pixels bit for bit, elsewhere Levin's equations pulled toward the candidates; ``confidence``: that
        the best candidate is right, 1 at known pixels; ``source``: of the one of most weight.
    """
    features = gray_features(frame.L[0].numpy()) if features is None else features
    pools = [r.candidates() if isinstance(r, ReferenceFrame) else r for r in references]
    transferred = _transfer(frame, pools, features)
    candidates = [transferred, *warped]
    weights = torch.stack([torch.from_numpy(odds(c.confidence.numpy())) for c in candidates])
    weight = weights.sum(0)
    color = sum(c.ab * w for c, w in zip(candidates, weights, strict=True)) / weight.clamp_min(1e-6)
    filled = levin(frame.L, frame.ab, frame.mask, color, DATA_WEIGHT * weight)
    sure = torch.where(frame.mask, torch.ones(()), torch.stack([c.confidence for c in candidates]).amax(0))
    return ColorEstimate(filled, sure, _strongest(frame, candidates, weights))


def _transfer(frame: ReferenceFrame, references: Sequence[Candidates], features: Array) -> ColorEstimate:
    """Transferred colors for some of the unknown pixels, on a lattice; confidence 0 elsewhere."""
    mask = frame.mask.numpy()
    queried = subset(~mask, MAX_QUERIES)
    work: list[Callable[[], Any]] = [
        lambda: _credit(frame, references, features),
        lambda: Transferrer([*references, frame.candidates(features)])(features[queried]),
    ]
    credit, transfer = parallel(lambda part: part(), work)
    ab, sure = np.zeros((2, *mask.shape), np.float32), np.zeros(mask.shape, np.float32)
    names = np.full(mask.shape, -1)
    ab[:, queried], sure[queried], names[queried] = transfer.ab.T, transfer.confidence, transfer.names
    return ColorEstimate(torch.from_numpy(ab), torch.from_numpy(sure) * credit, torch.from_numpy(names))


def _credit(frame: ReferenceFrame, references: Sequence[Candidates], features: Array) -> Tensor:
    """The weight ``(H, W)`` in [0, 1] that transfers keep after a test at isolated known pixels, such as given colors
    of an object that the references show in others: Levin's equations would carry their error into the hole."""
    mask = frame.mask.numpy()
    isolated = mask & (cv2.blur(mask.astype(np.float32), (ISOLATED_WINDOW, ISOLATED_WINDOW)) < ISOLATED)
    if not isolated.any():
        return torch.ones(mask.shape)
    dense = mask & ~isolated
    own = [frame.candidates(features, dense)] if dense.any() else []
    transfer = Transferrer([*references, *own])(features[isolated])
    error = np.zeros((2, *mask.shape), np.float32)
    error[:, isolated] = transfer.ab.T - frame.ab.numpy()[:, isolated]
    distance, (y, x) = distance_transform_edt(~isolated, return_indices=True)
    beside = torch.from_numpy(error[:, y, x] * (distance < ISOLATED_WINDOW))
    L, beside = (values[:, ::COARSE, ::COARSE].contiguous() for values in (frame.L, beside))
    coarse_mask = F.max_pool2d(frame.mask[None].float(), COARSE, ceil_mode=True)[0] > 0
    carried = levin(L, beside, coarse_mask)
    a, b = F.interpolate(carried[None], mask.shape, mode="bilinear")[0]
    return torch.exp(-0.5 * (torch.hypot(a, b) / CONTRADICTION_SIGMA) ** 2)


def _strongest(frame: ReferenceFrame, candidates: Sequence[ColorEstimate], weights: Tensor) -> Tensor:
    """The source ``(H, W)`` of the candidate of most weight ``(candidates, H, W)``; where Levin's equations alone fill,
    that of the nearest pixel with a candidate."""
    unknown = torch.full(frame.mask.shape, -1)
    names = torch.stack([unknown if c.source is None else c.source for c in candidates])
    most, first = weights.max(0)  # several times as fast as argmax
    own = unknown if frame.names is None else frame.names
    source = torch.where(frame.mask, own, names.gather(0, first[None])[0])
    silent = ~frame.mask & (most <= 0)
    if not bool(silent.any()) or bool(silent.all()):
        return torch.where(silent, unknown, source)
    y, x = torch.from_numpy(distance_transform_edt(silent.numpy(), return_distances=False, return_indices=True)).long()
    return source[y, x]


@dataclass
class ColorCandidates:
    """The sources of colors for a shot's gray pixels: exemplars, complete neighbors, and each frame itself.

    Attributes:
        exemplars: the frames that the user colored in this shot, or the reference frame.
        trust_tracker: see ``propagate.warp``.
        remote: an exemplar outside this window, used for transfer instead of the window's anchor frames.
    """

    exemplars: Sequence[int]
    trust_tracker: bool = False
    remote: int | None = None
    _features: dict[int, Array] = field(default_factory=dict)

    def estimates(
        self, state: ColorState, chosen: Sequence[int], tracker: Tracker, frames: Sequence[int]
    ) -> list[ColorEstimate]:
        """Color estimates for the ``chosen`` frames, independent of each other; the tracker knows the shot's ``frames``
        and the exemplars."""
        complete = [j for j in dict.fromkeys([*frames, *self.exemplars]) if state.is_complete(j)]
        within = complete if self.remote is not None else [j for j in complete if j in frames]
        near = {i: sorted((j for j in within if j != i), key=lambda j: abs(j - i))[:NEAREST] for i in chosen}
        nearest_exemplar = {
            i: sorted((e for e in self.exemplars if e != i), key=lambda e: abs(e - i))[:1] for i in chosen
        }
        warped_from = {i: list(dict.fromkeys(near[i] + nearest_exemplar[i])) for i in chosen}
        remote = None if self.remote is None else [self.remote]
        transferred_from = {i: near[i] + remote if remote else warped_from[i] for i in chosen}
        around = sorted({j for js in warped_from.values() for j in js})
        sources = dict(zip(around, parallel(lambda j: SourceFrame.of(state, j), around), strict=True))
        references = sorted({j for js in transferred_from.values() for j in js})
        candidates = dict(zip(references, parallel(lambda j: self._candidates(state, j), references), strict=True))

        def one(i: int) -> ColorEstimate:
            jobs = warped_from[i]
            warped = parallel(lambda j: warp(tracker, state, sources[j], i, j, self.trust_tracker)[0], jobs)
            features = gray_features(state.L[i, 0].numpy())
            self._features[i] = features[subset(np.ones(features.shape[:2], bool), MAX_CANDIDATES)]
            return estimate_color(
                ReferenceFrame.of(state, i), [candidates[j] for j in transferred_from[i]], warped, features
            )

        return parallel(one, chosen)

    def _candidates(self, state: ColorState, j: int) -> Candidates:
        """The candidates of a frame; the features of a complete one are computed once."""
        frame = ReferenceFrame.of(state, j)
        if not state.is_complete(j):
            return frame.candidates()
        chosen = subset(frame.mask.numpy(), MAX_CANDIDATES)
        if j not in self._features:
            self._features[j] = gray_features(frame.L[0].numpy())[chosen]
        names = pixel_numbers(j, chosen.shape).numpy()[chosen]
        return Candidates(self._features[j], frame.ab.numpy()[:, chosen].T, names)


def suggest(
    L: Tensor, seeds: Sequence[int], fill: Callable[[Sequence[FillTask]], Steps[list[Tensor]]]
) -> Steps[list[Tensor]]:
    """Versions of one frame's colors, without an estimate, one per seed: ab ``(2, H, W)`` each.

    Args:
        L: ``(1, H, W)`` luminance.
        fill: a prior's ``fill``, or ``Stages.inpaint`` with its settings.
    """
    nothing = torch.zeros(L.shape[-2:], dtype=torch.bool)
    return fill([FillTask(L, torch.zeros(2, *nothing.shape), nothing, None, seed) for seed in seeds])
