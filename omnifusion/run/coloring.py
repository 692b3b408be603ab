"""The segments of one run: colored here, by other processes, or by a Ray cluster, or reused from an earlier run."""

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

from omnifusion.clip.prepare import Clip
from omnifusion.clip.shots import Shot
from omnifusion.progress import (
    Canceled,
    Colored,
    InputError,
    Step,
    StepIterator,
    Steps,
    check_canceled,
    is_canceled,
    run_to_end,
)
from omnifusion.run.files import colors_name, link, load_colors, load_tracker, save_colors, tracker_name, write_text
from omnifusion.run.folder import Manifest
from omnifusion.run.segments import Record, Segment, frame_colors
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import ColorState


class Coloring:
    """The segments of a run, and ``records`` of the colored ones, by first frame.

    ``shots`` are the segments in coloring order (``windows``), ``reuse`` the folders of other runs on the same clip.
    """

    def __init__(
        self, clip: Clip, clip_hash: str, settings: Settings, shots: Sequence[Shot], manifest: Manifest,
        reuse: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        self.clip, self.folder, self.records = clip, manifest.folder, dict[int, Record]()
        self._earlier = {folder: _read_records(folder) for folder in (self.folder, *reuse)}
        self.segments, keys = list[Segment](), dict[int, str]()
        for shot in shots:
            segment = Segment.of(clip, clip_hash, shot, settings, [keys[frame] for frame in shot.external_frames])
            keys |= dict.fromkeys(range(shot.start, shot.stop), segment.key)
            self.segments.append(segment)
        trackers = [tracker_name(shot.start) for shot in shots if settings.omnimotion != "off"]
        manifest.claim("segments.json", *map(colors_name, range(len(clip.video))), *trackers)

    def color_here(self, stages: Stages) -> Steps[None]:
        """Color all segments in this process, one after another; raises Canceled, once what is done is kept."""
        for segment in self.segments:
            if not self._take(segment):
                before, share = self.done(), len(segment.shot) / len(self.clip.video)
                work = StepIterator(segment.color(self.folder, stages))
                for step in work:
                    yield replace(step, done=before + step.done * share) if isinstance(step, Colored) else step
                self._add(segment, work.result)

    def color_by(self, pool: "LocalPool | RayPool") -> Steps[None]:
        """Color all segments by workers, each as soon as those it needs are done; raises Canceled, too, and InputError
        where a worker dies."""
        waiting, running = list(self.segments), dict[Future[Record], Segment]()
        try:
            while waiting or running:
                while len(running) < pool.size and (segment := next(filter(self._is_ready, waiting), None)):
                    waiting.remove(segment)
                    if not self._take(segment):
                        running[pool.submit(segment, self.folder)] = segment
                finished, _ = wait(running, 0.5, FIRST_COMPLETED)
                check_canceled()
                for future in finished:
                    self._add(running.pop(future), future.result())
                yield Step("propagate", f"{len(self.records)} of {len(self.segments)} parts are colored", self.done())
        except BrokenExecutor as error:
            raise InputError(
                "A worker has died, often for lack of memory; run again with fewer workers or less memory."
            ) from error
        finally:
            pool.close()
            for future, segment in running.items():
                with suppress(Exception):  # a failed one has nothing to keep
                    self._add(segment, future.result(timeout=0))

    def leave_gray(self) -> None:
        """Write gray frames for the segments that were not begun, nor colored by an earlier run."""
        gray = frame_colors(ColorState.gray(torch.zeros(1, 1, *self.clip.size)), 0, [0])
        missing = (segment for segment in self.segments if segment.shot.start not in self.records)
        for shot in [segment.shot for segment in missing if not self._take(segment)]:
            for frame in range(shot.start, shot.stop):
                save_colors(self.folder / colors_name(frame), gray)

    def done(self) -> float:
        """The share of frames that are colored."""
        return sum(len(s.shot) for s in self.segments if s.shot.start in self.records) / len(self.clip.video)

    def report(self) -> dict[str, Any]:
        """The segments' records combined: iterations counted through the clip, and costs by stage."""
        segments, iterations, warnings, seconds, peaks = [], [], [], Counter[str](), Counter[str]()  # type: ignore[var-annotated]
        for shot in [segment.shot for segment in self.segments]:
            segments.append({"start": shot.start, "stop": shot.stop, "first_iteration": len(iterations)})
            if record := self.records.get(shot.start):
                iterations += [row | {"index": len(iterations) + k} for k, row in enumerate(record["iterations"])]
                warnings += record["warnings"]
                seconds.update(record["seconds"])
                peaks |= Counter(record["peak_mib"])  # the larger of each
        return {
            "segments": sorted(segments, key=lambda segment: segment["start"]),
            "iterations": iterations,
            "stages": [{"name": n, "seconds": round(s, 2), "peak_mib": round(peaks[n])} for n, s in seconds.items()],
            "warnings": warnings,
        }

    def _is_ready(self, segment: Segment) -> bool:
        colored = [other.shot for other in self.segments if other.shot.start in self.records]
        return all(any(frame in shot for shot in colored) for frame in segment.shot.external_frames)

    def _take(self, segment: Segment) -> bool:
        """Reuse a segment that was colored before, here or in another run, under the same key; else its tracker."""
        start, tracker = segment.shot.start, tracker_name(segment.shot.start)
        names = [colors_name(frame) for frame in range(start, segment.shot.stop)]
        for folder, records in self._earlier.items():
            same = records.get(start, {}).get("key") == segment.key
            same = same and all(load_colors(folder / name, segment.key) for name in names)
            fits = load_tracker(folder / tracker, segment.fit_key) is not None
            taken = (names if same else []) + ([tracker] if fits else [])
            for name in taken if folder != self.folder else []:
                link(folder / name, self.folder / name)
            if same:
                self._add(segment, records[start])
                return True
        return False

    def _add(self, segment: Segment, record: Record) -> None:
        """Record a colored segment; raises Canceled if only a part of it is colored."""
        self.records[segment.shot.start] = self._earlier[self.folder][segment.shot.start] = record
        write_text(self.folder / "segments.json", json.dumps(self._earlier[self.folder]))
        if not record["key"]:
            raise Canceled


def _read_records(folder: Path) -> dict[int, Record]:
    try:
        return {int(start): record for start, record in json.loads((folder / "segments.json").read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


class LocalPool:
    """Processes on this machine, of ``threads`` threads each; ``size`` segments are colored at once."""

    def __init__(self, size: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.size, self._threads, self._stop = size, threads, context.Event()
        self._executor = ProcessPoolExecutor(size, context, _begin, (os.getpid(), self._stop))

    def submit(self, segment: Segment, folder: Path) -> Future[Record]:
        """Start coloring a segment."""
        return self._executor.submit(_color, segment, folder, self._threads)

    def close(self) -> None:
        """Stop the workers, at their next steps."""
        self._stop.set()
        self._executor.shutdown(cancel_futures=True)


def _begin(parent: int, stop: Event) -> None:
    """Prepare a worker process: Ctrl-C is left to its parent, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    is_canceled.set(lambda: stop.is_set() or os.getppid() != parent)


def _color(segment: Segment, folder: Path, threads: int = 1) -> Record:
    return run_to_end(segment.color(folder, Stages(threads=threads)))


class RayPool:
    """The Ray cluster at ``address`` ("ray://head:10001"), whose machines see clip and run under the same paths; each
    segment may take ``mib`` MiB. InputError if Ray is not installed, or the cluster cannot be reached."""

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
        """Start coloring a segment; if its worker dies, Ray starts again."""
        return self._remote.remote(segment, folder).future()
