"""The whole method through the public API: what it must be worth on a made clip and on real ones; thread counts."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from omnifusion import metrics
from omnifusion.algorithm import colorize
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.correction.provenance import correct
from omnifusion.evaluation.evaluate import read_clip
from omnifusion.evaluation.methods import METHODS, Sample
from omnifusion.progress import run_to_end
from omnifusion.settings import choose
from omnifusion.stages import Stages

EXAMPLE = Path(__file__).parent.parent / "docs" / "example.py"
DAVIS = Path(os.environ.get("OMNIFUSION_CLIPS", "")) / "davis"
real = pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS names no folder of clips")
pytestmark = pytest.mark.slow


def psnr(truth: np.ndarray, method: str, preset: str = "draft") -> float:
    """Mean PSNR in dB of the frames after the first."""
    frames, _ = run_to_end(METHODS[method](Sample(truth, choose(preset))))
    return float(metrics.psnr(frames[1:], truth[1:]).mean())


def test_the_example_of_the_docs_runs_and_reaches_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    assert example["main"](None) == pytest.approx(example["EXPECTED"], abs=0.3)
    assert "propagated" in capsys.readouterr().out and len(EXAMPLE.read_text().splitlines()) <= 60


def test_a_made_clip_is_worth_more_than_flow_and_levin() -> None:
    truth = np.asarray(synthetic.make("two-layers", frames=8, size=(108, 192)).video.frames)
    ours, baseline = psnr(truth, "omnifusion"), psnr(truth, "levin")
    assert ours == pytest.approx(32.4, abs=0.7) and ours - baseline > 1.3


@real
@pytest.mark.parametrize(
    ("clip", "preset", "least"),
    [
        ("kite-surf", "draft", 34.3),
        ("kite-surf", "standard", 34.2),
        ("camel", "draft", 37.3),
        ("camel", "standard", 38.0),
    ],
)
def test_real_clips_reach_their_quality(clip: str, preset: str, least: float) -> None:
    truth = read_clip(DAVIS / clip, 12, 0.5)
    assert psnr(truth, "omnifusion", preset) > least


@real
def test_the_number_of_threads_changes_nothing() -> None:
    truth = read_clip(DAVIS / "kite-surf", 8, 0.25)
    one, two = (run_to_end(METHODS["omnifusion"](Sample(truth, choose("draft"), Stages(threads=n)))) for n in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@real
def test_one_patch_corrects_a_wrong_color_of_a_real_clip() -> None:
    lab = rgb_to_lab(from_uint8(read_clip(DAVIS / "kite-surf", 8, 0.25)))
    L, ab, sea = lab[:, :1], lab[:, 1:], (lab[:, 1:] - lab[0, 1:, 20, 100][:, None, None]).norm(dim=1) < 14
    wrong = run_to_end(colorize(L, {0: torch.where(sea[0], -ab[0], ab[0])}, choose("draft"))).state
    new = run_to_end(correct(wrong, {4: torch.where(sea[4], ab[4], torch.nan)}))
    before, after = ((state.ab - ab).norm(dim=1) > 6 for state in (wrong, new))
    assert 0.1 < sea.float().mean() < 0.9 and before[sea].float().mean() > 0.9
    assert after[sea].float().mean() < 0.17 and (after & ~before).float().mean() < 0.01
