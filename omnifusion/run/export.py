"""A run's pictures and films at full size: frames are made side by side, films are encoded in the order of time."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.prepare import Clip, working_luminance
from omnifusion.color import compose, to_uint8
from omnifusion.metrics import COMPARISONS
from omnifusion.progress import Step, Steps
from omnifusion.run.cache import Colors
from omnifusion.run.segments import BASE_MIB, FULL_BYTES
from omnifusion.state import COLORS, ColorState, Origin
from omnifusion.video import FORMATS, Writer, write_image
from omnifusion.visualize import overlay

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """A frame of the result.

    Attributes:
        shown: ``(3, H, W)`` uint8; tinted: the same by where its colors came from.
        kinds: how many pixels of the working size are of each ``Origin``, -1 = still gray.
        scores: how close it is to the truth, where that is known and was not given.
    """

    shown: np.ndarray
    tinted: np.ndarray
    kinds: Counter[int]
    scores: list[float] | None


def makers(size: tuple[int, int], mib: float) -> int:
    """How many frames of ``size`` (H, W) may be made side by side in ``mib`` MiB."""
    return max(1, min(os.cpu_count() or 1, int((mib - BASE_MIB) * 2**20 / (FULL_BYTES * size[0] * size[1]))))


def deliver(
    folder: Path, clip: Clip, colors: Colors, format: str, threads: int = 1
) -> Steps[tuple[Counter[int], list[list[float]]]]:
    """Write frames, films and rounds, frame by frame.

    Args:
        format: the film's, one of ``video.FORMATS``; or "png": the frames alone.
        threads: so many frames are made at once.

    Returns:
        the ``Frame.kinds`` of all frames together, and the scores of those that have some.
    """
    kinds, rows = Counter[int](), []
    with ExitStack() as stack:
        films = [stack.enter_context(Writer(folder / "origin.mp4", clip.video))]
        if format != "png":
            path = folder / f"colorized{FORMATS[format].ending}"
            films.append(stack.enter_context(Writer(path, clip.video, format=format)))
        jobs = ((t, clip.video.frames[t], found) for t, found in enumerate(colors(COLORS)))  # decoded in order
        for t, made in enumerate(_ahead(partial(_make, folder, clip), jobs, threads)):
            for film, picture in zip(films, (made.tinted, made.shown), strict=False):
                film.add(picture)
            kinds += made.kinds
            rows += [made.scores] if made.scores else []
            yield Step("finish", "writing the film", done=(t + 1) / len(clip.video))
    return kinds, rows


def _ahead(work: Callable[..., T], jobs: Iterable[Sequence[Any]], threads: int) -> Iterator[T]:
    """What ``work`` makes of ``jobs``, in their order; some threads work ahead of whoever asks."""
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            going = deque[Any]()
            for job in jobs:
                going.append(pool.submit(work, *job))
                if len(going) > threads:
                    yield going.popleft().result()
            while going:
                yield going.popleft().result()
    finally:
        torch.set_num_threads(usual)


def _make(folder: Path, clip: Clip, t: int, given: np.ndarray, found: dict[str, Tensor]) -> Frame:
    """Frame ``t`` of the result, written; of its colors ``found`` where it was inpainted, too."""
    state = ColorState(torch.empty(1, 1, *clip.size), **found)
    kind, shown = state.kind[0].numpy(), clip.full_size(state, t, t, given)
    write_image(folder / "frames" / f"{t:05d}.png", shown)
    filled = kind == Origin.INPAINTED
    if filled.any():
        _inpainted(folder / "iterations", replace(state, L=working_luminance([given], clip.size)), t, filled)
    tinted = overlay(shown.transpose(1, 2, 0), kind).transpose(2, 0, 1)
    scores = score(shown, given) if clip.truth and t not in clip.exemplars else None
    return Frame(shown, tinted, Counter(kind.ravel().tolist()), scores)


def _inpainted(folder: Path, state: ColorState, t: int, filled: np.ndarray) -> None:
    """The one frame of a state, frame ``t``, before and after it was inpainted where it is ``filled`` ``(h, w)``."""
    where = torch.from_numpy(filled)
    name = f"{int(state.iteration[0][where][0]):04d}_frame{t:04d}"
    write_image(folder / f"{name}_before.png", _working(state.L[0], state.ab[0] * ~where))
    write_image(folder / f"{name}_mask.png", filled[None].repeat(3, 0) * np.uint8(255))
    write_image(folder / f"{name}_after.png", _working(state.L[0], state.ab[0]))


def _working(L: Tensor, ab: Tensor) -> np.ndarray:
    return to_uint8(compose(L, ab)).numpy()


def score(frame: np.ndarray, truth: np.ndarray) -> list[float]:
    """How close a frame ``(3, H, W)`` uint8 is to the truth, by ``COMPARISONS``."""
    return [float(metric(frame[None], np.asarray(truth)[None])[0]) for metric in COMPARISONS.values()]


def mean_scores(rows: Sequence[list[float]]) -> dict[str, float]:
    """The means of the frames' scores by name; nothing of nothing."""
    return dict(zip(COMPARISONS, np.mean(rows, axis=0).round(4).tolist(), strict=True)) if rows else {}
