"""Luminance is held sacred; colors stay in the gamut."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
import torch

from omnifusion import color
from omnifusion.state import Origin


@pytest.fixture
def rgb() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_lab_agrees_with_scikit_image(rgb: torch.Tensor) -> None:
    ours = color.rgb_to_lab(rgb[0]).permute(1, 2, 0).numpy()
    assert np.abs(ours - skimage.color.rgb2lab(rgb[0].permute(1, 2, 0).numpy())).max() < 0.01


def test_lab_round_trip(rgb: torch.Tensor) -> None:
    assert (color.lab_to_rgb(color.rgb_to_lab(rgb)) - rgb).abs().max() < 1e-4


def test_composed_colors_keep_the_luminance_even_outside_the_gamut(rgb: torch.Tensor) -> None:
    L = color.luminance(rgb)
    wild = 120 * torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    picture = color.from_uint8(color.to_uint8(color.compose(L, wild)))
    error = (color.luminance(picture) - L).abs()
    assert error.quantile(0.99) < 0.5
    assert error.max() < 1.5


def test_shrinking_keeps_the_hue_and_leaves_good_colors_alone(rgb: torch.Tensor) -> None:
    lab = color.rgb_to_lab(rgb)
    L, ab = lab[:, :1], lab[:, 1:]
    assert torch.allclose(color.into_gamut(L, 0.99 * ab), 0.99 * ab)
    wild = color.into_gamut(L, 50 * ab)
    cross = wild[:, 0] * ab[:, 1] - wild[:, 1] * ab[:, 0]
    assert (cross / ab.norm(dim=1).clamp(min=1e-3) / wild.norm(dim=1).clamp(min=1e-3)).abs().max() < 1e-3


def test_gray_keeps_luminance_and_has_equal_channels(rgb: torch.Tensor) -> None:
    gray = color.gray(rgb)
    assert torch.equal(gray[:, 0], gray[:, 1])
    assert (color.luminance(gray) - color.luminance(rgb)).abs().max() < 0.01


def test_compose_is_differentiable() -> None:
    L = torch.full((1, 1, 4, 4), 50.0)
    ab = torch.full((1, 2, 4, 4), 5.0, requires_grad=True)
    color.compose(L, ab).sum().backward()
    assert torch.isfinite(ab.grad).all() and ab.grad.abs().max() > 0


def test_eight_bit_round_trip_is_exact() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    assert torch.equal(color.to_uint8(color.from_uint8(values)), values)


@pytest.mark.parametrize("gain", [1.0, 1.1])
def test_the_luminance_of_gray_pictures_is_that_of_any(rgb: torch.Tensor, gain: float) -> None:
    picture = color.to_uint8(rgb[0]).numpy()
    for image in (picture, picture[:1].repeat(3, 0)):
        expected = color.luminance((color.from_uint8(image) * gain).clamp_max(1))
        assert torch.equal(color.luminance_of(image, gain), expected)


def test_only_what_is_outside_the_gamut_is_shrunk(rgb: torch.Tensor) -> None:
    lab = color.rgb_to_lab(rgb)
    L, ab = lab[:, :1], lab[:, 1:] * torch.linspace(0.5, 3, 16)
    found = color.into_gamut(L, ab)
    each = torch.cat([color.into_gamut(L[..., k : k + 1], ab[..., k : k + 1]) for k in range(16)], -1)
    assert torch.equal(found, each) and 0.2 < (found == ab).float().mean() < 0.8


def test_overlay_tints_by_origin() -> None:
    image, kind = np.full((4, 4, 3), 100, np.uint8), np.array([[-1, 0], [1, 2]])
    tinted = color.overlay(image, kind, opacity=0.5)
    assert (tinted[:2, :2] == 100).all()
    for origin, corner in ((0, (0, 3)), (1, (3, 0)), (2, (3, 3))):
        expected = (100 + np.array(color.TINTS[Origin(origin)])) / 2
        assert np.abs(tinted[corner] - expected).max() <= 0.5
