"""Algorithm 1 with an exact tracker and a prior that paints a known color: what is colored when, and by what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic
import torch

from omnifusion.algorithm import Result, bracketing_exemplars, colorize, next_frames
from omnifusion.clip.shots import Shot
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.flow import match
from omnifusion.flow.confidence import probability
from omnifusion.progress import Colored, Round, Step, run_to_end
from omnifusion.propagate import LUMINANCE_SIGMA, SourceFrame, gather_sigma, warp
from omnifusion.settings import choose
from omnifusion.stages import Stages
from omnifusion.state import ColorState, Origin

PAINT = torch.tensor([12.0, -34.0])
PAINTED = {"omnimotion": "draft", "diffusion": "always"}


def paint_known(tasks, settings):
    yield Step("inpaint", "painting", done=1.0)
    return [torch.where(task.mask, task.ab, PAINT[:, None, None].expand_as(task.ab)) for task in tasks]


@pytest.fixture(scope="module")
def clip() -> tuple[synthetic.MadeClip, torch.Tensor]:
    made = synthetic.make("two-layers", frames=10, size=(48, 80), seed=1)
    return made, rgb_to_lab(from_uint8(made.video.frames))


def exact(made: synthetic.MadeClip) -> Stages:
    def fit(L, settings):
        yield Step("fit", done=1.0)
        return made

    return Stages(fit, paint_known)


def propagated(made: synthetic.MadeClip, state: ColorState, frame: int, trust_tracker: bool = False) -> ColorState:
    """One frame after frame 0 has given it its color."""
    colors, accepted = warp(made, state, SourceFrame.of(state, 0), frame, 0, trust_tracker)
    return state.paint(frame, accepted, colors, 0, Origin.PROPAGATED)


def run(clip, exemplars=(0,), shots=None, **changes) -> tuple[Result, list[Step]]:
    made, lab = clip
    steps: list[Step] = []
    work = colorize(
        lab[:, :1], {e: lab[e, 1:] for e in exemplars}, choose(**PAINTED, **changes), shots, stages=exact(made)
    )
    return run_to_end(work, steps.append), steps


@pytest.mark.parametrize("order", ["next", "keyframes", "grayest"])
@pytest.mark.parametrize("exemplars", [(0,), (5,), (2, 7), ()])
def test_every_pixel_ends_with_one_color_and_an_origin(clip, order: str, exemplars: tuple[int, ...]) -> None:
    result, steps = run(clip, exemplars, order=order)
    state, lab = result.state, clip[1]
    assert state.mask.all()
    assert torch.equal(state.L, lab[:, :1])
    for e in exemplars:
        assert (state.kind[e] == Origin.EXEMPLAR).all()
        assert torch.equal(state.ab[e], lab[e, 1:])
    before = None
    for step in steps:
        if isinstance(step, Colored):
            state_then = step.state.stacked()
            if before is not None:
                had = before.mask
                assert torch.equal(state_then.origin[had], before.origin[had])
                assert torch.equal(state_then.ab.movedim(1, -1)[had], before.ab.movedim(1, -1)[had])
            before = state_then
    painted = (state.kind == Origin.INPAINTED).sum()
    assert sum(i.inpainted for i in result.iterations) == painted
    assert sum(i.propagated for i in result.iterations) == (state.kind == Origin.PROPAGATED).sum()
    assert result.iterations[-1].remaining == 0


def test_what_the_exemplar_sees_is_propagated_from_it(clip) -> None:
    made, lab = clip
    result, _ = run(clip)
    first = (result.state.iteration == 0) & (result.state.kind == Origin.PROPAGATED)
    grid = torch.stack(torch.meshgrid(torch.arange(80.0), torch.arange(48.0), indexing="xy"), -1)
    _, visible = made.correspond(grid.reshape(-1, 2), 4, 0)
    taken = first[4].reshape(-1)
    assert not taken[~visible].any(), "what the exemplar does not show is not taken from it"
    assert taken[visible].float().mean() > 0.5  # the rest is not sure enough, and left to the color estimate
    error = (result.state.ab[4] - lab[4, 1:]).norm(dim=0)[first[4]]
    assert error.median() < 3.0


def test_paint_only_where_nothing_else_has_it(clip) -> None:
    result, _ = run(clip)
    inpainted = result.state.kind == Origin.INPAINTED
    assert inpainted.any()
    assert (result.state.ab.movedim(1, -1)[inpainted] == PAINT).all()


def test_the_papers_order_goes_through_time_from_the_exemplar(clip) -> None:
    result, _ = run(clip, (4,), order="next")
    frames = [i.frame for i in result.iterations]
    assert frames == sorted(f for f in frames if f >= 4) + sorted((f for f in frames if f < 4), reverse=True)


@pytest.mark.slow
def test_the_grayest_frame_first_needs_no_more_rounds(clip) -> None:
    assert len(run(clip, order="grayest")[0].iterations) <= len(run(clip, order="next")[0].iterations)


def test_shots_are_tracked_apart(clip) -> None:
    asked = []
    made, _ = clip

    class Spy:
        def matches(self, pixels, i, j):
            asked.append((i, j))
            return made.matches(pixels, i, j)

    def fit(L, settings):
        yield Step("fit")
        return Spy()

    lab = clip[1]
    stages = replace(exact(made), fit=fit)
    result = run_to_end(colorize(lab[:, :1], {0: lab[0, 1:]}, choose(**PAINTED), [Shot(0, 6), Shot(6, 10)], stages))
    assert result.state.mask.all()
    assert set(result.trackers) == {0, 6}
    assert max(max(pair) for pair in asked) < 6


def test_no_color_crosses_a_cut_without_a_reference_frame(clip) -> None:
    _, lab = clip
    flow = choose("draft")

    def second(exemplar: torch.Tensor, reference_frame: int | None) -> torch.Tensor:
        shots = [Shot(0, 6), Shot(6, 8, reference_frame)]
        return run_to_end(colorize(lab[:8, :1], {0: exemplar}, flow, shots)).state.ab[6:]

    given, other = lab[0, 1:], lab[0, 1:].flip(0) + 10
    assert torch.equal(second(given, None), second(other, None)), "the prior colors it from its luminance alone"
    assert (second(given, 5) - lab[6:8, 1:]).norm(dim=1).mean() < 0.5 * lab[6:8, 1:].norm(dim=1).mean()
    assert not torch.equal(second(given, 5), second(other, 5))


def test_what_repeats_a_frame_gets_its_colors_and_is_not_worked_on(clip) -> None:
    _, lab = clip
    duplicates = {2: 1, 3: 1, 6: 5}
    keep = [t for t in range(8) if t not in duplicates]
    L = lab[[duplicates.get(t, t) for t in range(8)], :1]
    repeated = run_to_end(colorize(L, {0: lab[0, 1:]}, choose("draft"), [Shot(0, 8, duplicates=duplicates)]))
    without = run_to_end(colorize(L[keep], {0: lab[0, 1:]}, choose("draft", order="next")))
    ordered = run_to_end(
        colorize(L, {0: lab[0, 1:]}, choose("draft", order="next"), [Shot(0, 8, duplicates=duplicates)])
    )
    for t, source in duplicates.items():
        assert torch.equal(repeated.state.ab[t], repeated.state.ab[source])
        assert torch.equal(repeated.state.origin[t], repeated.state.origin[source])
    assert repeated.state.mask.all() and not {i.frame for i in repeated.iterations} & set(duplicates)
    torch.testing.assert_close(ordered.state.ab[keep][:3], without.state.ab[:3])


@pytest.mark.parametrize("last", [8, 9])
def test_two_exemplars_that_differ_meet_without_a_seam(clip, last: int) -> None:
    _, lab = clip
    still = lab[:1].expand(last + 1, -1, -1, -1).contiguous()
    other = 0.6 * lab[0, 1:] + 5
    state = run_to_end(colorize(still[:, :1], {0: lab[0, 1:], last: other}, choose("draft"))).state
    steps = (state.ab[1:] - state.ab[:-1]).norm(dim=1).mean((1, 2))
    assert steps.max() < 1.3 * steps.mean(), "the change from one to the other is spread over all frames"
    assert steps.sum() == pytest.approx(float((other - lab[0, 1:]).norm(dim=0).mean()), rel=0.05)
    assert set(bracketing_exemplars([0, 4, 9], range(10))) == {1, 2, 3, 5, 6, 7, 8}


def test_a_fitted_tracker_is_not_fitted_again(clip) -> None:
    made, lab = clip

    def never(L, settings):
        raise AssertionError("fitted again")
        yield

    stages = replace(exact(made), fit=never)
    result = run_to_end(colorize(lab[:, :1], {0: lab[0, 1:]}, choose(**PAINTED), stages=stages, trackers={0: made}))
    assert result.state.mask.all()


def test_a_closed_run_keeps_what_it_had(clip) -> None:
    made, lab = clip
    work = colorize(lab[:, :1], {0: lab[0, 1:]}, choose(**PAINTED), stages=exact(made))
    kept = None
    for step in work:
        kept = step.state if isinstance(step, Colored) else kept
        if isinstance(step, Round):
            break
    work.close()
    assert kept is not None and 0 < kept.mask.float().mean() < 1


def test_a_single_frame_needs_no_rounds_beyond_its_own() -> None:
    made = synthetic.make("pan", frames=1, size=(48, 80))
    lab = rgb_to_lab(from_uint8(made.video.frames))
    result = run_to_end(colorize(lab[:, :1], {0: lab[0, 1:]}, choose(**PAINTED), stages=exact(made)))
    assert result.state.mask.all()


def test_what_is_gray_colors_nothing(clip) -> None:
    made, lab = clip
    half = lab[0, 1:].clone()
    half[:, :, :40] = torch.nan
    state = ColorState.of_exemplars(lab[:, :1], {0: half})
    assert torch.equal(state.colored(0), half[0].isfinite())
    found = state
    for j in range(1, len(state)):
        found = propagated(made, found, j)
    found = found.stacked()
    came = (torch.arange(found.source.numel()).reshape(found.source.shape) + found.source)[found.kind == 1]
    assert len(came) and state.mask.flatten()[came].all(), "each pixel points at the one that gave it its color"
    assert found.mask[3].any() and not found.mask[3].all()


# -- the order


def test_keyframes_come_first_and_the_frames_between_side_by_side() -> None:
    gray = {j: 0.01 * j for j in range(24)}  # frame 0 is the exemplar; the farther from it, the less is known
    visited, rounds = {0}, []
    while any(gray.values()):
        chosen = next_frames("keyframes", gray, 0, visited, 24)
        assert all(abs(i - j) >= 5 for i in chosen for j in chosen if i != j), "they do not know of each other"
        rounds.append(chosen)
        visited.update(chosen)
        gray |= dict.fromkeys(chosen, 0.0)
    assert [chosen[0] for chosen in rounds[:4]] == [5, 10, 15, 20], "the last frames within reach of what is due"
    assert sorted(j for chosen in rounds for j in chosen) == list(range(1, 24))
    assert len(rounds) <= 9
    assert all(len(next_frames("keyframes", dict.fromkeys(range(24), 0.1), 0, {0}, n)) <= n for n in (1, 2, 8))


def test_a_frame_with_much_to_inpaint_is_no_keyframe() -> None:
    assert next_frames("keyframes", {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 4: 0.9, 5: 0.9}, 0, {0})[0] == 2
    assert next_frames("keyframes", {0: 0.0, 1: 0.5, 2: 0.6, 3: 0.7}, 0, {0})[0] == 1, "none is known well: the nearest"


def test_keyframes_go_both_ways_in_time_from_the_exemplar() -> None:
    gray = dict.fromkeys(range(10, 30), 0.1) | {20: 0.0}
    assert next_frames("keyframes", gray, 20, {20}, 9) == [25, 15]
    gray |= {25: 0.0, 15: 0.0}
    assert next_frames("keyframes", gray, 20, {20, 25, 15}, 2) == [29, 10]


# -- gathered colors

PIXELS = np.arange(12 * 16)


def gathered(ab: torch.Tensor, L: torch.Tensor, flow: tuple[float, float], target_L: torch.Tensor) -> torch.Tensor:
    sigma = gather_sigma(np.full(len(PIXELS), np.hypot(*flow)), np.full(len(PIXELS), 3.0))
    points = match.points_of(PIXELS, 16) + np.array(flow, np.float32)
    found = match.gather(PIXELS, points, sigma, target_L[0].numpy(), L[0].numpy(), ab.numpy(), LUMINANCE_SIGMA)
    return torch.from_numpy(found.T.reshape(2, 12, 16))


def test_still_colors_are_copied_and_moving_ones_averaged() -> None:
    ab = 40 * torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(0))
    L = torch.full((1, 12, 16), 50.0)
    torch.testing.assert_close(gathered(ab, L, (0, 0), L), ab, atol=0.5, rtol=0.0)
    assert gathered(ab, L, (3, 0), L)[:, 2:-2, 2:-5].std() < 0.7 * ab.std()


def test_a_gathered_color_stays_on_its_side_of_an_edge() -> None:
    left = torch.arange(16.0).expand(1, 12, 16) < 8
    L, ab = torch.where(left, 30.0, 80.0), torch.where(left, -40.0, 40.0).expand(2, 12, 16).contiguous()
    for asking, color in ((30.0, -40.0), (80.0, 40.0)):  # column 5: half a pixel off the edge after a move of 2.5
        found = gathered(ab, L, (2.5, 0), torch.full((1, 12, 16), asking))[:, :, 5]
        torch.testing.assert_close(found, torch.full((2, 12), color), atol=1.0, rtol=0.0)


def test_the_evener_the_chroma_the_wider_a_moving_color_is_gathered() -> None:
    motion, even, varied = np.array([3.0]), np.array([3.0]), np.array([12.0])
    assert gather_sigma(motion, varied) < gather_sigma(motion, even)
    assert gather_sigma(np.array([0.0]), even) < gather_sigma(np.array([0.5]), even)


# -- match confidence


def test_a_match_is_likely_right_if_it_looks_similar_closes_its_cycle_and_lies_in_one_color() -> None:
    p = float(probability(np.float32(1.0), np.float32(0.3), np.float32(3.0)))
    assert 0 < p < 1
    for worse in ((4.0, 0.3, 3.0), (1.0, 3.0, 3.0), (1.0, 0.3, 20.0)):
        assert probability(*map(np.float32, worse)) < p
    assert probability(np.float32(0), np.float32(np.inf), np.float32(0)) == 0, "what is not visible is not accepted"


def test_a_run_that_trusts_the_tracker_takes_what_the_tracker_brings(clip) -> None:
    made, lab = clip
    dark = replace(ColorState.of_exemplars(lab[:, :1], {0: lab[0, 1:]}), L=lab[:, :1].clone())
    dark.L[1:] *= 0.4  # looks unlike, and is seen
    checked, trusted = (propagated(made, dark, 1, word).colored(1).float().mean() for word in (False, True))
    assert trusted > 0.8 > 2 * checked


def test_confidence_is_that_of_the_source_and_the_match(clip) -> None:
    made, lab = clip
    sure = ColorState.of_exemplars(lab[:, :1], {0: lab[0, 1:]}).stacked()
    unsure = replace(sure, confidence=sure.confidence * 0.5)
    first, second = (propagated(made, state, 1).confidence[1].float() for state in (sure, unsure))
    torch.testing.assert_close(second, 0.5 * first, atol=2e-3, rtol=0.0)
    assert 0.9 < first.max() <= 1


@pytest.mark.parametrize("order", ["next", "keyframes", "grayest"])
def test_part_of_a_frame_is_an_exemplar_too(clip, order: str) -> None:
    made, lab = clip
    half = lab[4, 1:].clone()
    half[:, :, 40:] = torch.nan
    state = run_to_end(colorize(lab[:, :1], {4: half}, choose(**PAINTED, order=order), stages=exact(made))).state
    assert state.mask.all()
    assert torch.equal(state.kind[4] == Origin.EXEMPLAR, half[0].isfinite())
    assert torch.equal(state.ab[4][:, :, :40], half[:, :, :40])
    assert (state.kind[7] == Origin.PROPAGATED).any(), "its pixels are propagated like any others"
