"""Laws of the optical flow."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from omnifusion import flow as of
from omnifusion import synthetic
from omnifusion.color import from_uint8, luminance


@pytest.fixture(scope="module")
def texture():
    clip = synthetic.make("pan", frames=1, size=(96, 160), noise=0.0)
    return luminance(from_uint8(clip.video.frames))[0]


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 4)])
def test_dis_finds_a_shift(texture, shift):
    dx, dy = shift
    moved = torch.roll(texture, (dy, dx), dims=(1, 2))
    flow = of.dis(texture, moved)
    inner = flow[:, 16:-16, 16:-16]
    error = (inner - torch.tensor([dx, dy]).view(2, 1, 1)).norm(dim=0)
    assert error.median() < 0.05
    assert (error < 0.5).float().mean() > 0.97


def test_a_start_reaches_what_a_cold_search_cannot(texture):
    moved = torch.roll(texture, 60, dims=2)
    start = torch.zeros(2, *texture.shape[1:])
    start[0] = 60
    flow = of.dis(texture, moved, start)
    assert (flow[0, :, :90] - 60).abs().median() < 0.1


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
    found, returned = of.search_both(image, turned, truth + off, back - off)
    inner = np.isfinite(of.cycle_error(truth, back))
    share = [
        (np.linalg.norm(f - truth, axis=-1)[inner] < 0.5).mean()
        for f in (found, of.raw_dis(image, turned, truth + off))
    ]
    assert share[0] > 0.9 > 0.6 > share[1]
    assert (of.cycle_error(found, returned)[inner] < 1.0).mean() > 0.9


@pytest.mark.parametrize("size", [(5, 7), (16, 64), (3, 200)])
def test_any_size_and_no_texture(size):
    flow = of.dis(torch.full((1, *size), 50.0), torch.full((1, *size), 50.0))
    assert flow.shape == (2, *size) and torch.isfinite(flow).all()


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
def test_gaps(frames):
    gaps = of.gaps(frames)
    assert gaps == sorted(set(gaps)) and gaps[0] == 1 and gaps[-1] < frames
    for before, g in pairwise(gaps):
        assert g - before in gaps
    if frames > 40:
        assert len(gaps) <= 2 * np.log2(frames) + 2


def test_resized_flow_scales_its_vectors():
    flow = np.ones((10, 20, 2), np.float32)
    larger = of.resize_flow(flow, (20, 60))
    assert larger.shape == (20, 60, 2)
    assert np.allclose(larger, [3.0, 2.0])


def test_checked_flow_trusts_a_pan_and_not_a_cut(texture):
    clip = torch.stack([texture, torch.roll(texture, 2, dims=2), texture.flip(1).flip(2)])
    good, bad = of.checked(clip, 0, 1), of.checked(clip, 0, 2)
    assert (good.source, good.target) == (0, 1)
    assert good.valid.float().mean() > 0.9 > 0.5 > bad.valid.float().mean()


def test_raft_answers_in_our_convention(texture):
    image = of.to_bytes(texture[0, :50, :70])
    flow = of.raft("cpu", pretrained=False)(image, image, None)
    assert flow.shape == (50, 70, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
