"""The coordinate convention, tested by identity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnifusion import geometry


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 9, 13, generator=torch.Generator().manual_seed(0))


def test_sampling_at_pixel_centers_is_the_identity(image: torch.Tensor) -> None:
    assert torch.allclose(geometry.sample(image, geometry.pixel_grid(9, 13)), image, atol=1e-5)


def test_sampling_interpolates_linearly(image: torch.Tensor) -> None:
    value = geometry.sample(image, torch.tensor([[3.25, 4.0]]))[:, 0]
    assert torch.allclose(value, 0.75 * image[:, 4, 3] + 0.25 * image[:, 4, 4], atol=1e-5)


def test_the_border_repeats(image: torch.Tensor) -> None:
    assert torch.allclose(geometry.sample(image, torch.tensor([[-5.0, 0.0]]))[:, 0], image[:, 0, 0], atol=1e-5)


def test_warp_by_a_whole_pixel_shifts(image: torch.Tensor) -> None:
    flow = torch.zeros(2, 9, 13)
    flow[0] = 1.0
    assert torch.allclose(geometry.warp(image, flow)[:, :, :-1], image[:, :, 1:], atol=1e-5)


def test_inside_counts_whole_pixels() -> None:
    points = torch.tensor([[-0.5, 0.0], [-0.6, 0.0], [12.4, 8.4], [12.6, 8.0], [5.0, 8.6]])
    assert geometry.inside(points, 9, 13).tolist() == [True, False, True, False, False]


def test_a_single_pixel_image_samples() -> None:
    assert geometry.sample(torch.ones(1, 1, 1), torch.zeros(1, 2)).item() == 1.0


def test_sizes_shrink_but_never_grow() -> None:
    assert geometry.fit_size((480, 854), 427) == (240, 427)
    assert geometry.fit_size((100, 50), 448) == (100, 50)
    assert geometry.fit_size((2160, 3840), 448) == (252, 448)


def test_padding_is_undone_by_its_size(image: torch.Tensor) -> None:
    padded, (h, w) = geometry.pad_to_multiple(image[None], 8)
    assert padded.shape[-2:] == (16, 16)
    assert torch.equal(padded[0, :, :h, :w], image)


def test_values_are_stretched_to_their_nearest_neighbors() -> None:
    values = np.array([[[0, 1], [2, -1]]])
    assert np.array_equal(geometry.stretch(values, (4, 4))[0], np.kron(values[0], np.ones((2, 2), int)))
