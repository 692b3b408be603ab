"""Cuts are found, motion is none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import synthetic

from omnifusion import video
from omnifusion.clip.shots import Shot, find_shots
from omnifusion.state import Video


def test_shots_cover_the_clip_and_part_at_its_cuts() -> None:
    scenes = [
        synthetic.make(name, frames=n, size=(54, 96)).video.frames
        for name, n in (("pan", 12), ("nonrigid", 9), ("thin", 8))
    ]
    assert find_shots(Video(np.concatenate(scenes))) == [Shot(0, 12), Shot(12, 21), Shot(21, 29)]


@pytest.mark.parametrize("name", ["three-layers", "occlusion", "zoom"])
def test_motion_is_no_cut(name: str) -> None:
    assert find_shots(synthetic.make(name, frames=16, size=(54, 96)).video) == [Shot(0, 16)]


@pytest.mark.parametrize("cut", [1, 2, 8, 9])
def test_a_cut_near_the_ends_is_found(cut: int) -> None:
    a, b = (synthetic.make(name, frames=10, size=(54, 96)).video.frames for name in ("pan", "nonrigid"))
    assert find_shots(Video(np.concatenate([a[:cut], b[cut:]]))) == [Shot(0, cut), Shot(cut, 10)]


@pytest.mark.parametrize("into", ["black", "nonrigid"])
def test_fades_and_dissolves_are_no_cuts(into: str) -> None:
    a = synthetic.make("pan", frames=16, size=(54, 96)).video.frames
    b = synthetic.make(into, frames=16, size=(54, 96)).video.frames if into != "black" else np.zeros_like(a)
    share = np.clip((np.arange(16.0) - 4) / 8, 0, 1).reshape(-1, 1, 1, 1)
    frames = (a * (1 - share) + b * share).astype(np.uint8)
    for end in range(2, 17):  # whole, and ending in the midst of it
        assert find_shots(Video(frames[:end])) == [Shot(0, end)]
        assert find_shots(Video(frames[::-1][:end])) == [Shot(0, end)]


def test_a_frame_with_a_picture_is_no_duplicate() -> None:
    shot = Shot(0, 5, duplicates={1: 0, 2: 0, 4: 3})
    assert shot.with_processed([0, 2]).duplicates == {1: 0, 4: 3}
    assert shot.with_processed([1]).duplicates == {0: 1, 2: 1, 4: 3}


def test_one_frame_and_still_clips() -> None:
    frame = synthetic.make("pan", frames=1, size=(54, 96)).video.frames
    assert find_shots(Video(frame)) == [Shot(0, 1)]
    assert find_shots(Video(np.repeat(frame, 10, 0))) == [Shot(0, 10)]


@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_real_film() -> None:
    clips = Path(os.environ["OMNIFUSION_CLIPS"])
    film = video.read(next((clips / "film").glob("*.mp4")))
    assert [shot.start for shot in find_shots(film)] == [0, 44, 134, 299]
    for name in ("motocross-jump", "scooter-black", "libby"):
        assert len(find_shots(video.read(clips / "davis" / name))) == 1


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("light", [(3.0, 60), (0.0, 0)], ids=["flash", "black"])
def test_a_flash_is_no_cut(length: int, light: tuple[float, int]) -> None:
    frames = np.array(synthetic.make("pan", frames=16, size=(54, 96)).video.frames)
    burst = frames[6 : 6 + length] * light[0] + light[1]
    frames[6 : 6 + length] = burst.clip(0, 255)
    assert find_shots(Video(frames)) == [Shot(0, 16)]
    other = synthetic.make("nonrigid", frames=8, size=(54, 96)).video.frames
    assert find_shots(Video(np.concatenate([frames, other]))) == [Shot(0, 16), Shot(16, 24)]
