"""A run is done in units: shots, or windows of long ones. Each is kept when it ends, under a hash of all it depends on.

So memory is bounded by the longest unit, a run that was killed goes on where it was, a changed choice redoes only what
depends on it, and units can be done by other processes and machines (``workers``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice, pairwise

import torch
from torch import Tensor

from omnifusion.algorithm import colorize, prior_everywhere
from omnifusion.clip.prepare import Clip
from omnifusion.clip.shots import Shot
from omnifusion.progress import Colored, Costs, Fitted, InputError, Note, StepIterator, Steps
from omnifusion.run.cache import Cache, code, versions
from omnifusion.settings import Settings
from omnifusion.stages import Stages, device
from omnifusion.state import COLORS, ColorState, Iteration, Tracker

PRIOR_ONLY = frozenset({
    "prior", "diffusion", "steps", "eta", "optimizations", "color_condition", "gray_constraint", "through_denoiser",
    "prompt", "negative_prompt", "seed",
})  # fmt: skip
"""Choices that nothing depends on where neither prior nor fit is asked."""

BASE_MIB, FULL_BYTES, FRAME_BYTES = 1600.0, 200, 98
"""Memory of a process, measured (docs/footage.md): MiB at rest and for the flows that are kept, bytes for each pixel of
the input's frames, and bytes for each pixel of all frames of a unit at the working size."""

FEWEST = 8
"""Frames of a unit below which colors would drift from window to window."""


def longest(working: tuple[int, int], full: tuple[int, int], mib: float) -> int:
    """How many frames a unit may have in a process of ``mib`` MiB; sizes are (h, w).

    Raises:
        InputError: not even a few.
    """
    left = (mib - BASE_MIB) * 2**20 - FULL_BYTES * full[0] * full[1]
    frames = int(left / (FRAME_BYTES * working[0] * working[1]))
    if frames < FEWEST:
        raise InputError(
            f"{mib:.0f} MiB are too little for frames of {full[1]}x{full[0]}, colored at {working[1]}x{working[0]}",
            {"memory": "allow more", "workers": "use fewer processes", "max-side": "color at a smaller size"},
        )
    return frames


def disk_mib(clip: Clip) -> int:
    """What a run's results take, MiB: frames as PNG, up to 0.8 of their bytes, and 16 bytes for each pixel at the
    working size (docs/footage.md)."""
    h, w = clip.size
    return 1 + int(0.8 * clip.video.frames.size + 16 * len(clip.video) * h * w) // 2**20


def windows(shots: Sequence[Shot], exemplars: Collection[int], longest: int) -> list[Shot]:
    """The shots, those of more than ``longest`` frames cut into windows, in an order in which they can be colored.

    A window goes on from the last frame of the one before it or the first of the one after it, or from both, wherever
    these are colored earlier: windows share those frames, and agree there bit for bit. Those with exemplars come
    first, then their neighbors, and so on. What left the picture since is looked up in the shot's nearest exemplar.
    """
    return [window for shot in shots for window in _windows(shot, exemplars, longest)]


def _windows(shot: Shot, exemplars: Collection[int], longest: int) -> Iterator[Shot]:
    count = 1 if len(shot) <= longest else -(-len(shot) // max(1, longest - 3))  # 3: those that lend it colors
    cuts = [shot.start + round(k * len(shot) / count) for k in range(count + 1)]
    cuts = sorted({shot.duplicates.get(cut, cut) for cut in cuts})  # no frame is parted from what it repeats
    parts = [range(a, b) for a, b in pairwise(cuts)]
    own = [e for e in exemplars if e in shot]
    first = [k for k, part in enumerate(parts) if any(e in part for e in own)] or [0]
    done: list[int] = []
    while len(done) < len(parts):
        around = [k for k in range(len(parts)) if k not in done and (k - 1 in done or k + 1 in done)]
        k = next((k for k in first if k not in done), None)
        k = min(around, key=lambda k: min(abs(k - f) for f in first)) if k is None else k
        part = parts[k]
        beside = [f for f, other in ((part.start - 1, k - 1), (part.stop, k + 1)) if other in done]
        duplicates = {twin: frame for twin, frame in shot.duplicates.items() if twin in part}
        nearest = min(own, key=lambda e: abs(2 * e - part.start - part.stop), default=shot.reference_frame)
        reference_frame = None if any(e in part for e in own) or nearest in beside else nearest
        yield Shot(part.start, part.stop, reference_frame, tuple(beside), duplicates)
        done.append(k)


def made_by() -> dict[str, str]:
    """All but the task that decides its result."""
    return versions() | {"code": code(), "device": device()}


@dataclass(frozen=True)
class Task:
    """All that a unit depends on, as CPU tensors, so that it can be sent to another process.

    Attributes:
        L: ``(T, 1, h, w)`` luminance of its frames and of those that lend it colors, in the order of time.
        shot: its frames by their places in ``L``.
        exemplars: places of the frames that the user colored.
        given: of these and of the frames that lend, in that order, all that a ``ColorState`` tells but the luminance.
        settings: the choices of the run.
        by: code and versions that are to do it.
    """

    L: Tensor
    shot: Shot
    exemplars: tuple[int, ...]
    given: Mapping[str, Tensor]
    settings: Settings
    by: Mapping[str, str] = field(default_factory=made_by)

    @property
    def state(self) -> ColorState:
        """Its frames with the colors that are given."""
        state = ColorState.gray(self.L)
        for name, values in self.given.items():
            getattr(state, name)[[*self.exemplars, *self.shot.external_frames]] = values
        return state

    @property
    def fit_key(self) -> str:
        """The hash of what its tracker depends on."""
        told = [self.shot.tracker_frames, self.settings.omnimotion, self.settings.seed, self.by]
        found = hashlib.sha256(json.dumps(told).encode() + self.L.contiguous().numpy().tobytes())
        return found.hexdigest()[:40]

    @property
    def key(self) -> str:
        """The hash of it all, and of what works on it."""
        chosen = {name: value for name, value in asdict(self.settings).items() if name not in ("preset", "max_side")}
        if not prior_everywhere(self.settings) and (self.exemplars or self.shot.external_frames):
            unasked = PRIOR_ONLY if self.settings.omnimotion == "off" else PRIOR_ONLY - {"seed"}
            chosen = {name: value for name, value in chosen.items() if name not in unasked}
        told = [asdict(self.shot), self.exemplars, chosen, self.by, list(self.L.shape)]
        found = hashlib.sha256(json.dumps(told, sort_keys=True, default=dict).encode())
        for values in (self.L, *self.given.values()):
            found.update(values.contiguous().numpy().data)
        return found.hexdigest()[:40]


def task(
    clip: Clip, shot: Shot, exemplars: Mapping[int, Tensor], settings: Settings, lent: Sequence[Mapping[str, Tensor]]
) -> Task:
    """The task of coloring ``shot``.

    Args:
        exemplars: frame -> ab ``(2, h, w)``, of the whole clip.
        lent: the colors of the frames ``shot.external_frames``, in that order.
    """
    frames = sorted([*range(shot.start, shot.stop), *shot.external_frames])
    place = {frame: k for k, frame in enumerate(frames)}
    own = [e for e in exemplars if e in shot]
    L = clip.luminance(frames)
    colored = ColorState.of_exemplars(
        L[[place[e] for e in own]], {k: exemplars[e] for k, e in enumerate(own)}
    ).stacked()
    given = {name: torch.cat([getattr(colored, name), *(frame[name] for frame in lent)]) for name in COLORS}
    local = Shot(
        place[shot.start],
        place[shot.stop - 1] + 1,
        None if shot.reference_frame is None else place[shot.reference_frame],
        tuple(place[frame] for frame in shot.anchor_frames),
        {place[twin]: place[frame] for twin, frame in shot.duplicates.items()},
    )
    return Task(L, local, tuple(place[e] for e in own), given, settings)


def work(given: Task, cache: Cache, stages: Stages) -> Steps[None]:
    """Do a task, and keep what it finds; a tracker that was fitted is kept at once.

    Raises:
        InputError: it is to be done by other code, other versions or another device than are here.
    """
    if given.by != (here := made_by()):
        differs = ", ".join(name for name in here if here[name] != given.by.get(name))
        raise InputError(f"A worker differs from the process that asks it ({differs}); install the same for both.")
    shot, key = given.shot, given.key
    exemplars = {e: given.given["ab"][k] for k, e in enumerate(given.exemplars)}
    tracker = cache.tracker(given.fit_key) if given.settings.omnimotion != "off" else None
    trackers, notes = {} if tracker is None else {shot.start: tracker}, list[str]()
    run = StepIterator(colorize(given.L, exemplars, given.settings, [shot], stages, trackers, given.state))
    for step in run:
        if isinstance(step, Fitted):
            cache.keep_tracker(given.fit_key, step.tracker)
        if isinstance(step, Note) and step.message not in notes:
            notes.append(step.message)
        if isinstance(step, Colored):
            cache.tell(key, step.done)
        yield step
    found = replace(run.result, state=part(run.result.state, shot.start, shot.stop))
    cache.keep(key, found, shot.start, notes, given.fit_key if run.result.trackers else None)


@dataclass
class Units:
    """The units of a run and what is known of them.

    Attributes:
        clip, settings: what is asked.
        shots: the units in an order in which they can be done (``windows``).
        cache: where they are kept.
        keys: first frame of a unit -> its key, of those that are done.
        begun: first frame of a unit -> its colors so far, of one that was interrupted, the frames that lend included.
    """

    clip: Clip
    settings: Settings
    shots: Sequence[Shot]
    cache: Cache
    keys: dict[int, str] = field(default_factory=dict)
    begun: dict[int, Colored] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._exemplars = self.clip.exemplar_ab()

    def ready(self, shot: Shot) -> bool:
        """Whether all that lend it colors are done."""
        return all(self._owner(frame).start in self.keys for frame in shot.external_frames)

    def task(self, shot: Shot) -> Task:
        """The task of a unit that is ready."""
        return task(
            self.clip, shot, self._exemplars, self.settings, [self._colors(frame) for frame in shot.external_frames]
        )

    def done(self) -> float:
        """The share of frames whose units are done."""
        return sum(len(shot) for shot in self.shots if shot.start in self.keys) / len(self.clip.video)

    def costs(self) -> Costs:
        """What the units took that are done, whenever that was."""
        costs = Costs()
        for told in map(self.cache.told, self.keys.values()):
            for stage, seconds in told["seconds"].items():
                costs.seconds[stage] = costs.seconds.get(stage, 0.0) + seconds
                costs.peak_mib[stage] = max(costs.peak_mib.get(stage, 0.0), told["peak_mib"][stage])
        return costs

    def rounds(self) -> list[Iteration]:
        """All rounds of all units that are done, counted through, with the clip's frame numbers."""
        found = [(start, done) for start, key in self._in_order() for done in self.cache.rounds(key)]
        return [replace(done, index=k, frame=done.frame + start) for k, (start, done) in enumerate(found)]

    def notes(self) -> list[str]:
        """What the units that are done say that people should read, each once."""
        return list(dict.fromkeys(note for _, key in self._in_order() for note in self.cache.told(key)["notes"]))

    def trackers(self) -> dict[int, Tracker]:
        """The fitted trackers by first frame of their unit."""
        told = {start: self.cache.told(key).get("fit") for start, key in self.keys.items()}
        found = {start: self.cache.tracker(fit) for start, fit in told.items() if fit}
        return {start: tracker for start, tracker in found.items() if tracker is not None}

    def colors(self, names: Sequence[str] = COLORS) -> Iterator[dict[str, Tensor]]:
        """Frame after frame of the clip, the fields ``names`` of ``ColorState``, gray where nothing is done.

        Rounds are counted through as in ``rounds``: in 16 bits where that is enough, else in 32.
        """
        before, first = 0, {}
        for start, key in self._in_order():
            first[start] = before
            before += len(self.cache.told(key)["rounds"])
        kind = torch.int16 if 3 * before < 2**15 else torch.int32
        for shot in sorted(self.shots, key=lambda shot: shot.start):
            for frame in self._of(shot, names):
                if "origin" in frame:
                    origin = frame["origin"].to(kind)
                    frame["origin"] = torch.where(origin <= 0, origin, origin + 3 * first.get(shot.start, before))
                yield frame

    def _of(self, shot: Shot, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        if shot.start in self.keys:
            for t, frame in enumerate(self.cache.frames(self.keys[shot.start], names)):
                if "source" in frame and shot.reference_frame is not None:
                    frame["source"] = _from_afar(frame["source"], shot, t)
                yield frame
            return
        place = sum(frame < shot.start for frame in shot.external_frames)
        begun = self.begun.get(shot.start)
        for t in range(len(shot)):
            state = begun.state if begun else ColorState.gray(torch.zeros(1, 1, *self.clip.size))
            k = place + t if begun else 0
            yield {name: getattr(state, name)[k][None] for name in names}

    def _in_order(self) -> list[tuple[int, str]]:
        return [(shot.start, self.keys[shot.start]) for shot in self.shots if shot.start in self.keys]

    def _owner(self, frame: int) -> Shot:
        return next(shot for shot in self.shots if frame in shot)

    def _colors(self, frame: int) -> dict[str, Tensor]:
        """The colors of a frame whose unit is done."""
        shot = self._owner(frame)
        return next(islice(self.cache.frames(self.keys[shot.start]), frame - shot.start, None))


def _from_afar(source: Tensor, shot: Shot, t: int) -> Tensor:
    """The ``source`` ``(1, h, w)`` of a unit's frame ``t``, where its reference_frame is as far away as it is in the clip."""
    frames = sorted([*range(shot.start, shot.stop), *shot.external_frames])
    place, area = frames.index(shot.start) + t, source.numel()
    of_frame = (torch.arange(place * area, (place + 1) * area).reshape(source.shape) + source) // area
    further = [frame - shot.start - t - (k - place) for k, frame in enumerate(frames)]
    return source + (area * torch.tensor(further)[of_frame]).to(source.dtype)


def part(state: ColorState, start: int, stop: int) -> ColorState:
    """Some frames in a row of a state."""
    return ColorState(*(getattr(state, field.name)[start:stop] for field in fields(state)))
