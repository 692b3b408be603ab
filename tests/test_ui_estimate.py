"""The memory that the page promises, against what runs take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

from omnifusion.settings import PRESETS
from omnifusion.ui.estimate import GAINS, Rates
from omnifusion.video import write_image

MEASURED = """
import sys
from omnifusion.cli import main
from omnifusion.progress import Meter
with Meter() as meter:
    assert main(sys.argv[1:]) == 0
print(meter.peak_mib)
"""
"""Run a command in a process of its own, which alone knows its peak: what a parent is told counts the parent, too."""


def test_the_gains_that_the_page_names_are_those_of_the_table() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    means = dict(re.findall(r"^\| (.*?) \|.*\*\*([\d.]+)\*\*", text, re.MULTILINE))
    baseline = max(float(means[name]) for name in ("flow warp", "flow warp + Levin 2004"))
    found = {name: float(means[f"OmniFusion, `{name}`"]) - baseline for name in GAINS}
    assert found == pytest.approx(GAINS, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "size"), [("draft", (216, 384)), ("standard", (360, 640))])
def test_memory_is_estimated_within_thirty_per_cent(preset: str, size: tuple[int, int], tmp_path: Path) -> None:
    frames = synthetic.make("two-layers", frames=8, size=size).video.frames
    (tmp_path / "clip").mkdir()
    for t, frame in enumerate(frames):
        write_image(tmp_path / "clip" / f"{t:02d}.png", frame)
    words = ["colorize", tmp_path / "clip", "--out", tmp_path / "out", "--preset", preset]
    run = subprocess.run([sys.executable, "-c", MEASURED, *map(str, words)], capture_output=True, text=True, check=True)
    measured = float(run.stdout.split()[-1])
    promised = Rates(tmp_path / "rates.json").estimate(PRESETS[preset], len(frames), size).mib
    assert promised == pytest.approx(measured, rel=0.3)
