"""The segments of one run: which are colored, which can be taken from before, and their colors as the clip's."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnifusion.algorithm import prior_everywhere
from omnifusion.clip.prepare import Clip
from omnifusion.clip.shots import Shot
from omnifusion.prior.source import check_source
from omnifusion.progress import Colored, Costs, InputError, Round, Step, StepIterator, Steps, check_canceled
from omnifusion.run.colors import colors_name, load_colors, load_tracker, save_colors, tracker_name
from omnifusion.run.folder import Manifest, link
from omnifusion.run.segments import Segment, color_segment, frame_colors, segment_of
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import ColorState, Iteration

Record = dict[str, Any]
"""What is known of a colored segment; see ``color_segment``."""


@dataclass
class Coloring:
    """The segments of a run.

    Attributes:
        clip, settings: what is asked.
        shots: the segments in an order in which they can be colored (``windows``).
        manifest: of the run's folder.
        reuse: folders of other runs on the same clip.
        records: of the segments that are colored, by their first frames.
        begun: the newest step of the segment that is being colored in this process, and its ``rounds``.
    """

    clip: Clip
    settings: Settings
    shots: Sequence[Shot]
    manifest: Manifest
    reuse: Sequence[Path] = ()
    records: dict[int, Record] = field(default_factory=dict)
    begun: Colored | None = None
    rounds: list[Iteration] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.manifest.folder
        self._exemplars = self.clip.exemplar_ab()
        self._earlier = {folder: _read_records(folder) for folder in (self.folder, *self.reuse)}

    def claim(self) -> None:
        """Claim its files.

        Raises:
            InputError: a segment will ask a prior that is not there; said before anything costs time.
        """
        if any(
            prior_everywhere(self.settings) or not (s.external_frames or any(e in s for e in self.clip.exemplars))
            for s in self.shots
        ):
            check_source(self.settings)
        fitted = [tracker_name(shot.start) for shot in self.shots] if self.settings.omnimotion != "off" else []
        self.manifest.claim("segments.json", *map(colors_name, range(len(self.clip.video))), *fitted)

    def ready(self, shot: Shot) -> bool:
        """Whether all segments whose colors it needs are colored."""
        return all(self._owner(frame).start in self.records for frame in shot.external_frames)

    def segment(self, shot: Shot) -> Segment:
        """The segment of a shot that is ready."""
        external = [self.colors(frame, 0) for frame in shot.external_frames]
        return segment_of(self.clip, shot, self._exemplars, self.settings, external)

    def find(self, segment: Segment, key: str) -> bool:
        """Take a segment from before, from this run or another, if it is the same; else at least its tracker."""
        for folder, records in self._earlier.items():
            record = records.get(segment.start)
            names = [colors_name(frame) for frame in segment.own_frames]
            if record and record["key"] == key and all(load_colors(folder / name, key) for name in names):
                if folder != self.folder:
                    self._take(folder, names + [tracker_name(segment.start)] * (self.settings.omnimotion != "off"))
                self.add(segment.start, record)
                return True
        if self.settings.omnimotion != "off":
            name = tracker_name(segment.start)
            known = [f for f in self._earlier if load_tracker(f / name, segment.fit_key) is not None]
            if known and known[0] != self.folder:
                self._take(known[0], [name])
        return False

    def _take(self, folder: Path, names: Sequence[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
            link(folder / name, self.folder / name)

    def add(self, start: int, record: Record) -> None:
        """Note that a segment is colored."""
        self.records[start] = record
        self.begun, self.rounds = None, []
        earlier = {s: r for s, r in self._earlier[self.folder].items() if s not in self.records}
        part = self.folder / ".segments.part"
        part.write_text(json.dumps({**earlier, **self.records}))
        os.replace(part, self.folder / "segments.json")

    def color_here(self, stages: Stages) -> Steps[None]:
        """Color all segments in this process, one after another; those that are kept already cost a look."""
        for shot in self.shots:
            segment, before = self.segment(shot), self.done()
            key = segment.key
            if self.find(segment, key):
                yield Step("propagate", f"frames {shot.start} to {shot.stop - 1} are kept from before", self.done())
                continue
            work = StepIterator(color_segment(segment, key, self.folder, stages))
            for step in work:
                if isinstance(step, Colored):
                    step = replace(step, done=before + step.done * len(shot) / len(self.clip.video))
                    self.begun = step
                if isinstance(step, Round):
                    self.rounds.append(step.result)
                yield step
                check_canceled()
            self.add(shot.start, work.result)

    def keep_begun(self) -> None:
        """Write what there is of the segments that are not finished, gray where there is nothing."""
        gray = ColorState.gray(torch.zeros(1, 1, *self.clip.size))
        for shot in (shot for shot in self.shots if shot.start not in self.records):
            begun = self.begun if self.begun and shot.start in self.begun.frames[: len(self.begun.frames)] else None
            begun = begun if begun and self._owner(shot.start) is shot else None
            for frame in range(shot.start, shot.stop):
                colors = frame_colors(gray, 0, [0])
                if begun:
                    colors = frame_colors(begun.state, list(begun.frames).index(frame), begun.frames)
                save_colors(self.folder / colors_name(frame), colors)
            if begun:
                rows = [asdict(row) for row in self.rounds]
                self.records[shot.start] = {"key": "", "iterations": rows, "notes": [], "seconds": {}, "peak_mib": {}}

    def done(self) -> float:
        """The share of frames that are colored."""
        return sum(len(shot) for shot in self.shots if shot.start in self.records) / len(self.clip.video)

    def colors(self, frame: int, first_iteration: int | None = None) -> dict[str, Tensor]:
        """The colors of a frame whose segment is colored, its iterations counted through the clip, or from 0 on.

        Raises:
            InputError: its file is damaged.
        """
        if first_iteration is None:
            first_iteration = self.first_iterations().get(self._owner(frame).start, 0)
        path = self.folder / colors_name(frame)
        if (colors := load_colors(path, first_iteration=first_iteration)) is None:
            raise InputError(f"{path} is damaged or was removed; run again.")
        return colors

    def first_iterations(self) -> dict[int, int]:
        """First frame of a segment -> the number of its first iteration, counted through the clip."""
        first, numbers = 0, {}
        for start, record in self._in_order():
            numbers[start] = first
            first += len(record["iterations"])
        return numbers

    def iterations(self) -> list[dict[str, int]]:
        """All iterations (``Iteration``), counted through."""
        rows = [row for _, record in self._in_order() for row in record["iterations"]]
        return [{**row, "index": k} for k, row in enumerate(rows)]

    def notes(self) -> list[str]:
        """What the segments say that people should read, each once."""
        return list(dict.fromkeys(note for _, record in self._in_order() for note in record["notes"]))

    def costs(self) -> Costs:
        """What the segments took, whenever that was."""
        costs = Costs()
        for record in self.records.values():
            for stage, seconds in record["seconds"].items():
                costs.seconds[stage] = costs.seconds.get(stage, 0.0) + seconds
                costs.peak_mib[stage] = max(costs.peak_mib.get(stage, 0.0), record["peak_mib"][stage])
        return costs

    def _in_order(self) -> list[tuple[int, Record]]:
        return [(shot.start, self.records[shot.start]) for shot in self.shots if shot.start in self.records]

    def _owner(self, frame: int) -> Shot:
        return next(shot for shot in self.shots if frame in shot)


def _read_records(folder: Path) -> dict[int, Record]:
    try:
        return {int(start): record for start, record in json.loads((folder / "segments.json").read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
