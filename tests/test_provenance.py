"""Laws of corrections: what shows the same changes, nothing else does, and corrections follow one another."""

from __future__ import annotations

from dataclasses import fields

import pytest
import synthetic
import torch
from torch import Tensor

from omnifusion.algorithm import colorize
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.correction.provenance import ColorLineage, correct, first_sources, resolve, track_ids
from omnifusion.geometry import pixel_grid
from omnifusion.progress import InputError, run_to_end
from omnifusion.settings import choose
from omnifusion.state import ColorState, Origin

GREEN = torch.tensor([-40.0, 30.0])


@pytest.fixture(scope="module")
def clip() -> tuple[ColorState, Tensor]:
    """A colored clip and where its foreground is, ``(T, h, w)`` bool."""
    made = synthetic.make("two-layers", frames=8, size=(108, 192), seed=1)
    lab = rgb_to_lab(from_uint8(made.video.frames))
    state = run_to_end(colorize(lab[:, :1], {0: lab[0, 1:]}, choose("draft"))).state
    return state, torch.stack(
        [made.layer_of(pixel_grid(108, 192).reshape(-1, 2), t).reshape(108, 192) == 0 for t in range(8)]
    )


def patch(where: Tensor) -> Tensor:
    return torch.where(where, GREEN[:, None, None], torch.nan)


def changed(a: ColorState, b: ColorState) -> Tensor:
    """Where two states differ in anything but luminance."""
    differences = [getattr(a, f.name) != getattr(b, f.name) for f in fields(ColorState)]
    return torch.stack([x.any(1) if x.ndim == 4 else x for x in differences]).any(0)


@pytest.mark.parametrize("frame", [0, 4, 7])
def test_what_shows_the_same_changes_and_nothing_else(clip, frame: int) -> None:
    state, front = clip
    new = run_to_end(correct(state, {frame: patch(front[frame])}))
    same = ColorLineage(state).trace(frame, front[frame]) >= 0
    assert torch.equal(changed(state, new), same)
    assert torch.equal(new.iteration == int(state.iteration.max()) + 1, same)
    assert torch.equal((new.kind == Origin.EXEMPLAR)[frame], (state.kind == Origin.EXEMPLAR)[frame] | front[frame])
    assert torch.equal(new.ab[frame][:, front[frame]], patch(front[frame])[:, front[frame]])
    green = (new.ab - GREEN[:, None, None]).norm(dim=1) < 1
    assert green[front].float().mean() > 0.9, "the thing is corrected in both directions of time"
    assert green[~front].float().mean() < 0.01, "nothing else is"


def test_all_colors_come_from_the_exemplar(clip) -> None:
    state, _ = clip
    assert (first_sources(state) < 108 * 192).all()
    assert torch.equal(changed(state, run_to_end(correct(state, {0: patch(torch.ones(108, 192) > 0)}))), state.mask)


def test_likeness_is_no_sameness(clip) -> None:
    state, _ = clip
    source = torch.zeros_like(state.source)
    origin = torch.zeros_like(state.origin)
    inpainted, follower = (3, 5, 5), (4, 6, 6)
    for at, kind, root in ((inpainted, Origin.INPAINTED, (0, 9, 9)), (follower, Origin.PROPAGATED, inpainted)):
        source[at] = (root[0] - at[0]) * 108 * 192 + (root[1] - at[1]) * 192 + root[2] - at[2]
        origin[at] = int(kind)
    made = ColorState(state.L, state.ab, origin, state.confidence, source)
    for painted, expected in ((inpainted, [inpainted, follower]), ((0, 9, 9), [(0, 9, 9), inpainted, follower])):
        where = torch.zeros(108, 192, dtype=torch.bool)
        where[painted[1:]] = True
        new = run_to_end(correct(made, {painted[0]: patch(where)}))
        assert changed(made, new).nonzero().tolist() == [list(at) for at in expected]


def test_what_a_patch_does_not_show_goes_with_what_is_like_it() -> None:
    h, w, pan = 60, 100, 30  # frame 1 shows columns 30 to 99 of frame 0, and invents 30 more
    L, ab = torch.full((2, 1, h, w), 50.0), torch.zeros(2, 2, h, w)
    thing = torch.arange(w) + torch.tensor([[0], [pan]]) < 60
    ab[:, 0] = 30.0 * thing[:, None]
    origin, source = torch.zeros(2, h, w, dtype=torch.int16), torch.zeros(2, h, w, dtype=torch.int32)
    origin[1, :, : w - pan], source[1, :, : w - pan] = int(Origin.PROPAGATED), pan - h * w
    origin[1, :, w - pan :] = 3 + int(Origin.INPAINTED)
    other, kept = (slice(5, 9), slice(20, 24)), (slice(20, 24), slice(4))
    ab[0, 1][other] = 30.0
    source[1, :4, -4:] = (torch.arange(20, 24)[:, None] - torch.arange(4)[:, None]) * w - (w - 4) - h * w
    state = ColorState(L, ab, origin, torch.ones(2, h, w).half(), source)
    new = run_to_end(correct(state, {1: patch(thing[1].expand(h, w))}))
    expected = thing[:, None].repeat(1, h, 1)
    expected[0][other] = False  # of another color
    expected[0][kept] = False  # frame 1 shows what came from there, and it was not painted
    differs = changed(state, new)
    assert torch.equal(differs[1], expected[1])
    assert not (differs & ~expected).any() and differs[0][expected[0]].float().mean() > 0.8


def test_what_is_locked_and_other_frames_stay(clip) -> None:
    state, front = clip
    left = torch.zeros(108, 192, dtype=torch.bool)
    left[:, : int(front[4].nonzero()[:, 1].float().mean())] = True
    new = run_to_end(correct(state, {4: patch(front[4])}, {4: left, 6: left}, range(2, 7)))
    differs = changed(state, new)
    assert not differs[[0, 1, 7]].any()
    assert not differs[4][left].any() and not differs[6][left].any()
    thing = track_ids(state)
    assert not torch.isin(thing[differs], thing[4][left & ~front[4]]).any(), "what is locked is locked in every frame"
    assert differs[4].any() and differs[2].any()


def test_corrections_follow_one_another(clip) -> None:
    state, front = clip
    once = run_to_end(correct(state, {5: patch(front[5])}))
    assert torch.equal(track_ids(once), track_ids(state)) or (state.kind[5][front[5]] == Origin.INPAINTED).any()
    again = run_to_end(correct(once, {5: torch.where(front[5], state.ab[5], torch.nan)}))
    assert torch.equal(again.ab[5][:, front[5]], state.ab[5][:, front[5]])
    assert int(again.iteration.max()) == int(once.iteration.max()) + 1


def test_what_cannot_be_corrected_is_refused(clip) -> None:
    state, front = clip
    for edit, word in (
        (({9: patch(front[4])},), "frames 0 to 7"),
        (({4: patch(front[4])}, {4: front[4]}), "locked"),
        (({4: patch(front[4])}, {}, range(5, 9)), "name others"),
        (({4: patch(front[4])}, {}, range(5, 4)), "name others"),
        (({4: patch(front[4])}, {}, range(5, 7)), "outside"),
    ):
        with pytest.raises(InputError, match=word):
            run_to_end(correct(state, *edit))


def test_pointers_end_or_are_refused() -> None:
    chain = torch.arange(-1, 99).clamp_min(0)
    assert torch.equal(resolve(chain), torch.zeros_like(chain))
    with pytest.raises(InputError, match="damaged"):
        resolve(torch.tensor([1, 2, 0, 3]))
