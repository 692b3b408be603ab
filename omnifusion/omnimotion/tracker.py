"""Correspondence from a fitted volume and direct flow, the best of both."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion import flow as of
from omnifusion.flow.direct import Correspondence, DirectFlow
from omnifusion.geometry import inside, sample
from omnifusion.omnimotion.flows import Pair
from omnifusion.omnimotion.grid import GridVolume
from omnifusion.omnimotion.official import OfficialVolume
from omnifusion.omnimotion.optimise import copied
from omnifusion.omnimotion.units import to_pixels, to_volume
from omnifusion.omnimotion.volume import Kind, Volume

Array = np.ndarray
Both = list[Array]
"""The flows ``(H, W, 2)`` there and back between two frames."""
T = TypeVar("T")
VOLUMES: dict[Kind, Callable[[int, int], Volume]] = {"grid": GridVolume, "mlp": OfficialVolume}
CACHE_BYTES = 600e6
ANSWERED = 0.95
"""Where direct flow closes its cycle on this share of both frames, the volume does not guide another search."""
SURE, PROBABLE, AGREE = 8.0, 12.0, 2.0
"""A pixel that the volume does not hide is seen if the least matching cost is below SURE, or below PROBABLE while
direct and guided flow agree to AGREE pixels. Chosen on four real clips: a looser rule carries wrong colours in fur and
leaves."""
DRIFTED, SLACK = 2.5, 2.0
"""Direct flow that closes its cycle, but is this many pixels from a supported volume that looks as alike (to SLACK grey
levels), has drifted along a repeated or smooth texture: the volume answers."""
NEIGHBOURHOOD, ENOUGH, SUPPORTED, UNLIKE_SUPPORTED = 0.16, 0.03, 1.0, 20.0
"""The volume is supported where it is within SUPPORTED px of trusted flow on average over a window: NEIGHBOURHOOD of
the longer side, at least ENOUGH of it trusted, else the frame. There it answers what direct flow does not, and its own
visibility holds unless the grey levels differ by UNLIKE_SUPPORTED."""


def volume_of(kind: Kind, frames: int, seed: int = 0, device: str = "cpu") -> Volume:
    """A fresh volume; the grid's stays on the CPU, where its kernels are."""
    volume = VOLUMES[kind](frames, seed)
    return volume if kind == "grid" else volume.to(device)


class _Recent(Generic[T]):
    """Answers by pair of frames, the most recent ones up to about ``CACHE_BYTES``."""

    def __init__(self, each: float, least: int) -> None:
        self.most = max(least, CACHE_BYTES / each)
        self.held: OrderedDict[Pair, T] = OrderedDict()

    def get(self, pair: Pair) -> T | None:
        if pair in self.held:
            self.held.move_to_end(pair)
        return self.held.get(pair)

    def put(self, pair: Pair, value: T) -> T:
        self.held[pair] = value
        while len(self.held) > self.most:
            self.held.popitem(last=False)
        return value


class OmniMotion:
    """A fitted clip; implements ``state.Tracker``.

    Args:
        images: ``(T, H, W)`` uint8 grey frames at the working size.
        volume: the fitted volume.
    """

    def __init__(self, images: Array, volume: Volume) -> None:
        self.images, self.volume = images, volume
        self.direct = DirectFlow(images)
        self._answers: _Recent[tuple[Tensor, Tensor]] = _Recent(9 * images[0].size, 4)

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
        answer = self._answers.get((i, j))
        if answer is None:
            answer, back = self._both(i, j)
            self._answers.put((j, i), back)
            self._answers.put((i, j), answer)
        return answer

    def _both(self, i: int, j: int) -> list[tuple[Tensor, Tensor]]:
        """The dense answers there and back."""
        ways = [(i, j), (j, i)]
        chains = [self.direct.chain(*w) for w in ways]
        direct = chains if abs(i - j) == 1 else self._search(i, j, chains)
        volume = [self.volume_flow(*w) for w in ways]
        closed = [of.cycle_error(direct[k], direct[1 - k]) < of.CYCLE for k in (0, 1)]
        enough = min(float(c.mean()) for c in closed) > ANSWERED
        guided = direct if enough else self._search(i, j, [f for f, _ in volume])
        answers = of.parallel(lambda k: self._choose(ways[k], k, direct, guided, volume), [0, 1])
        return [(torch.from_numpy(f).permute(2, 0, 1).contiguous(), torch.from_numpy(seen)) for f, seen in answers]

    def _choose(
        self, way: Pair, k: int, direct: Both, guided: Both, volume: list[tuple[Array, Array]]
    ) -> tuple[Array, Array]:
        """Of direct flow, flow guided by the volume, and the volume's own flow: the best per pixel, and whether it
        is seen."""
        source, target = self.images[way[0]], self.images[way[1]]
        candidates = (direct[k], guided[k], volume[k][0])
        back = (direct[1 - k], guided[1 - k], volume[1 - k][0])
        cycle = np.stack([of.cycle_error(f, b) for f, b in zip(candidates, back, strict=True)])
        unlike = np.stack([of.appearance_error(source, target, f) for f in candidates])
        unoccluded = volume[k][1] > 0.5
        trusted = cycle[0] < of.CYCLE
        consistent = (cycle[1] < of.CYCLE) & (unlike[1] < of.LOOKS_ALIKE)
        known = np.where(trusted[..., None], direct[k], guided[k])
        supported = _supported(known, trusted | consistent, candidates[2])
        consistent &= unoccluded | ~supported
        apart = np.linalg.norm(direct[k] - candidates[2], axis=-1) > DRIFTED
        drifted = supported & apart & (unlike[2] < np.minimum(unlike[0] + SLACK, of.LOOKS_ALIKE))
        cost = of.matching_cost(cycle, unlike)
        best = np.where(supported, 2, np.where(consistent, 1, cost.argmin(0)))
        best = np.where(trusted & ~drifted, consistent & (cost[1] < cost[0]), best)
        least, agree = cost.min(0), np.linalg.norm(direct[k] - guided[k], axis=-1) < AGREE
        likely = np.where(supported, unlike[2] < UNLIKE_SUPPORTED, (least < SURE) | (agree & (least < PROBABLE)))
        flow = np.take_along_axis(np.stack(candidates), best[None, ..., None], 0)[0]
        return flow, trusted | consistent | (unoccluded & likely)

    def _search(self, i: int, j: int, starts: Both) -> Both:
        """Flow from ``i`` to ``j`` and back, from ``starts``."""
        there, back = starts
        return list(of.search_both(self.images[i], self.images[j], there, back, threads=2))

    def pairs(self, i: int, j: int, near: bool = False) -> list[Correspondence]:
        """The answers for every pixel of frame ``i``: the volume's own, beside direct flow's; a point that the volume
        hides is not seen. The paper's volume answers alone."""
        flow, transmittance = self.volume_flow(i, j)
        if self.volume.kind == "mlp":
            cycle = np.zeros(flow.shape[:2], np.float32)
        else:
            cycle = of.cycle_error(flow, self.volume_flow(j, i)[0])
        answer = Correspondence(flow, np.where(transmittance > 0.5, cycle, np.float32(np.inf)))
        return [answer] if self.volume.kind == "mlp" else [*self.direct.pairs(i, j, near), answer]

    def volume_flow(self, i: int, j: int) -> tuple[Array, Array]:
        """The volume's flow ``(H, W, 2)`` px and transmittance ``(H, W)``, traced at half size and enlarged."""
        H, W = self.images.shape[1:]
        h, w = max(2, H // 2), max(2, W // 2)
        grid = of.grid(h, w).reshape(-1, 2)
        xy = torch.from_numpy(to_volume((grid + 0.5) * np.array([W / w, H / h], np.float32) - 0.5, (H, W)))
        at, transmittance = self.volume.trace(xy, i, j)
        flow = to_pixels(at.numpy(), (H, W)) - to_pixels(xy.numpy(), (H, W))
        small = flow.reshape(h, w, 2), transmittance.numpy().reshape(h, w)
        flow, transmittance = (cv2.resize(v, (W, H), interpolation=cv2.INTER_LINEAR) for v in small)
        return flow, transmittance

    def by_volume(self, points: Array, i: int, j: int) -> Array:
        """Where the volume alone sees ``points`` ``(N, 2)`` px of frame ``i`` in ``j``."""
        size = (self.images.shape[1], self.images.shape[2])
        at, _ = self.volume.trace(torch.from_numpy(to_volume(points, size)), i, j)
        return to_pixels(at.numpy(), size)

    def state_dict(self) -> dict[str, Any]:
        """CPU tensors from which ``from_state`` makes the same tracker."""
        weights = copied(self.volume.state_dict())
        return {"images": torch.from_numpy(self.images), "kind": self.volume.kind, "weights": weights}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> OmniMotion:
        """The tracker that ``state_dict`` described."""
        images = state["images"].cpu().numpy()
        volume = volume_of(state["kind"], len(images), device=device)
        volume.load_state_dict(state["weights"])
        return cls(images, volume)


def _supported(known: Array, where: Array, volume: Array) -> Array:
    """Pixels ``(H, W)`` around which the volume's flow agrees with the flow ``known`` ``where`` that is trusted."""
    window = (2 * round(NEIGHBOURHOOD * max(known.shape) / 2) + 1,) * 2
    off = np.minimum(np.linalg.norm(volume - known, axis=-1), 5.0) * where
    share = cv2.blur(where.astype(np.float32), window)
    mean = cv2.blur(off.astype(np.float32), window) / np.maximum(share, 1e-3)
    return np.where(share > ENOUGH, mean, off.sum() / max(where.sum(), 1)) < SUPPORTED
