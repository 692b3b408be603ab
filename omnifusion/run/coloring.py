"""The segments of one run: colored here, by other processes, or by a Ray cluster, or taken from before."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from omnifusion.clip.prepare import Clip
from omnifusion.clip.shots import Shot
from omnifusion.progress import (
    Canceled,
    Colored,
    InputError,
    Step,
    Steps,
    check_canceled,
    is_canceled,
    map_steps,
    run_to_end,
)
from omnifusion.run.folder import Manifest, link, write_text
from omnifusion.run.segments import (
    Record,
    Segment,
    colors_name,
    frame_colors,
    load_colors,
    load_tracker,
    save_colors,
    tracker_name,
)
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import ColorState

TRIES = 4
"""How often a segment is begun whose worker dies."""


@dataclass
class Coloring:
    """The segments of a run.

    Attributes:
        clip, clip_hash, settings: what is asked; the hash is of the clip's content.
        shots: the segments in an order in which they can be colored (``windows``).
        manifest: of the run's folder.
        reuse: folders of other runs on the same clip.
        records: of the segments that are colored, by their first frames.
    """

    clip: Clip
    clip_hash: str
    settings: Settings
    shots: Sequence[Shot]
    manifest: Manifest
    reuse: Sequence[Path] = ()
    records: dict[int, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.manifest.folder
        self._earlier = {folder: _read_records(folder) for folder in (self.folder, *self.reuse)}
        self._keys = dict[int, str]()
        self.segments = [self._segment(shot) for shot in self.shots]
        trackers = [tracker_name(shot.start) for shot in self.shots if self.settings.omnimotion != "off"]
        self.manifest.claim("segments.json", *map(colors_name, range(len(self.clip.video))), *trackers)

    def color_here(self, stages: Stages) -> Steps[None]:
        """Color all segments in this process, one after another; raises Canceled, once what is done is kept."""
        for segment in self.segments:
            if self._find(segment):
                continue
            before, share = self.done(), len(segment.shot) / len(self.clip.video)

            def in_run(step: Step, before: float = before, share: float = share) -> Step:
                return replace(step, done=before + step.done * share) if isinstance(step, Colored) else step

            record = yield from map_steps(segment.color(self.folder, stages), in_run)
            self._add(segment, record)
            if not record["key"]:
                raise Canceled

    def color_by(self, pool: LocalPool | RayPool) -> Steps[None]:
        """Color all segments by workers: whichever is ready, as many at once as there are workers.

        Raises:
            InputError: as ``Segment.color``; or a segment's workers died, again and again.
        """
        waiting, running, deaths = list(self.segments), {}, Counter[int]()  # type: ignore[var-annotated]
        try:
            while waiting or running:
                while len(running) < pool.size and (segment := next(filter(self._ready, waiting), None)):
                    waiting.remove(segment)
                    if not self._find(segment):
                        running[pool.submit(segment, self.folder)] = segment
                finished, _ = wait(running, 0.5, FIRST_COMPLETED)
                check_canceled()
                for future in finished:
                    segment, shot = running[future], running.pop(future).shot
                    try:
                        self._add(segment, future.result())
                    except BrokenExecutor as error:
                        waiting.insert(0, segment)
                        deaths[shot.start] += 1
                        if deaths[shot.start] == TRIES:
                            raise InputError(
                                f"A worker died {TRIES} times at frames {shot.start} to {shot.stop - 1}, often for "
                                "lack of memory; run again with fewer workers or less memory."
                            ) from error
                names = ", ".join(f"{s.shot.start} to {s.shot.stop - 1}" for s in running.values())
                done = f"{len(self.records)} of {len(self.shots)} parts are colored"
                yield Step("propagate", done + (f"; at frames {names}" if names else ""), self.done())
        finally:
            pool.close()
            for future, segment in running.items():
                with suppress(Exception):  # what has ended otherwise has nothing to keep
                    self._add(segment, future.result(timeout=0))

    def leave_gray(self) -> None:
        """Write the frames of the segments of which there is nothing."""
        gray = frame_colors(ColorState.gray(torch.zeros(1, 1, *self.clip.size)), 0, [0])
        for shot in [shot for shot in self.shots if shot.start not in self.records]:
            for frame in range(shot.start, shot.stop):
                save_colors(self.folder / colors_name(frame), gray)
            self.records[shot.start] = {"key": "", "iterations": [], "notes": [], "seconds": {}, "peak_mib": {}}

    def done(self) -> float:
        """The share of frames that are colored."""
        return sum(len(shot) for shot in self.shots if shot.start in self.records) / len(self.clip.video)

    def _segment(self, shot: Shot) -> Segment:
        external = [self._keys[frame] for frame in shot.external_frames]
        segment = Segment.of(self.clip, self.clip_hash, shot, self.settings, external)
        self._keys |= dict.fromkeys(range(shot.start, shot.stop), segment.key)
        return segment

    def _ready(self, segment: Segment) -> bool:
        colored = {record["key"] for record in self.records.values()}
        return all(self._keys[frame] in colored for frame in segment.shot.external_frames)

    def _find(self, segment: Segment) -> bool:
        """Take a segment from before, from this run or another, if it is the same; else its tracker if that is."""
        start, tracker = segment.shot.start, tracker_name(segment.shot.start)
        names = [colors_name(frame) for frame in range(start, segment.shot.stop)]
        same = [
            folder
            for folder, records in self._earlier.items()
            if records.get(start, {}).get("key") == segment.key
            and all(load_colors(folder / name, segment.key) for name in names)
        ]
        fits = self.settings.omnimotion != "off"
        fitted = [folder for folder in self._earlier if fits and load_tracker(folder / tracker, segment.fit_key)]
        for folders, taken in ((same, names), (fitted, [tracker])):
            for name in taken if folders and folders[0] != self.folder else []:
                (self.folder / name).unlink(missing_ok=True)
                link(folders[0] / name, self.folder / name)
        if same:
            self._add(segment, self._earlier[same[0]][start])
        return bool(same)

    def _add(self, segment: Segment, record: Record) -> None:
        """Note that a segment is colored."""
        self.records[segment.shot.start] = self._earlier[self.folder][segment.shot.start] = record
        write_text(self.folder / "segments.json", json.dumps(self._earlier[self.folder]))


def _read_records(folder: Path) -> dict[int, Record]:
    try:
        return {int(start): record for start, record in json.loads((folder / "segments.json").read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


class LocalPool:
    """Processes on this machine, of ``threads`` threads each; ``size`` segments are colored at once."""

    def __init__(self, size: int, threads: int) -> None:
        self.size, self._context = size, multiprocessing.get_context("spawn")
        self._known = (threads, os.getpid(), self._context.Event())
        self._executor = ProcessPoolExecutor(size, self._context, _begin, self._known)

    def submit(self, segment: Segment, folder: Path) -> Future[Record]:
        """Begin to color a segment; where a process has died, all are started anew."""
        try:
            return self._executor.submit(_color, segment, folder)
        except BrokenExecutor:
            self._executor = ProcessPoolExecutor(self.size, self._context, _begin, self._known)
            return self._executor.submit(_color, segment, folder)

    def close(self) -> None:
        """End what was begun, at the workers' next steps."""
        self._known[2].set()
        self._executor.shutdown(cancel_futures=True)


def _begin(threads: int, parent: int, stop: Event) -> None:
    """Prepare a worker process: an interruption is its parent's affair, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    is_canceled.set(lambda: stop.is_set() or os.getppid() != parent)


def _color(segment: Segment, folder: Path) -> Record:
    return run_to_end(segment.color(folder, Stages(threads=torch.get_num_threads())))


class RayPool:
    """The machines of the Ray cluster at ``address`` ("ray://head:10001"), to which clip and run have the same paths;
    each segment may take ``mib`` MiB.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str, mib: float) -> None:
        try:
            import ray
        except ImportError as error:
            raise InputError("Ray is not installed; install omnifusion[ray] (or requirements-ray.txt).") from error
        home = str(Path(__file__).parents[2])
        try:
            ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": home}}, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"The Ray cluster {address} cannot be reached ({error}).") from error
        self._remote = ray.remote(num_cpus=1, memory=round(mib * 2**20), max_retries=3)(_color)
        self.size = max(1, round(ray.cluster_resources().get("CPU", 1)))
        self.close: Callable[[], None] = ray.shutdown

    def submit(self, segment: Segment, folder: Path) -> Future[Record]:
        """Begin to color a segment."""
        return self._remote.remote(segment, folder).future()
