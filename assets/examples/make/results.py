"""Color the examples and keep what the page shows of them: ``python assets/examples/make/results.py [NAME ...]``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from omnifusion.progress import run_to_end
from omnifusion.run import pipeline
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.settings import choose
from omnifusion.ui.parts import EXAMPLE_FOLDER, EXAMPLES

KEPT = ("colorized.mp4", "origin.mp4", "report.json", "request.json")
"""Small enough to ship, as the origins are; the frames and their colors are not."""


def color(example: RunFolder, preset: str, frames: int) -> None:
    """Run one example and replace its result."""
    target = EXAMPLE_FOLDER / "results" / example.token
    with tempfile.TemporaryDirectory() as folder:
        asked = RunRequest(example.request.name, choose(preset), frames)
        steps = pipeline.color(pipeline.begin(Path(folder) / "run", asked, {}, example.clip))
        bar = tqdm(desc=example.token, bar_format="{desc} {elapsed} {postfix}")
        stored = run_to_end(steps, lambda step: bar.set_postfix_str(f"{step.stage} {step.done:.0%} {step.message}"))
        bar.close()
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in KEPT:
            shutil.copyfile(stored.folder / name, target / name)
        np.savez_compressed(target / "origin.npz", origin=stored.origin().astype(np.int16))
        print(example.token, replace(stored, folder=target).report["scores"])


def main() -> None:
    """Color all examples, or those that are named."""
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("names", nargs="*", help="examples to color (default: all)")
    args.add_argument("--preset", default="draft", help="draft (default), standard or paper")
    args.add_argument("--frames", type=int, default=24, help="frames of each clip")
    given = args.parse_args()
    for example in EXAMPLES.values():
        if not given.names or example.token in given.names:
            color(example, given.preset, given.frames)


if __name__ == "__main__":
    main()
