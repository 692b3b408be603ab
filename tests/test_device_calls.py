"""GPU calls on a ZeroGPU Space: how many seconds are asked for, and what becomes of a run whose calls fail."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import synthetic
import torch
from test_prior import write_prior

from omnifusion.algorithm import Result, colorize, next_frames
from omnifusion.clip.prepare import Clip, prepare
from omnifusion.prior.components import load_components
from omnifusion.progress import InputError, Note, Step, run_to_end
from omnifusion.settings import choose
from omnifusion.stages import Stages
from omnifusion.state import FillTask
from omnifusion.ui import zerogpu

QUOTA = gr.Error("You have exceeded your ZeroGPU quota (9s requested vs. 2s left). Try again in 3:00:00. ")
ABORTED = gr.Error("GPU task aborted")


class Scheduler:
    """Stands for ``zerogpu.fill`` on such a Space: counts the seconds asked for, refuses one call, kills another."""

    def __init__(self, refuse: int = 0, kill: int = 0) -> None:
        self.refuse, self.kill, self.asked, self.frames = refuse, kill, [], []

    def __call__(self, *given: Any) -> Iterator[Any]:
        self.asked.append(zerogpu.duration(*given))
        self.frames.append(len(given[0]))
        if len(self.asked) == self.refuse:
            raise QUOTA
        for sent in zerogpu.fill(*pickle.loads(pickle.dumps(given))):
            message = pickle.loads(pickle.dumps(sent))
            if len(self.asked) == self.kill:
                raise ABORTED
            yield message


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return prepare(synthetic.make("two-layers", frames=24, size=(32, 48), seed=1).video, {}, 64)


@pytest.fixture
def loaded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny prior is offered as sd15, and its frames cost what they cost Stable Diffusion there."""
    monkeypatch.setenv("OMNIFUSION_SD15", str(tiny))
    monkeypatch.setitem(zerogpu._loaded, "sd15", load_components(str(tiny), "cpu"))
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")


def run(clip: Clip, scheduler: Scheduler, **changes: Any) -> tuple[Result, list[Step]]:
    seen: list[Step] = []
    stages = Stages(inpaint=zerogpu.Calls(scheduler), together=zerogpu.TOGETHER)
    result = run_to_end(colorize(clip.L, clip.exemplar_ab(), choose("draft", **changes), None, stages), seen.append)
    assert result.state.mask.all()
    return result, seen


def notes(seen: list[Step]) -> list[str]:
    return [step.message for step in seen if isinstance(step, Note)]


@pytest.mark.parametrize("changes", [{}, {"diffusion": "always", "steps": 1}])
def test_a_run_with_the_bundled_prior_asks_for_no_gpu(clip: Clip, changes: dict[str, Any]) -> None:
    scheduler = Scheduler()
    _, seen = run(clip, scheduler, **changes)
    assert scheduler.asked == [] and notes(seen) == []


@pytest.mark.usefixtures("loaded")
def test_a_run_with_stable_diffusion_asks_for_few_short_calls(clip: Clip) -> None:
    scheduler = Scheduler()
    _, seen = run(clip, scheduler, prior="sd15")
    assert scheduler.asked and max(scheduler.asked) <= 20 and sum(scheduler.asked) <= 90
    assert max(scheduler.frames) > 1 and len(scheduler.asked) < sum(scheduler.frames)
    assert notes(seen) == []


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(("broken", "says"), [({"refuse": 2}, "quota"), ({"kill": 1}, "aborted")])
def test_a_failed_call_is_one_sentence_and_the_run_goes_on(clip: Clip, broken: dict[str, int], says: str) -> None:
    scheduler = Scheduler(**broken)
    _, seen = run(clip, scheduler, prior="sd15", steps=1)
    (note,) = notes(seen)
    assert says in note and "built-in model" in note and note.count(". ") == 0 and note.endswith(".")
    assert len(scheduler.asked) == max(broken.values()), "asked again after a refusal"


@pytest.mark.usefixtures("loaded")
def test_the_budget_of_a_run_holds(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler()
    monkeypatch.setattr(zerogpu, "RUN", 25.0)
    _, seen = run(clip, scheduler, prior="sd15", steps=2)
    assert sum(scheduler.asked) <= 25 and "25 s of GPU" in notes(seen)[0]


@pytest.mark.parametrize("frames", [1, 2, zerogpu.TOGETHER])
def test_what_is_asked_for_is_what_is_expected(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    tasks = [FillTask(torch.zeros(1, 252, 448), torch.zeros(2, 252, 448), torch.zeros(252, 448), None, 0)] * frames
    settings = choose("standard", prior="sd15")
    assert zerogpu.START < zerogpu.duration(tasks, settings) <= 20
    prompt = choose("standard", prior="sd15", prompt="a dog")
    assert zerogpu.duration(tasks, prompt) > zerogpu.duration(tasks, settings)


def test_frames_filled_together_are_a_gap_apart() -> None:
    gray = dict.fromkeys(range(24), 0.1) | {0: 0.0, 15: 0.0}
    assert next_frames("keyframes", gray, 0, {0}, 1) == [5]
    assert next_frames("keyframes", gray, 0, {0}, 8, ahead=True) == [5, 10, 16, 21]
    assert next_frames("next", gray, 0, {0}, 8) == [1]


def test_a_new_prior_needs_no_title(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(zerogpu.PRIORS, "mine", (str(tmp_path), "OMNIFUSION_MINE"))
    assert ("mine", "mine") in zerogpu.priors()


def test_such_a_space_offers_what_it_has_loaded(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr(zerogpu.Config, "zero_gpu", True)
    monkeypatch.setattr(zerogpu, "_loaded", {})
    assert [name for _, name in zerogpu.priors()] == ["bundled"]
    with pytest.raises(InputError, match="no prior 'sd20' here"):
        zerogpu.check_prior("sd20")
    monkeypatch.setitem(zerogpu._loaded, "sd20", load_components(str(tiny), "cpu"))
    zerogpu.check_prior("sd20")


SPACE = Path(__file__).parent / "zero_space.py"


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_page_on_a_zero_gpu_space(tiny: Path, tmp_path: Path) -> None:
    """The real ``spaces`` package with a scheduler of our own: weights are loaded once, at start-up."""
    environment = os.environ | {"HOME": str(tmp_path), "OMNIFUSION_SD15": str(tiny), "OMNIFUSION_PRIORS": "sd15,sd20"}
    environment |= {
        "SPACES_ZERO_GPU": "true",
        "PYTHONPATH": str(SPACE.parent.parent),
        "OMNIFUSION_RESULTS": str(tmp_path / "results"),
        "HF_HUB_OFFLINE": "1",
    }
    told = subprocess.run([sys.executable, SPACE], env=environment, capture_output=True, text=True, timeout=400)
    assert told.returncode == 0, told.stderr[-2000:]
    found = json.loads(told.stdout.splitlines()[-1])
    assert found["offered"] == ["bundled", "sd15"]
    assert found["emulated"], "CUDA seems to be there"
    bundled, granted, refused = found["runs"]
    assert all(run["complete"] for run in found["runs"])
    assert bundled["asked"] == [] and bundled["notes"] == []
    assert granted["asked"] and max(granted["asked"]) <= 20 and granted["notes"] == []
    assert len(refused["asked"]) == 1 and "reached its GPU limit" in refused["notes"][0]
