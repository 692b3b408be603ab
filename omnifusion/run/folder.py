"""The folder of a run: nothing of anybody's is overwritten, whatever is done is kept, and a run can be opened again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.algorithm import Result
from omnifusion.clip.prepare import Clip
from omnifusion.omnimotion import OmniMotion
from omnifusion.progress import Colored, Costs, Fitted, InputError, Note, Round, Step, Steps
from omnifusion.run.cache import Cache, Colors, frames_of, save_state, versions
from omnifusion.run.export import deliver, mean_scores
from omnifusion.run.segments import disk_mib
from omnifusion.settings import Settings
from omnifusion.stages import device
from omnifusion.state import ColorState, Iteration, Origin, Tracker
from omnifusion.video import read, read_image, write_image

PARTS = (
    "frames", "iterations", "colorized.*", "origin.mp4", "report.json", "tracker.pt", "origin.npz", "ab.npz",
    "exemplar_*.png", "request.json", "corrections", "units",
)  # fmt: skip
"""All that a run writes, as patterns, and all that ``--overwrite`` may remove."""

RESULTS = PARTS[:-1]
"""What is written anew at the end of each run, units aside."""


@dataclass(frozen=True)
class Request:
    """What was asked for; enough, with the clip and its exemplars, to run it again.

    Attributes:
        name: the clip's name as people know it; only ever shown, never used as a path.
        settings: the choices of the run.
        frames: how many frames were colored at most, None = all.
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

    @property
    def mends(self) -> bool:
        """Whether it holds what a correction needs; the shipped examples are without."""
        return (self.folder / "ab.npz").is_file()

    def exemplar(self, frame: int) -> Path:
        """The picture that was given for a frame."""
        return self.folder / exemplar_name(frame)

    def frame(self, index: int) -> np.ndarray:
        """A frame of the result at full size, ``(H, W, 3)`` uint8."""
        path = self.folder / "frames" / f"{index:05d}.png"
        picture = read_image(path) if path.is_file() else _decoded(self.folder / "colorized.mp4")[index]
        return np.ascontiguousarray(picture.transpose(1, 2, 0))

    def origin(self) -> np.ndarray:
        """How every pixel came by its color, ``(T, h, w)`` int16 as in ``ColorState.origin``."""
        with np.load(self.folder / "origin.npz") as arrays:
            return np.array(arrays["origin"])

    def chroma(self) -> Tensor:
        """Its a*, b* at the working size, unrounded, ``(T, 2, h, w)``.

        Raises:
            InputError: it ships without them.
        """
        if not self.mends:
            raise InputError(f"{self.folder} does not hold its colors unrounded; run it anew.")
        with np.load(self.folder / "ab.npz") as arrays:
            return torch.from_numpy(arrays["ab"])

    def state(self, L: Tensor) -> ColorState:
        """The colors at the working size; ``L`` ``(T, 1, h, w)`` is the clip's luminance there."""
        with np.load(self.folder / "ab.npz") as arrays:
            if "source" not in arrays:
                raise InputError(f"{self.folder} was made by an earlier version; run it anew.")
            ab, confidence, source = (torch.from_numpy(arrays[name]) for name in ("ab", "confidence", "source"))
        return ColorState(L, ab, torch.from_numpy(self.origin()), confidence, source)

    def trackers(self) -> dict[int, Tracker]:
        """The fitted trackers by the first frame of their shot; empty where there was none yet."""
        path = self.folder / "tracker.pt"
        states = torch.load(path, weights_only=True) if path.is_file() else {}
        return {int(start): OmniMotion.from_state(state, device()) for start, state in states.items()}


def open_run(folder: Path) -> Stored:
    """The run in ``folder``, complete or not.

    Raises:
        InputError: there is none.
    """
    try:
        settle(folder)
        given = json.loads((folder / "request.json").read_text())
        settings = Settings.from_mapping(given.pop("settings"))
        request = Request(**given | {"settings": settings, "exemplars": tuple(given["exemplars"])})
        report = folder / "report.json"
        return Stored(folder.name, folder, request, json.loads(report.read_text()) if report.is_file() else {})
    except (OSError, ValueError, TypeError, KeyError, InputError) as error:
        raise InputError(f"{folder} does not hold a run that can be opened again; run it anew.") from error


def settle(folder: Path) -> None:
    """Do what is left to do of a correction that was decided: its files take the places of those before.

    Raises:
        OSError: the disk refuses.
    """
    for link in sorted((folder / "corrections").glob("[0-9]" * 4)):
        after = link / "after"
        for file in [f for f in after.rglob("*") if f.is_file()]:
            os.replace(file, folder / file.relative_to(after))
            for made in ("frames.zip", "chroma.mkv"):  # anew when it is asked for
                (folder / made).unlink(missing_ok=True)
        shutil.rmtree(after, ignore_errors=True)
        if not (link / "before").is_dir():  # it was undone
            shutil.rmtree(link)


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
        source: a hash of the input; an earlier run on the same input goes on.

    Raises:
        InputError: the folder holds something, or cannot be written.
    """

    def __init__(self, path: Path, overwrite: bool = False, source: str | None = None) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{path} is a file; name a folder for the results.")
        self.cache, named = Cache(self.path / "units"), self.path / "units" / "input.txt"
        same = source is not None and named.is_file() and named.read_text() == source
        if self._present() and not (overwrite or same):
            raise InputError(f"{path} holds another run", {"": "name another folder", "overwrite": "replace it"})
        with writing(self.path):
            if overwrite:
                self._clear(PARTS)
            if source is None:
                self._clear(RESULTS)
            else:
                self.cache.folder.mkdir(parents=True, exist_ok=True)
                named.write_text(source)
        self.state: ColorState | None = None
        self.iterations: list[Iteration] = []
        self.trackers: dict[int, Tracker] = {}
        self.notes: list[str] = []

    def _present(self, parts: Iterable[str] = PARTS) -> list[Path]:
        return [found for part in parts for found in self.path.glob(part)]

    def _clear(self, parts: Iterable[str]) -> None:
        """Remove what an earlier run wrote, and make place for this one's pictures."""
        for target in self._present(parts):
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        for folder in ("frames", "iterations"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)

    def require_space(self, clip: Clip) -> None:
        """Raise InputError where the results would not fit the disk."""
        needed, free = disk_mib(clip), shutil.disk_usage(self.path).free >> 20
        if free < needed:
            raise InputError(
                f"About {needed} MiB are needed in {self.path}, but only {free} MiB are free",
                {"": "make room", "frames": "color fewer frames"},
            )

    def watch(self, step: Step) -> Step:
        """Note what a step of the driver did, and pass it on."""
        if isinstance(step, Round):
            self.iterations.append(step.result)
        if isinstance(step, Fitted):
            self.trackers[step.start] = step.tracker
        if isinstance(step, Note) and step.message not in self.notes:
            self.notes.append(step.message)
        if isinstance(step, Colored):
            self.state = step.state
        return step

    def finish(
        self,
        clip: Clip,
        settings: Settings,
        result: Result | Costs | None,
        colors: Colors | None = None,
        format: str = "h264",
        threads: int = 1,
    ) -> Steps[dict[str, Any]]:
        """Write frames and films at full size, frame by frame, the run's state, and the report; returns the report.

        Args:
            result: what it took; None for a run that was interrupted: what it had colored is written all the same.
            colors: of the whole clip, where it is not in the state that was watched last.
            format, threads: see ``deliver``.
        """
        colors = colors or partial(frames_of, self.state or ColorState.gray(clip.L))
        with writing(self.path):
            self._clear(RESULTS)
            counts, rows = yield from deliver(self.path, clip, colors, format, threads)
            report = self._report(clip, settings, counts, result, mean_scores(rows))
            save_state(self.path, len(clip.video), colors, self.trackers)
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
        self,
        clip: Clip,
        settings: Settings,
        counts: Mapping[int, int],
        result: Result | Costs | None,
        scores: dict[str, float],
    ) -> dict[str, Any]:
        seconds, peak = (result.seconds, result.peak_mib) if result else ({}, {})
        return {
            "frames": len(clip.video),
            "size": list(clip.video.size),
            "working_size": list(clip.size),
            "complete": not counts[-1],
            "exemplars": sorted(clip.exemplars),
            **clip.report(),
            "settings": asdict(settings),
            "seed": settings.seed,
            "versions": versions() | {"device": device()},
            "origin": {origin.name.lower(): counts[origin] for origin in Origin},
            "iterations": [asdict(iteration) for iteration in self.iterations],
            "stages": [{"name": s, "seconds": round(seconds[s], 2), "peak_mib": round(peak[s])} for s in seconds],
            "scores": scores,
            "notes": [*clip.notes, *self.notes],
        }


def save_request(folder: Path, request: Request) -> None:
    """Write what was asked."""
    (folder / "request.json").write_text(json.dumps(asdict(request), indent=2) + "\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"The disk that holds {path} is full; make room and run again.") from error
        raise InputError(f"Cannot write to {path}: {error.strerror or error}; name another folder.") from error
