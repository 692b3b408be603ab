"""A run's pictures and films at full size: frames are made side by side, films are encoded in the order of time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from omnifusion.clip.prepare import Clip, working_luminance
from omnifusion.color import compose, to_uint8
from omnifusion.progress import Step, Steps
from omnifusion.run.folder import Manifest, RunFolder
from omnifusion.run.segments import BASE_MIB, FULL_BYTES
from omnifusion.state import ColorState, Origin, Video
from omnifusion.video import FORMATS, Writer, write_image
from omnifusion.visualize import overlay

T = TypeVar("T")


def parallel_frames(size: tuple[int, int], mib: float, threads: int) -> int:
    """How many frames of ``size`` (H, W) may be made side by side in ``mib`` MiB by at most ``threads``."""
    return max(1, min(threads, int((mib - BASE_MIB) * 2**20 / (FULL_BYTES * size[0] * size[1]))))


def film_names(format: str) -> list[str]:
    """The file of the colored film in a format, see ``export``."""
    return [] if format == "png" else [f"colorized{FORMATS[format].ending}"]


def export(run: RunFolder, clip: Clip, format: str, threads: int = 1) -> Steps[dict[str, Any]]:
    """Write frames, films and iterations of a run whose segments are colored, frame by frame.

    Args:
        format: the film's, one of ``video.FORMATS``; or "png": the frames alone.
        threads: so many frames are made at once.

    Returns:
        for the report: format, "origin" (how many pixels of the working size are of each), mean scores, notes.
    """
    manifest, kinds, rows, names = Manifest(run.folder), Counter[int](), [], film_names(format)  # type: ignore[var-annotated]
    notes = list(run.report["notes"])

    def jobs() -> Iterator[tuple[int, np.ndarray, ColorState, str]]:
        """The frames, decoded in the order of time."""
        for t, decoded in enumerate(clip.video.frames):
            state = ColorState(torch.empty(1, 1, *clip.size), **{k: v[None] for k, v in run.colors(t).items()})
            filled, name = state.kind[0] == Origin.INPAINTED, ""
            if bool(filled.any()):
                name = f"iterations/{int(state.iteration[0][filled][0]):04d}_frame{t:05d}"
                manifest.claim(*(f"{name}_{part}.png" for part in ("before", "mask", "after")))
            yield t, decoded, state, name

    with films(run.folder, clip.video, names, format, notes) as add:
        for t, (picture, tinted, kind, scores) in enumerate(
            in_order(partial(_make, run.folder, clip), jobs(), threads)
        ):
            add(picture, tinted)
            kinds += kind
            rows += scores
            yield Step("finish", "writing the film", done=(t + 1) / len(clip.video))
    counts = {origin.name.lower(): kinds[origin] for origin in Origin}
    return {"format": format, "origin": counts, "scores": mean_scores(rows), "notes": notes}


@contextmanager
def films(
    folder: Path, like: Video, names: Sequence[str], format: str, notes: list[str]
) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Write the films ``names`` in ``format``, and origin.mp4: what comes adds a frame and the same tinted.

    What the films could not take over of ``like`` is added to ``notes``.
    """
    with ExitStack() as stack:
        colored = [stack.enter_context(Writer(folder / n, like, overwrite=True, format=format)) for n in names]
        tinted = stack.enter_context(Writer(folder / "origin.mp4", like, overwrite=True))

        def add(picture: np.ndarray, by_origin: np.ndarray) -> None:
            tinted.add(by_origin)
            for film in colored:
                film.add(picture)

        yield add
    notes += [note for film in colored or [tinted] for note in film.warnings if note not in notes]


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


def _make(
    folder: Path, clip: Clip, t: int, decoded: np.ndarray, state: ColorState, iteration: str
) -> tuple[np.ndarray, np.ndarray, Counter[int], list[list[float]]]:
    """Frame ``t`` of the result, written: ``(3, H, W)`` uint8, the same tinted, its pixels by origin, and its scores.

    Where it was inpainted, it is written before and after its ``iteration``, too.
    """
    kind, picture = state.kind[0].numpy(), clip.full_size(state, t, t, decoded)
    write_image(folder / "frames" / f"{t:05d}.png", picture)
    if iteration:
        filled, L, ab = kind == Origin.INPAINTED, working_luminance([decoded], clip.size)[0], state.ab[0]
        write_image(folder / f"{iteration}_before.png", _small(L, ab * ~torch.from_numpy(filled)))
        write_image(folder / f"{iteration}_after.png", _small(L, ab))
        write_image(folder / f"{iteration}_mask.png", filled[None].repeat(3, 0) * np.uint8(255))
    tinted = overlay(picture.transpose(1, 2, 0), kind).transpose(2, 0, 1)
    scores = [score(picture, decoded)] if clip.truth and t not in clip.exemplars else []
    return picture, tinted, Counter(kind.ravel().tolist()), scores


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
