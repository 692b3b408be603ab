"""The kernels over lists of pixels against dense references, the flow tracker's laws, and the pool."""

from __future__ import annotations

import gc
import threading
import weakref

import cv2
import numpy as np
import pytest
import synthetic
import torch

from omnifusion import pool
from omnifusion.algorithm import colorize
from omnifusion.color import from_uint8, luminance, rgb_to_lab
from omnifusion.flow import confidence, dis, match
from omnifusion.flow.tracker import STRIDE, FlowTracker
from omnifusion.progress import Canceled, is_canceled, run_to_end
from omnifusion.settings import choose
from omnifusion.stages import Stages

H, W = 40, 56
EVERYWHERE = np.arange(H * W)


def smooth(seed: int, channels: int, scale: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(H, W, channels)).astype(np.float32)
    return scale * cv2.GaussianBlur(noise, (0, 0), 3.0).reshape(H, W, channels)


def test_points_follow_a_chain_as_composed_flows_do() -> None:
    flows = np.stack([smooth(k, 2, 8.0) for k in range(3)])
    dense = flows[2]
    for k in (1, 0):
        dense = dis.compose(dense, flows[k])
    points = match.points_of(EVERYWHERE, W)
    moved = match.follow(flows, 2, -1, 3, points) - points
    assert np.abs(moved - dense.reshape(-1, 2)).max() < 0.05  # OpenCV rounds shares to 1/32


def test_cycles_close_as_dense_ones_do() -> None:
    there, back = smooth(0, 2, 20.0), smooth(1, 2, 20.0)
    points = match.points_of(EVERYWHERE, W)
    landed = match.follow(there[None], 0, 1, 1, points)
    error = match.cycle_error(points, landed, match.follow(back[None], 0, 1, 1, landed), H, W)
    dense = dis.cycle_error(there, back).ravel()
    assert np.array_equal(np.isinf(error), np.isinf(dense))
    finite = np.isfinite(dense)
    assert np.abs(error[finite] - dense[finite]).max() < 0.05


def test_residuals_of_some_pixels_are_those_of_all() -> None:
    L, source = smooth(2, 1, 200.0)[..., 0], smooth(3, 1, 200.0)[..., 0]
    points = match.points_of(EVERYWHERE, W)
    whole = match.luminance_residual(EVERYWHERE, points, L, source, confidence.RESIDUAL_WINDOW)
    dense = cv2.GaussianBlur(np.abs(L - source), (0, 0), confidence.RESIDUAL_SIGMA)
    assert np.abs(whole.reshape(H, W) - dense).max() < 1e-2 * dense.max()
    asked = np.zeros((H, W), np.uint8)
    asked[10:14, 20:30] = asked[0, 0] = 1
    side = 2 * match.WINDOW + 1
    around = np.flatnonzero(cv2.dilate(asked, np.ones((side, side), np.uint8)))
    some = np.zeros(H * W, np.float32)
    some[around] = match.luminance_residual(around, points[around], L, source, confidence.RESIDUAL_WINDOW)
    assert np.abs(some - whole)[asked.ravel() > 0].max() < 1e-4


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return synthetic.make("pan", frames=3 * STRIDE, size=(48, 80), noise=0.0).video.frames


def test_direct_flows_reach_far_frames_both_ways_and_are_searched_once(clip: np.ndarray) -> None:
    images = dis.to_bytes(luminance(from_uint8(clip))[:, 0])
    tracker, last = FlowTracker(images), len(images) - 1
    tracker.reach(0, [last])
    far = tracker._direct[0, last]
    tracker.reach(0, range(len(images)))
    assert tracker._direct[0, last] is far, "what is known is not searched again"
    other = FlowTracker(images)
    other.reach(0, range(len(images)))
    assert np.array_equal(other._direct[0, last], far), "an answer does not depend on what was asked before"
    ((_, error),) = tracker.matches(np.arange(48 * 80), last, 0)
    assert np.median(error[np.isfinite(error)]) < 0.2


def test_threads_change_nothing(clip: np.ndarray) -> None:
    lab = rgb_to_lab(from_uint8(clip))
    runs = [
        run_to_end(colorize(lab[:, :1], {0: lab[0, 1:]}, choose("draft"), stages=Stages(threads=n))) for n in (1, 2, 5)
    ]
    assert torch.get_num_threads() == 1, "whose threads would split a picture, and round its parts differently"
    for other in runs[1:]:
        for name in ("ab", "origin", "confidence", "source"):
            assert torch.equal(getattr(other.state, name), getattr(runs[0].state, name))
        assert other.iterations == runs[0].iterations


def test_the_pool_is_as_large_as_it_is_bounded_to_and_nested_work_shares_it() -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def inner(_: int) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.01)
        with lock:
            at_work -= 1

    def outer(_: int) -> None:
        pool.parallel(inner, range(4))

    with pool.bounded(4):
        assert pool.parallel(lambda n: n * n, range(9)) == [n * n for n in range(9)]
        pool.parallel(outer, range(2))
    assert 1 < most <= 4


def test_results_go_with_their_last_user() -> None:
    """No cycle of references holds them until the garbage collector comes."""
    gc.disable()
    try:
        with pool.bounded(2):
            results = pool.parallel(lambda n: torch.zeros(n + 1), range(4))
        kept = [weakref.ref(result) for result in results]
        del results
        assert not any(result() is not None for result in kept)
    finally:
        gc.enable()


def test_canceled_work_stops_between_jobs() -> None:
    done: list[int] = []
    token = is_canceled.set(lambda: len(done) >= 3)
    try:
        with pool.bounded(1), pytest.raises(Canceled):
            pool.parallel(done.append, range(9))
    finally:
        is_canceled.reset(token)
    assert len(done) == 3
