"""A step of the paper's volume as a CUDA graph: nothing in it waits for the host, and a replay is the step itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretend import MARKED, marked, on_gpu, pretending
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from omnifusion.omnimotion import official
from omnifusion.omnimotion.official import OfficialVolume
from omnifusion.omnimotion.recorded import Recorded
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


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """``torch.cuda``'s graphs on a GPU that is not there."""
    made: list[Recorder] = []
    stream = SimpleNamespace(wait_stream=lambda other: None)

    class Graph:
        def __init__(self) -> None:
            made.append(Recorder())
            self.replay = made[-1].replay

    @contextmanager
    def graph(g: Graph) -> Iterator[None]:
        with made[-1]:
            yield

    fakes = {"Stream": lambda: stream, "current_stream": lambda: stream, "stream": lambda s: nullcontext()}
    for name, fake in {**fakes, "CUDAGraph": Graph, "graph": graph}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    for name, value in (("LAYERS", 3), ("HIDDEN", 16)):
        monkeypatch.setattr(official.MlpNVP, name, value)
    return made


def batches(count: int) -> list[tuple[Rays, Tensor]]:
    g, found = torch.Generator().manual_seed(1), []
    for _ in range(count):
        i, j = torch.randint(0, 4, (2, 64), generator=g)
        xy, q = torch.rand(2, 64, 2, generator=g)
        found.append((Rays(xy, i, j, q, torch.rand(64, generator=g)), depths(64, 4, g)))
    return found


def test_a_replayed_graph_is_the_step_on_new_rays(captured: list[Recorder]) -> None:
    """Also where weights have changed in place, and with rays at the ends of the clip, which shapes must not show."""
    volume, twin = OfficialVolume(4), OfficialVolume(4)
    plain = Recorded(twin, 24.0)
    wanted = []
    for n, batch in enumerate(batches(3)):
        twin.nvp.code.out.bias.data.fill_(0.01 * n)
        wanted.append((plain(*batch), {name: p.grad.clone() for name, p in twin.named_parameters()}))
    with pretending():
        volume.to("cuda")
        graph = Recorded(volume, 24.0)
        for n, (batch, (told, gradients)) in enumerate(zip(batches(3), wanted, strict=True)):
            volume.nvp.code.out.bias.data.fill_(0.01 * n)
            assert graph(*batch) == pytest.approx(told, rel=1e-4)
            for name, p in volume.named_parameters():
                assert torch.allclose(marked(gradients[name]), p.grad, rtol=1e-3, atol=1e-4), name
    assert len(captured) == 1 and graph.refused == "" and len(captured[0].calls) > 500


@pytest.mark.parametrize("planted", ["item", "mask", "solve"])
def test_what_waits_for_the_host_is_refused_and_told(
    captured: list[Recorder], planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(self: Volume, rays: Rays, z: Tensor, scale: float) -> Tensor:
        loss = real(self, rays, z, scale)
        if planted == "mask":
            return loss + rays.xy[rays.xy > 0.5].sum()
        return loss * float(loss.detach()) if planted == "item" else loss

    real: Callable[..., Tensor] = Volume.loss
    monkeypatch.setattr(Volume, "loss", waits)
    if planted == "solve":
        monkeypatch.setattr(official, "_solved", torch.linalg.solve)
    with pretending():
        volume = OfficialVolume(4).to("cuda")
        graph = Recorded(volume, 24.0)
        for batch in batches(2):
            assert graph(*batch)[0] > 0
    assert "not permitted" in graph.refused and all(on_gpu(p) for p in volume.parameters()) and len(MARKED) > 0


def test_cramers_rule_solves_as_the_cpus_solver_does() -> None:
    m, b = torch.randn(50, 2, 2, generator=torch.Generator().manual_seed(0)), torch.ones(50, 2)
    wanted = official._solved(m, b)
    with pretending():
        assert torch.allclose(official._solved(marked(m), marked(b)).cpu(), wanted, rtol=1e-3)
