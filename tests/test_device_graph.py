"""A step of the paper's volume can be captured: nothing in it waits for the host, and a replay is the step itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pretend import marked, pretending
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from omnifusion.omnimotion import official
from omnifusion.omnimotion.official import OfficialVolume
from omnifusion.omnimotion.optimize import slope
from omnifusion.omnimotion.volume import Rays, Volume, depths

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "_linalg_check_errors")


class Recorder(TorchDispatchMode):
    """Stands for a stream that is captured: notes every kernel, and refuses what would wait for the host."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, tensors = str(func), [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        masks = "index" in name and any(x.dtype == torch.bool for x in tensors[1:])
        if masks or "repeat_interleave.Tensor" in name or any(f".{wait}." in name for wait in WAITS):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        with torch._C.DisableTorchFunction():  # the marks are for what PyTorch's users call
            out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """Every kernel again, from the same memory to the same memory."""
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for func, args, kwargs, out in self.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, Tensor) and not func.is_view:
                        old.copy_(new)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LAYERS", 3), ("HIDDEN", 16)):
        monkeypatch.setattr(official.MlpNVP, name, value)


def batches(count: int) -> list[list[Tensor]]:
    """Rays of a clip of 4 frames, also from its ends, and their depths."""
    g, found = torch.Generator().manual_seed(1), []
    for _ in range(count):
        i, j = torch.randint(0, 4, (2, 64), generator=g)
        xy, q = torch.rand(2, 64, 2, generator=g)
        found.append([xy, i, j, q, torch.rand(64, generator=g), depths(64, 4, g)])
    return found


def step(volume: Volume, given: list[Tensor]) -> Tensor:
    return slope(volume, Rays(*given[:-1]), given[-1], 24.0)


def test_a_step_replayed_as_a_graph_is_the_step_on_new_rays() -> None:
    """Also where weights have changed in place."""
    volume, twin = OfficialVolume(4), OfficialVolume(4)
    with pretending():
        volume.to("cuda")
        held = marked(batches(1)[0])
        with Recorder() as graph:
            out = step(volume, held)
        assert len(graph.calls) > 500
    for n, batch in enumerate(batches(3)):
        for v in (volume, twin):
            v.nvp.code.out.bias.data.fill_(0.01 * n)
        for old, new in zip(held, batch, strict=True):
            old.copy_(new)
        graph.replay()
        assert torch.allclose(out, step(twin, batch), rtol=1e-4)
        for (name, p), q in zip(volume.named_parameters(), twin.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("planted", ["item", "mask", "solve"])
def test_what_waits_for_the_host_is_caught(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(self: Volume, rays: Rays, z: Tensor, scale: float) -> Tensor:
        loss = real(self, rays, z, scale)
        if planted == "mask":
            return loss + rays.xy[rays.xy > 0.5].sum()
        return loss * float(loss.detach()) if planted == "item" else loss

    real: Callable[..., Tensor] = Volume.loss
    monkeypatch.setattr(Volume, "loss", waits)
    if planted == "solve":
        monkeypatch.setattr(official, "_solved", torch.linalg.solve)
    with pretending(), Recorder(), pytest.raises(RuntimeError, match="not permitted"):
        step(OfficialVolume(4).to("cuda"), marked(batches(1)[0]))


def test_cramers_rule_solves_as_the_cpus_solver_does() -> None:
    m, b = torch.randn(50, 2, 2, generator=torch.Generator().manual_seed(0)), torch.ones(50, 2)
    wanted = official._solved(m, b)
    with pretending():
        assert torch.allclose(official._solved(marked(m), marked(b)).cpu(), wanted, rtol=1e-3)
