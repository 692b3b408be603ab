"""The last touches: more or less saturation, and chroma alone for those who grade elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from omnifusion.color import compose, from_uint8, rgb_to_lab, to_uint8
from omnifusion.correction.history import clip_of
from omnifusion.geometry import resize
from omnifusion.progress import InputError, Step, Steps
from omnifusion.run.folder import RunFolder, writing
from omnifusion.video import CHROMA, Writer, chroma_picture, write_chroma, write_image


def saturated(picture: np.ndarray, factor: float) -> np.ndarray:
    """A picture ``(3, H, W)`` uint8 with its chroma times ``factor``, its luminance kept."""
    if factor == 1:
        return picture
    lab = rgb_to_lab(from_uint8(picture))
    return to_uint8(compose(lab[:1], lab[1:] * factor)).numpy()


def finish(run: RunFolder, out: Path, saturation: float = 1.0) -> Steps[None]:
    """Write the frames and the film of a run at another saturation into the new folder ``out``.

    Raises:
        InputError: the folder exists or cannot be written.
    """
    video = clip_of(run)
    with _new(out, "frames"), Writer(out / "colorized.mp4", video) as film:
        for t in range(len(video)):
            picture = saturated(run.frame(t).transpose(2, 0, 1), saturation)
            write_image(out / "frames" / f"{t:05d}.png", picture)
            film.add(picture)
            yield Step("finish", "writing frames", done=(t + 1) / len(video))


def export_chroma(run: RunFolder, out: Path, saturation: float = 1.0) -> Steps[None]:
    """Write a run's chroma at full size, see ``chroma_picture``: the new film ``out`` if that ends in .mkv, else
    pictures into the new folder ``out``.

    Raises:
        InputError: the run does not hold it; ``out`` exists or cannot be written.
    """
    run.colors(0)  # before anything is written
    film = out.suffix == CHROMA.ending
    with Writer(out, clip_of(run), format=CHROMA) if film else _new(out) as writer:
        for t in range(count := run.report["frames"]):
            ab = saturation * resize(run.colors(t)["ab"][None], tuple(run.report["size"]))[0].numpy()
            writer.add(chroma_picture(ab)) if writer else write_chroma(out / f"{t:05d}.png", ab)
            yield Step("finish", "writing chroma", done=(t + 1) / count)


@contextmanager
def _new(out: Path, inside: str = "") -> Iterator[None]:
    """A folder that is not there yet, and is gone again if what is done fails."""
    if out.exists():
        raise InputError(f"{out} exists; name a new folder.")
    with writing(out):
        (out / inside).mkdir(parents=True)
        try:
            yield
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
