"""Fitting, and the tracker that comes of it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import synthetic
import torch

from omnifusion import omnimotion
from omnifusion.color import from_uint8, luminance
from omnifusion.flow import dis as of
from omnifusion.flow.confidence import most_likely
from omnifusion.geometry import inside, pixel_grid
from omnifusion.omnimotion import OmniMotion
from omnifusion.omnimotion.flows import Flows, Sampler, affine_flow, affine_starts, collect
from omnifusion.omnimotion.kinds import OfficialVolume
from omnifusion.omnimotion.tracker import PRESETS, refine_by_dominant_motion
from omnifusion.omnimotion.volume import to_volume
from omnifusion.progress import Fitting, InputError, run_to_end

SIZE = (72, 96)
SHORT = replace(PRESETS["draft"], iterations=60, pairs=8, rays=64)
"""A draft that is over in a second."""


def luminance_of(clip):
    return luminance(from_uint8(clip.video.frames))


def correspond(tracker, i, j):
    """Where every pixel of frame ``i`` is in ``j``, ``(H * W, 2)``, and whether it is visible there; chroma is assumed
    to vary as in a photograph."""
    L, source_L = (tracker.images[t] / np.float32(2.55) for t in (i, j))
    pixels = np.arange(L.size)
    landed, p = most_likely(pixels, tracker.matches(pixels, i, j), L, source_L, np.full(L.shape, np.float32(5)))
    return torch.from_numpy(landed), torch.from_numpy(p > 0.7)


@pytest.fixture(scope="module")
def clip():
    return synthetic.make("two-layers", frames=5, size=SIZE)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setitem(PRESETS, "draft", SHORT)


@pytest.fixture(scope="module")
def tracker(clip):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "draft", SHORT)
        return run_to_end(omnimotion.fit(luminance_of(clip), "draft"))


def weights_of(tracker):
    return torch.cat([v.flatten().float() for v in tracker.state_dict()["weights"].values()])


def test_answers_are_close_to_the_truth(clip, tracker):
    grid = pixel_grid(*SIZE).reshape(-1, 2)
    for i, j in ((0, 4), (4, 0), (1, 3)):
        there, visible = correspond(tracker, i, j)
        truth, seen = clip.correspond(grid, i, j)
        error = (there - truth).norm(dim=1)[seen]
        assert (error < 1).float().mean() > 0.85
        assert (visible == seen)[inside(truth, *SIZE)].float().mean() > 0.9
        assert there.dtype == torch.float32 and visible.dtype == torch.bool
        assert not visible[~inside(there, *SIZE)].any()


def test_answers_do_not_depend_on_what_was_asked_before(clip, tracker):
    fresh = OmniMotion.from_state(tracker.state_dict())
    everywhere = np.arange(SIZE[0] * SIZE[1])
    tracker.matches(everywhere, 1, 4), tracker.matches(everywhere[:9], 0, 1)
    for a, b in zip(tracker.matches(everywhere, 0, 3), fresh.matches(everywhere, 0, 3), strict=True):
        assert all(map(np.array_equal, a, b))
    some = tracker.matches(everywhere[:5], 0, 3)[0][0]
    assert np.allclose(some, tracker.matches(everywhere, 0, 3)[0][0][:5])


def test_a_tracker_survives_pickle(tracker):
    state = pickle.loads(pickle.dumps(tracker.state_dict()))
    again = OmniMotion.from_state(state)
    for a, b in zip(correspond(tracker, 0, 4), correspond(again, 0, 4), strict=True):
        assert torch.equal(a, b)


def test_the_seed_fixes_everything(clip, tracker):
    again = run_to_end(omnimotion.fit(luminance_of(clip), "draft"))
    other = run_to_end(omnimotion.fit(luminance_of(clip), "draft", seed=1))
    assert torch.equal(weights_of(tracker), weights_of(again))
    assert not torch.equal(weights_of(tracker), weights_of(other))


def test_flows_found_beforehand_give_the_same_fit_and_stay_as_they_are(clip, tracker):
    L = luminance_of(clip)
    flows = run_to_end(omnimotion.find_flows(L, "draft"))
    before = flows.flow.copy(), flows.error.copy()
    assert torch.equal(weights_of(run_to_end(omnimotion.fit(L, "draft", flows=flows))), weights_of(tracker))
    assert np.array_equal(flows.flow, before[0]) and np.array_equal(flows.error, before[1])


def test_steps_tell_of_progress(clip):
    steps = list(omnimotion.fit(luminance_of(clip), "draft"))
    done = [s.done for s in steps if s.stage == "fit"]
    assert done == sorted(done) and done[0] >= 0 and done[-1] <= 1
    told = [s for s in steps if isinstance(s, Fitting)]
    assert told and all(np.isfinite(s.loss) and s.seconds_left >= 0 for s in told)
    assert [s.stage for s in steps if s.stage == "flow"] and {s.stage for s in steps} == {"flow", "fit"}


def test_steps_that_are_no_numbers_are_left_out(clip, monkeypatch):
    """Rays to nowhere now and then: the volume stays sound, and learns from the others."""
    draw, count = Sampler.draw, iter(range(10**6))

    def sometimes_lost(self, *given):
        rays = draw(self, *given)
        return rays._replace(q=rays.q * float("nan")) if next(count) % 3 == 0 else rays

    monkeypatch.setattr(Sampler, "draw", sometimes_lost)
    losses = [s.loss for s in omnimotion.fit(luminance_of(clip), "draft") if isinstance(s, Fitting)]
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0] and next(count) == SHORT.iterations


def test_absurd_learning_rates_end_finite(clip, monkeypatch):
    monkeypatch.setitem(PRESETS, "draft", replace(SHORT, rates=tuple((name, 3e3) for name, _ in SHORT.rates)))
    assert weights_of(run_to_end(omnimotion.fit(luminance_of(clip), "draft"))).isfinite().all()


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing(clip, tracker):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(before, 2))
        other = run_to_end(omnimotion.fit(luminance_of(clip), "draft"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(weights_of(tracker), weights_of(other))


@pytest.mark.parametrize(("frames", "size"), [(1, (64, 64)), (2, (64, 100)), (3, (64, 400)), (3, (20, 30))])
def test_any_length_and_size(frames, size):
    clip = synthetic.make("pan", frames=frames, size=size)
    tracker = run_to_end(omnimotion.fit(luminance_of(clip), "draft"))
    there, visible = correspond(tracker, 0, frames - 1)
    assert torch.isfinite(there).all() and visible.float().mean() > 0.5


@pytest.mark.parametrize("value", ["still", "blank"])
def test_still_and_textureless_clips(value):
    one = luminance_of(synthetic.make("pan", frames=1, size=(64, 80)))
    L = one.expand(4, -1, -1, -1) if value == "still" else torch.full((4, 1, 64, 80), 40.0)
    tracker = run_to_end(omnimotion.fit(L, "draft"))
    grid = pixel_grid(64, 80).reshape(-1, 2)
    there, visible = correspond(tracker, 0, 3)
    assert (there - grid).norm(dim=1).median() < 0.1
    assert visible.float().mean() > 0.95


@pytest.mark.slow
def test_long_clips_take_few_pairs():
    clip = synthetic.make("pan", frames=44, size=(64, 80))
    steps = omnimotion.fit(luminance_of(clip), "draft")
    tracker = run_to_end(steps)
    grid = pixel_grid(64, 80).reshape(-1, 2)
    there, _ = correspond(tracker, 20, 43)
    truth, seen = clip.correspond(grid, 20, 43)
    assert ((there - truth).norm(dim=1)[seen] < 1).float().mean() > 0.8


def test_layers_start_apart():
    """Two motions in one set of flows become two layers, the larger one last."""
    frames, (H, W) = 5, (48, 64)
    near = np.zeros((H, W), bool)
    near[10:40, 20:50] = True
    pairs = {(i, j): 0 for i in range(frames) for j in range(frames) if i != j}
    pairs = {p: k for k, p in enumerate(pairs)}
    flow = np.zeros((len(pairs), H, W, 2), np.float16)
    for (i, j), k in pairs.items():
        flow[k][..., 0] = j - i
        flow[k][near] = [0, -3 * (j - i)]
    flows = Flows(pairs, flow, np.zeros(flow.shape[:3], np.float16))
    starts = affine_starts(flows, frames)
    assert len(starts) == 2
    unit = max(H, W) / 2
    for t in range(frames):
        assert np.allclose(starts[1, t, :, 2] * unit, [2 - t, 0], atol=0.05)
        assert np.allclose(starts[0, t, :, 2] * unit, [0, -3 * (2 - t)], atol=0.05)


def test_affine_flow_leads_to_the_same_point_of_the_middle_frame():
    rng, size = np.random.default_rng(0), (24, 32)
    maps = np.eye(2, 3) + rng.normal(0, 0.1, (2, 2, 3))
    landed = of.grid(*size) + affine_flow(maps[0], maps[1], size)
    start, end = (to_volume(p.reshape(-1, 2), size) for p in (of.grid(*size), landed))
    there, back = (p @ m[:, :2].T + m[:, 2] for p, m in ((start, maps[0]), (end, maps[1])))
    assert np.allclose(there, back, atol=1e-5)
    assert np.allclose(affine_flow(maps[0], maps[0], size), 0, atol=1e-4)


def test_smooth_regions_follow_the_dominant_motion():
    """Chains settle on wrong answers on the smooth cup that turns; a start from its turn finds most of them."""
    clip, last = synthetic.make("rotation", frames=13, size=SIZE), 12
    images = of.to_bytes(luminance_of(clip)[:, 0])
    flows = collect(images, of.intervals(len(images)))
    grid = pixel_grid(*SIZE).reshape(-1, 2)
    truth, seen = (v.numpy() for v in clip.correspond(grid, 0, last))

    def right():
        k = flows.pairs[0, last]
        there = grid.numpy() + flows.flow[k].reshape(-1, 2)
        return (np.isfinite(flows.error[k]).ravel() & (np.linalg.norm(there - truth, axis=1) < 1))[seen].mean()

    before = right()
    refine_by_dominant_motion(flows, images)
    assert before < 0.75 and right() > 0.9, (before, right())


def test_bad_input():
    with pytest.raises(InputError, match="larger frames"):
        run_to_end(omnimotion.fit(torch.zeros(2, 1, 8, 64), "draft"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_tracker_of_the_official_networks_survives_its_state(clip, seed):
    """The order of its layers is drawn by the seed, and part of its state."""
    images = of.to_bytes(luminance_of(clip)[:2, 0])
    tracker = OmniMotion(images, OfficialVolume(2, seed))
    again = OmniMotion.from_state(tracker.state_dict())
    assert again.volume.axes == tracker.volume.axes
    points = np.array([[20.0, 30.0], [50.5, 40.25]], np.float32)
    assert all(map(np.array_equal, tracker.trace(points, 0, 1), again.trace(points, 0, 1)))


def test_the_papers_volume_is_trusted_as_it_is(monkeypatch):
    """Traced at the working size with the samples it was fitted with; transmittance alone says what is visible."""
    for name, value in (("LAYERS", 3), ("HIDDEN", 16), ("samples", 6)):
        monkeypatch.setattr(OfficialVolume, name, value)
    monkeypatch.setitem(PRESETS, "paper", replace(PRESETS["paper"], iterations=3, pairs=2, rays=16))
    size = (24, 32)
    tracker = run_to_end(omnimotion.fit(luminance_of(synthetic.make("pan", frames=3, size=size)), "paper"))
    asked = []
    trace = tracker.volume.map
    tracker.volume.map = lambda xy, i, j, z: asked.append(z.shape) or trace(xy, i, j, z)
    grid = pixel_grid(*size).reshape(-1, 2)
    ((landed, error),) = tracker.matches(np.arange(len(grid)), 0, 2)
    assert {shape[-1] for shape in asked} == {6} and sum(shape[1] for shape in asked) == 2 * len(grid)
    at, transmittance = tracker.trace(grid.numpy(), 0, 2)
    assert np.array_equal(landed, at)
    assert np.array_equal(np.isfinite(error), transmittance > 0.5)
    again = OmniMotion.from_state(tracker.state_dict())
    assert np.array_equal(again.trace(grid.numpy(), 0, 2)[0], at)
