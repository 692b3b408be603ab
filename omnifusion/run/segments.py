"""A run is colored in segments: shots, or windows of long ones, each kept under a hash of all that it depends on.

So memory is bounded by the longest segment, a killed run resumes where it was, a changed setting or another exemplar
redoes only what depends on it, and segments can be colored by other processes and machines.
"""

import hashlib
import platform
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnifusion import __version__
from omnifusion.algorithm import colorize
from omnifusion.clip.prepare import Clip
from omnifusion.clip.shots import Shot
from omnifusion.prior.source import prior_fingerprint
from omnifusion.progress import (
    Canceled,
    Colored,
    Fitted,
    InputError,
    Note,
    Round,
    Step,
    StepIterator,
    Steps,
    check_canceled,
)
from omnifusion.run import files
from omnifusion.settings import Settings
from omnifusion.stages import Stages, device
from omnifusion.state import COLORS, ColorState

PRIOR_ONLY = {
    "prior", "diffusion", "steps", "eta", "optimizations", "color_condition", "gray_constraint", "through_denoiser",
    "prompt", "negative_prompt", "seed",
}  # fmt: skip
"""Settings that matter only where the prior inpaints; the seed also to a fit."""

COLORLESS_ROOMS = {"ui", "cli", "evaluation", "correction", "__main__"}  # their code decides no color

Record = dict[str, Any]
"""Of a colored segment: key, iterations (``Iteration``, counted from 0), warnings, seconds and peak_mib by stage."""


def windows(shots: Sequence[Shot], exemplars: Collection[int], longest: int) -> list[Shot]:
    """Cut shots of more than ``longest`` frames into windows; returns all in coloring order.

    A window starts from the last frame of the one before it, the first of the one after it, or both, if these are
    colored earlier: windows share those frames, and agree there bit for bit. Those with exemplars come first, then
    their neighbors, and so on. Content that has left the picture since is matched in the shot's nearest exemplar.
    """
    result = []
    for shot in shots:
        count = 1 if len(shot) <= longest else -(-len(shot) // max(1, longest - 3))  # 3: frames of other windows
        cuts = [shot.start + round(k * len(shot) / count) for k in range(count + 1)]
        alike = {shot.duplicates.get(t, t): t for t in reversed(range(shot.start, shot.stop))}  # first of each group
        cuts = sorted({alike.get(shot.duplicates.get(cut, cut), cut) for cut in cuts})
        parts, done = [range(a, b) for a, b in pairwise(cuts)], set[int]()
        own = [e for e in exemplars if e in shot]
        first = [k for k, part in enumerate(parts) if any(e in part for e in own)] or [0]
        for k in sorted(range(len(parts)), key=lambda k: min(abs(k - f) for f in first)):
            part = parts[k]
            anchors = [frame for frame, other in ((part.start - 1, k - 1), (part.stop, k + 1)) if other in done]
            duplicates = {duplicate: frame for duplicate, frame in shot.duplicates.items() if duplicate in part}
            nearest = min(own, key=lambda e: abs(2 * e - part.start - part.stop), default=shot.reference_frame)
            reference_frame = None if any(e in part for e in own) or nearest in anchors else nearest
            result.append(Shot(part.start, part.stop, reference_frame, tuple(anchors), duplicates))
            done.add(k)
    return result


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    packages = ("torch", "diffusers", "opencv-python-headless", "numpy")
    return {"omnifusion": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


@cache
def environment() -> dict[str, str]:
    """What decides colors besides the request: versions, code, device."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).with_suffix("").parts[0] not in COLORLESS_ROOMS:
            digest.update(path.read_bytes())
    return versions() | {"code": digest.hexdigest(), "device": device()}


@dataclass(frozen=True)
class Segment:
    """A shot, or a window of one, to be colored; it can be sent to another process."""

    shot: Shot
    clip: Clip  # with the exemplars of the shot's frames alone
    settings: Settings
    key: str  # a hash of all that its colors depend on
    fit_key: str  # the same of its tracker
    environment: dict[str, str]  # of the process that created it

    @classmethod
    def of(cls, clip: Clip, clip_hash: str, shot: Shot, settings: Settings, external: Sequence[str]) -> "Segment":
        """The segment that colors ``shot``; ``external`` are the keys of the segments whose frames it needs.
        InputError if it needs a prior that is missing."""
        exemplars = {e: picture for e, picture in clip.exemplars.items() if e in shot}
        asks_prior = settings.prior_everywhere or not (exemplars or shot.external_frames)
        unused = set() if asks_prior else PRIOR_ONLY - ({"seed"} if settings.omnimotion != "off" else set())
        choices = {name: value for name, value in asdict(settings).items() if name not in unused | {"preset"}}
        prior = prior_fingerprint(settings) if asks_prior else ""
        common = [clip_hash, len(clip.video), clip.size, environment()]
        fit_key = files.hash_of(*common, shot.tracker_frames, settings.omnimotion, settings.seed)
        key = files.hash_of(*common, asdict(shot), exemplars, choices, prior, list(external))
        return cls(shot, replace(clip, exemplars=exemplars), settings, key, fit_key, environment())

    def color(self, folder: Path, stages: Stages) -> Steps[Record]:
        """Color it into the folder of its run; steps name the clip's frames. A fitted tracker is kept at once.

        Canceled, it keeps what is colored by then, and its record has no key. InputError if code, versions or device
        are others than where it was created.
        """
        if self.environment != (here := environment()):
            differing = ", ".join(name for name in here if here[name] != self.environment.get(name))
            raise InputError(
                f"A worker differs from the process that asks it ({differing}); install the same for both."
            )
        shot, file = self.shot, folder / files.tracker_name(self.shot.start)
        frames = sorted([*range(shot.start, shot.stop), *shot.external_frames])
        place = {frame: k for k, frame in enumerate(frames)}
        local = Shot(
            place[shot.start],
            place[shot.stop - 1] + 1,
            None if shot.reference_frame is None else place[shot.reference_frame],
            tuple(place[frame] for frame in shot.anchor_frames),
            {place[duplicate]: place[frame] for duplicate, frame in shot.duplicates.items()},
        )
        exemplars = {place[e]: ab for e, ab in self.clip.exemplar_ab().items()}
        state = ColorState.of_exemplars(self.clip.luminance(frames), exemplars).stacked()
        for frame in shot.external_frames:
            if (colors := files.load_colors(folder / files.colors_name(frame))) is None:
                raise InputError(f"{folder / files.colors_name(frame)} is damaged or was removed; run again.")
            for name in COLORS:
                getattr(state, name)[place[frame]] = colors[name]
        tracker = files.load_tracker(file, self.fit_key)
        trackers = {} if tracker is None else {local.start: tracker}
        record: Record = {"key": "", "iterations": [], "warnings": [], "seconds": {}, "peak_mib": {}}
        work = StepIterator(colorize(state.L, exemplars, self.settings, [local], stages, trackers, state))
        try:
            for step in work:
                if isinstance(step, Fitted):
                    files.save_tracker(file, self.fit_key, step.tracker)
                if isinstance(step, Note) and step.message not in record["warnings"]:
                    record["warnings"].append(step.message)
                step = _in_clip(step, frames)
                if isinstance(step, Colored):
                    state = step.state
                if isinstance(step, Round):
                    record["iterations"].append(asdict(step.result))
                yield step
                check_canceled()
            state = work.result.state
            record |= {"key": self.key, "seconds": work.result.seconds, "peak_mib": work.result.peak_mib}
        except (Canceled, KeyboardInterrupt):
            state = state.repeated(local.duplicates)
        for k, frame in enumerate(range(shot.start, shot.stop), local.start):
            files.save_colors(folder / files.colors_name(frame), frame_colors(state, k, frames), record["key"])
        return record


def _in_clip(step: Step, frames: Sequence[int]) -> Step:
    """A step of a segment's algorithm with the clip's frame numbers."""
    if isinstance(step, Fitted):
        return replace(step, start=frames[step.start])
    if not isinstance(step, Colored):
        return step
    if isinstance(step, Round):
        result = replace(step.result, frame=frames[step.result.frame])
        message = f"frame {result.frame} gave its color to {result.propagated} pixels"
        return replace(step, message=message, frames=frames, result=result)
    message = step.message if step.frame is None else f"coloring frame {frames[step.frame]}"
    return replace(step, message=message, frames=frames)


def frame_colors(state: ColorState, place: int, frames: Sequence[int]) -> dict[str, Tensor]:
    """The colors of the frame at ``place`` of a segment's state, its sources counted through the clip."""
    colors = state.colors(place)
    source, shift = colors["source"].long(), torch.tensor([frame - k for k, frame in enumerate(frames)])
    pixel = torch.arange(source.numel()).reshape(source.shape) + place * source.numel()
    source = source + source.numel() * (shift[(pixel + source) // source.numel()] - shift[place])
    return colors | {"source": source.where(source.abs() < 2**31, 0).int()}  # 0: out of range
