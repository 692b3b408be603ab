"""Color a gray clip from one colored frame with the library: ``python docs/example.py``, seconds on one core.

The clip is one of the page's examples, in color, so the result can be scored.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omnifusion import metrics
from omnifusion.algorithm import colorize
from omnifusion.clip.prepare import prepare
from omnifusion.color import from_uint8, gray, to_uint8
from omnifusion.progress import Step, run_to_end
from omnifusion.settings import choose
from omnifusion.state import Video
from omnifusion.video import read, write

EXAMPLE = Path(__file__).resolve().parents[1] / "assets" / "examples" / "street.mp4"
EXPECTED = 32.8
"""PSNR in dB of the frames without an exemplar."""


def main(out: Path | None = Path("example.mp4")) -> float:
    """Color the clip and write it to ``out``; returns the PSNR in dB."""
    example = read(EXAMPLE, max_frames=8)
    truth = np.asarray(example.frames)  # (T, 3, H, W) uint8 sRGB
    film = Video(
        to_uint8(gray(from_uint8(truth))).numpy(), example.fps
    )  # all that the method sees, beside one frame in color

    settings = choose("draft", seed=7)  # a preset, and whatever else should differ from it
    clip = prepare(film, {0: truth[0]}, settings.max_side)  # checked, registered, at the working size

    def show(step: Step) -> None:  # a run tells what it does, step by step; see omnifusion.progress
        print(f"{step.stage:9} {step.done:4.0%} {step.message}")

    result = run_to_end(colorize(clip.L, clip.exemplar_ab(), settings, clip.shots), show)
    frames = np.stack([clip.full_size(result.state, t) for t in range(len(film))])  # the clip's own luminance
    if out is not None:
        write(out, Video(frames, film.fps))
    for t, kind in enumerate(result.state.kind):  # how each pixel got its color: 0 exemplar, 1 propagated, 2 inpainted
        print(f"frame {t}: {(kind == 1).float().mean():.0%} propagated, {(kind == 2).float().mean():.0%} inpainted")
    return float(metrics.psnr(frames[1:], truth[1:]).mean())


if __name__ == "__main__":
    print(f"{main():.1f} dB; expected: {EXPECTED} dB")
