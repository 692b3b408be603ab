"""Gradient descent on a volume: one step at a time, with its state in plain values and a way back from divergence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from omnifusion.omnimotion.rays import Sampler
from omnifusion.omnimotion.volume import Rays, Volume, depths

WARMUP, CURRICULUM = 50, 0.3
SAFE_EVERY = 50
DIVERGED = 5.0
"""A loss above this many times the safe one, plus 5 px, counts as divergence."""


@dataclass(frozen=True)
class Schedule:
    """Rays per iteration, samples per ray, learning rates, and how they fall: to zero by a cosine, or (paper) by
    halves."""

    pairs: int = 32
    rays: int = 128
    samples: int = 8
    rates: tuple[tuple[str, float], ...] = (
        ("nvp.hyper", 1e-2),
        ("nvp.affine", 5e-3),
        ("nvp.code", 1e-3),
        ("field", 4e-2),
    )
    halve_every: int | None = None

    def fall(self, iteration: int, done: float) -> float:
        """The share of all rates that is left in an iteration, ``done`` in [0, 1] of the way."""
        if self.halve_every:
            return 0.5 ** (iteration // self.halve_every)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1)))


@contextmanager
def one_thread(active: bool) -> Iterator[None]:
    """PyTorch on one thread inside, if ``active``."""
    before = torch.get_num_threads()
    if active:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if active:
            torch.set_num_threads(before)


class Optimizer:
    """Adam on ``volume`` over rays of ``sampler``.

    Everything random comes from ``seed``; ``state_dict`` and ``load_state_dict`` continue a run as if it had not
    stopped.
    """

    def __init__(self, volume: Volume, sampler: Sampler, schedule: Schedule, seed: int) -> None:
        self.volume, self.sampler, self.schedule = volume, sampler, schedule
        self.rng, self.jitter = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        groups: list[dict[str, Any]] = [{"params": [], "base": rate} for _, rate in schedule.rates]
        for name, parameter in volume.named_parameters():
            at = next(k for k, (prefix, _) in enumerate(schedule.rates) if name.startswith(prefix))
            groups[at]["params"].append(parameter)
        self.adam = torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.99))
        self.iteration, self.recoveries, self.loss = 0, 0, math.nan
        self._safe: dict[str, Any] | None = None

    def step(self, done: float) -> bool:
        """One iteration, ``done`` in [0, 1] of the way; false if it diverged, and the volume went back to its last
        safe state."""
        with one_thread(self.volume.small):
            return self._step(done)

    def _step(self, done: float) -> bool:
        s = self.schedule
        self.iteration += 1
        for group in self.adam.param_groups:
            warm = group["base"] * min(1.0, self.iteration / WARMUP)
            group["lr"] = warm * s.fall(self.iteration, done) * 0.5**self.recoveries
        largest = 1 + self.volume.frames * done / CURRICULUM
        rays = self.sampler.draw(self.rng, largest, s.pairs, s.rays)
        z = depths(len(rays.xy), s.samples, self.jitter)
        value, gradients = slope(self.volume, rays, z, max(self.sampler.flows.size) / 2).tolist()
        if not self._healthy(value, gradients):
            self._go_back()
            return False
        if self._safe is None or self.iteration % SAFE_EVERY == 0:
            self._safe = self._parts() | {"loss": value}
        self.volume.descend(self.adam.step)
        self.loss = value
        return True

    def _healthy(self, loss: float, gradients: float) -> bool:
        finite = math.isfinite(loss) and math.isfinite(gradients)
        return finite and (self._safe is None or loss < DIVERGED * self._safe["loss"] + 5)

    def _parts(self) -> dict[str, Any]:
        moments = self.adam.state_dict()["state"]
        return {"weights": copied(self.volume.state_dict()), "moments": {k: copied(v) for k, v in moments.items()}}

    def _restore(self, parts: dict[str, Any]) -> None:
        self.volume.load_state_dict(parts["weights"])
        moments = {k: copied(v) for k, v in parts["moments"].items()}
        self.adam.load_state_dict(self.adam.state_dict() | {"state": moments})

    def _go_back(self) -> None:
        if self._safe is None:
            raise FloatingPointError("the loss was not finite at the very first iteration")
        self._restore(self._safe)
        self.recoveries += 1

    def state_dict(self) -> dict[str, Any]:
        """Plain values and CPU tensors."""
        return self._parts() | {
            "iteration": self.iteration,
            "recoveries": self.recoveries,
            "loss": self.loss,
            "rng": self.rng.bit_generator.state,
            "jitter": self.jitter.get_state(),
            "safe": self._safe,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken."""
        self._restore(state)
        self.iteration, self.recoveries, self.loss = state["iteration"], state["recoveries"], state["loss"]
        self.rng.bit_generator.state = state["rng"]
        self.jitter.set_state(state["jitter"])
        self._safe = state["safe"]


def slope(volume: Volume, rays: Rays, z: torch.Tensor, scale: float) -> torch.Tensor:
    """The loss of rays (``Volume.loss``) and the sum of its gradients, which are left in ``grad``: ``(2,)`` float64.

    Nothing in it waits for a GPU, and on one no shape depends on values: it can be captured or compiled as it is.
    """
    volume.zero_grad()
    loss = volume.loss(rays, z, scale)
    loss.backward()
    sums = [p.grad.sum().double() for p in volume.parameters() if p.grad is not None]
    return torch.stack([loss.detach().double(), torch.stack(sums).sum()])


def copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU that nothing changes."""
    return {k: v.detach().cpu().clone() for k, v in tensors.items()}
