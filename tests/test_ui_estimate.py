"""The memory that the page promises, against what runs take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omnifusion import synthetic
from omnifusion.settings import PRESETS
from omnifusion.ui.estimate import Rates
from omnifusion.video import write_image


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell a process's peak memory")
@pytest.mark.parametrize(("preset", "size"), [("draft", (216, 384)), ("standard", (360, 640))])
def test_memory_is_estimated_within_thirty_per_cent(preset: str, size: tuple[int, int], tmp_path: Path) -> None:
    frames = synthetic.make("two-layers", frames=8, size=size).video.frames
    (tmp_path / "clip").mkdir()
    for t, frame in enumerate(frames):
        write_image(tmp_path / "clip" / f"{t:02d}.png", frame)
    words = ["-m", "omnifusion", "colorize", tmp_path / "clip", "--out", tmp_path / "out", "--preset", preset]
    run = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(run.pid, 0)
    assert status == 0
    measured = usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    promised = Rates(tmp_path / "rates.json").estimate(PRESETS[preset], len(frames), size).mib
    assert promised == pytest.approx(measured, rel=0.3)
