"""Corrections of a run in its folder, each of which can be undone bit for bit, and repeated on another run.

An entry, ``corrections/0001`` and so on, holds the pictures of a correction and, in ``before``, the files that it
replaced. The report is replaced last: a correction that it does not list was interrupted, and ``recover`` undoes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.prepare import opaque, overlaid, working_chroma
from omnifusion.color import compose, from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.correction.provenance import correct, first_sources
from omnifusion.geometry import resize
from omnifusion.progress import Colored, InputError, Step, StepIterator, Steps
from omnifusion.run.export import film_names, films, mean_scores, score
from omnifusion.run.files import colors_name, frame_name, link, save_colors, write_report
from omnifusion.run.folder import Manifest, RunFolder, locked, open_run
from omnifusion.state import COLORS, ColorState, Iteration, Origin, Video
from omnifusion.video import read_image, write_image
from omnifusion.visualize import stretch


@dataclass(frozen=True)
class Correction:
    """A correction of a run.

    Attributes:
        patches: frame -> picture ``(4, H, W)`` uint8 painted over it, used where it is opaque, or ``(3, H, W)``.
        locks: frame -> picture that is opaque (with an alpha channel) or bright where the frame stays as it is.
        frames: first and last frame that may change; None = all.
    """

    patches: Mapping[int, np.ndarray]
    locks: Mapping[int, np.ndarray] = field(default_factory=dict)
    frames: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class FrameCorrected(Step):
    """A frame is corrected: its ``picture`` ``(3, H, W)`` uint8 at full size."""

    frame: int
    picture: np.ndarray


def correct_run(run: RunFolder, correction: Correction) -> Steps[RunFolder]:
    """Correct a run in its folder; yields a ``FrameCorrected`` step for each corrected frame. InputError if the
    correction cannot be made, or the disk is full."""
    if not run.can_correct:
        raise InputError(f"{run.folder} is not finished, or ships without what a correction needs; run it first.")
    video, state, size = run.video(), run.state(), tuple(run.report["working_size"])
    patches = {frame: working_chroma(_with_alpha(image, video), size) for frame, image in correction.patches.items()}
    locks = {frame: torch.from_numpy(stretch(_locked(image, video), size)) for frame, image in correction.locks.items()}
    frames = None if correction.frames is None else range(correction.frames[0], correction.frames[1] + 1)
    work = StepIterator(correct(state, patches, locks, frames, len(run.report["iterations"])))
    entry = f"corrections/{len(corrections(run)) + 1:04d}"
    with locked(run.folder):
        try:
            manifest = Manifest(run.folder)
            for kind, pictures in (("patch", correction.patches), ("lock", correction.locks)):
                for t, image in pictures.items():
                    manifest.claim(name := f"{entry}/{kind}_{t:05d}.png")
                    write_image(run.folder / name, image)
            for step in work:
                assert isinstance(step, Colored) and step.frame is not None
                frame = _corrected(run, correction, video, state, step.state, step.frame)
                write_image(_kept(manifest, entry, frame_name(step.frame)), frame)
                colors = _in_file(run, step.state, step.frame)
                save_colors(_kept(manifest, entry, colors_name(step.frame)), colors)
                yield FrameCorrected("correct", step.message, step.done, frame=step.frame, picture=frame)
            report = _report(run, correction, state, work.result, video)
            format = run.report.get("format", "h264")
            for name in (*film_names(format), "origin.mp4"):
                if (run.folder / name).is_file():  # people may have moved it
                    _kept(manifest, entry, name)
            with films(run.folder, video, format, report["warnings"]) as add_frame:
                for t, kind in enumerate(work.result.kind.numpy()):
                    add_frame(run.frame(t).transpose(2, 0, 1), kind)
                    yield Step("finish", "writing the film", done=(t + 1) / len(video))
            _kept(manifest, entry, "report.json")
            write_report(run.folder, report)
        except BaseException:
            _restore(run.folder / entry / "before")
            raise
    return open_run(run.folder)


def recover(folder: Path) -> RunFolder:
    """The run in a folder, as it was before a correction that was interrupted; InputError if it is in use."""
    if open_run(folder, even_interrupted=True).interrupted_corrections:
        with locked(folder):
            for before in open_run(folder, even_interrupted=True).interrupted_corrections:
                _restore(before)
    return open_run(folder)


def undo(run: RunFolder) -> RunFolder:
    """Take the last correction back: every file is as it was before, bit for bit; InputError if there is none."""
    entries = sorted(run.folder.glob("corrections/[0-9]*/before"))
    if not entries:
        raise InputError(f"{run.folder} holds no correction that could be undone.")
    with locked(run.folder):
        _restore(entries[-1])
    return open_run(run.folder)


def _kept(manifest: Manifest, entry: str, name: str) -> Path:
    """Back up a file in a correction's ``before``; returns the path that may now be written."""
    manifest.claim(f"{entry}/before/{name}")
    link(manifest.folder / name, manifest.folder / entry / "before" / name)
    return manifest.folder / name


def _restore(before: Path) -> None:
    """Put back the files that a correction replaced, the report first, and remove the correction."""
    entry, folder = before.parent, before.parents[2]
    files = [file.relative_to(before) for file in before.rglob("*") if file.is_file()]
    for file in sorted(files, key=Path("report.json").__ne__):
        os.replace(before / file, folder / file)
    Manifest(folder).remove(f"corrections/{entry.name}/*")


def _in_file(run: RunFolder, state: ColorState, t: int) -> dict[str, Tensor]:
    """The colors of frame ``t`` for its file: iterations counted within the segment (``RunFolder.first_iteration``)."""
    colors, before = {name: getattr(state, name)[t] for name in COLORS}, 3 * run.first_iteration(t)
    return colors | {"origin": torch.where(colors["origin"] > 0, colors["origin"] - before, colors["origin"])}


def history(run: RunFolder) -> list[Correction]:
    """The corrections of a run in their order, ready to be repeated on another run."""

    def read_all(row: dict[str, Any], kind: str, frames: list[int]) -> dict[int, np.ndarray]:
        entry = run.folder / f"corrections/{row['number']:04d}"
        return {frame: read_image(entry / f"{kind}_{frame:05d}.png", alpha=True) for frame in frames}

    result = []
    for row in corrections(run):
        patches, locks = read_all(row, "patch", row["patches"]), read_all(row, "lock", row["locks"])
        result.append(Correction(patches, locks, row["frames"] and tuple(row["frames"])))
    return result


def corrections(run: RunFolder) -> list[dict[str, Any]]:
    """The report's entry for each correction."""
    return run.report.get("corrections", [])


def provenance(state: ColorState, run: RunFolder) -> Tensor:
    """Where each pixel's color comes from, ``(T, h, w)``: the frame of its exemplar, or -k for the k-th correction;
    without an exemplar, the frame that the prior colored."""
    owner = first_sources(state) // state.L[0].numel()
    for row in corrections(run):
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
        "number": len(corrections(run)) + 1,
        "iteration": len(iterations),
        "patches": sorted(correction.patches),
        "locks": sorted(correction.locks),
        "frames": correction.frames,
        "changed_frames": changed.any(-1).any(-1).nonzero()[:, 0].tolist(),
        "changed_pixels": int(changed.sum()),
    }
    iteration = Iteration(len(iterations), min(correction.patches), row["changed_pixels"], 0, 0)
    report = run.report | {"corrections": [*corrections(run), row], "iterations": [*iterations, vars(iteration)]}
    owner, count = provenance(state, replace(run, report=report)).unique(return_counts=True)
    names = {int(o): f"correction {-o}" if o < 0 else f"frame {o}" for o in owner}
    report["provenance"] = {names[int(o)]: int(n) for o, n in zip(owner, count, strict=True)}
    report["origin"] = {origin.name.lower(): int((state.kind == int(origin)).sum()) for origin in Origin}
    report["warnings"] = list(run.report.get("warnings", run.report.get("notes", ())))
    if report["scores"]:
        frames = [t for t in range(len(state)) if t not in report["exemplars"]]
        scores = [score(run.frame(t).transpose(2, 0, 1), np.asarray(video.frames[t])) for t in frames]
        report["scores"] = mean_scores(scores)
    return report
