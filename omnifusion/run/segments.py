"""A run is colored in segments: shots, or windows of long ones, each kept under a hash of all that it depends on.

So memory is bounded by the longest segment, a run that was killed goes on where it was, a changed choice or another
exemplar redoes only what depends on it, and segments can be colored by other processes and machines (``workers``).
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnifusion import __version__
from omnifusion.algorithm import colorize, prior_everywhere
from omnifusion.clip.prepare import Clip
from omnifusion.clip.shots import Shot
from omnifusion.prior.source import prior_fingerprint
from omnifusion.progress import Colored, Fitted, InputError, Note, Round, Step, StepIterator, Steps
from omnifusion.run.colors import colors_name, load_tracker, save_colors, save_tracker, tracker_name
from omnifusion.settings import Settings
from omnifusion.stages import Stages, device
from omnifusion.state import COLORS, ColorState

PRIOR_ONLY = frozenset({
    "prior", "diffusion", "steps", "eta", "optimizations", "color_condition", "gray_constraint", "through_denoiser",
    "prompt", "negative_prompt", "seed",
})  # fmt: skip
"""Choices that nothing depends on where neither prior nor fit is asked."""

BASE_MIB, FULL_BYTES, FRAME_BYTES = 1600.0, 200, 98
"""Memory of a process, measured (docs/footage.md): MiB at rest and for the flows that are kept, bytes for each pixel of
the input's frames, and bytes for each pixel of all frames of a segment at the working size."""

FEWEST, MOST = 8, 5000
"""Frames of a segment below which colors would drift from window to window, and above which iterations would not fit
the 16 bits of a state."""

OTHER_ROOMS = frozenset({
    "ui", "cli", "terminal", "commands", "evaluation", "correction", "folder", "pipeline", "workers", "export",
    "estimate", "__main__",
})  # fmt: skip
"""Rooms and modules whose code decides no color."""


def longest(working: tuple[int, int], full: tuple[int, int], mib: float) -> int:
    """How many frames a segment may have in a process of ``mib`` MiB; sizes are (h, w).

    Raises:
        InputError: not even a few.
    """
    free = (mib - BASE_MIB) * 2**20 - FULL_BYTES * full[0] * full[1]
    frames = int(free / (FRAME_BYTES * working[0] * working[1]))
    if frames < FEWEST:
        raise InputError(
            f"{mib:.0f} MiB of memory are too little for frames of {full[1]}x{full[0]}, colored at "
            f"{working[1]}x{working[0]}",
            {"memory": "allow more", "workers": "use fewer processes", "max-side": "choose a smaller working size"},
        )
    return min(frames, MOST)


def windows(shots: Sequence[Shot], exemplars: Collection[int], longest: int) -> list[Shot]:
    """The shots, those of more than ``longest`` frames cut into windows, in an order in which they can be colored.

    A window goes on from the last frame of the one before it or the first of the one after it, or from both, wherever
    these are colored earlier: windows share those frames, and agree there bit for bit. Those with exemplars come
    first, then their neighbors, and so on. What left the picture since is matched in the shot's nearest exemplar.
    """
    return [window for shot in shots for window in _windows(shot, exemplars, longest)]


def _windows(shot: Shot, exemplars: Collection[int], longest: int) -> Iterator[Shot]:
    count = 1 if len(shot) <= longest else -(-len(shot) // max(1, longest - 3))  # 3: frames of other windows
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
        anchors = [f for f, other in ((part.start - 1, k - 1), (part.stop, k + 1)) if other in done]
        duplicates = {duplicate: frame for duplicate, frame in shot.duplicates.items() if duplicate in part}
        nearest = min(own, key=lambda e: abs(2 * e - part.start - part.stop), default=shot.reference_frame)
        reference_frame = None if any(e in part for e in own) or nearest in anchors else nearest
        yield Shot(part.start, part.stop, reference_frame, tuple(anchors), duplicates)
        done.append(k)


@cache
def code_hash() -> str:
    """A hash of the code that decides colors."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if OTHER_ROOMS.isdisjoint(path.relative_to(root).with_suffix("").parts):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of all that decides a result."""
    packages = ("torch", "diffusers", "opencv-python-headless", "numpy")
    return {"omnifusion": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


def environment() -> dict[str, str]:
    """All but the segment and the prior's weights that decides its colors."""
    return versions() | {"code": code_hash(), "device": device()}


@dataclass(frozen=True)
class Segment:
    """All that the colors of a segment depend on, as CPU tensors, so that it can be sent to another process.

    Attributes:
        frames: the clip's numbers of its frames and of those of others whose colors it needs, in the order of time.
        L: ``(T, 1, h, w)`` luminance of ``frames``.
        shot: its frames by their places in ``frames``.
        exemplars: places of the frames that the user colored.
        known: of these and of ``shot.external_frames``, in that order, all that a ``ColorState`` says but luminance.
        settings: the choices of the run.
        environment: code and versions that are to color it.
    """

    frames: tuple[int, ...]
    L: Tensor
    shot: Shot
    exemplars: tuple[int, ...]
    known: Mapping[str, Tensor]
    settings: Settings
    environment: Mapping[str, str] = field(default_factory=environment)

    @property
    def start(self) -> int:
        """The clip's number of its first frame."""
        return self.frames[self.shot.start]

    @property
    def own_frames(self) -> tuple[int, ...]:
        """The clip's numbers of the frames that it colors."""
        return self.frames[self.shot.start : self.shot.stop]

    @property
    def state(self) -> ColorState:
        """Its frames with the colors that are known."""
        state = ColorState.gray(self.L)
        for name, values in self.known.items():
            known = getattr(state, name)
            known[[*self.exemplars, *self.shot.external_frames]] = values.to(known.dtype)
        return state

    @property
    def asks_prior(self) -> bool:
        """Whether the prior is asked for any of its frames."""
        return prior_everywhere(self.settings) or not (self.exemplars or self.shot.external_frames)

    @property
    def fit_key(self) -> str:
        """The hash of what its tracker depends on."""
        parts = [self.shot.tracker_frames, self.settings.omnimotion, self.settings.seed, self.environment]
        digest = hashlib.sha256(json.dumps(parts).encode() + self.L.contiguous().numpy().tobytes())
        return digest.hexdigest()[:40]

    @property
    def key(self) -> str:
        """The hash of it all, and of what colors it.

        Raises:
            InputError: the prior is asked, and not there.
        """
        choices = {name: value for name, value in asdict(self.settings).items() if name not in ("preset", "max_side")}
        if not self.asks_prior:
            unused = PRIOR_ONLY if self.settings.omnimotion == "off" else PRIOR_ONLY - {"seed"}
            choices = {name: value for name, value in choices.items() if name not in unused}
        prior = prior_fingerprint(self.settings) if self.asks_prior else None
        shape = list(self.L.shape)
        parts = [self.frames, asdict(self.shot), self.exemplars, choices, self.environment, prior, shape]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=dict).encode())
        for values in (self.L, *self.known.values()):
            digest.update(values.contiguous().numpy().data)
        return digest.hexdigest()[:40]


def segment_of(
    clip: Clip,
    shot: Shot,
    exemplars: Mapping[int, Tensor],
    settings: Settings,
    external: Sequence[Mapping[str, Tensor]],
) -> Segment:
    """The segment that colors ``shot``.

    Args:
        exemplars: frame -> ab ``(2, h, w)``, of the whole clip.
        external: the colors of the frames ``shot.external_frames``, in that order.
    """
    frames = sorted([*range(shot.start, shot.stop), *shot.external_frames])
    place = {frame: k for k, frame in enumerate(frames)}
    own = [e for e in exemplars if e in shot]
    L = clip.luminance(frames)
    colored = ColorState.of_exemplars(
        L[[place[e] for e in own]], {k: exemplars[e] for k, e in enumerate(own)}
    ).stacked()
    known = {name: torch.cat([getattr(colored, name), *(c[name][None] for c in external)]) for name in COLORS}
    local = Shot(
        place[shot.start],
        place[shot.stop - 1] + 1,
        None if shot.reference_frame is None else place[shot.reference_frame],
        tuple(place[frame] for frame in shot.anchor_frames),
        {place[duplicate]: place[frame] for duplicate, frame in shot.duplicates.items()},
    )
    return Segment(tuple(frames), L, local, tuple(place[e] for e in own), known, settings)


def color_segment(segment: Segment, key: str, folder: Path, stages: Stages) -> Steps[dict[str, Any]]:
    """Color a segment into the folder of its run; its steps name the clip's frames. A fitted tracker is kept at once.

    Returns:
        its record: key, iterations (``Iteration``, counted from 0), notes, seconds and peak_mib by stage.

    Raises:
        InputError: it is to be colored by other code, other versions or another device than are here.
    """
    if segment.environment != (here := environment()):
        differs = ", ".join(name for name in here if here[name] != segment.environment.get(name))
        raise InputError(f"A worker differs from the process that asks it ({differs}); install the same for both.")
    tracker_file, notes = folder / tracker_name(segment.start), dict[str, None]()
    tracker = load_tracker(tracker_file, segment.fit_key) if segment.settings.omnimotion != "off" else None
    trackers = {} if tracker is None else {segment.shot.start: tracker}
    exemplars = {e: segment.known["ab"][k] for k, e in enumerate(segment.exemplars)}
    work = StepIterator(
        colorize(segment.L, exemplars, segment.settings, [segment.shot], stages, trackers, segment.state)
    )
    for step in work:
        if isinstance(step, Fitted):
            save_tracker(tracker_file, segment.fit_key, step.tracker)
        if isinstance(step, Note):
            notes[step.message] = None
        yield in_clip(step, segment.frames)
    result = work.result
    for place, frame in enumerate(segment.own_frames, segment.shot.start):
        save_colors(folder / colors_name(frame), frame_colors(result.state, place, segment.frames), key)
    iterations = [asdict(replace(done, frame=segment.frames[done.frame])) for done in result.iterations]
    costs = {"seconds": result.seconds, "peak_mib": result.peak_mib}
    return {"key": key, "iterations": iterations, "notes": [*notes], **costs}


def in_clip(step: Step, frames: Sequence[int]) -> Step:
    """A step of a segment's algorithm with the clip's numbers of frames."""
    if isinstance(step, Fitted):
        return replace(step, start=frames[step.start])
    if not isinstance(step, Colored):
        return step
    message = step.message if step.frame is None else f"coloring frame {frames[step.frame]}"
    if isinstance(step, Round):
        result = replace(step.result, frame=frames[step.result.frame])
        message = f"frame {result.frame} gave its color to {result.propagated} pixels"
        return replace(step, message=message, frames=frames, result=result)
    return replace(step, message=message, frames=frames)


def frame_colors(state: ColorState, place: int, frames: Sequence[int]) -> dict[str, Tensor]:
    """The colors of the frame at ``place`` of a segment's state, its sources counted through the clip."""
    colors = {name: getattr(state, name)[place] for name in COLORS}
    source, shift = colors["source"].long(), torch.tensor([frame - k for k, frame in enumerate(frames)])
    area = source.numel()
    pixel = torch.arange(place * area, (place + 1) * area).reshape(source.shape)
    source = source + area * (shift[(pixel + source) // area] - shift[place])
    source = source.where(source.abs() < 2**31, 0)  # too far away to be named
    return colors | {"source": source.int()}
