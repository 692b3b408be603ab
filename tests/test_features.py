"""Features, matches, and the motion most of them share."""

import cv2
import numpy as np
import pytest

from omnifusion.flow import features


@pytest.fixture(scope="module")
def pair():
    """A texture, and the same turned by ten degrees about its center."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    image = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((160, 120), 10.0, 1.0)
    return image, cv2.warpAffine(image, turn, (320, 240), borderMode=cv2.BORDER_REFLECT), turn


@pytest.mark.parametrize("mutual", [False, True])
def test_a_turn_is_found(pair, mutual):
    image, turned, turn = pair
    p, q = features.matches(*(features.describe(v, 500) for v in (image, turned)), 0.75, mutual)
    found, agree = features.affine_motion(p, q, within=2.0)
    assert len(p) > 50 and agree.mean() > 0.8
    assert np.allclose(found[:, :2], turn[:, :2], atol=0.01) and np.allclose(found[:, 2], turn[:, 2], atol=1.0)


def test_matches_are_opencvs(pair):
    a, b = (features.describe(v, 500) for v in pair[:2])
    expected = [m for m, n in cv2.BFMatcher().knnMatch(a[1], b[1], k=2) if m.distance < 0.75 * n.distance]
    p, q = features.matches(a, b, 0.75, mutual=False)
    assert np.array_equal(p, a[0][[m.queryIdx for m in expected]])
    assert np.array_equal(q, b[0][[m.trainIdx for m in expected]])


def test_nothing_to_find():
    blank = features.describe(np.zeros((40, 50), np.uint8), 500)
    p, q = features.matches(blank, blank, 0.8, mutual=True)
    assert p.shape == q.shape == (0, 2) and blank[1].shape == (0, 128)
    found, agree = features.affine_motion(p, q, within=2.0)
    assert found is None and agree.shape == (0,)
