"""Loss and gradients of a volume's step; on a GPU recorded as a CUDA graph: one launch in the place of thousands."""

from __future__ import annotations

import torch
from torch import Tensor

from omnifusion.omnimotion.volume import Rays, Volume

WARM = 3
"""Steps before the recording, in which libraries choose their kernels."""


class Recorded:
    """The gradients of ``volume.loss``, computed here or by a graph that the first step on a GPU records.

    A graph reads and writes the same memory at every replay: the rays are copied in, the weights may be changed in
    place only, and the gradients stay where they are.

    Attributes:
        refused: why there is no graph although there is a GPU, or None.
    """

    def __init__(self, volume: Volume, scale: float) -> None:
        self.volume, self.scale, self.refused = volume, scale, ""
        self._held: list[Tensor] = []

    def __call__(self, rays: Rays, z: Tensor) -> tuple[float, float]:
        """The loss, in pixels, and the sum of its gradients, which are left in ``grad``; the only wait for a GPU."""
        given = (*rays, z)
        if self.volume.device.type != "cuda" or self.refused:
            loss, gradients = self._step(given).tolist()
            return loss, gradients
        if not self._held:
            try:
                self._record(given)
            except RuntimeError as error:
                self.refused = str(error).splitlines()[0]
                return self(rays, z)
        for held, new in zip(self._held, given, strict=True):
            held.copy_(new)
        self._graph.replay()
        loss, gradients = self._out.tolist()
        return loss, gradients

    def _step(self, given: tuple[Tensor, ...]) -> Tensor:
        """Loss and sum of gradients ``(2,)`` float64."""
        self.volume.zero_grad()
        loss = self.volume.loss(Rays(*given[:-1]), given[-1], self.scale)
        loss.backward()
        sums = [p.grad.sum().double() for p in self.volume.parameters() if p.grad is not None]
        return torch.stack([loss.detach().double(), torch.stack(sums).sum()])

    def _record(self, given: tuple[Tensor, ...]) -> None:
        held = [value.to(self.volume.device) for value in given]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self._step(tuple(held))
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = self._step(tuple(held))
        self._held = held
