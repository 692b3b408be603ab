"""The made clips' ground truth: exact, consistent with itself, and what the pictures show."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
import torch

from omnifusion import geometry

SIZE = (54, 96)


def grid(size: tuple[int, int] = SIZE) -> torch.Tensor:
    return geometry.pixel_grid(*size).reshape(-1, 2)


@pytest.mark.parametrize("name", synthetic.SCENES)
def test_truth_of_every_scene(name: str) -> None:
    made = synthetic.make(name, frames=13, size=SIZE, seed=1, noise=0.0)
    frames = torch.from_numpy(made.video.frames).float()
    points = grid()
    same, seen = made.correspond(points, 5, 5)
    assert torch.equal(same, points) and seen.all()

    there, seen = made.correspond(points.double(), 0, 12)
    back, returned = made.correspond(there[seen], 12, 0)
    assert (back - points[seen]).abs().max() < 1e-9 and returned.all()
    assert 0.2 < seen.float().mean() <= 1
    assert geometry.inside(there[seen], *SIZE).all()
    assert (there - points)[seen].norm(dim=1).mean() > 1  # it does move

    warped = geometry.sample(frames[12], there[seen])
    along = (warped - frames[0].reshape(3, -1)[:, seen]).abs().mean()
    still = (frames[12] - frames[0]).reshape(3, -1)[:, seen].abs().mean()
    assert along < 0.5 * still  # color follows the ground truth


def test_a_hidden_layer_returns() -> None:
    made = synthetic.make("occlusion", frames=24, size=(108, 192))
    points = grid((108, 192))
    visible = torch.tensor([int((made.layer_of(points, t) == 1).sum()) for t in range(24)])
    assert visible[0] > 500 and visible[10:16].max() == 0 and visible[23] > 0.9 * visible[0]
    mine = points[made.layer_of(points, 0) == 1]
    assert not made.correspond(mine, 0, 12)[1].any()
    assert made.correspond(mine, 0, 23)[1].float().mean() > 0.9


def test_a_short_clip_is_the_beginning_of_a_long_one() -> None:
    short, long = (synthetic.make("demo", frames=n, size=SIZE).video.frames for n in (3, 6))
    assert np.array_equal(short, long[:3])


def test_seeds_fix_and_vary() -> None:
    a, b, c = (synthetic.make("three-layers", frames=1, size=SIZE, seed=s).video.frames for s in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_noise_has_its_deviation() -> None:
    clean, noisy = (synthetic.make("nonrigid", frames=2, size=SIZE, noise=s).video.frames for s in (0.0, 4.0))
    assert 3.6 < (noisy.astype(float) - clean).std() < 4.4


def test_odd_and_portrait_sizes() -> None:
    assert synthetic.make("pan", frames=1, size=(91, 37)).video.frames.shape == (1, 3, 91, 37)
