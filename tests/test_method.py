"""The whole method against the truth: what it must be worth on a made clip and, where there are some, on a real one."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import numpy as np
import pytest

from omnifusion import metrics, synthetic
from omnifusion.evaluation.dataset import read_clip
from omnifusion.evaluation.methods import METHODS, Case
from omnifusion.settings import choose
from omnifusion.state import drain

EXAMPLE = Path(__file__).parent.parent / "docs" / "example.py"


def psnr(truth: np.ndarray, method: str) -> float:
    """Mean PSNR in dB of the frames after the first."""
    frames = drain(METHODS[method](Case(truth, choose("draft")))).frames
    return float(metrics.psnr(frames[1:], truth[1:]).mean())


@pytest.mark.slow
def test_the_example_of_the_docs_runs_and_reaches_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    assert example["main"](None) == pytest.approx(example["EXPECTED"], abs=0.3)
    assert "propagated" in capsys.readouterr().out and len(EXAMPLE.read_text().splitlines()) <= 60


@pytest.mark.slow
def test_a_made_clip_is_worth_more_than_flow_and_levin() -> None:
    truth = np.asarray(synthetic.make("two-layers", frames=8, size=(108, 192)).video.frames)
    ours, peer = psnr(truth, "omnifusion"), psnr(truth, "levin")
    assert ours == pytest.approx(32.4, abs=0.7) and ours - peer > 1.3


@pytest.mark.slow
@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_a_real_clip_is_worth_more_than_flow_and_levin() -> None:
    truth = read_clip(Path(os.environ["OMNIFUSION_CLIPS"]) / "davis" / "kite-surf", 8, 0.5)
    ours, peer = psnr(truth, "omnifusion"), psnr(truth, "levin")
    assert ours == pytest.approx(34.9, abs=0.7) and ours - peer > 2.5
