"""Laws of the values."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from omnifusion.progress import Colored, Step, run_to_end
from omnifusion.state import ColorEstimate, ColorState, Origin, Video


@pytest.fixture
def state() -> ColorState:
    return ColorState.gray(torch.rand(3, 1, 8, 10) * 100)


def colors(value: float) -> ColorEstimate:
    return ColorEstimate(torch.full((2, 8, 10), value), torch.ones(8, 10))


def test_a_gray_clip_has_no_color(state: ColorState) -> None:
    assert not state.mask.any()
    assert (state.kind == -1).all()
    assert (state.iteration == -1).all()


def test_each_pixel_is_colored_once(state: ColorState) -> None:
    left = torch.zeros(8, 10, dtype=torch.bool)
    left[:, :6] = True
    everywhere = torch.ones_like(left)
    once = state.paint(1, left, colors(5.0), 2, Origin.PROPAGATED)
    twice = once.paint(1, everywhere, colors(-7.0), 3, Origin.INPAINTED)
    assert (twice.ab[1][:, left] == 5.0).all()
    assert (twice.ab[1][:, ~left] == -7.0).all()
    assert (twice.kind[1][left] == Origin.PROPAGATED).all()
    assert (twice.iteration[1][left] == 2).all()
    assert (twice.kind[1][~left] == Origin.INPAINTED).all()
    assert (twice.iteration[1][~left] == 3).all()


def test_painting_leaves_the_old_state_and_the_luminance_alone(state: ColorState) -> None:
    before = state.L.clone()
    new = state.paint(0, torch.ones(8, 10, dtype=torch.bool), colors(1.0), 0, Origin.EXEMPLAR)
    assert not state.mask.any()
    assert (state.ab == 0).all()
    assert torch.equal(new.L, before)
    assert new.mask[0].all() and not new.mask[1:].any()


def test_values_pickle(state: ColorState) -> None:
    step = pickle.loads(pickle.dumps(Colored("propagate", state=state, iteration=2)))
    assert torch.equal(step.state.L, state.L) and step.iteration == 2


@pytest.mark.parametrize("frames", [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 3, 8, 8), np.float32)])
def test_a_video_of_another_layout_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Video(frames)


def work():
    yield Step("fit", "one")
    yield Step("fit", "two")
    return 7


def test_drain_gives_the_result_of_long_work_and_shows_its_steps() -> None:
    seen: list[Step] = []
    assert run_to_end(work()) == 7
    assert run_to_end(work(), seen.append) == 7 and [step.message for step in seen] == ["one", "two"]
