"""Laws of the values."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from omnifusion.state import ColorState, Origin, Step, Video, drain


@pytest.fixture
def state() -> ColorState:
    return ColorState.grey(torch.rand(3, 1, 8, 10) * 100)


def test_a_grey_clip_has_no_colour(state: ColorState) -> None:
    assert not state.mask.any()
    assert (state.kind == -1).all()
    assert (state.iteration == -1).all()


def test_each_pixel_is_coloured_once(state: ColorState) -> None:
    left = torch.zeros(8, 10, dtype=torch.bool)
    left[:, :6] = True
    everywhere = torch.ones_like(left)
    once = state.paint({1: (left, torch.full((2, 8, 10), 5.0))}, 2, Origin.PROPAGATED)
    twice = once.paint({1: (everywhere, torch.full((2, 8, 10), -7.0))}, 3, Origin.INPAINTED)
    assert (twice.ab[1][:, left] == 5.0).all()
    assert (twice.ab[1][:, ~left] == -7.0).all()
    assert (twice.kind[1][left] == Origin.PROPAGATED).all()
    assert (twice.iteration[1][left] == 2).all()
    assert (twice.kind[1][~left] == Origin.INPAINTED).all()
    assert (twice.iteration[1][~left] == 3).all()


def test_painting_leaves_the_old_state_and_the_luminance_alone(state: ColorState) -> None:
    before = state.L.clone()
    new = state.paint({0: (torch.ones(8, 10, dtype=torch.bool), torch.ones(2, 8, 10))}, 0, Origin.EXEMPLAR)
    assert not state.mask.any()
    assert (state.ab == 0).all()
    assert torch.equal(new.L, before)
    assert new.mask[0].all() and not new.mask[1:].any()


def test_values_pickle(state: ColorState) -> None:
    step = pickle.loads(pickle.dumps(Step("fit", state=state)))
    assert torch.equal(step.state.L, state.L)


@pytest.mark.parametrize("frames", [np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 3, 8, 8), np.float32)])
def test_a_video_of_another_layout_is_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Video(frames)


def test_drain_gives_the_result_of_long_work() -> None:
    def work():
        yield Step("fit")
        return 7

    assert drain(work()) == 7
