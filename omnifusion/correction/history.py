"""Corrections of a run in its folder: a chain, each link of which can be undone bit for bit, and done again elsewhere.

A link, ``corrections/0001`` and so on, holds the pictures that were given and, in ``before``, the files that it
replaced. New files are written beside; one renaming decides, and what it leaves to do is done when the run is opened
next (``store.settle``): whatever is interrupted, the run is the old one or the new one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.prepare import opaque, overlaid, working_chroma, working_luminance
from omnifusion.color import compose, from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.correction.provenance import Edit, correct, roots
from omnifusion.geometry import resize
from omnifusion.progress import Colored, InputError, Step, StepIterator, Steps
from omnifusion.run.cache import frames_of, save_state
from omnifusion.run.export import mean_scores, score
from omnifusion.run.folder import Stored, open_run, settle, writing
from omnifusion.state import ColorState, Origin, Video
from omnifusion.video import FORMATS, Writer, read_image, stream, write_image
from omnifusion.visualize import overlay, stretch


@dataclass(frozen=True)
class Correction:
    """What is asked of a run.

    Attributes:
        patches: frame -> picture ``(4, H, W)`` uint8 painted over it, of which what is opaque counts, or ``(3, H, W)``.
        locks: frame -> picture of which what is opaque (with an alpha channel) or bright stays as it is.
        frames: first and last frame that may change; None = all.
    """

    patches: Mapping[int, np.ndarray]
    locks: Mapping[int, np.ndarray] = field(default_factory=dict)
    frames: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Mended(Step):
    """A frame is corrected: its ``picture`` ``(3, H, W)`` uint8 at full size."""

    frame: int
    picture: np.ndarray


def clip_of(run: Stored) -> Video:
    """The clip that a run colored, decoded as it is asked for."""
    return stream(run.clip, run.report["frames"])


def state_of(run: Stored, video: Video) -> ColorState:
    """A run's colors at its working size.

    Raises:
        InputError: the run was made by an earlier version.
    """
    h, w = run.report["working_size"]
    return run.state(working_luminance(video.frames, (h, w)))


def edit_of(correction: Correction, video: Video, size: tuple[int, int]) -> Edit:
    """A correction at the working ``size`` (h, w).

    Raises:
        InputError: a picture of another shape than the clip, or one that is empty.
    """
    patches = {frame: working_chroma(_fitted(image, video), size) for frame, image in correction.patches.items()}
    locks = {frame: torch.from_numpy(stretch(_locked(image, video), size)) for frame, image in correction.locks.items()}
    frames = None if correction.frames is None else range(correction.frames[0], correction.frames[1] + 1)
    return Edit(patches, locks, frames)


def correct_run(run: Stored, correction: Correction, video: Video | None = None) -> Steps[Stored]:
    """Correct a run in its folder; each corrected frame comes as a ``Mended`` step as soon as it is known.

    Raises:
        InputError: what is asked cannot be done, or the disk is full.
    """
    video = video or clip_of(run)
    state = state_of(run, video)
    number = len(run.report.get("corrections", [])) + 1
    part = run.folder / "corrections" / f"{number:04d}.part"
    shutil.rmtree(part, ignore_errors=True)
    after = part / "after"
    work = StepIterator(correct(state, edit_of(correction, video, state.L.shape[-2:])))  # type: ignore[arg-type]
    with writing(run.folder):
        (after / "frames").mkdir(parents=True)
        try:
            for step in work:
                assert isinstance(step, Colored) and step.frame is not None
                frame = _mended(run, correction, video, state, step.state, step.frame)
                write_image(after / "frames" / f"{step.frame:05d}.png", frame)
                yield Mended("correct", step.message, step.done, frame=step.frame, picture=frame)
            yield from _films(run, video, work.result, after)
            save_state(after, len(state), partial(frames_of, work.result), {})
            report = _report(run, correction, state, work.result, after, video)
            (after / "report.json").write_text(json.dumps(report, indent=2) + "\n")
            _keep(correction, part)
            for file in (f for f in after.rglob("*") if f.is_file()):
                kept = part / "before" / file.relative_to(after)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(run.folder / file.relative_to(after), kept)
            os.replace(part, part.with_suffix(""))
        finally:
            shutil.rmtree(part, ignore_errors=True)
        settle(run.folder)
    return open_run(run.folder)


def undo(run: Stored) -> Stored:
    """Take the last correction back: every file is as it was before, bit for bit.

    Raises:
        InputError: there is none.
    """
    links = sorted((run.folder / "corrections").glob("[0-9]" * 4))
    if not links:
        raise InputError(f"{run.folder} holds no correction that could be undone.")
    with writing(run.folder):
        os.replace(links[-1] / "before", links[-1] / "after")
        settle(run.folder)
    return open_run(run.folder)


def chain(run: Stored) -> list[Correction]:
    """The corrections of a run in their order, as they were asked for, to be done again on another."""
    return [_asked(run.folder / "corrections" / f"{told['number']:04d}", told) for told in corrections(run)]


def corrections(run: Stored) -> list[dict[str, Any]]:
    """What the report says of each correction."""
    return run.report.get("corrections", [])


def descent(state: ColorState, run: Stored) -> Tensor:
    """Whose color each pixel has, ``(T, h, w)``: the frame of its exemplar, or -k for the k-th correction; the frame
    that the prior invented it for where there was no exemplar."""
    owner = roots(state) // state.L[0].numel()
    for told in corrections(run):
        owner = torch.where(state.iteration == told["iteration"], -told["number"], owner)
    return owner


def _fitted(image: np.ndarray, video: Video) -> np.ndarray:
    """A picture at the clip's size, with an alpha channel."""
    whole = np.concatenate([image, np.full_like(image[:1], 255)]) if len(image) == 3 else image
    return overlaid(whole, video.size)


def _locked(image: np.ndarray, video: Video) -> np.ndarray:
    """What a picture locks, ``(H, W)`` bool at the clip's size."""
    alpha = image[3] if len(image) == 4 else image.mean(0).astype(np.uint8)
    return opaque(overlaid(np.stack([alpha] * 4), video.size))


def _mended(
    run: Stored, correction: Correction, video: Video, before: ColorState, after: ColorState, frame: int
) -> np.ndarray:
    """A frame at full size, ``(3, H, W)`` uint8: as it was, but where its pixel at the working size was corrected, or
    paint at full size lies."""
    old = run.frame(frame).transpose(2, 0, 1)
    changed = stretch((after.origin[frame] != before.origin[frame]).numpy(), video.size)
    ab = resize(after.ab[frame][None], video.size)[0]
    if frame in correction.patches:
        paint = _fitted(correction.patches[frame], video)
        ab = torch.where(torch.from_numpy(opaque(paint)), rgb_to_lab(from_uint8(paint[:3]))[1:], ab)
        changed = changed | opaque(paint)
    if frame in correction.locks:
        changed = changed & ~_locked(correction.locks[frame], video)
    new = to_uint8(compose(luminance(from_uint8(video.frames[frame])), ab)).numpy()
    return np.where(changed, new, old)


def _films(run: Stored, video: Video, state: ColorState, after: Path) -> Steps[None]:
    """The films that the run has, in their formats."""
    kind, formats = state.kind.numpy(), {known.ending: name for name, known in reversed(FORMATS.items())}
    with ExitStack() as stack:
        films = [
            stack.enter_context(Writer(after / path.name, video, format=formats[path.suffix]))
            for path in run.folder.glob("colorized.*")
        ]
        tinted = stack.enter_context(Writer(after / "origin.mp4", video))
        for t in range(len(state)):
            frame = _frame(run, after, t)
            for film in films:
                film.add(frame)
            tinted.add(overlay(frame.transpose(1, 2, 0), kind[t]).transpose(2, 0, 1))
            yield Step("finish", "writing the film", done=(t + 1) / len(state))


def _frame(run: Stored, after: Path, t: int) -> np.ndarray:
    """Frame ``t`` as it is after the correction, ``(3, H, W)`` uint8."""
    path = after / "frames" / f"{t:05d}.png"
    return read_image(path) if path.is_file() else run.frame(t).transpose(2, 0, 1)


def _report(
    run: Stored, correction: Correction, before: ColorState, state: ColorState, after: Path, video: Video
) -> dict[str, Any]:
    changed = state.origin != before.origin
    told = {
        "number": len(corrections(run)) + 1,
        "iteration": int(state.iteration.max()),
        "patches": sorted(correction.patches),
        "locks": sorted(correction.locks),
        "frames": correction.frames,
        "changed_frames": changed.any(-1).any(-1).nonzero()[:, 0].tolist(),
        "changed_pixels": int(changed.sum()),
    }
    kinds = {origin.name.lower(): int((state.kind == int(origin)).sum()) for origin in Origin}
    report = run.report | {"corrections": [*corrections(run), told], "origin": kinds}
    owner, count = descent(state, Stored(run.token, run.folder, run.request, report)).unique(return_counts=True)
    names = {int(o): f"correction {-o}" if o < 0 else f"frame {o}" for o in owner}
    report["descent"] = {names[int(o)]: int(n) for o, n in zip(owner, count, strict=True)}
    if report["scores"]:
        frames = [t for t in range(len(state)) if t not in report["exemplars"]]
        report["scores"] = mean_scores([score(_frame(run, after, t), np.asarray(video.frames[t])) for t in frames])
    return report


def _keep(correction: Correction, link: Path) -> None:
    """Write what was asked."""
    for name, pictures in (("patch", correction.patches), ("lock", correction.locks)):
        for frame, image in pictures.items():
            write_image(link / f"{name}_{frame:05d}.png", image)


def _asked(link: Path, told: Mapping[str, Any]) -> Correction:
    """What was asked, read again."""
    patches, locks = (
        {frame: read_image(link / f"{name}_{frame:05d}.png", alpha=True) for frame in frames}
        for name, frames in (("patch", told["patches"]), ("lock", told["locks"]))
    )
    return Correction(patches, locks, None if told["frames"] is None else tuple(told["frames"]))
