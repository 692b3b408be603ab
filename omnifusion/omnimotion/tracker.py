"""Correspondence from a fitted volume and direct flow, the best of both."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion import flow as of
from omnifusion.geometry import inside, sample
from omnifusion.omnimotion.supervision import to_pixels, to_volume
from omnifusion.omnimotion.volume import Volume, trace

Array = np.ndarray
Flows2 = list[Array]
Rough2 = list[tuple[Array, Array]]
CACHE_BYTES = 600e6
ANSWERED = 0.95
"""Where direct flow closes its cycle on this share of both frames, the volume does not guide another search."""
SURE, PROBABLE, AGREE = 8.0, 12.0, 2.0
"""A pixel that the volume does not hide is seen if the least doubt is below SURE, or below PROBABLE while direct and
guided flow agree to AGREE pixels. Chosen on four real clips: a looser rule carries wrong colours in fur and leaves."""
SLIPPED, SLACK = 2.5, 2.0
"""Direct flow that closes its cycle, but is this many pixels from a proven volume that looks as alike (to SLACK grey
levels), has slipped along a repeated or smooth texture: the volume answers."""
NEIGHBOURHOOD, ENOUGH, PROVEN, UNLIKE_PROVEN = 0.16, 0.03, 1.0, 20.0
"""The volume is proven where it is within PROVEN px of trusted flow on average over a window: NEIGHBOURHOOD of the
longer side, at least ENOUGH of it trusted, else the frame. There it answers what direct flow does not, and its own
visibility holds unless the grey levels differ by UNLIKE_PROVEN."""


class OmniMotion:
    """A fitted clip; implements ``state.Tracker``.

    Args:
        images: ``(T, H, W)`` uint8 grey frames at the working size.
        volume: the fitted volume.
    """

    def __init__(self, images: np.ndarray, volume: Volume) -> None:
        self.images, self.volume = images, volume
        self._chains: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._answers: OrderedDict[tuple[int, int], tuple[Tensor, Tensor]] = OrderedDict()

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """Where ``points`` ``(N, 2)`` px of frame ``i`` are in frame ``j``: points ``(N, 2)``, visible ``(N,)``
        bool."""
        T, H, W = self.images.shape
        if not (0 <= i < T and 0 <= j < T):
            raise IndexError(f"frames {i} and {j} are not both in a clip of {T}")
        points = points.to(torch.float32)
        if i == j:
            return points.clone(), inside(points, H, W)
        flow, seen = self.pair(i, j)
        there = points + sample(flow, points).T
        visible = sample(seen[None].float(), points, "nearest")[0] > 0.5
        return there, visible & inside(there, H, W) & inside(points, H, W)

    def pair(self, i: int, j: int) -> tuple[Tensor, Tensor]:
        """The dense answer for frames ``i`` to ``j``: flow ``(2, H, W)`` px and visible ``(H, W)`` bool; kept for
        later."""
        if (i, j) not in self._answers:
            for key, value in zip(((i, j), (j, i)), self._both(i, j), strict=True):
                self._answers[key] = value
            size = 9 * self.images[0].size
            while len(self._answers) > max(4, CACHE_BYTES / size):
                self._answers.popitem(last=False)
        self._answers.move_to_end((i, j))
        return self._answers[i, j]

    def _both(self, i: int, j: int) -> list[tuple[Tensor, Tensor]]:
        """The dense answers there and back."""
        ways = [(i, j), (j, i)]
        chains = [self._chain(*w) for w in ways]
        direct = chains if abs(i - j) == 1 else self._search(i, j, chains)
        rough = [self.volume_flow(*w) for w in ways]
        closed = [of.cycle_error(direct[k], direct[1 - k]) < of.CYCLE for k in (0, 1)]
        enough = min(float(c.mean()) for c in closed) > ANSWERED
        guided = direct if enough else self._search(i, j, [f for f, _ in rough])
        answers = of.parallel(lambda k: self._choose(ways[k], k, direct, guided, rough), [0, 1])
        return [(torch.from_numpy(f).permute(2, 0, 1).contiguous(), torch.from_numpy(seen)) for f, seen in answers]

    def _choose(
        self, way: tuple[int, int], k: int, direct: Flows2, guided: Flows2, rough: Rough2
    ) -> tuple[Array, Array]:
        """Of direct flow, flow guided by the volume, and the volume's own flow: the best per pixel, and whether it
        is seen."""
        source, target = self.images[way[0]], self.images[way[1]]
        candidates = (direct[k], guided[k], rough[k][0])
        back = (direct[1 - k], guided[1 - k], rough[1 - k][0])
        cycle = np.stack([of.cycle_error(f, b) for f, b in zip(candidates, back, strict=True)])
        unlike = np.stack([of.appearance_error(source, target, f) for f in candidates])
        clear = rough[k][1] > 0.5
        trusted = cycle[0] < of.CYCLE
        closed = (cycle[1] < of.CYCLE) & (unlike[1] < of.LOOKS_ALIKE)
        known = np.where(trusted[..., None], direct[k], guided[k])
        proven = self._proven(known, trusted | closed, candidates[2])
        closed &= clear | ~proven
        apart = np.linalg.norm(direct[k] - candidates[2], axis=-1) > SLIPPED
        slipped = proven & apart & (unlike[2] < np.minimum(unlike[0] + SLACK, of.LOOKS_ALIKE))
        doubt = of.doubt(cycle, unlike)
        best = np.where(proven, 2, np.where(closed, 1, doubt.argmin(0)))
        best = np.where(trusted & ~slipped, closed & (doubt[1] < doubt[0]), best)
        least, agree = doubt.min(0), np.linalg.norm(direct[k] - guided[k], axis=-1) < AGREE
        likely = np.where(proven, unlike[2] < UNLIKE_PROVEN, (least < SURE) | (agree & (least < PROBABLE)))
        flow = np.take_along_axis(np.stack(candidates), best[None, ..., None], 0)[0]
        return flow, trusted | closed | (clear & likely)

    def _proven(self, known: Array, where: Array, volume: Array) -> Array:
        """Pixels ``(H, W)`` around which the volume's flow agrees with the flow ``known`` ``where`` that is trusted."""
        window = (2 * round(NEIGHBOURHOOD * max(known.shape) / 2) + 1,) * 2
        off = np.minimum(np.linalg.norm(volume - known, axis=-1), 5.0) * where
        share = cv2.blur(where.astype(np.float32), window)
        mean = cv2.blur(off.astype(np.float32), window) / np.maximum(share, 1e-3)
        return np.where(share > ENOUGH, mean, off.sum() / max(where.sum(), 1)) < PROVEN

    def _search(self, i: int, j: int, starts: Flows2) -> Flows2:
        """Flow from ``i`` to ``j`` and back, from ``starts``."""
        there, back = starts
        return list(of.search_both(self.images[i], self.images[j], there, back, threads=2))

    def _chain(self, i: int, j: int) -> np.ndarray:
        """Gap-1 flows composed from ``i`` to ``j``."""
        if (i, j) in self._chains:
            self._chains.move_to_end((i, j))
            return self._chains[i, j]
        step = 1 if j > i else -1
        if abs(j - i) == 1:
            flow = of.raw_dis(self.images[i], self.images[j])
        elif j < i:
            flow = of.compose(self._chain(i, i - 1), self._chain(i - 1, j))
        else:
            flow = of.compose(self._chain(i, j - step), self._chain(j - step, j))
        self._chains[i, j] = flow
        while len(self._chains) > max(8, CACHE_BYTES / flow.nbytes):
            self._chains.popitem(last=False)
        return flow

    def volume_flow(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """The volume's flow ``(H, W, 2)`` px and clearness ``(H, W)``, traced at half size and enlarged."""
        H, W = self.images.shape[1:]
        h, w = max(2, H // 2), max(2, W // 2)
        grid = of.grid(h, w).reshape(-1, 2)
        xy = torch.from_numpy(to_volume((grid + 0.5) * np.array([W / w, H / h], np.float32) - 0.5, (H, W)))
        at, clear = trace(self.volume, xy, i, j)
        there = to_pixels(at.numpy(), (H, W))
        flow = there - to_pixels(xy.numpy(), (H, W))
        flow = cv2.resize(flow.reshape(h, w, 2), (W, H), interpolation=cv2.INTER_LINEAR)
        return flow, cv2.resize(clear.numpy().reshape(h, w), (W, H), interpolation=cv2.INTER_LINEAR)

    def state_dict(self) -> dict[str, Any]:
        """CPU tensors from which ``from_state`` makes the same tracker."""
        weights = {k: v.detach().cpu().clone() for k, v in self.volume.state_dict().items()}
        return {"images": torch.from_numpy(self.images), "kind": self.volume.kind, "weights": weights}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> OmniMotion:
        """The tracker that ``state_dict`` described."""
        images = state["images"].cpu().numpy()
        volume = Volume(len(images), state["kind"])
        volume.load_state_dict(state["weights"])
        return cls(images, volume.to(device))
