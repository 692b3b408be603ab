"""Frames that are made side by side are those that are made one after another, in order and within memory."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import synthetic
import torch

from omnifusion.clip.prepare import Clip, prepare
from omnifusion.progress import StepIterator
from omnifusion.run import export as delivery
from omnifusion.run.cache import frames_of
from omnifusion.state import ColorState, Exemplar, Origin


@pytest.fixture(scope="module")
def clip() -> Clip:
    made = synthetic.make("demo", 6, (96, 128), seed=0).video
    return prepare(made, [Exemplar(0, made.frames[0])], 64)


def delivered(clip: Clip, folder: Path, threads: int) -> tuple[dict[str, bytes], object]:
    values = torch.randn(6, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    colors = {t: (values[t, 0] > -0.25, 40 * values[t, 1:]) for t in range(6)}
    state = ColorState.gray(clip.L).paint(colors, 3, Origin.INPAINTED)
    for name in ("frames", "iterations"):
        (folder / name).mkdir(parents=True)
    work = StepIterator(delivery.deliver(folder, clip, partial(frames_of, state), "h264", threads))
    assert [step.done for step in work][-1] == 1
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}, work.result


def test_threads_change_nothing(clip: Clip, tmp_path: Path) -> None:
    one, told = delivered(clip, tmp_path / "one", 1)
    three, told_of_three = delivered(clip, tmp_path / "three", 3)
    assert one == three and told == told_of_three
    kinds, scores = told  # type: ignore[misc]
    assert sum(kinds.values()) == 6 * 48 * 64 and 0.5 < kinds[Origin.INPAINTED] / kinds.total() < 0.7
    assert len(scores) == 5, "the exemplar's own frame is not scored"
    assert len([name for name in one if name.startswith("frames")]) == 6


def test_no_more_is_begun_than_there_are_threads_and_errors_are_told() -> None:
    begun: list[int] = []

    def jobs() -> object:
        for k in range(9):
            begun.append(k)
            yield (k,)

    usual = torch.get_num_threads()
    for k, found in enumerate(delivery._ahead(lambda k: k * k, jobs(), 2)):  # type: ignore[arg-type]
        assert found == k * k and len(begun) <= k + 3
    with pytest.raises(ZeroDivisionError):
        list(delivery._ahead(lambda k: 1 // (4 - k), jobs(), 2))  # type: ignore[arg-type]
    assert torch.get_num_threads() == usual


def test_memory_bounds_what_is_made_at_once() -> None:
    assert delivery.makers((4320, 7680), 4096) == 1
    assert delivery.makers((72, 128), 1e6) == os.cpu_count()
