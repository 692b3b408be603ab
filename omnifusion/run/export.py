"""A run's pictures and films at full size: frames are made side by side, films are encoded in the order of time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.prepare import Clip, working_luminance
from omnifusion.color import compose, to_uint8
from omnifusion.progress import Step, Steps
from omnifusion.run.folder import Manifest
from omnifusion.run.segments import BASE_MIB, FULL_BYTES
from omnifusion.state import ColorState, Origin, Video
from omnifusion.video import FORMATS, Writer, write_image
from omnifusion.visualize import overlay

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """A frame of the result.

    Attributes:
        picture: ``(3, H, W)`` uint8; tinted: the same by where its colors came from.
        kinds: how many pixels of the working size are of each ``Origin``, -1 = still gray.
        scores: how close it is to the ground truth, where that is known and was not given.
    """

    picture: np.ndarray
    tinted: np.ndarray
    kinds: Counter[int]
    scores: list[float] | None


def parallel_frames(size: tuple[int, int], mib: float, threads: int) -> int:
    """How many frames of ``size`` (H, W) may be made side by side in ``mib`` MiB by at most ``threads``."""
    return max(1, min(threads, int((mib - BASE_MIB) * 2**20 / (FULL_BYTES * size[0] * size[1]))))


def export(
    manifest: Manifest, clip: Clip, colors: Callable[[int], Mapping[str, Tensor]], format: str, threads: int = 1
) -> Steps[tuple[Counter[int], list[list[float]]]]:
    """Write frames, films and iterations into the folder of a ``manifest``, frame by frame.

    Args:
        colors: of a frame, each as in ``ColorState``.
        format: the film's, one of ``video.FORMATS``; or "png": the frames alone.
        threads: so many frames are made at once.

    Returns:
        the ``Frame.kinds`` of all frames together, and the scores of those that have some.
    """
    folder, kinds, rows = manifest.folder, Counter[int](), []
    manifest.claim(*(f"frames/{t:05d}.png" for t in range(len(clip.video))))

    def jobs() -> Iterator[tuple[int, np.ndarray, ColorState, str | None]]:
        """The frames, decoded in the order of time."""
        for t, decoded in enumerate(clip.video.frames):
            row = {name: values[None] for name, values in colors(t).items()}
            state = ColorState(torch.empty(1, 1, *clip.size), **row)
            filled = state.kind[0] == Origin.INPAINTED
            name = None
            if bool(filled.any()):
                name = f"iterations/{int(state.iteration[0][filled][0]):04d}_frame{t:05d}"
                manifest.claim(*(f"{name}_{part}.png" for part in ("before", "mask", "after")))
            yield t, decoded, state, name

    names = [] if format == "png" else [f"colorized{FORMATS[format].ending}"]
    manifest.claim("origin.mp4", *names)
    with films(folder, clip.video, names, format) as add:
        for t, frame in enumerate(in_order(partial(_make, folder, clip), jobs(), threads)):
            add(frame.picture, frame.tinted)
            kinds += frame.kinds
            rows += [frame.scores] if frame.scores else []
            yield Step("finish", "writing the film", done=(t + 1) / len(clip.video))
    return kinds, rows


@contextmanager
def films(
    folder: Path, like: Video, names: Sequence[str], format: str
) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Write the films ``names`` in ``format``, and origin.mp4: what comes adds a frame and the same tinted."""
    with ExitStack() as stack:
        colored = [stack.enter_context(Writer(folder / n, like, overwrite=True, format=format)) for n in names]
        tinted = stack.enter_context(Writer(folder / "origin.mp4", like, overwrite=True))

        def add(picture: np.ndarray, by_origin: np.ndarray) -> None:
            tinted.add(by_origin)
            for film in colored:
                film.add(picture)

        yield add


def in_order(work: Callable[..., T], jobs: Iterable[Sequence[Any]], threads: int) -> Iterator[T]:
    """What ``work`` makes of ``jobs``, in their order; some threads work ahead of whoever asks."""
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            running = deque[Any]()
            for job in jobs:
                running.append(pool.submit(work, *job))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
    finally:
        torch.set_num_threads(usual)


def _make(folder: Path, clip: Clip, t: int, decoded: np.ndarray, state: ColorState, iteration: str | None) -> Frame:
    """Frame ``t`` of the result, written; where it was inpainted, before and after its ``iteration``, too."""
    kind, picture = state.kind[0].numpy(), clip.full_size(state, t, t, decoded)
    write_image(folder / "frames" / f"{t:05d}.png", picture)
    if iteration is not None:
        filled = kind == Origin.INPAINTED
        L, ab = working_luminance([decoded], clip.size)[0], state.ab[0]
        pictures = {"before": _small(L, ab * ~torch.from_numpy(filled)), "after": _small(L, ab)}
        pictures["mask"] = filled[None].repeat(3, 0) * np.uint8(255)
        for part, small in pictures.items():
            write_image(folder / f"{iteration}_{part}.png", small)
    tinted = overlay(picture.transpose(1, 2, 0), kind).transpose(2, 0, 1)
    scores = score(picture, decoded) if clip.truth and t not in clip.exemplars else None
    return Frame(picture, tinted, Counter(kind.ravel().tolist()), scores)


def _small(L: Tensor, ab: Tensor) -> np.ndarray:
    return to_uint8(compose(L, ab)).numpy()


def score(frame: np.ndarray, truth: np.ndarray) -> list[float]:
    """How close a frame ``(3, H, W)`` uint8 is to the ground truth, by ``COMPARISONS``."""
    from omnifusion.metrics import COMPARISONS  # more than a second of start-up, for clips in color only

    return [float(metric(frame[None], np.asarray(truth)[None])[0]) for metric in COMPARISONS.values()]


def mean_scores(rows: Sequence[list[float]]) -> dict[str, float]:
    """The means of the frames' scores by name; nothing of nothing."""
    if not rows:
        return {}
    from omnifusion.metrics import COMPARISONS

    return dict(zip(COMPARISONS, np.mean(rows, axis=0).round(4).tolist(), strict=True))
