"""What a clip's pictures hold: flicker is evened out for matching, delivered as it is; a clean clip is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import synthetic
import torch
from synthetic.aging import DUPLICATE_EVERY, degrade

from omnifusion import video
from omnifusion.algorithm import colorize
from omnifusion.clip.film import inspect
from omnifusion.clip.prepare import Clip, prepare, working_luminance
from omnifusion.clip.shots import Shot
from omnifusion.color import from_uint8, gray, luminance, to_uint8
from omnifusion.progress import InputError, run_to_end
from omnifusion.settings import choose
from omnifusion.state import Video

SIZE = (108, 192)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return np.asarray(synthetic.make("demo", frames=12, size=SIZE).video.frames)


def duplicates(frames: np.ndarray) -> dict[int, int]:
    return {t: source for shot in inspect(Video(frames), SIZE).shots for t, source in shot.duplicates.items()}


def test_a_clean_clip_is_matched_as_it_is(clean: np.ndarray) -> None:
    clip = prepare(Video(clean), {}, 160)
    assert not clip.film.old and clip.shots == [Shot(0, 12)]
    assert torch.equal(clip.L, working_luminance(clean, clip.size))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 64), (64, 1), (300, 5), (2, 256)])
def test_no_picture_is_too_small_to_be_looked_at(size: tuple[int, int]) -> None:
    film = inspect(Video(np.random.default_rng(0).integers(0, 255, (3, 3, *size), dtype=np.uint8)), size)
    assert np.isfinite(film.grain) and not film.combed


def test_an_old_film_is_known_and_cleaned(clean: np.ndarray) -> None:
    aged, truth = degrade(clean)
    clip = prepare(Video(aged), {0: truth[0]}, 160)
    assert clip.film.old and clip.film.grain > 0.9 and clip.film.flicker > 0.05
    assert any("old" in note for note in clip.notes) and clip.report()["film"]["cleaned"]
    raw = working_luminance(aged, clip.size)
    new = [t for t in range(len(raw)) if t not in clip.shots[0].duplicates]

    def change(L: torch.Tensor) -> float:  # of the whole frame's brightness
        return float(L[new].mean((1, 2, 3)).diff().abs().mean())

    assert torch.equal(clip.luminance([0, 6, 7, 8]), clip.L[[0, 6, 7, 8]]), "a window sees the film that all see"

    assert change(clip.L) < 0.3 * change(raw)
    assert 0.3 < clip.film.cleaned(torch.randn(2, 1, 80, 80)).std() < 0.5, "most of the grain goes"


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
    clip = prepare(Video(frames), {2: clean[1]}, 96)
    assert clip.shots == [Shot(0, 6, duplicates={1: 2, 5: 4})], (
        "the frame with the exemplar is the one that is repeated"
    )
    state = run_to_end(colorize(clip.L, clip.exemplar_ab(), choose("draft"), clip.shots)).state
    made = [clip.full_size(state, t) for t in range(6)]
    assert np.array_equal(made[1], made[2]) and np.array_equal(made[4], made[5])
    assert not np.array_equal(made[0], made[1])


def test_luminance_is_delivered_as_it_was(clean: np.ndarray) -> None:
    aged, truth = degrade(clean[:5])
    clip = prepare(Video(aged), {0: truth[0]}, 96)
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
        prepare(Video(woven(moving)), {}, 96)
    assert len(prepare(Video(woven(moving)), {}, 96, force=True).shots) == 1
    telecined = moving[:10].copy()
    telecined[[2, 3, 7, 8], :, 1::2] = moving[[3, 4, 8, 9], :, 1::2]
    with pytest.raises(InputError, match="fieldmatch"):
        prepare(Video(telecined), {}, 96)


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


@pytest.mark.parametrize("move", [0, 2])
@pytest.mark.parametrize("lines", ["blind", "tube"])
def test_stripes_are_not_interlacing(lines: str, move: int) -> None:
    picture = synthetic.make("demo", frames=1, size=(200, 360)).video.frames[0, 1].astype(np.float32)
    if lines == "blind":
        picture[40:140:2, 90:240] += 35
    else:
        picture[::2] *= 0.8
    frames = np.stack([picture[:180, move * t : 300 + move * t] for t in range(10)])
    clip = prepare(Video(frames.clip(0, 255).astype(np.uint8)[:, None].repeat(3, 1)), {}, 160)
    assert clip.film.combed > 0.9 and clip.film.interlaced == 0
    assert any("Lines alternate" in note for note in clip.notes)


def color_of(frames: np.ndarray) -> np.ndarray:
    """Distance of each pixel from gray, ``(T, H, W)``."""
    return np.ptp(np.asarray(frames).astype(int), axis=1)


def without_color(frames: np.ndarray) -> np.ndarray:
    return to_uint8(gray(from_uint8(frames))).numpy()


def finished(frames: np.ndarray, exemplars: dict[int, np.ndarray], side: int = 96) -> tuple[Clip, np.ndarray]:
    """A clip, prepared and colored, and its frames."""
    clip = prepare(Video(frames), exemplars, side)
    state = run_to_end(colorize(clip.L, clip.exemplar_ab(), choose("draft"), clip.shots)).state
    return clip, np.stack([clip.full_size(state, t) for t in range(len(frames))])


def test_a_colored_logo_makes_no_color_film_and_stays(clean: np.ndarray) -> None:
    frames = without_color(clean[:5])
    frames[:, :, 6:18, 160:180] = np.array([220, 30, 40], np.uint8)[:, None, None]
    clip, made = finished(frames, {0: clean[0]})
    assert not clip.truth and any("logo" in note for note in clip.notes)
    assert np.abs(made[:, :, 8:16, 162:178].astype(int) - frames[:, :, 8:16, 162:178]).max() < 6
    assert color_of(made[2:, :, 30:]).mean() > 0.7 * color_of(clean[2:5, :, 30:]).mean()


def test_shots_in_color_keep_it_beside_gray_ones(clean: np.ndarray) -> None:
    other = np.asarray(synthetic.make("three-layers", frames=6, size=SIZE).video.frames)
    frames = np.concatenate([without_color(clean[:6]), other])
    clip, made = finished(frames, {0: clean[0]})
    assert not clip.truth and any("Frames 6 to 11 are in color" in note for note in clip.notes)
    assert np.array_equal(made[6:], other) and color_of(made[:6]).mean() > 0.7 * color_of(clean[:6]).mean()
    assert prepare(Video(np.concatenate([clean[:6], other])), {}, 96).truth, "in color as a whole: it is scored"


def test_a_fade_from_black_takes_chroma_with_it(clean: np.ndarray) -> None:
    share = (np.linspace(0, 1, 8) ** 1.2).reshape(-1, 1, 1, 1)
    faded = np.rint(clean[:8] * share).astype(np.uint8)
    _, made = finished(without_color(faded), {7: faded[7]})
    ours, theirs = color_of(made).mean((1, 2)), color_of(faded).mean((1, 2))
    assert (ours < 1.3 * theirs + 3).all() and (ours[3:] > 0.6 * theirs[3:]).all()


def test_text_that_comes_on_in_the_middle_stays_white(clean: np.ndarray) -> None:
    frames, text = without_color(clean[:9]), np.zeros(SIZE, np.uint8)
    cv2.putText(text, "BURNED IN", (20, 98), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2)
    frames[4:, :, text > 0] = 228
    clip, made = finished(frames, {0: clean[0]}, SIZE[1])
    assert [(found.start, found.stop) for found in clip.film.texts] == [(4, 9)]
    inner = cv2.erode(text, np.ones((2, 2))) > 0
    assert color_of(made[4:])[:, inner].mean() < 3 and color_of(made[4:]).mean() > 0.6 * color_of(clean[4:9]).mean()
    assert not inspect(Video(clean), SIZE).texts
