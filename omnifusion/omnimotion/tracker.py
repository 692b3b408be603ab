"""Correspondence from a fitted volume and direct flow, the best of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from omnifusion.flow import dis as of
from omnifusion.flow import match
from omnifusion.flow.tracker import FlowTracker
from omnifusion.omnimotion.coordinates import to_pixels, to_volume
from omnifusion.omnimotion.grid import GridVolume
from omnifusion.omnimotion.official import OfficialVolume
from omnifusion.omnimotion.optimize import copied
from omnifusion.omnimotion.volume import Kind, Volume

Array = np.ndarray
VOLUMES: dict[Kind, Callable[[int, int], Volume]] = {"grid": GridVolume, "mlp": OfficialVolume}


def volume_of(kind: Kind, frames: int, seed: int = 0, device: str = "cpu") -> Volume:
    """A fresh volume; the grid's stays on the CPU, where its kernels are."""
    volume = VOLUMES[kind](frames, seed)
    return volume if kind == "grid" else volume.to(device)


class OmniMotion(FlowTracker):
    """A fitted clip: the volume answers beside direct flow; implements ``state.Tracker``.

    Args:
        images: ``(T, H, W)`` uint8 gray frames at the working size.
        volume: the fitted volume.
    """

    def __init__(self, images: Array, volume: Volume) -> None:
        super().__init__(images)
        self.volume = volume

    def matches(self, pixels: Array, i: int, j: int) -> list[tuple[Array, Array]]:
        """See ``state.Matcher``: the volume's own answer, beside direct flow's; a point that the volume hides is not
        visible. The paper's volume answers alone."""
        size = (self.images.shape[1], self.images.shape[2])
        flow, transmittance = self.volume_flow(i, j)
        points = match.points_of(pixels, size[1])
        landed = points + flow.reshape(-1, 2)[pixels]
        cycle = np.zeros(len(pixels), np.float32)
        if self.volume.kind != "mlp":
            returned = match.follow(self.volume_flow(j, i)[0][None], 0, 1, 1, landed)
            cycle = match.cycle_error(points, landed, returned, *size)
        answer = landed, np.where(transmittance.ravel()[pixels] > 0.5, cycle, np.float32(np.inf))
        return [answer] if self.volume.kind == "mlp" else [*super().matches(pixels, i, j), answer]

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
