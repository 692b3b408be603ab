"""Overlays show where each color came from."""

from __future__ import annotations

import numpy as np

from omnifusion import visualize
from omnifusion.state import Origin


def test_overlay_tints_by_origin() -> None:
    image, kind = np.full((4, 4, 3), 100, np.uint8), np.array([[-1, 0], [1, 2]])
    tinted = visualize.overlay(image, kind, opacity=0.5)
    assert (tinted[:2, :2] == 100).all()
    for origin, corner in ((0, (0, 3)), (1, (3, 0)), (2, (3, 3))):
        expected = (100 + np.array(visualize.TINTS[Origin(origin)])) / 2
        assert np.abs(tinted[corner] - expected).max() <= 0.5


def test_values_are_stretched_to_their_nearest_neighbors() -> None:
    values = np.array([[[0, 1], [2, -1]]])
    assert np.array_equal(visualize.stretch(values, (4, 4))[0], np.kron(values[0], np.ones((2, 2), int)))
