"""Old film: found, cleaned for matching, delivered as it is; a clean clip is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from omnifusion import video
from omnifusion.algorithm import colorize
from omnifusion.clip.film import inspect
from omnifusion.clip.prepare import prepare, working_luminance
from omnifusion.clip.shots import Shot
from omnifusion.color import from_uint8, gray, luminance, to_uint8
from omnifusion.evaluation.degrade import DUPLICATE_EVERY, degrade
from omnifusion.progress import InputError, run_to_end
from omnifusion.settings import choose
from omnifusion.state import Exemplar, Video

SIZE = (108, 192)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return np.asarray(synthetic.make("demo", frames=12, size=SIZE).video.frames)


def duplicates(frames: np.ndarray) -> dict[int, int]:
    return {t: source for shot in inspect(Video(frames), SIZE).shots for t, source in shot.duplicates.items()}


def test_a_clean_clip_is_matched_as_it_is(clean: np.ndarray) -> None:
    clip = prepare(Video(clean), [], 160)
    assert not clip.film.old and clip.shots == [Shot(0, 12)]
    assert torch.equal(clip.L, working_luminance(clean, clip.size))


def test_an_old_film_is_known_and_cleaned(clean: np.ndarray) -> None:
    aged, truth = degrade(clean)
    clip = prepare(Video(aged), [Exemplar(0, truth[0])], 160)
    assert clip.film.old and clip.film.grain > 0.6 and clip.film.flicker > 0.05
    assert any("old" in note for note in clip.notes) and clip.report()["film"]["cleaned"]
    raw, true = (working_luminance(x, clip.size) for x in (aged, truth))
    new = [t for t in range(len(raw)) if t not in clip.shots[0].duplicates]

    def change(L: torch.Tensor) -> float:  # of the whole frame's brightness: flicker
        return float(L[new].mean((1, 2, 3)).diff().abs().mean())

    def detail(L: torch.Tensor) -> torch.Tensor:
        return L[new] - L[new].mean((2, 3), keepdim=True)

    assert torch.equal(clip.luminance([0, 6, 7, 8]), clip.L[[0, 6, 7, 8]]), "a window sees the film that all see"
    assert change(clip.L) < 0.3 * change(raw)
    assert (detail(clip.L) - detail(true)).abs().mean() < 0.9 * (detail(raw) - detail(true)).abs().mean()


def test_flicker_makes_no_cuts_and_a_cut_is_still_found(clean: np.ndarray) -> None:
    other = synthetic.make("three-layers", frames=10, size=SIZE).video.frames
    assert [shot.start for shot in inspect(Video(degrade(clean)[0]), SIZE).shots] == [0]
    both = degrade(np.concatenate([clean, other]))[0]
    assert [shot.start for shot in inspect(Video(both), SIZE).shots] == [0, 12 + 12 // DUPLICATE_EVERY]


@pytest.mark.parametrize(
    "shown",
    [
        [t for t in range(12) for _ in range(1 + (t % 4 == 3))],  # every fourth twice
        [t for t in range(12) for _ in range(2)],  # 12 frames a second at 24
        [t for t in range(12) for _ in range(1 + (t % 2))],  # 16 at 24
        [t for t in range(12) for _ in range(3)],
    ],
)
def test_repeated_frames_are_found(clean: np.ndarray, shown: list[int]) -> None:
    assert duplicates(clean[shown]) == {k: shown.index(t) for k, t in enumerate(shown) if shown.index(t) != k}


@pytest.mark.parametrize("noise", [0, 2])
def test_what_moves_is_not_repeated(noise: int) -> None:
    for name in ("three-layers", "pan", "zoom"):
        frames = synthetic.make(name, frames=10, size=SIZE).video.frames.astype(float)
        frames += np.random.default_rng(0).normal(0, noise, frames.shape)
        assert not duplicates(frames.clip(0, 255).astype(np.uint8))


def test_repeated_frames_have_one_color_exactly_also_beside_an_exemplar(clean: np.ndarray) -> None:
    shown = [0, 1, 1, 2, 3, 3]
    frames = to_uint8(gray(from_uint8(clean[shown]))).numpy()
    clip = prepare(Video(frames), [Exemplar(2, clean[1])], 96)
    assert clip.shots == [Shot(0, 6, duplicates={1: 2, 5: 4})], (
        "the frame with the exemplar is the one that is repeated"
    )
    state = run_to_end(colorize(clip.L, clip.exemplar_ab(), choose("draft"), clip.shots)).state
    made = [clip.full_size(state, t) for t in range(6)]
    assert np.array_equal(made[1], made[2]) and np.array_equal(made[4], made[5])
    assert not np.array_equal(made[0], made[1])


def test_luminance_is_delivered_as_it_was(clean: np.ndarray) -> None:
    aged, truth = degrade(clean[:5])
    clip = prepare(Video(aged), [Exemplar(0, truth[0])], 96)
    assert clip.film.old
    state = run_to_end(colorize(clip.L, clip.exemplar_ab(), choose("draft"), clip.shots)).state
    for t in range(len(aged)):
        given, made = (luminance(from_uint8(x)) for x in (aged[t], clip.full_size(state, t)))
        assert (given - made).abs().quantile(0.99) < 1.0


def woven(frames: np.ndarray) -> np.ndarray:
    """Interlaced: odd lines are of the next moment."""
    both = frames[:-1].copy()
    both[:, :, 1::2] = frames[1:, :, 1::2]
    return both


def test_interlaced_clips_are_refused_with_what_would_help(clean: np.ndarray) -> None:
    moving = synthetic.make("pan", frames=12, size=(144, 256)).video.frames
    assert inspect(Video(moving), SIZE).combed == 0 == inspect(Video(degrade(moving)[0]), SIZE).combed
    with pytest.raises(InputError, match=r"interlaced.*ffmpeg.*bwdif"):
        prepare(Video(woven(moving)), [], 96)
    assert len(prepare(Video(woven(moving)), [], 96, force=True).shots) == 1
    telecined = moving[:10].copy()
    telecined[[2, 3, 7, 8], :, 1::2] = moving[[3, 4, 8, 9], :, 1::2]
    with pytest.raises(InputError, match="fieldmatch"):
        prepare(Video(telecined), [], 96)


@pytest.mark.slow
@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_real_clips() -> None:
    folder = Path(os.environ["OMNIFUSION_CLIPS"])
    for path in [*sorted((folder / "davis").iterdir())[::3], folder / "mp4" / "juggle.mp4"]:
        found = inspect(video.read(path, 24), (252, 448))
        assert not found.old and found.combed == 0 and not any(shot.duplicates for shot in found.shots)
    film = inspect(video.read(next((folder / "film").glob("*.mp4"))), (320, 432))
    assert [shot.start for shot in film.shots] == [0, 44, 134, 299] and not film.old
    assert 60 < sum(len(shot.duplicates) for shot in film.shots) < 73, (
        "24 frames a second, shown at 29: one in five or six"
    )
