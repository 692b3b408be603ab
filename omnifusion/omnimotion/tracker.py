"""Correspondence from a fitted volume and direct flow, the best of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from omnifusion.flow import match
from omnifusion.flow.tracker import FlowTracker
from omnifusion.omnimotion.grid import GridVolume
from omnifusion.omnimotion.official import OfficialVolume
from omnifusion.omnimotion.volume import Kind, Volume, to_pixels, to_volume

Array = np.ndarray
VISIBLE_TRANSMITTANCE = 0.5
"""Transmittance above which a point is visible."""
VOLUMES: dict[Kind, Callable[[int, int], Volume]] = {"grid": GridVolume, "mlp": OfficialVolume}


def volume_of(kind: Kind, frames: int, seed: int = 0, device: str = "cpu") -> Volume:
    """A fresh volume; the grid's stays on the CPU, where the seed fixes its result to the last bit."""
    volume = VOLUMES[kind](frames, seed)
    return volume if kind == "grid" else volume.to(device)


class OmniMotion(FlowTracker):
    """A fitted clip: the volume answers beside direct flow, the paper's volume alone; implements ``state.Tracker``.

    Args:
        images: ``(T, H, W)`` uint8 gray frames at the working size.
        volume: the fitted volume.
    """

    def __init__(self, images: Array, volume: Volume) -> None:
        super().__init__(images)
        self.volume = volume

    @property
    def alone(self) -> bool:
        """Whether the volume answers alone."""
        return self.volume.kind == "mlp"

    def matches(self, pixels: Array, i: int, j: int) -> list[tuple[Array, Array]]:
        """See ``state.Tracker``; a point that the volume hides is not visible. Alone, the volume knows of no error."""
        H, W = self.images.shape[1:]
        points = match.points_of(pixels, W)
        landed, transmittance = self.trace(points, i, j)
        error = np.zeros(len(pixels), np.float32)
        if not self.alone:
            error = match.cycle_error(points, landed, self.trace(landed, j, i)[0], H, W)
        answer = landed, np.where(transmittance > VISIBLE_TRANSMITTANCE, error, np.float32(np.inf))
        return [answer] if self.alone else [*super().matches(pixels, i, j), answer]

    def trace(self, points: Array, i: int, j: int) -> tuple[Array, Array]:
        """Where the volume alone sees ``points`` ``(N, 2)`` px of frame ``i`` in ``j``; their transmittance there."""
        size = (self.images.shape[1], self.images.shape[2])
        at, transmittance = self.volume.trace(torch.from_numpy(to_volume(points, size)), i, j)
        return to_pixels(at.numpy(), size), transmittance.numpy()

    def state_dict(self) -> dict[str, Any]:
        """CPU tensors from which ``from_state`` makes the same tracker."""
        weights = {k: v.detach().cpu().clone() for k, v in self.volume.state_dict().items()}
        return {"images": torch.from_numpy(self.images), "kind": self.volume.kind, "weights": weights}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> OmniMotion:
        """The tracker that ``state_dict`` described."""
        images = state["images"].cpu().numpy()
        volume = volume_of(state["kind"], len(images), device=device)
        volume.load_state_dict(state["weights"])
        return cls(images, volume)
