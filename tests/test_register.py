"""Exemplars: what fits stays as it is, what is displaced is put in place, what does not fit is refused."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import synthetic

from omnifusion import video
from omnifusion.clip.prepare import working_chroma
from omnifusion.clip.register import correlation, register
from omnifusion.color import from_uint8, gray, to_uint8
from omnifusion.progress import InputError

SIZE = (144, 256)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return synthetic.make("demo", frames=1, size=SIZE).video.frames[0]


@pytest.fixture(scope="module")
def frame(picture: np.ndarray) -> np.ndarray:
    return to_uint8(gray(from_uint8(picture))).numpy()


def displaced(picture: np.ndarray, wave: float) -> np.ndarray:
    """Another crop, slightly turned, ``wave`` px of bending, paler."""
    x, y = np.meshgrid(np.arange(SIZE[1], dtype=np.float32), np.arange(SIZE[0], dtype=np.float32))
    u = 1.05 * x + 0.02 * y - 6 + wave * np.sin(y / 20)
    v = -0.01 * x + 1.04 * y + 4 + wave * np.sin(x / 25)
    moved = [cv2.remap(channel, u, v, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT) for channel in picture]
    return (255 * (np.stack(moved) / 255.0) ** 0.8 * 0.85 + 20).astype(np.uint8)


def test_what_lines_up_is_untouched(picture: np.ndarray, frame: np.ndarray) -> None:
    placed = register(picture, frame)
    assert np.array_equal(placed.image, picture) and placed.before > 0.999 and placed.warning is None
    paler = (picture * 0.7 + 40).astype(np.uint8)
    assert np.array_equal(register(paler, frame).image, paler)


def test_another_size_is_only_resized(picture: np.ndarray, frame: np.ndarray) -> None:
    large = cv2.resize(picture.transpose(1, 2, 0), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST).transpose(2, 0, 1)
    assert np.array_equal(register(large, frame).image, picture)


@pytest.mark.parametrize("wave", [0.0, 2.5])
def test_what_is_displaced_is_put_in_place(picture: np.ndarray, frame: np.ndarray, wave: float) -> None:
    given = displaced(picture, wave)
    placed = register(given, frame)
    assert placed.before < 0.9 < 0.97 < placed.after
    assert placed.warning is not None and f"{placed.before:.2f}" in placed.warning
    chroma = [
        cv2.cvtColor(x[:3].transpose(1, 2, 0), cv2.COLOR_RGB2Lab)[12:-12, 12:-12, 1:].astype(float)
        for x in (picture, given, placed.image)
    ]
    assert np.abs(chroma[2] - chroma[0]).mean() < 0.5 * np.abs(chroma[1] - chroma[0]).mean()


def test_another_picture_is_refused_unless_forced(frame: np.ndarray) -> None:
    other = synthetic.make("pan", frames=1, size=SIZE).video.frames[0]
    with pytest.raises(InputError, match=r"matches at -?0\.\d\d.*--force"):
        register(other, frame)
    assert register(other, frame, force=True).image.shape == other.shape


def test_shape_and_color_are_checked_after_registration(picture: np.ndarray, frame: np.ndarray) -> None:
    crop = register(picture[:, :130], frame)
    assert crop.after > 0.97 and crop.image.shape == (4, *SIZE)
    assert crop.image[3, :126].mean() > 250 and not crop.image[3, 134:].any(), "what it does not show is left open"
    other = synthetic.make("pan", frames=1, size=SIZE).video.frames[0]
    with pytest.raises(InputError, match=r"256x130.*256x144.*3 %"):
        register(other[:, :130], frame, force=True)
    with pytest.raises(InputError, match=r"512x144.*3 %"):
        register(np.repeat(picture, 2, axis=2), frame)
    assert register(picture[:, :141], frame).image.shape[1:] == SIZE
    with pytest.raises(InputError, match="gray"):
        register(frame, frame)


def test_what_is_not_in_the_frame_is_left_open(picture: np.ndarray, frame: np.ndarray) -> None:
    painted = displaced(picture, 0.0)
    painted[:, 40:90, 60:120] = np.random.default_rng(0).integers(0, 255, (3, 50, 60))
    found = register(painted, frame)
    assert found.image.shape == (4, *SIZE) and found.after > 0.97
    assert found.image[3, 52:78, 75:105].mean() < 64 and found.image[3, 100:, :].mean() > 200


def test_correlation() -> None:
    a = np.random.default_rng(0).normal(size=(20, 30))
    assert correlation(a, 3 * a + 1) == pytest.approx(1) and correlation(a, -a) == pytest.approx(-1)
    flat = np.ones((20, 30))
    assert correlation(flat, a) == 0 and correlation(flat, 2 * flat) == 1


@pytest.mark.slow
@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_real_references() -> None:
    folder = Path(os.environ["OMNIFUSION_CLIPS"]) / "film"
    film = video.read(next(folder.glob("*.mp4")))
    for path in sorted((folder / "references").iterdir()):
        placed = register(video.read_image(path), film.frames[int(path.name[:7]) - 869])
        assert 0.65 < placed.before < 0.76 and placed.after > 0.99 and placed.warning


def enlarged(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(picture.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_picture_saved_sideways_is_turned(picture: np.ndarray, frame: np.ndarray, turn: int) -> None:
    found = register(np.rot90(picture, turn, (1, 2)), frame)
    assert np.array_equal(found.image, picture) and found.warning is not None and "turned" in found.warning


def test_bars_of_either_side_are_no_matter(picture: np.ndarray, frame: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    boxed = np.repeat(rng.integers(2, 7, (1, 200, 256), dtype=np.uint8), 3, 0)
    boxed[:, 28:172] = frame
    within = register(enlarged(picture, 512, 288), boxed)
    error = np.abs(within.image[:3, 30:170].astype(int) - picture[:, 2:142])
    assert error.mean() < 6 and within.warning is not None and "between the frame's bars" in within.warning
    assert not np.ptp(within.image[:3, :28], axis=0).any(), "the bars have no color"
    canvas = np.full((3, 256, 256), 255, np.uint8)
    canvas[:, 56:200] = picture
    assert np.abs(register(canvas, frame).image[:3].astype(int) - picture).mean() < 3


def test_a_picture_in_the_shape_that_players_show_fits(picture: np.ndarray) -> None:
    squeezed = enlarged(picture, 180, 144)  # PAL, 16:9
    thin = to_uint8(gray(from_uint8(squeezed))).numpy()
    found = register(enlarged(picture, 1024, 576), thin, pixel_aspect=64 / 45)
    assert np.abs(found.image[:3].astype(int) - squeezed).mean() < 6 and found.after > 0.98


def test_what_is_transparent_is_left_open_and_the_rest_put_in_place(picture: np.ndarray, frame: np.ndarray) -> None:
    moved = displaced(picture, 0.0)
    alpha = np.full((1, *SIZE), 255, np.uint8)
    alpha[:, 0] = 254
    nearly, plain = register(np.concatenate([moved, alpha]), frame), register(moved, frame)
    assert np.array_equal(nearly.image, plain.image) and nearly.after == plain.after
    alpha[:, :, :40] = 0
    partly = register(np.concatenate([moved, alpha]), frame)
    assert partly.after > 0.95 and not partly.image[3, :, :30].any() and partly.image[3, 60:100, 80:200].mean() > 200


def test_a_stroke_thinner_than_a_pixel_of_the_working_size_counts() -> None:
    painted = np.zeros((4, 240, 400), np.uint8)
    painted[:, 100:102, 50:350] = np.array([200, 30, 30, 255], np.uint8)[:, None, None]
    ab = working_chroma(painted, (38, 64))
    assert 40 < int(ab[0].isfinite().sum()) < 120 and float(ab[0].nan_to_num().max()) > 50


def test_little_color_is_enough_with_a_word(picture: np.ndarray, frame: np.ndarray) -> None:
    muted = np.clip(frame + 0.06 * (picture.astype(float) - frame), 0, 255).astype(np.uint8)
    found = register(muted, frame)
    assert np.array_equal(found.image, muted) and found.warning is not None and "little color" in found.warning
    with pytest.raises(InputError, match=r"gray throughout.*--force"):
        register(frame, frame)
    assert register(frame, frame, force=True).before > 0.99
