"""Laws of the optical flow."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import synthetic

from omnifusion.color import from_uint8, luminance
from omnifusion.flow import dis as of


@pytest.fixture(scope="module")
def texture():
    clip = synthetic.make("pan", frames=1, size=(96, 160), noise=0.0)
    return luminance(from_uint8(clip.video.frames))[0]


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 4)])
def test_dis_finds_a_shift(texture, shift):
    dx, dy = shift
    image = of.to_bytes(texture[0])
    flow = of.dis(image, np.roll(image, (dy, dx), axis=(0, 1)))
    error = np.linalg.norm(flow[16:-16, 16:-16] - [dx, dy], axis=-1)
    assert np.median(error) < 0.05
    assert (error < 0.5).mean() > 0.97


def test_a_start_reaches_what_a_cold_search_cannot(texture):
    image = of.to_bytes(texture[0])
    start = np.zeros((*image.shape, 2), np.float32)
    start[..., 0] = 60
    flow = of.dis(image, np.roll(image, 60, axis=1), start)
    assert np.median(np.abs(flow[:, :90, 0] - 60)) < 0.1


def test_a_warped_start_follows_a_turn(texture):
    image = of.to_bytes(texture[0])
    height, width = image.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 40.0, 1.0).astype(np.float32)
    turned = cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    points = of.grid(height, width)
    truth = points @ turn[:, :2].T + turn[:, 2] - points
    inverse = cv2.invertAffineTransform(turn)
    back = points @ inverse[:, :2].T + inverse[:, 2] - points
    off = np.array([1.5, -1.0], np.float32)
    found = of.through_warp(image, turned, truth + off)
    returned = of.through_warp(turned, image, back - off)
    inner = np.isfinite(of.cycle_error(truth, back))
    share = [
        (np.linalg.norm(f - truth, axis=-1)[inner] < 0.5).mean() for f in (found, of.dis(image, turned, truth + off))
    ]
    assert share[0] > 0.9 > 0.6 > share[1]
    assert (of.cycle_error(found, returned)[inner] < 1.0).mean() > 0.9


@pytest.mark.parametrize("size", [(5, 7), (16, 64), (3, 200)])
def test_any_size_and_no_texture(size):
    flow = of.dis(np.full(size, 127, np.uint8), np.full(size, 127, np.uint8))
    assert flow.shape == (*size, 2) and np.isfinite(flow).all()


def test_composition_adds_constant_flows():
    first, second = np.full((9, 11, 2), 2.0, np.float32), np.full((9, 11, 2), -0.5, np.float32)
    assert np.allclose(of.compose(first, second), 1.5)


def test_cycle_error_is_zero_for_inverse_flows_and_infinite_outside():
    there = np.zeros((20, 30, 2), np.float32)
    there[..., 0] = 4.0
    error = of.cycle_error(there, -there)
    assert error[:, :26].max() < 1e-5
    assert np.isinf(error[:, 26:]).all()
    assert of.cycle_error(there, 0 * there)[5, 5] == pytest.approx(4.0)


@pytest.mark.parametrize("frames", [2, 3, 24, 40, 41, 80, 200])
def test_intervals(frames):
    found = of.intervals(frames)
    assert found == sorted(set(found)) and found[0] == 1 and found[-1] < frames
    for before, n in pairwise(found):
        assert n - before in found
    if frames > 40:
        assert len(found) <= 2 * np.log2(frames) + 2


def test_a_cut_closes_no_cycle(texture):
    image = of.to_bytes(texture[0])
    other = np.ascontiguousarray(image[::-1, ::-1])
    share = [
        (of.cycle_error(of.dis(image, b), of.dis(b, image)) < of.CYCLE).mean() for b in (np.roll(image, 2, 1), other)
    ]
    assert share[0] > 0.9 > 0.5 > share[1]


def test_raft_answers_in_our_convention(texture):
    images = of.to_bytes(texture[:1, :50, :70]).repeat(2, 0)
    flow = of.raft("cpu", pretrained=False)(images, images)
    assert flow.shape == (2, 50, 70, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
