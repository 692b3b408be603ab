"""Shots that show the same share their colors, and no others."""

from __future__ import annotations

import os
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import synthetic

from omnifusion import video
from omnifusion.clip import shots as matching
from omnifusion.clip.prepare import prepare
from omnifusion.clip.shots import Shot, find_references
from omnifusion.color import from_uint8, gray, luminance, to_uint8
from omnifusion.state import Video

SIZE = (144, 256)
A, B = (synthetic.make(name, frames=12, size=SIZE).video.frames for name in ("demo", "three-layers"))
CUT = np.concatenate([A[:6], B[:6], A[6:], B[6:]])
SHOTS = [Shot(0, 6), Shot(6, 12), Shot(12, 18), Shot(18, 24)]


def L(t: int) -> np.ndarray:
    return luminance(from_uint8(CUT[t]))[0].numpy()


def references(exemplars: set[int]) -> dict[int, int | None]:
    return {shot.start: shot.reference_frame for shot in find_references(SHOTS, exemplars, L)}


def test_shots_that_show_the_same_share_colors() -> None:
    found = references({0})
    assert found[0] is None and found[12] in range(6), "the exemplar's own shot, and the one that shows the same"
    assert found[6] is None and found[18] in range(6, 12), "those that look like no colored shot, and then alike"
    assert list(found)[:2] == [0, 12], "the exemplar's colors are taken before others are invented"
    assert references({0, 7, 13, 20}) == dict.fromkeys((0, 6, 12, 18))


def test_a_reference_is_colored_before() -> None:
    for exemplars in (set(), {20}, {3, 19}):
        done: list[Shot] = []
        for shot in find_references(SHOTS, exemplars, L):
            assert shot.reference_frame is None or any(shot.reference_frame in other for other in done)
            done.append(shot)
        assert sorted(shot.start for shot in done) == [0, 6, 12, 18]


def test_a_logo_makes_no_shots_alike() -> None:
    logo = np.random.default_rng(0).integers(0, 100, (24, 24)).astype(np.float32)

    def marked(t: int) -> np.ndarray:
        frame = L(t).copy()
        frame[4:28, 4:28] = logo
        return frame

    assert {shot.start: shot.reference_frame for shot in find_references(SHOTS[:2], {0}, marked)} == {0: None, 6: None}


def test_the_report_says_where_colors_come_from_and_asks_for_an_exemplar() -> None:
    clip = prepare(Video(to_uint8(gray(from_uint8(CUT))).numpy()), {0: CUT[0]}, 128)
    told = clip.report()
    assert [row["colors"] for row in told["shots"]] == ["exemplars", "prior", "matched_shot", "matched_shot"]
    assert [(row["start"], row["stop"]) for row in told["shots"]] == [(0, 6), (6, 12), (12, 18), (18, 24)]
    assert told["registration"] == [
        {"frame": 0, "before": pytest.approx(1, abs=0.01), "after": pytest.approx(1, abs=0.01)}
    ]
    notes = " ".join(clip.notes)
    assert "Frames 6 to 11 have no colored frame and look like no other shot" in notes and "such as frame 9" in notes
    assert "Frames 12 to 17 have no colored frame of their own, so they take their colors from frame" in notes


@pytest.mark.slow
@pytest.mark.skipif("OMNIFUSION_CLIPS" not in os.environ, reason="OMNIFUSION_CLIPS does not name a folder of clips")
def test_real_shots_are_unlike() -> None:
    folder = Path(os.environ["OMNIFUSION_CLIPS"])
    film = video.read(next((folder / "film").glob("*.mp4"))).frames
    frames = [film[t] for t in (20, 90, 200, 330)]
    frames += [video.read(folder / "davis" / name, 1).frames[0] for name in ("camel", "libby", "scooter-black")]
    shots = [Shot(k, k + 1) for k in range(len(frames))]
    pictures = [luminance(from_uint8(frame))[0].numpy() for frame in frames]
    assert all(
        shot.reference_frame is None for shot in find_references(shots, (), pictures.__getitem__)
    )  # all pairs, one after another


def test_many_shots_take_bounded_memory_and_the_nearest_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are numbers here, alike where their remainder by 6 is: every shot takes from the nearest like it."""
    rng = np.random.default_rng(0)
    starts = np.cumsum(rng.integers(9, 900, 300)).tolist()
    shots = [Shot(a, b) for a, b in pairwise(starts)]
    scene = {t: k % 6 for k, shot in enumerate(shots) for t in range(shot.start, shot.stop)}
    monkeypatch.setattr(matching, "detail", lambda picture: picture)
    monkeypatch.setattr(matching.features, "describe", lambda picture, most: weakly(picture))
    monkeypatch.setattr(matching, "agreement", lambda a, b, area: 20 if a.scene == b.scene else 0)
    alive: weakref.WeakSet = weakref.WeakSet()

    class Described:
        def __init__(self, scene: int) -> None:
            self.scene = scene

    def weakly(picture: np.ndarray) -> Described:
        described = Described(int(picture[0, 0]))
        alive.add(described)
        most.append(len(alive))
        return described

    most: list[int] = []
    done = matching.find_references(shots, {starts[0]}, lambda t: np.full((1, 1), scene[t]))
    assert len(done) == len(shots) and max(most) <= matching.KEPT + 2
    for shot in done:
        assert shot.reference_frame is None or scene[shot.reference_frame] == scene[shot.start]
    assert 6 <= sum(shot.reference_frame is None for shot in done) < 20
