"""The classical baselines: what they must do on clips whose answer is known, and the published rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from omnifusion import metrics
from omnifusion.evaluation import methods
from omnifusion.evaluation.evaluate import read_clip


@pytest.fixture(scope="module")
def sliding() -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth texture that moves by (2, 1) pixels per frame: L ``(4, 1, 60, 80)``, ab ``(4, 2, 60, 80)``."""
    rng = np.random.default_rng(0)
    wide = np.stack([gaussian_filter(rng.normal(size=(90, 110)), 2.5) for _ in range(3)])
    wide = torch.from_numpy(wide / wide.std((1, 2), keepdims=True)).float()
    frames = torch.stack([wide[:, 10 + t : 70 + t, 10 + 2 * t : 90 + 2 * t] for t in range(4)])
    return 50 + 15 * frames[:, :1], 20 * frames[:, 1:]


def test_split_and_join_are_inverse() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 30), dtype=np.uint8)
    L, ab = methods.split(frames)
    assert L.shape == (2, 1, 20, 30) and ab.shape == (2, 2, 20, 30)
    assert np.abs(methods.join(L, ab).astype(int) - frames).max() <= 1


def test_split_knows_lab() -> None:
    L, ab = methods.split(np.array([255, 0, 0], np.uint8).reshape(1, 3, 1, 1))
    assert [float(L), *ab.flatten().tolist()] == pytest.approx([53.24, 80.09, 67.20], abs=0.3)


@pytest.mark.parametrize("name", methods.BASELINES)
def test_a_still_clip_keeps_its_colors(name: str, sliding) -> None:
    L, ab = sliding[0][:1].expand(3, -1, -1, -1), sliding[1][0]
    result = methods.BASELINES[name](L, ab)
    assert result.shape == (3, 2, 60, 80)
    assert torch.equal(result[0], ab)
    if name == "gray":
        assert not result[1:].any()
    else:
        assert (result - ab).abs().max() < 0.05


@pytest.mark.parametrize("name", ["flow-warp", "levin"])
def test_moving_colors_are_followed(name: str, sliding) -> None:
    L, ab = sliding
    result = methods.BASELINES[name](L, ab[0])
    seen = (slice(None), slice(None), slice(6, 50), slice(6, 66))
    assert (result[seen] - ab[seen]).abs().mean() < 1.5
    still = methods.static(L, ab[0])
    assert (still[seen] - ab[seen]).abs().mean() > 5


def test_forward_backward_check() -> None:
    backward = torch.zeros(2, 20, 30)
    backward[0] = 3.0
    agreeing = methods.consistent(backward, -backward)
    assert agreeing[:, :27].all() and not agreeing[:, 27:].any()
    # the bound at |b| = |f| = 3 is 0.01 * 18 + 0.5 = 0.68, so a gap of 0.8 passes (0.64) and one of 0.9 (0.81) fails
    assert methods.consistent(backward, -backward + torch.tensor([0.0, 0.8])[:, None, None])[:, :27].all()
    assert not methods.consistent(backward, -backward + torch.tensor([0.0, 0.9])[:, None, None]).any()


def test_levin_fills_what_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing moves, but forward flow disagrees in a box: its color must come from around it, not from its track."""
    box = (slice(None), slice(8, 20), slice(10, 26))
    L, ab = torch.full((2, 1, 30, 40), 60.0), torch.full((2, 30, 40), 25.0)
    ab[box] = -70.0
    forward = torch.zeros(2, 30, 40)
    forward[box] = 5.0
    answers = iter([torch.zeros(2, 30, 40), forward])
    monkeypatch.setattr(methods, "_dis", lambda source, target: next(answers))
    filled = methods.levin(L, ab)[1]
    assert (filled - 25.0).abs().max() < 0.01


PUBLISHED = {
    "blackswan": {"gray": 21.60, "static": 25.92, "flow-warp": 31.11, "levin": 31.13},
    "kite-surf": {"gray": 19.08, "static": 25.21, "flow-warp": 29.43, "levin": 26.82},
    "scooter-black": {"gray": 25.00, "static": 26.34, "flow-warp": 31.77, "levin": 32.15},
}


@pytest.mark.slow
@pytest.mark.parametrize("clip", PUBLISHED)
def test_published_rows(clip: str) -> None:
    if "OMNIFUSION_CLIPS" not in os.environ:
        pytest.skip("set OMNIFUSION_CLIPS to the folder with the clips")
    truth = read_clip(Path(os.environ["OMNIFUSION_CLIPS"]) / "davis" / clip, frames=24, scale=0.5)
    L, ab = methods.split(truth)
    for name, published in PUBLISHED[clip].items():
        result = methods.join(L, methods.BASELINES[name](L, ab[0]))
        assert metrics.psnr(result[1:], truth[1:]).mean() == pytest.approx(published, abs=0.05)
