"""Every score against an independent computation, and against cases that can be done by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
import torchmetrics.functional.image.lpips as reference
from scipy.spatial.distance import jensenshannon

from omnifusion import metrics
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.evaluation import methods
from omnifusion.progress import InputError


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two clips of two frames, alike but not equal."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 3, 40, 56), dtype=np.uint8)
    noisy = np.clip(truth + rng.normal(0, 25, truth.shape), 0, 255).astype(np.uint8)
    return noisy, truth


def flat(*colors: tuple[int, int, int], size: tuple[int, int] = (16, 16)) -> np.ndarray:
    return np.stack([np.broadcast_to(np.array(c, np.uint8)[:, None, None], (3, *size)) for c in colors])


def test_psnr(pair) -> None:
    result, truth = pair
    error = ((result.astype(float) - truth) ** 2).mean((1, 2, 3))
    assert metrics.psnr(result, truth) == pytest.approx(10 * np.log10(255**2 / error))


def test_psnr_by_hand() -> None:
    assert metrics.psnr(flat((105, 95, 105)), flat((100, 100, 100))) == pytest.approx(20 * math.log10(51))
    assert metrics.psnr(flat((7, 8, 9)), flat((7, 8, 9))) == metrics.EXACT


def test_psnr_of_the_formula_that_wraps() -> None:
    # 95 - 100 wraps to 251, whose square wraps to 25; 16 apart counts as equal; 20 * 20 wraps to 144
    assert metrics.psnr_uint8(flat((95, 100, 100)), flat((100, 100, 100))) == pytest.approx(
        10 * math.log10(255**2 / (25 / 3))
    )
    assert metrics.psnr_uint8(flat((116, 100, 84)), flat((100, 100, 100))) == metrics.EXACT
    assert metrics.psnr_uint8(flat((120, 100, 100)), flat((100, 100, 100))) == pytest.approx(
        10 * math.log10(255**2 / (144 / 3))
    )


def test_gray_scores_far_better_by_the_formula_that_wraps() -> None:
    truth = skimage.data.rocket().transpose(2, 0, 1)[None]
    L, _ = methods.split(truth)
    gray = methods.join(L, torch.zeros(1, 2, *truth.shape[2:]))
    gain = metrics.psnr_uint8(gray, truth) - metrics.psnr(gray, truth)
    assert gain[0] == pytest.approx(7.0, abs=0.1)


def test_ssim_is_the_mean_over_windows(pair) -> None:
    result, truth = pair
    windows = [
        np.lib.stride_tricks.sliding_window_view(clip[0].astype(float), (7, 7), axis=(1, 2)).reshape(3, 34, 50, 49)
        for clip in pair
    ]
    (mx, my), n = (w.mean(-1) for w in windows), 49
    vx, vy = (w.var(-1, ddof=1) for w in windows)
    cov = ((windows[0] - mx[..., None]) * (windows[1] - my[..., None])).sum(-1) / (n - 1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert metrics.ssim(result, truth)[0] == pytest.approx(index.mean())
    assert metrics.ssim(truth, truth) == pytest.approx(1.0)


def ciede2000(one: np.ndarray, two: np.ndarray) -> float:
    """Sharma, Wu and Dalal 2005, one pair of Lab colors, written from the formulas."""
    (L1, a1, b1), (L2, a2, b2) = one, two
    c7 = ((math.hypot(a1, b1) + math.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - math.sqrt(c7 / (c7 + 25**7)))
    C1, C2 = math.hypot((1 + g) * a1, b1), math.hypot((1 + g) * a2, b2)
    h1 = math.degrees(math.atan2(b1, (1 + g) * a1)) % 360
    h2 = math.degrees(math.atan2(b2, (1 + g) * a2)) % 360
    dh = (h2 - h1 + 180) % 360 - 180
    h = (h1 + h2) / 2 if abs(h1 - h2) <= 180 else ((h1 + h2) / 2 + 180) % 360
    L, C = (L1 + L2) / 2, (C1 + C2) / 2
    dL, dC, dH = L2 - L1, C2 - C1, 2 * math.sqrt(C1 * C2) * math.sin(math.radians(dh) / 2)

    def cos(degrees: float) -> float:
        return math.cos(math.radians(degrees))

    t = 1 - 0.17 * cos(h - 30) + 0.24 * cos(2 * h) + 0.32 * cos(3 * h + 6) - 0.20 * cos(4 * h - 63)
    sl = 1 + 0.015 * (L - 50) ** 2 / math.sqrt(20 + (L - 50) ** 2)
    sc, sh = 1 + 0.045 * C, 1 + 0.015 * C * t
    turn = 30 * math.exp(-(((h - 275) / 25) ** 2))
    rt = -2 * math.sqrt(C**7 / (C**7 + 25**7)) * math.sin(math.radians(2 * turn))
    return math.sqrt((dL / sl) ** 2 + (dC / sc) ** 2 + (dH / sh) ** 2 + rt * dC / sc * dH / sh)


def test_the_independent_ciede2000_is_right() -> None:
    assert ciede2000(np.array([50, 2.6772, -79.7751]), np.array([50, 0, -82.7485])) == pytest.approx(2.0425, abs=1e-4)
    assert ciede2000(np.array([50, 2.5, 0]), np.array([73, 25, -18])) == pytest.approx(27.1492, abs=1e-4)


def test_ciede2000(pair) -> None:
    small = [clip[:, :, :8, :8] for clip in pair]
    labs = [rgb_to_lab(from_uint8(clip)).double().numpy() for clip in small]
    expected = [
        [ciede2000(labs[1][t, :, y, x], labs[0][t, :, y, x]) for y in range(8) for x in range(8)] for t in range(2)
    ]
    assert metrics.ciede2000(*small) == pytest.approx(np.mean(expected, axis=1), rel=2e-3)
    assert metrics.ciede2000(flat((0, 0, 0)), flat((255, 255, 255))) == pytest.approx(100, abs=0.01)


def test_cdc_against_scipy() -> None:
    clip = np.random.default_rng(1).integers(0, 256, (6, 3, 9, 11), dtype=np.uint8)
    clip[3:] //= 2
    means = []
    for gap in (1, 2, 4):
        values = []
        for t in range(6 - gap):
            for c in range(3):
                p, q = (np.histogram(clip[s, c], bins=256, range=(0, 256))[0] / 99 for s in (t, t + gap))
                values.append(jensenshannon(p, q) ** 2)
        means.append(np.mean(values))
    assert metrics.cdc(clip) == pytest.approx(np.mean(means))


def test_cdc_by_hand() -> None:
    assert metrics.cdc(flat((9, 9, 9), (9, 9, 9), (9, 9, 9))) == 0.0
    assert metrics.cdc(flat((1, 2, 3), (4, 5, 6))) == pytest.approx(math.log(2))
    assert metrics.cdc(flat((1, 2, 3), (4, 2, 3), (1, 2, 3)), gaps=(1, 2)) == pytest.approx(math.log(2) / 3 / 2)
    assert math.isnan(metrics.cdc(flat((1, 2, 3))))


SHAPES = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
CLASSIFIER = {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random backbone as torchvision's AlexNet has it; of the classifier, which LPIPS does not use, one zero."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for n, shape in SHAPES.items():
        state[f"features.{n}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        state[f"features.{n}.bias"] = torch.randn(shape[0], generator=generator) / 10
    for n, shape in CLASSIFIER.items():
        state[f"classifier.{n}.weight"], state[f"classifier.{n}.bias"] = (
            torch.zeros(1).expand(size) for size in (shape, shape[:1])
        )
    path = tmp_path_factory.mktemp("hub") / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir()
    torch.save(state, path)
    return path


def naive_lpips(weights: Path, a: np.ndarray, b: np.ndarray) -> float:
    """Zhang et al. 2018 from the backbone's weights and the published linear heads."""
    state = torch.load(weights, weights_only=True)
    heads = torch.load(Path(reference.__file__).parent / "lpips_models" / "alex.pth", "cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = torch.stack([(2 * torch.from_numpy(f / 255.0).float() - 1) for f in (a, b)])
    x = (x - shift[:, None, None]) / scale[:, None, None]
    total = 0.0
    for k, (n, (stride, padding)) in enumerate(zip(SHAPES, [(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)], strict=True)):
        if n in (3, 6):
            x = F.max_pool2d(x, 3, 2)
        x = F.relu(F.conv2d(x, state[f"features.{n}.weight"], state[f"features.{n}.bias"], stride, padding))
        unit = x / x.norm(dim=1, keepdim=True).clamp_min(1e-9)
        total += float((heads[f"lin{k}.model.1.weight"][0] * (unit[0] - unit[1]) ** 2).sum(0).mean())
    return total


@pytest.fixture
def hub(weights: Path) -> Iterator[Path]:
    """Where PyTorch looks for weights."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(weights.parents[1])
    yield weights
    torch.hub.set_dir(before)


@pytest.mark.slow
def test_lpips(hub: Path) -> None:
    a, b = np.random.default_rng(2).integers(0, 256, (2, 2, 3, 70, 90), dtype=np.uint8)
    lpips = metrics.load_lpips()
    assert lpips(a, b) == pytest.approx([naive_lpips(hub, *pair) for pair in zip(a, b, strict=True)], rel=1e-3)
    assert lpips(a, a) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_lpips_without_its_weights(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
        with pytest.raises(InputError, match=rf"cannot download .*no network.*{hub.parent}"):
            metrics.load_lpips()
    whole = hub.read_bytes()
    torch.save({"conv.weight": torch.zeros(3)}, hub)
    wrong = hub.read_bytes()
    try:
        for content in (wrong, b"no weights at all", b"", whole[:1000]):
            hub.write_bytes(content)
            with pytest.raises(InputError, match="needs AlexNet's weights"):
                metrics.load_lpips()
    finally:
        hub.write_bytes(whole)
