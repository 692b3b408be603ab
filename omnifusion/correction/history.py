"""Corrections of a finished run: each is a run of its own, in a folder of its own."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.prepare import opaque, overlaid, working_chroma
from omnifusion.color import compose, from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.correction.provenance import correct, first_sources
from omnifusion.geometry import resize, stretch
from omnifusion.progress import Colored, InputError, Step, StepIterator, Steps, check_canceled
from omnifusion.run.export import film_names, films, mean_scores, new_folder, score
from omnifusion.run.files import colors_name, frame_name, save_colors, write_report
from omnifusion.run.folder import Manifest, RunFolder, copy_run, lock, open_run
from omnifusion.state import ColorState, Iteration, Origin, Video
from omnifusion.video import write_image


@dataclass(frozen=True)
class Correction:
    """A correction of a run.

    ``patches``: frame -> picture ``(4, H, W)`` uint8 painted over it, used where it is opaque, or ``(3, H, W)``;
    ``locks``: frame -> picture that is opaque (with an alpha channel) or bright where the frame stays as it is.
    """

    patches: Mapping[int, np.ndarray]
    locks: Mapping[int, np.ndarray] = field(default_factory=dict)
    frames: tuple[int, int] | None = None  # the first and the last that may change; None = all


@dataclass(frozen=True, kw_only=True)
class FrameCorrected(Step):
    """A frame is corrected: its ``picture`` ``(3, H, W)`` uint8 at full size."""

    frame: int
    picture: np.ndarray


def correct_run(run: RunFolder, correction: Correction, folder: Path) -> Steps[RunFolder]:
    """Correct a copy of a run in the new ``folder``; yields a ``FrameCorrected`` step for each corrected frame.

    The report is written last: a folder without one was interrupted. InputError if the correction cannot be made, the
    folder exists, or the disk is full.
    """
    if not run.can_correct:
        raise InputError(f"{run.folder} is not finished, or ships without what a correction needs; run it first.")
    video, state, size = run.video(), run.state(), tuple(run.report["working_size"])
    patches = {frame: working_chroma(_with_alpha(image, video), size) for frame, image in correction.patches.items()}
    locks = {frame: torch.from_numpy(stretch(_locked(image, video), size)) for frame, image in correction.locks.items()}
    frames = None if correction.frames is None else range(correction.frames[0], correction.frames[1] + 1)
    work = StepIterator(correct(state, patches, locks, frames, len(run.report["iterations"])))
    entry, format = f"corrections/{len(corrections(run.report)) + 1:04d}", run.report.get("format", "h264")
    with new_folder(folder), ExitStack() as exits:
        exits.callback(lock(folder).release)
        copy = copy_run(run, folder)
        (folder / "report.json").unlink()
        manifest = Manifest(folder)
        manifest.claim(*film_names(format), "origin.mp4")
        for kind, pictures in (("patch", correction.patches), ("lock", correction.locks)):
            for t, image in pictures.items():
                manifest.claim(name := f"{entry}/{kind}_{t:05d}.png")
                write_image(folder / name, image)
        for step in work:
            check_canceled()
            assert isinstance(step, Colored) and step.frame is not None
            t, picture = step.frame, _corrected(run, correction, video, state, step.state, step.frame)
            manifest.claim(frame_name(t), colors_name(t))
            write_image(folder / frame_name(t), picture)
            save_colors(folder / colors_name(t), _in_file(run, step.state, t))
            yield FrameCorrected("correct", step.message, step.done, frame=t, picture=picture)
        report = _report(copy, correction, state, work.result, video)
        with films(folder, video, format, report["warnings"]) as add_frame:
            for t, kind in enumerate(work.result.kind.numpy()):
                check_canceled()
                add_frame(copy.frame(t).transpose(2, 0, 1), kind)
                yield Step("finish", "writing the film", done=(t + 1) / len(video))
        write_report(folder, report)
    return open_run(folder)


def _in_file(run: RunFolder, state: ColorState, t: int) -> dict[str, Tensor]:
    """The colors of frame ``t`` for its file: iterations counted within the segment (``RunFolder.first_iteration``)."""
    colors, before = state.colors(t), 3 * run.first_iteration(t)
    return colors | {"origin": torch.where(colors["origin"] > 0, colors["origin"] - before, colors["origin"])}


def corrections(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A report's entry for each correction."""
    return report.get("corrections", [])


def provenance(state: ColorState, report: Mapping[str, Any]) -> Tensor:
    """Where each pixel's color comes from, ``(T, h, w)``: the frame of its exemplar, or -k for the k-th correction;
    without an exemplar, the frame that the prior colored."""
    owner = first_sources(state) // state.L[0].numel()
    for row in corrections(report):
        owner = torch.where(state.iteration == row["iteration"], -row["number"], owner)
    return owner


def _with_alpha(image: np.ndarray, video: Video) -> np.ndarray:
    """A picture at the clip's size, with an alpha channel."""
    return overlaid(np.concatenate([image, np.full_like(image[:1], 255)]) if len(image) == 3 else image, video.size)


def _locked(image: np.ndarray, video: Video) -> np.ndarray:
    """The pixels that a picture locks, ``(H, W)`` bool at the clip's size."""
    alpha = image[3] if len(image) == 4 else image.mean(0).astype(np.uint8)
    return opaque(overlaid(np.stack([alpha] * 4), video.size))


def _corrected(
    run: RunFolder, correction: Correction, video: Video, before: ColorState, after: ColorState, frame: int
) -> np.ndarray:
    """A frame at full size, ``(3, H, W)`` uint8: unchanged except where its pixel at the working size was corrected, or
    paint lies."""
    old = run.frame(frame).transpose(2, 0, 1)
    changed = stretch((after.origin[frame] != before.origin[frame]).numpy(), video.size)
    ab = resize(after.ab[frame][None], video.size)[0]
    if frame in correction.patches:
        paint = _with_alpha(correction.patches[frame], video)
        ab = torch.where(torch.from_numpy(opaque(paint)), rgb_to_lab(from_uint8(paint[:3]))[1:], ab)
        changed = changed | opaque(paint)
    if frame in correction.locks:
        changed = changed & ~_locked(correction.locks[frame], video)
    new = to_uint8(compose(luminance(from_uint8(video.frames[frame])), ab)).numpy()
    return np.where(changed, new, old)


def _report(
    run: RunFolder, correction: Correction, before: ColorState, state: ColorState, video: Video
) -> dict[str, Any]:
    """The report of a run whose frames are corrected."""
    changed, iterations = state.origin != before.origin, run.report["iterations"]
    row = {
        "number": len(corrections(run.report)) + 1,
        "iteration": len(iterations),
        "patches": sorted(correction.patches),
        "locks": sorted(correction.locks),
        "frames": correction.frames,
        "changed_frames": changed.any(-1).any(-1).nonzero()[:, 0].tolist(),
        "changed_pixels": int(changed.sum()),
    }
    iteration = Iteration(len(iterations), min(correction.patches), row["changed_pixels"], 0, 0)
    report = run.report | {
        "corrections": [*corrections(run.report), row],
        "iterations": [*iterations, vars(iteration)],
    }
    owner, count = provenance(state, report).unique(return_counts=True)
    names = {int(o): f"correction {-o}" if o < 0 else f"frame {o}" for o in owner}
    report["provenance"] = {names[int(o)]: int(n) for o, n in zip(owner, count, strict=True)}
    report["origin"] = {origin.name.lower(): int((state.kind == int(origin)).sum()) for origin in Origin}
    report["warnings"] = list(run.report.get("warnings", run.report.get("notes", ())))
    if report["scores"]:
        frames = [t for t in range(len(state)) if t not in report["exemplars"]]
        scores = [score(run.frame(t).transpose(2, 0, 1), np.asarray(video.frames[t])) for t in frames]
        report["scores"] = mean_scores(scores)
    return report
