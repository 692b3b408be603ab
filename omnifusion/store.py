"""The folder of a run: nothing of anybody's is overwritten, whatever is done is kept, and a run can be opened again."""

from __future__ import annotations

import errno
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion import __version__
from omnifusion.clip.prepare import Clip
from omnifusion.color import compose, to_uint8
from omnifusion.driver import Result
from omnifusion.metrics import ciede2000, psnr, ssim
from omnifusion.omnimotion import OmniMotion
from omnifusion.picture import overlay
from omnifusion.settings import Settings
from omnifusion.state import (
    Colored,
    ColorState,
    Fitted,
    InputError,
    Iteration,
    Note,
    Origin,
    Round,
    Step,
    Steps,
    Tracker,
)
from omnifusion.video import Writer, read, read_image, write_image

PARTS = (
    "frames", "iterations", "colorized.mp4", "origin.mp4", "report.json", "tracker.pt", "origin.npz", "ab.npz",
    "exemplar_*.png", "request.json",
)  # fmt: skip
"""All that a run writes, as patterns, and all that ``--overwrite`` may remove."""

METRICS = {"psnr": psnr, "ssim": ssim, "ciede2000": ciede2000}
"""What a result is scored by where the truth is known."""


@dataclass(frozen=True)
class Request:
    """What was asked for; enough, with the clip and its exemplars, to run it again.

    Attributes:
        name: the clip's name as people know it; only ever shown, never used as a path.
        settings: the choices of the run.
        frames: how many frames were coloured at most, None = all.
        exemplars: the frames for which a picture was given.
        force: whether pictures that do not seem to show their frame were accepted.
        source: the clip's file or folder where the run's folder does not hold it.
    """

    name: str
    settings: Settings
    frames: int | None = None
    exemplars: tuple[int, ...] = ()
    force: bool = False
    source: str | None = None


@dataclass(frozen=True)
class Stored:
    """A run in its folder; ``source`` is the clip's file where neither the folder nor the request has it."""

    token: str
    folder: Path
    request: Request
    report: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None

    @property
    def clip(self) -> Path:
        """The clip as it was given."""
        given = self.source or self.request.source
        return Path(given) if given else next(self.folder.glob("clip.*"))

    def exemplar(self, frame: int) -> Path:
        """The picture that was given for a frame."""
        return self.folder / exemplar_name(frame)

    def frame(self, index: int) -> np.ndarray:
        """A frame of the result at full size, ``(H, W, 3)`` uint8."""
        path = self.folder / "frames" / f"{index:05d}.png"
        picture = read_image(path) if path.is_file() else _decoded(self.folder / "colorized.mp4")[index]
        return np.ascontiguousarray(picture.transpose(1, 2, 0))

    def origin(self) -> np.ndarray:
        """How every pixel came by its colour, ``(T, h, w)`` int16 as in ``ColorState.origin``."""
        with np.load(self.folder / "origin.npz") as arrays:
            return np.array(arrays["origin"])

    def state(self, L: Tensor) -> ColorState:
        """The colours at the working size; ``L`` ``(T, 1, h, w)`` is the clip's luminance there."""
        with np.load(self.folder / "ab.npz") as arrays:
            ab, confidence = (torch.from_numpy(arrays[name]) for name in ("ab", "confidence"))
        return ColorState(L, ab, torch.from_numpy(self.origin()), confidence)

    def trackers(self) -> dict[int, Tracker]:
        """The fitted trackers by the first frame of their shot; empty where there was none yet."""
        path = self.folder / "tracker.pt"
        states = torch.load(path, weights_only=True) if path.is_file() else {}
        return {int(start): OmniMotion.from_state(state) for start, state in states.items()}


def open_run(folder: Path) -> Stored:
    """The run in ``folder``, complete or not.

    Raises:
        InputError: there is none.
    """
    try:
        given = json.loads((folder / "request.json").read_text())
        settings = Settings.from_mapping(given.pop("settings"))
        request = Request(**given | {"settings": settings, "exemplars": tuple(given["exemplars"])})
        report = folder / "report.json"
        return Stored(folder.name, folder, request, json.loads(report.read_text()) if report.is_file() else {})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder} does not hold a run that can be opened again; run it anew.") from error


def exemplar_name(frame: int) -> str:
    """The file of the picture that was given for a frame."""
    return f"exemplar_{frame:05d}.png"


@lru_cache(maxsize=4)
def _decoded(path: Path) -> np.ndarray:
    return read(path).frames


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
        present = [found for part in PARTS for found in self.path.glob(part)]
        if present and not overwrite:
            raise InputError(f"{path} holds another run; name another folder, or add --overwrite to replace it.")
        with writing(self.path):
            for target in present:
                shutil.rmtree(target) if target.is_dir() else target.unlink()
            for folder in ("frames", "iterations"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        self.state: ColorState | None = None
        self.iterations: list[Iteration] = []
        self.trackers: dict[int, Tracker] = {}
        self.notes: list[str] = []

    def require_space(self, clip: Clip) -> None:
        """Raise InputError where the results would not fit the disk (a generous estimate: raw frames)."""
        needed = 2 * clip.video.frames.size
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise InputError(
                f"About {needed >> 20} MiB are needed in {self.path}, but only {free >> 20} MiB are free; "
                "make room, or colour fewer frames with --frames."
            )

    def watch(self, step: Step) -> Step:
        """Note what a step of the driver did, and pass it on; of an inpainting keep the frame before, its grey part,
        and after."""
        if isinstance(step, Round):
            self.iterations.append(step.result)
        if isinstance(step, Fitted):
            self.trackers[step.start] = step.tracker
        if isinstance(step, Note) and step.message not in self.notes:
            self.notes.append(step.message)
        if isinstance(step, Colored):
            self._color(step)
        return step

    def _color(self, step: Colored) -> None:
        before, self.state = self.state, step.state
        if step.stage == "inpaint" and before is not None and step.frame is not None:
            name, i = f"{step.iteration:04d}_frame{step.frame:04d}", step.frame
            grey = (~before.mask[i]).numpy().astype(np.uint8) * 255
            with writing(self.path):
                write_image(self.path / "iterations" / f"{name}_before.png", working_frame(before, i))
                write_image(self.path / "iterations" / f"{name}_mask.png", np.repeat(grey[None], 3, 0))
                write_image(self.path / "iterations" / f"{name}_after.png", working_frame(step.state, i))

    def finish(self, clip: Clip, settings: Settings, result: Result | None) -> Steps[dict[str, Any]]:
        """Write frames and films at full size, frame by frame, the run's state, and the report; returns the report.

        ``result`` is None for a run that was interrupted: what it had coloured is written all the same.
        """
        video, state = clip.video, self.state or ColorState.grey(clip.L)
        kind, rows = state.kind.numpy(), []
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
                    truth = np.asarray(video.frames[t])
                    rows.append([float(metric(frame[None], truth[None])[0]) for metric in METRICS.values()])
                yield Step("finish", "writing the film", done=(t + 1) / len(video))
        scores = dict(zip(METRICS, np.mean(rows, axis=0).round(4).tolist(), strict=True)) if rows else {}
        report = self._report(clip, settings, state, result, scores)
        with writing(self.path):
            save_state(self.path, state, self.trackers)
            (self.path / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        return report

    def keep(self, request: Request, exemplars: Mapping[int, np.ndarray]) -> Stored:
        """Write what was asked and the pictures that were given, frame -> ``(3, H, W)`` uint8: the last files of a run,
        so that a folder without ``request.json`` is not one."""
        with writing(self.path):
            for frame, picture in exemplars.items():
                write_image(self.path / exemplar_name(frame), picture)
            save_request(self.path, request)
        return open_run(self.path)

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
            **clip.report(),
            "settings": asdict(settings),
            "seed": settings.seed,
            "versions": versions(),
            "origin": {origin.name.lower(): int((kind == int(origin)).sum()) for origin in Origin},
            "iterations": [asdict(iteration) for iteration in self.iterations],
            "stages": [{"name": s, "seconds": round(seconds[s], 2), "peak_mib": round(peak[s])} for s in seconds],
            "scores": scores,
            "notes": [*clip.notes, *self.notes],
        }


def working_frame(state: ColorState, frame: int) -> np.ndarray:
    """A frame at the working size with the colours known so far, ``(3, h, w)`` uint8."""
    return to_uint8(compose(state.L[frame], state.ab[frame])).numpy()


def save_state(folder: Path, state: ColorState, trackers: Mapping[int, Tracker]) -> None:
    """Write what the pictures do not hold: the origins, the colours unrounded, and the fitted trackers."""
    np.savez_compressed(folder / "origin.npz", origin=state.origin.numpy())
    np.savez_compressed(folder / "ab.npz", ab=state.ab.numpy(), confidence=state.confidence.numpy())
    if trackers:
        states = {start: tracker.state_dict() for start, tracker in trackers.items()}  # type: ignore[attr-defined]
        torch.save(states, folder / "tracker.pt")


def save_request(folder: Path, request: Request) -> None:
    """Write what was asked."""
    (folder / "request.json").write_text(json.dumps(asdict(request), indent=2) + "\n")


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
