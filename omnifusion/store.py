"""The folder of a run: nothing of anybody's is overwritten, and whatever is done is kept."""

from __future__ import annotations

import errno
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from omnifusion import __version__
from omnifusion.clip.prepare import Clip
from omnifusion.color import compose, to_uint8
from omnifusion.driver import Result
from omnifusion.metrics import ciede2000, psnr, ssim
from omnifusion.picture import overlay
from omnifusion.settings import Settings
from omnifusion.state import Colored, ColorState, InputError, Iteration, Origin, Round, Step, Steps
from omnifusion.video import Writer, write_image

PARTS = ("frames", "iterations", "colorized.mp4", "origin.mp4", "report.json", "tracker.pt")
"""All that a run writes, and all that ``--overwrite`` may remove."""


class RunFolder:
    """Receives a run.

    Args:
        path: a folder that is empty, does not exist yet, or holds an earlier run.
        overwrite: replace an earlier run; other people's files are never touched.

    Raises:
        InputError: the folder holds something, or cannot be written.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{path} is a file; name a folder for the results.")
        present = [part for part in PARTS if (self.path / part).exists()]
        if present and not overwrite:
            raise InputError(f"{path} holds another run; name another folder, or add --overwrite to replace it.")
        with writing(self.path):
            for part in present:
                target = self.path / part
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            for folder in ("frames", "iterations"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        self.state: ColorState | None = None
        self.iterations: list[Iteration] = []

    def require_space(self, clip: Clip) -> None:
        """Raise InputError where the results would not fit the disk (a generous estimate: raw frames)."""
        needed = 2 * clip.video.frames.size
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise InputError(
                f"About {needed >> 20} MiB are needed in {self.path}, but only {free >> 20} MiB are free; "
                "make room, or colour fewer frames with --frames."
            )

    def watch(self, step: Step) -> None:
        """Note what a step of the driver did; of an inpainting keep the frame before, its grey part, and after."""
        if isinstance(step, Round):
            self.iterations.append(step.result)
        if not isinstance(step, Colored):
            return
        before, self.state = self.state, step.state
        if step.stage == "inpaint" and before is not None and step.frame is not None:
            name, i = f"{step.iteration:04d}_frame{step.frame:04d}", step.frame
            grey = (~before.mask[i]).numpy().astype(np.uint8) * 255
            with writing(self.path):
                write_image(self.path / "iterations" / f"{name}_before.png", working_frame(before, i))
                write_image(self.path / "iterations" / f"{name}_mask.png", np.repeat(grey[None], 3, 0))
                write_image(self.path / "iterations" / f"{name}_after.png", working_frame(step.state, i))

    def finish(self, clip: Clip, settings: Settings, result: Result | None) -> Steps[dict[str, Any]]:
        """Write frames and films at full size, frame by frame, and the report; returns the report.

        ``result`` is None for a run that was interrupted: what it had coloured is written all the same.
        """
        video, state = clip.video, self.state or ColorState.grey(clip.L)
        kind, scores = state.kind.numpy(), Scores()
        with (
            writing(self.path),
            Writer(self.path / "colorized.mp4", video) as film,
            Writer(self.path / "origin.mp4", video) as tinted,
        ):
            for t in range(len(video)):
                frame = clip.full_size(state, t)
                write_image(self.path / "frames" / f"{t:05d}.png", frame)
                film.add(frame)
                tinted.add(overlay(frame.transpose(1, 2, 0), kind[t]).transpose(2, 0, 1))
                if clip.truth and t not in clip.exemplars:
                    scores.add(frame, np.asarray(video.frames[t]))
                yield Step("finish", "writing the film", done=(t + 1) / len(video))
        report = self._report(clip, settings, state, result, scores.means())
        with writing(self.path):
            (self.path / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        return report

    def _report(
        self, clip: Clip, settings: Settings, state: ColorState, result: Result | None, scores: dict[str, float]
    ) -> dict[str, Any]:
        kind = state.kind
        seconds, peak = (result.seconds, result.peak_mib) if result else ({}, {})
        return {
            "frames": len(state),
            "size": list(clip.video.size),
            "working_size": list(state.L.shape[-2:]),
            "complete": bool(state.mask.all()),
            "exemplars": sorted(clip.exemplars),
            "settings": asdict(settings),
            "seed": settings.seed,
            "versions": versions(),
            "origin": {origin.name.lower(): int((kind == int(origin)).sum()) for origin in Origin},
            "iterations": [asdict(iteration) for iteration in self.iterations],
            "stages": [{"name": s, "seconds": round(seconds[s], 2), "peak_mib": round(peak[s])} for s in seconds],
            "scores": scores,
            "notes": list(clip.notes),
        }


class Scores:
    """PSNR, SSIM and CIEDE2000 of the frames seen so far, against the truth."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []

    def add(self, frame: np.ndarray, truth: np.ndarray) -> None:
        """One frame and its truth, ``(3, H, W)`` uint8."""
        self._rows.append([float(metric(frame[None], truth[None])[0]) for metric in (psnr, ssim, ciede2000)])

    def means(self) -> dict[str, float]:
        """The means by name; empty where nothing was scored."""
        if not self._rows:
            return {}
        return dict(zip(("psnr", "ssim", "ciede2000"), np.mean(self._rows, axis=0).round(4).tolist(), strict=True))


def working_frame(state: ColorState, frame: int) -> np.ndarray:
    """A frame at the working size with the colours known so far, ``(3, h, w)`` uint8."""
    return to_uint8(compose(state.L[frame], state.ab[frame])).numpy()


def versions() -> dict[str, str]:
    """Of all that decides a result."""
    packages = ("torch", "diffusers", "opencv-python-headless", "numpy")
    return {"omnifusion": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"The disk that holds {path} is full; make room and run again.") from error
        raise InputError(f"Cannot write to {path}: {error.strerror or error}; name another folder.") from error
