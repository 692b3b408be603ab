"""The device law: all that a GPU would compute runs with tensors that stand for its own, and mistakes raise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import synthetic
import torch
from pretend import on_gpu, pretending
from test_prior import frame, write_prior

from omnifusion import omnimotion, stages
from omnifusion.algorithm import colorize
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.flow import dis
from omnifusion.inpaint import ReferenceFrame, estimate_color
from omnifusion.omnimotion.kinds import OfficialVolume
from omnifusion.omnimotion.volume import Volume
from omnifusion.prior import diffusion, guidance
from omnifusion.prior.components import Components, StableDiffusion, embed, load_components
from omnifusion.prior.diffusion import DiffusionPrior
from omnifusion.prior.source import BUNDLED
from omnifusion.progress import Fitting, Note, Step, run_to_end
from omnifusion.settings import choose
from omnifusion.state import FillTask

SHORT = replace(omnimotion.PRESETS["paper"], iterations=10, side=48)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prior(tmp_path_factory.mktemp("prior") / "tiny")


def fill(folder: Path, **changes: Any) -> tuple[Components, list[torch.Tensor]]:
    """Two frames filled on the pretended GPU, from an estimate and from noise."""
    L, ab, mask = frame()
    estimate = estimate_color(ReferenceFrame(L, ab * mask, mask), [])
    text = embed(str(folder), "", "")
    with pretending():
        try:
            components = load_components(str(folder), "cuda")
        finally:
            load_components.cache_clear()
        if isinstance(components, StableDiffusion):
            for module in (components.unet, components.vae):
                module.float().disable_gradient_checkpointing()  # a recomputed tensor carries no mark
        prior = DiffusionPrior(components, choose("draft", steps=2, **changes), text)
        found = [run_to_end(prior.fill([FillTask(L, ab, mask, h, n) for n in (0, 1)])) for h in (estimate, None)]
    return components, [a for batch in found for a in batch]


@pytest.mark.parametrize("start", [0.3, None])
def test_stable_diffusion_fills_on_the_gpu(tiny: Path, start: float | None) -> None:
    components, found = fill(tiny, strength=start)
    assert isinstance(components, StableDiffusion) and all(on_gpu(p) for p in components.unet.parameters())
    assert all(not on_gpu(a) and a.isfinite().all() for a in found)


def test_the_bundled_prior_would_run_there_too() -> None:
    assert all(a.isfinite().all() for a in fill(BUNDLED)[1])


def fit() -> omnimotion.OmniMotion:
    """The paper's volume, fitted for a few steps and asked, on the pretended GPU."""
    clip = synthetic.make("two-layers", frames=3, size=(32, 48), seed=1)
    L = rgb_to_lab(from_uint8(clip.video.frames))[:, :1]
    steps: list[Step] = []
    with pretending():
        assert len(run_to_end(omnimotion.find_flows(L, "paper", device="cuda")).pairs) == 6  # RAFT, untrained
        flows = run_to_end(omnimotion.find_flows(L, "draft"))
        tracker = run_to_end(omnimotion.fit(L, "paper", flows=flows, device="cuda"), steps.append)
        assert on_gpu(next(tracker.volume.parameters())) and isinstance(steps[-1], Fitting)
        ((there, error),) = tracker.matches(np.arange(32 * 48), 0, 2)
        assert np.isfinite(there).all() and np.isin(error, (0, np.inf)).all()
    return tracker


def test_the_papers_volume_learns_from_dis_where_rafts_weights_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(device: str) -> None:
        raise URLError("no network")

    monkeypatch.setattr(dis, "raft", offline)
    L = torch.rand(3, 1, 32, 48, generator=torch.Generator().manual_seed(0)) * 100
    seen: list[Step] = []
    flows = run_to_end(omnimotion.find_flows(L, "paper", device="cuda"), seen.append)
    assert [s.message for s in seen if isinstance(s, Note)] == [
        "RAFT's weights cannot be had (<urlopen error no network>): DIS found the optical flow."
    ]
    assert len(flows.pairs) == 6


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(omnimotion.PRESETS, "paper", replace(SHORT, pairs=2, rays=16))
    monkeypatch.setattr(dis, "raft", partial(dis.raft, pretrained=False))
    for name, value in (("LAYERS", 3), ("HIDDEN", 16), ("samples", 4)):
        monkeypatch.setattr(OfficialVolume, name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_the_papers_volume_is_fitted_and_traced_on_the_gpu() -> None:
    fit()


def left_on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that forgets to move its result."""
    return lambda *given: function(*given).cpu()


def test_planted_mistakes_of_the_prior_are_caught(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like = guidance.gaussian_like
    for mistake in (
        lambda z, generators: like(z, generators).cpu(),
        lambda z, generators: torch.randn(z.shape, generator=generators[0], device=z.device),
        lambda z, generators: torch.from_numpy(z.numpy()),
    ):
        monkeypatch.setattr(diffusion, "gaussian_like", mistake)
        with pytest.raises((RuntimeError, TypeError), match=r"device|numpy"):
            fill(tiny)
    monkeypatch.undo()
    monkeypatch.setattr(StableDiffusion, "encode", left_on_cpu(StableDiffusion.encode))
    with pytest.raises(RuntimeError, match="same device"):
        fill(tiny)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("planted", ["times", "composite"])
def test_planted_mistakes_of_the_volume_are_caught(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if planted == "times":
        monkeypatch.setattr(OfficialVolume, "_times", left_on_cpu(OfficialVolume._times))
    else:
        monkeypatch.setattr(Volume, "device", property(lambda self: torch.device("cpu")))
    with pytest.raises(RuntimeError, match=r"same device|indices"):
        fit()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card that can be used")
def test_a_card_that_is_named_but_cannot_be_used_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch finds no driver when it is asked to compute: the run goes on, and says so once."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    stages.usable_device.cache_clear()
    try:
        steps: list[Step] = []
        L = frame()[0][None].expand(2, -1, -1, -1)
        result = run_to_end(colorize(L, {}, choose("draft", diffusion="always", steps=1)), steps.append)
        warnings = {step.message for step in steps if isinstance(step, Note)}
    finally:
        stages.usable_device.cache_clear()
    assert len(warnings) == 1 and "card cannot be used" in warnings.pop()
    assert all(bool(result.state.is_complete(t)) for t in range(2)) and stages.device() == "cpu"


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_through_on_a_cpu_in_small() -> None:
    """What ``make gpu-check`` runs: Stable Diffusion, the paper's volume, RAFT and the prior's training."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], cwd=root, env=environment, capture_output=True, text=True
    )
    rows = [line for line in run.stdout.splitlines() if line.startswith("| ")]
    assert run.returncode == 0 and len(rows) == 5, run.stdout + run.stderr
