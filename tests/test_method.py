"""The whole method against the truth: what it must be worth on a made clip and, where there are some, on a real one."""

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
from omnifusion.correction.provenance import Edit, correct
from omnifusion.evaluation.dataset import read_clip
from omnifusion.evaluation.methods import METHODS, Case
from omnifusion.progress import run_to_end
from omnifusion.settings import choose

EXAMPLE = Path(__file__).parent.parent / "docs" / "example.py"


def psnr(truth: np.ndarray, method: str) -> float:
    """Mean PSNR in dB of the frames after the first."""
    frames = run_to_end(METHODS[method](Case(truth, choose("draft")))).frames
    return float(metrics.psnr(frames[1:], truth[1:]).mean())


@pytest.mark.slow
def test_the_example_of_the_docs_runs_and_reaches_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    assert example["main"](None) == pytest.approx(example["EXPECTED"], abs=0.3)
    assert "propagated" in capsys.readouterr().out and len(EXAMPLE.read_text().splitlines()) <= 60


@pytest.mark.slow
def test_a_made_clip_is_worth_more_than_flow_and_levin() -> None:
    truth = np.asarray(synthetic.make("two-layers", frames=8, size=(108, 192)).video.frames)
    ours, baseline = psnr(truth, "omnifusion"), psnr(truth, "levin")
    assert ours == pytest.approx(32.4, abs=0.7) and ours - baseline > 1.3


@pytest.mark.slow
@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_a_real_clip_is_worth_more_than_flow_and_levin() -> None:
    truth = read_clip(Path(os.environ["OMNIFUSION_CLIPS"]) / "davis" / "kite-surf", 8, 0.5)
    ours, baseline = psnr(truth, "omnifusion"), psnr(truth, "levin")
    assert ours == pytest.approx(34.9, abs=0.7) and ours - baseline > 2.5


@pytest.mark.slow
@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_one_patch_mends_a_wrong_color_of_a_real_clip() -> None:
    frames = read_clip(Path(os.environ["OMNIFUSION_CLIPS"]) / "davis" / "kite-surf", 8, 0.25)
    lab = rgb_to_lab(from_uint8(frames))
    L, ab, sea = lab[:, :1], lab[:, 1:], (lab[:, 1:] - lab[0, 1:, 20, 100][:, None, None]).norm(dim=1) < 14
    wrong = run_to_end(colorize(L, {0: torch.where(sea[0], -ab[0], ab[0])}, choose("draft"))).state
    new = run_to_end(correct(wrong, Edit({4: torch.where(sea[4], ab[4], torch.nan)})))
    bad, mended = ((state.ab - ab).norm(dim=1) > 6 for state in (wrong, new))
    assert 0.1 < sea.float().mean() < 0.9 and bad[sea].float().mean() > 0.9
    assert mended[sea].float().mean() < 0.17 and (mended & ~bad).float().mean() < 0.01
