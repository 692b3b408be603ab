"""The GPU's arithmetic beside the CPU's: each twin on CPU tensors, and a whole run on tensors marked as a GPU's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from pretend import on_gpu, pretending
from torch import Tensor

from omnifusion import gpu, hint, stages, synthetic
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.driver import Result, colorize
from omnifusion.flow import to_bytes
from omnifusion.flow.direct import Correspondence, DirectFlow
from omnifusion.gpu import fetching, filters, searching, solving
from omnifusion.hint import Reference
from omnifusion.inpaint import Kernels
from omnifusion.settings import choose
from omnifusion.state import ColorState, pixel_numbers
from omnifusion.steps import drain

CPU, TWINS = Kernels(), gpu.twins("cpu")
SIZE = (60, 96)


@dataclass(frozen=True)
class Case:
    """A made clip of real pictures, of which the first frame is coloured."""

    lab: Tensor

    @cached_property
    def state(self) -> ColorState:
        return ColorState.of_exemplars(self.lab[:, :1], {0: self.lab[0, 1:]})

    @cached_property
    def tracker(self) -> DirectFlow:
        return DirectFlow(to_bytes(self.lab[:, 0]))

    def reference(self, t: int, mask: Tensor) -> Reference:
        return Reference(self.lab[t, :1], self.lab[t, 1:] * mask, mask, pixel_numbers(t, SIZE))

    def run(self, kernels: Kernels) -> Result:
        given, settings = {0: self.lab[0, 1:]}, choose("standard")
        return drain(colorize(self.lab[:, :1], given, settings, stages=stages.Stages(kernels=kernels)))

    def psnr(self, result: Result) -> float:
        """Of a* and b*, on a scale of 255."""
        return float(20 * torch.log10(255 / (result.state.ab - self.lab[:, 1:]).square().mean().sqrt()))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(rgb_to_lab(from_uint8(synthetic.make("occlusion", frames=7, size=SIZE, seed=2).video.frames)))


def share(wrong: Tensor) -> float:
    return float(wrong.float().mean())


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize(("j", "near"), [(1, False), (5, False), (4, True)])
def test_what_is_fetched_is_the_same(case: Case, j: int, near: bool, literal: bool) -> None:
    """OpenCV reads between pixels in steps of 1/32 px, so probabilities differ a little; colours by rounding alone."""
    (here, sure), (there, believed) = (k.fetched(case.tracker, case.state, j, 0, near, literal) for k in (CPU, TWINS))
    assert torch.allclose(here.ab, there.ab, atol=0.01) and there.ab.abs().max() > 10
    off = (here.confidence - there.confidence).abs()
    assert off.max() < 0.05 and off.mean() < 0.002
    assert share(sure != believed) < 0.002 and share(believed) > 0.3
    assert here.source is not None and there.source is not None and share(here.source != there.source) < 0.002


def test_of_several_answers_the_same_is_taken(case: Case) -> None:
    class Two(DirectFlow):
        def pairs(self, i: int, j: int, near: bool = False) -> Any:
            chained = super().pairs(i, j, True)[0]
            hidden = Correspondence(chained.flow, np.where(chained.cycle < 0.5, chained.cycle, np.float32(np.inf)))
            return [*super().pairs(i, j, near), hidden]  # as a fitted volume answers beside flow

    tracker = Two(case.tracker.images)
    (here, _), (there, _) = (k.fetched(tracker, case.state, 5, 0) for k in (CPU, TWINS))
    assert share((here.ab - there.ab).abs().amax(0) > 0.01) < 0.01


@pytest.mark.parametrize("size", [(60, 96), (9, 200), (1, 3)])
def test_features_are_the_same_however_often_their_border_is_mirrored(size: tuple[int, int]) -> None:
    L = torch.rand(1, *size, generator=torch.Generator().manual_seed(0)) * 100
    assert np.allclose(hint.features(L), searching.features(L), atol=2e-4)


def test_what_is_looked_up_is_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the nearest; the CPU takes nearly the nearest, which is quicker there."""
    monkeypatch.setattr(hint, "SLACK", 0.0)
    monkeypatch.setattr(searching, "AT_ONCE", 1 << 20)
    some = torch.rand(SIZE, generator=torch.Generator().manual_seed(0)) < 0.3
    references = [case.reference(0, torch.ones_like(some)), case.reference(6, some)]
    asking = (case.reference(3, some), ~some, [*references, case.reference(3, some)])
    here, there = (k.lookup(*asking) for k in (CPU, TWINS))
    assert share((here.ab - there.ab).abs().amax(0) > 0.01) < 0.005
    assert share((here.confidence - there.confidence).abs() > 1e-3) < 0.005
    assert here.source is not None and there.source is not None and share(here.source != there.source) < 0.002
    for nothing in ((asking[0], some & False, references), (asking[0], ~some, [])):
        assert not any(bool(k.lookup(*nothing).confidence.any()) for k in (CPU, TWINS))


def systems(L: Tensor) -> dict[str, tuple[Any, ...]]:
    """Levin's equations: hard ones (little is known), easy ones, and none."""
    g = torch.Generator().manual_seed(0)
    ab, few = 100 * torch.rand(2, *SIZE, generator=g) - 50, torch.rand(SIZE, generator=g) < 0.002
    one, walled = torch.ones(SIZE) > 0, torch.zeros(SIZE) > 0
    one[7, 9], walled[20] = False, True
    weight = torch.rand(SIZE, generator=g) ** 8 * 150
    return {
        "few are known": (L, ab, few),
        "strokes": (L, ab, few, 0 * ab, 1e-4),
        "witnesses everywhere": (L, ab, walled, ab.flip(1), weight),
        "a witness here and there": (L, ab, walled, ab.flip(1), torch.where(few, 150.0, 0.0)),
        "one is missing": (L, ab, one),
        "all is known": (L, ab, few | True),
        "nothing is known": (L, ab, few & False),
    }


@pytest.mark.parametrize("name", list(systems(torch.zeros(1, *SIZE))))
def test_levins_equations_have_the_same_solution(case: Case, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, steps = systems(case.lab[3, :1])[name], []
    monkeypatch.setattr(solving, "LAST", 64)
    real = solving.cycle
    monkeypatch.setattr(solving, "cycle", lambda grids, r: steps.append(r.shape) or real(grids, r))
    here, there = CPU.levin(*given), TWINS.levin(*given)
    assert torch.allclose(here, there, rtol=0, atol=1e-3)
    assert torch.equal(there[:, given[2]], given[1][:, given[2]])
    assert steps.count((2, *SIZE)) <= 30, "multigrid does not do its part"


@pytest.mark.parametrize("size", [(2, 2), (1, 7), (3, 600), (517, 2), (33, 129)])
@pytest.mark.parametrize("weight", [1e-4, 1.0])
def test_levins_equations_of_any_shape(size: tuple[int, int], weight: float) -> None:
    """Noise on thin strips, and hardly any data: what multigrid is worst at."""
    noise = 100 * torch.rand(3, *size, generator=torch.Generator().manual_seed(4))
    given = (noise[:1], noise[1:], noise[0] < 0, noise[1:].flip(0), weight)
    assert torch.allclose(CPU.levin(*given), TWINS.levin(*given), rtol=0, atol=1e-3)


def test_equations_that_are_not_solved_raise(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "MOST", 2)
    with pytest.raises(ArithmeticError, match="not solved"):
        TWINS.levin(*systems(case.lab[3, :1])["few are known"])


@pytest.mark.slow
def test_a_whole_run_on_the_gpu_is_as_good(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device law over the standard preset: values are real, devices may not mix, and nothing marked comes out."""
    here, asked = case.run(CPU), {fetching: 0, searching: 0, solving: 0}

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(first: Any, *given: Any) -> Any:
            asked[module] += on_gpu(first)
            return real(first, *given)

        monkeypatch.setattr(module, name, call)

    for module, name in ((fetching, "gather"), (searching, "_nearest"), (solving, "solve")):
        counted(module, name)
    with pretending():
        there = case.run(gpu.kernels("cuda"))
    assert min(asked.values()) > 3 and not on_gpu(there.state.ab)
    assert there.state.mask.all() and abs(case.psnr(here) - case.psnr(there)) < 0.1
    assert share((here.state.ab - there.state.ab).abs().amax(1) > 2) < 0.05


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (fetching, "cycle_of", lambda c, k: k.fetched(c.tracker, c.state, 2, 0)),
        (filters, "_matrix", lambda c, k: k.fetched(c.tracker, c.state, 2, 0)),
        (
            searching,
            "features",
            lambda c, k: k.lookup(
                c.reference(1, c.lab[1, 0] > 50), c.lab[1, 0] < 50, [c.reference(0, c.lab[0, 0] > 0)]
            ),
        ),
        (solving, "windows", lambda c, k: k.levin(*systems(c.lab[3, :1])["strokes"])),
    ],
)
def test_planted_mistakes_are_caught(
    case: Case, module: Any, name: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: real(*given).cpu())
    with pretending(), pytest.raises((RuntimeError, TypeError), match=r"device|numpy"):
        call(case, gpu.kernels("cuda"))


def test_the_twins_are_taken_where_there_is_a_gpu_but_never_in_a_zero_gpu_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert stages.Stages().kernels.levin.keywords == {"device": "cuda"}  # type: ignore[attr-defined]
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert stages.Stages().kernels == CPU
