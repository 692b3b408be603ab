"""A run's pictures and films at full size: frames are composed in parallel, films are encoded in the order of time."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from omnifusion.clip.prepare import Clip, working_luminance
from omnifusion.color import compose, from_uint8, overlay, rgb_to_lab, to_uint8
from omnifusion.geometry import resize
from omnifusion.pool import bounded, parallel
from omnifusion.progress import InputError, Step, Steps
from omnifusion.run.files import frame_name
from omnifusion.run.folder import Manifest, RunFolder
from omnifusion.state import ColorState, Origin, Video
from omnifusion.video import CHROMA, FORMATS, Writer, write_image
from omnifusion.video.common import writing


def film_names(format: str) -> list[str]:
    """The file of the colored film in a format: one of ``video.FORMATS``; or "png", the frames alone."""
    return [] if format == "png" else [f"colorized{FORMATS[format].ending}"]


def export(run: RunFolder, clip: Clip, format: str, threads: int = 1) -> Steps[dict[str, Any]]:
    """Write frames, films and iterations of a run whose segments are colored, ``threads`` frames at once.

    Returns:
        for the report: format, "origin" (how many pixels of the working size are of each), mean scores, warnings.
    """
    kinds, scores, warnings = Counter[int](), list[dict[str, float]](), list(run.report["warnings"])
    work, frames = partial(_compose, run, clip, Manifest(run.folder)), enumerate(clip.video.frames)
    with films(run.folder, clip.video, format, warnings) as add_frame:
        while jobs := list(islice(frames, threads)):
            with bounded(threads):
                composed = parallel(work, jobs)
            for (t, _), (picture, kind, scored) in zip(jobs, composed, strict=True):
                add_frame(picture, kind)
                kinds.update(kind.ravel().tolist())
                scores += scored
                yield Step("finish", "writing the film", done=(t + 1) / len(clip.video))
    counts = {origin.name.lower(): kinds[origin] for origin in Origin}
    return {"format": format, "origin": counts, "scores": mean_scores(scores), "warnings": warnings}


def _compose(
    run: RunFolder, clip: Clip, manifest: Manifest, job: tuple[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
    """Write a frame of the result from its number and the input's frame; where it was inpainted, also before and after
    its iteration. Returns it, ``(3, H, W)`` uint8, its ``Origin``, and its scores if it has any."""
    t, decoded = job
    state = ColorState(torch.empty(1, 1, *clip.size), **{name: values[None] for name, values in run.colors(t).items()})
    picture, kind = clip.full_size(state, t, t, decoded), state.kind[0]
    write_image(run.folder / frame_name(t), picture)
    inpainted = kind == Origin.INPAINTED
    if inpainted.any():
        L, ab = working_luminance([decoded], clip.size)[0], state.ab[0]
        parts = {
            "before": to_uint8(compose(L, ab * ~inpainted)).numpy(),
            "mask": inpainted.numpy()[None].repeat(3, 0) * np.uint8(255),
            "after": to_uint8(compose(L, ab)).numpy(),
        }
        for part, image in parts.items():
            name = f"iterations/{int(state.iteration[0][inpainted][0]):04d}_frame{t:05d}_{part}.png"
            manifest.claim(name)
            write_image(run.folder / name, image)
    return picture, kind.numpy(), [score(picture, decoded)] if clip.truth and t not in clip.exemplars else []


@contextmanager
def films(
    folder: Path, like: Video, format: str, warnings: list[str]
) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Write the film in ``format``, and origin.mp4; yields a function that adds a frame and its ``Origin`` ``(h, w)``.

    Sentences on what the films could not take over from ``like`` are added to ``warnings``.
    """
    with ExitStack() as stack:
        colored = [stack.enter_context(Writer(folder / n, like, True, format=format)) for n in film_names(format)]
        tinted = stack.enter_context(Writer(folder / "origin.mp4", like, overwrite=True))

        def add_frame(picture: np.ndarray, kind: np.ndarray) -> None:
            tinted.add(overlay(picture.transpose(1, 2, 0), kind).transpose(2, 0, 1))
            for film in colored:
                film.add(picture)

        yield add_frame
    warnings += [warning for film in colored or [tinted] for warning in film.warnings if warning not in warnings]


def score(frame: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How close a frame ``(3, H, W)`` uint8 is to the ground truth, by ``COMPARISONS``."""
    from omnifusion.metrics import COMPARISONS  # more than a second of start-up, for clips in color only

    return {name: float(metric(frame[None], np.asarray(truth)[None])[0]) for name, metric in COMPARISONS.items()}


def mean_scores(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """The means of the frames' scores; empty without any."""
    return {name: round(fmean(row[name] for row in scores), 4) for name in scores[0]} if scores else {}


def saturated(picture: np.ndarray, factor: float) -> np.ndarray:
    """A picture ``(3, H, W)`` uint8 with its chroma times ``factor``, its luminance kept."""
    lab = rgb_to_lab(from_uint8(picture))
    return to_uint8(compose(lab[:1], lab[1:] * factor)).numpy()


def export_saturated(run: RunFolder, out: Path, factor: float) -> Steps[None]:
    """Write the frames and the film of a run at another saturation into the new folder ``out``."""
    video = run.video()
    with new_folder(out), Writer(out / "colorized.mp4", video) as film:
        (out / "frames").mkdir()
        for t in range(len(video)):
            picture = saturated(run.frame(t).transpose(2, 0, 1), factor)
            write_image(out / frame_name(t), picture)
            film.add(picture)
            yield Step("finish", "writing frames", done=(t + 1) / len(video))


def export_chroma(run: RunFolder, out: Path, factor: float = 1.0) -> Steps[None]:
    """Write a run's chroma, times ``factor``, at full size, at 16 bits: green is a*, blue is b*, 256 steps a unit
    around 32768, which red is throughout. ``out`` is a new film if it ends in .mkv, else a new folder of pictures.
    InputError if the run does not hold it."""
    run.colors(0)  # before anything is written
    film = out.suffix == CHROMA.ending
    with Writer(out, run.video(), format=CHROMA) if film else new_folder(out) as writer:
        for t in range(count := run.report["frames"]):
            ab = resize(run.colors(t)["ab"][None], tuple(run.report["size"]))[0]
            steps = np.clip(np.rint(factor * ab.numpy() * 256 + 32768), 0, 65535).astype(np.uint16)
            picture = np.stack([np.full_like(steps[0], 32768), *steps])
            writer.add(picture) if writer else write_image(out / f"{t:05d}.png", picture)
            yield Step("finish", "writing chroma", done=(t + 1) / count)


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Create a new folder; remove it again if the work inside fails."""
    if out.exists():
        raise InputError(f"{out} exists; name a new folder.")
    with writing(out):
        out.mkdir(parents=True)
        try:
            yield
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
