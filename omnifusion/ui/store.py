"""What is on disk: runs by their tokens, and the clips and exemplars of visitors; and the owner's limits."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, Field, ValidationError

from omnifusion.clip.prepare import without_color
from omnifusion.clip.register import register
from omnifusion.clip.shots import find_shots
from omnifusion.geometry import fit_size
from omnifusion.progress import InputError, count
from omnifusion.run.files import exemplar_name, heads
from omnifusion.run.folder import RunFolder, lock, open_run
from omnifusion.state import Video
from omnifusion.ui.parts import EXAMPLES
from omnifusion.video import is_gray, read, read_image, write, write_image

PREVIEW = 512  # longest side of the frames that the page shows of a clip before it is colorized
TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")  # 128 random bits: whoever knows the token of a run may see it

ATTEMPTS, MOST_ATTEMPTS = "attempts.txt", 2
"""How often a run of the page was begun, in its folder; one that has ended the process so often is not begun again."""


def _results() -> Path:
    data = Path("/data")  # where a Hugging Face Space mounts its persistent disk
    base = data if data.is_dir() and os.access(data, os.W_OK) else Path(tempfile.gettempdir())
    return base / "omnifusion-results"


class Limits(BaseModel, frozen=True, populate_by_name=True, allow_inf_nan=False):
    """Limits and folders, by field or by environment variable; the defaults suit a small Space (two cores, 16 GB)."""

    megabytes: int = Field(200, ge=1, validation_alias="OMNIFUSION_MAX_MEGABYTES")  # largest upload
    frames: int = Field(120, ge=1, validation_alias="OMNIFUSION_MAX_FRAMES")  # of a clip, from its start
    pixels: int = Field(3840 * 2160, ge=1, validation_alias="OMNIFUSION_MAX_PIXELS")  # of a frame or picture
    runs: int = Field(1, ge=1, validation_alias="OMNIFUSION_RUNS")  # at once
    queue: int = Field(10, ge=1, validation_alias="OMNIFUSION_QUEUE")  # most runs of one visitor, waiting or at work
    seconds: float = Field(900.0, ge=1, validation_alias="OMNIFUSION_MAX_SECONDS")  # longest run
    mib: float = Field(4096.0, ge=1, validation_alias="OMNIFUSION_MAX_MIB")  # most memory of the page during a run
    vanished: float = Field(900.0, ge=0, validation_alias="OMNIFUSION_VANISHED")  # seconds that a run is left alone
    days: float = Field(7.0, ge=0.001, validation_alias="OMNIFUSION_RESULT_DAYS")  # for which a finished run is kept
    results: Path = Field(default_factory=_results, validation_alias="OMNIFUSION_RESULTS")  # folder of the runs

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits that the machine's owner has chosen; InputError if one is not a number, or too small."""
        try:
            return cls.model_validate({k: v for k, v in os.environ.items() if k.startswith("OMNIFUSION_")})
        except ValidationError as error:
            problem = error.errors()[0]
            advice = problem["msg"].removeprefix("Input should be ")
            raise InputError(f"{problem['loc'][0]} is {problem['input']}; it has to be {advice}.") from None


class Store:
    """The folder of all runs, which are kept for some ``days``, and of what visitors have given."""

    def __init__(self, folder: Path, days: float = 7.0) -> None:
        self.folder, self.days = folder.resolve(), days
        self.visits = self.folder / "visits"
        self.folder.mkdir(parents=True, exist_ok=True)

    def new(self) -> Path:
        """The folder of a new run, still to be made; its name is the token."""
        return self.folder / secrets.token_urlsafe(16)

    def has(self, token: str) -> bool:
        """Whether a visitor's finished run is (still) there."""
        return bool(TOKEN.fullmatch(token)) and (self.folder / token / "report.json").is_file()

    def open(self, token: str) -> RunFolder:
        """A finished run, a visitor's or one of ``EXAMPLES``; InputError if there is none, or not any more."""
        if token in EXAMPLES:
            return EXAMPLES[token]
        if not self.has(token):
            raise InputError(
                f"This link has expired: results are kept for {self.days:g} days. Upload the clip and run it again."
            )
        return open_run(self.folder / token)

    def attempt(self, folder: Path, begins: bool = True) -> None:
        """Record that a run of the page is asked for, or begins, so that ``unfinished`` finds it."""
        with open(folder / ATTEMPTS, "a") as file:
            file.write("|" * begins)

    def unfinished(self) -> Iterator[RunFolder]:
        """The page's runs that an earlier process did not finish, oldest first; all else that it left is removed."""
        for folder in self._runs():
            with suppress(InputError, OSError):
                lock(folder).release()  # or another process has it
                attempts = (folder / ATTEMPTS).stat().st_size if (folder / ATTEMPTS).is_file() else MOST_ATTEMPTS
                if attempts < MOST_ATTEMPTS and not self.has(folder.name):
                    yield open_run(folder)
                elif not self.has(folder.name):
                    shutil.rmtree(folder)

    def keep_expiring(self) -> None:
        """As long as the process lasts, remove runs that are too old, and what visitors have left behind for a day."""

        def expire() -> None:
            while True:
                days = dict.fromkeys(self._runs(), self.days) | dict.fromkeys(self.visits.glob("*"), 1.0)
                for folder, most in days.items():
                    with suppress(OSError):  # it vanishes meanwhile
                        if folder.stat().st_mtime < time.time() - 86400 * most:
                            shutil.rmtree(folder)
                time.sleep(min(3600.0, 8640 * self.days))

        threading.Thread(target=expire, daemon=True, name="expire").start()

    def _runs(self) -> list[Path]:
        """The folders of runs, oldest first."""
        changed = dict[Path, float]()
        for folder in self.folder.glob("*"):
            with suppress(OSError):  # it vanishes meanwhile
                if TOKEN.fullmatch(folder.name):
                    changed[folder] = folder.stat().st_mtime
        return sorted(changed, key=lambda folder: changed[folder])


@dataclass(eq=False)
class VisitorClip:
    """A visitor's clip, and its exemplars."""

    file: Path  # in a folder of its own
    name: str
    frames: int  # as far as it is used
    size: tuple[int, int]  # (H, W)
    color: bool  # whether it holds colors
    cuts: tuple[int, ...]  # the frames at which shots begin
    exemplars: dict[int, Path] = field(default_factory=dict)  # frame -> file of its colored picture
    versions: tuple[int, tuple[Path, ...]] = (0, ())  # a frame, and what the built-in model suggests for it
    runs: set[str] = field(default_factory=set)  # the tokens of the runs that were begun on it

    @property
    def film(self) -> Path:
        """The clip without its colors, small, as every browser plays it."""
        return self.file.with_name("preview.mp4")

    def frame(self, index: int) -> np.ndarray:
        """A frame as it was given, ``(3, H, W)`` uint8."""
        return np.array(read(self.file, self.frames).frames[index])

    def preview(self, index: int) -> np.ndarray:
        """A small frame without its colors, ``(h, w, 3)`` uint8."""
        with heads:
            frames = np.load(self.file.with_name("preview.npy"), mmap_mode="r")
        return without_color(np.array(frames[min(index, len(frames) - 1)])).transpose(1, 2, 0)

    def about(self, most: int) -> str:
        """Facts that its visitor should know at once; at most ``most`` frames of a clip are used."""
        (h, w), places = self.size, " and ".join(", ".join(map(str, self.cuts)).rsplit(", ", 1))
        parts = [f"{self.name}: {count(self.frames, 'frame')}, {w} x {h}."]
        if self.frames == most:
            parts.append(f"Only the first {most} frames of longer clips are used.")
        if self.color:
            parts.append("It is in color: it is made gray, its first frame gives the colors unless you choose others, "
                         "and the result is compared with the original.")  # fmt: skip
        else:
            parts.append("Add one of its frames in color in step 2; without one the colors are guessed.")
        if places:
            cuts = "are cuts at frames" if len(self.cuts) > 1 else "is a cut at frame"
            parts.append(f"There {cuts} {places}. Each shot works best with its own colored frame.")
        return " ".join(parts)

    def attach(self, frame: int, image: np.ndarray, comment: str = "") -> str:
        """Take a picture of a frame itself, ``(3 or 4, H, W)`` uint8, as its exemplar; returns that in words."""
        path = self.file.with_name(exemplar_name(frame))
        write_image(path, image)
        self.exemplars[frame] = path
        return f"Frame {frame} now has its colors. {comment}"

    def attach_picture(self, frame: int, path: str | Path, limits: Limits, force: bool) -> str:
        """Take a colored picture as exemplar of a frame; returns how well the two agree, in words. InputError if it is
        no picture, or does not seem to show this frame."""
        image = read_image(path, limits.pixels, alpha=True)
        if len(image) == 4:
            return self.attach(frame, image, "Where your picture is opaque, it gives the colors.")
        video = read(self.file, self.frames)
        match = register(image, without_color(np.array(video.frames[frame])), force, float(video.pixel_aspect))
        how = "very well" if match.after >= 0.95 else "well" if match.after >= 0.8 else "only roughly"
        more = f"; {match.warning}" if match.warning else "."
        return self.attach(frame, image, f"The picture matches the frame {how} ({match.after:.2f}){more}")


@dataclass(eq=False)
class Visit:
    """A visitor's inputs, changed in place, so that every handler sees the newest, however late it ends."""

    clip: VisitorClip | None = None

    @property
    def name(self) -> str:
        """A name that identifies the clip; "" without one."""
        return self.clip.file.parent.name if self.clip else ""

    @property
    def mark(self) -> str:
        """Changes with the clip and its exemplars."""
        return f"{self.name} {sorted(self.clip.exemplars) if self.clip else ''}"

    def began(self, token: str) -> bool:
        """Whether a run was begun on the clip."""
        return self.clip is not None and token in self.clip.runs

    def require(self) -> VisitorClip:
        """The clip; InputError if there is none, or not any more."""
        if self.clip is None or not self.clip.file.is_file():
            raise InputError("There is no clip yet. Upload one, or click an example.")
        return self.clip

    def exchange(self, clip: VisitorClip | None = None) -> None:
        """Replace the clip by another one, or none."""
        old, self.clip = self.clip, clip
        if old is not None:
            shutil.rmtree(old.file.parent, ignore_errors=True)


def receive_file(path: Path, limits: Limits, home: Path, title: str = "") -> VisitorClip:
    """Take in a clip under a name of our own; InputError if it is no video, or its frames are too large."""
    video = read(path, limits.frames, max_pixels=limits.pixels)
    h, w = fit_size(video.size, PREVIEW)
    pictures = [
        cv2.resize(np.ascontiguousarray(np.asarray(frame).transpose(1, 2, 0)), (w, h), interpolation=cv2.INTER_AREA)
        for frame in video.frames
    ]
    small = Video(np.stack(pictures).transpose(0, 3, 1, 2), video.fps, video.times)
    folder = home / secrets.token_urlsafe(16)
    folder.mkdir(parents=True)
    suffix = path.suffix.lower() if path.suffix[1:].isalnum() and len(path.suffix) <= 5 else ".mp4"
    cuts = tuple(shot.start for shot in find_shots(small)[1:])
    clip = VisitorClip(folder / f"clip{suffix}", title or path.name, len(small), video.size, not is_gray(small), cuts)
    shutil.copyfile(path, clip.file)
    np.save(folder / "preview.npy", small.frames)
    grays = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])
    write(clip.film, Video(np.repeat(grays[:, None], 3, 1), video.fps, video.times))
    return clip


def receive_run(run: RunFolder, limits: Limits, home: Path) -> VisitorClip:
    """Take in the clip and the exemplars of a run, finished or not."""
    clip = receive_file(run.clip, limits, home, run.request.name)
    for frame in run.request.exemplars:
        clip.exemplars[frame] = clip.file.with_name(exemplar_name(frame))
        shutil.copyfile(run.folder / exemplar_name(frame), clip.exemplars[frame])
    return clip
