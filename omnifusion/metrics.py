"""How close a coloured clip is to the truth, and how steady its colours are.

Clips are ``(T, 3, H, W)`` uint8 sRGB, as published scores are taken on 8-bit frames. Scores that compare two clips
come per frame, ``(T,)``; ``where`` ``(T, H, W)`` bool restricts them to some pixels, and a frame with none scores NaN.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.stats
import skimage.color
import skimage.metrics
import torch
from torch import Tensor, nn

from omnifusion.state import InputError

EXACT = 100.0
"""The PSNR in dB that an exact frame is given, so that means stay finite."""

GAPS = (1, 2, 4)
"""The frame distances that CDC averages over (TCVC)."""


def psnr(result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio over all three channels in dB, at most ``EXACT``."""

    def one(a: np.ndarray, b: np.ndarray) -> float:
        if a.size == 0:
            return np.nan
        if np.array_equal(a, b):
            return EXACT
        return min(EXACT, float(skimage.metrics.peak_signal_noise_ratio(a, b, data_range=255)))

    if where is None:
        return np.array([one(t, r) for r, t in zip(result, truth, strict=True)])
    return np.array([one(t[:, w], r[:, w]) for r, t, w in zip(result, truth, where, strict=True)])


def ssim(result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) with scikit-image's 7x7 window, mean of the channels."""
    scores = []
    for t in range(len(truth)):
        mean, full = skimage.metrics.structural_similarity(
            truth[t], result[t], channel_axis=0, data_range=255, full=True
        )
        scores.append(mean if where is None else _mean(full[:, where[t]]))
    return np.array(scores)


def ciede2000(result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Mean colour difference CIEDE2000 (Sharma et al. 2005); 1 is about what people just notice."""
    scores = []
    for t in range(len(truth)):
        a, b = (skimage.color.rgb2lab(f, channel_axis=0) for f in (truth[t], result[t]))
        distance = skimage.color.deltaE_ciede2000(a, b, channel_axis=0)
        scores.append(_mean(distance if where is None else distance[where[t]]))
    return np.array(scores)


def colourfulness(clip: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """M3 of Hasler and Suesstrunk 2003, per frame: 0 = grey, 33 = moderately, 82 = highly colourful."""
    scores = []
    for t, frame in enumerate(clip):
        pixels = frame.reshape(3, -1) if where is None else frame[:, where[t]]
        if pixels.size == 0:
            scores.append(np.nan)
            continue
        r, g, b = pixels.astype(np.float64)
        rg, yb = r - g, 0.5 * (r + g) - b
        scores.append(float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())))
    return np.array(scores)


def cdc(clip: np.ndarray, gaps: Sequence[int] = GAPS) -> float:
    """Color distribution consistency (Liu et al., TCVC): how much the colours of a clip jump; lower is steadier.

    Jensen-Shannon divergence (nats) of the 256-bin histograms of each channel, between frames ``gaps`` apart, averaged
    over frames, channels and gaps. Gaps as long as the clip are left out; a clip of one frame scores NaN.
    """
    counts = np.stack([[np.bincount(c.ravel(), minlength=256) for c in frame] for frame in clip])
    p = counts / counts.sum(-1, keepdims=True)
    return _mean(np.array([jensen_shannon(p[:-gap], p[gap:]).mean() for gap in gaps if gap < len(p)]))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats of distributions over the last axis; 0 = equal, ln 2 = disjoint."""
    middle = (p + q) / 2
    return (scipy.stats.entropy(p, middle, axis=-1) + scipy.stats.entropy(q, middle, axis=-1)) / 2


def _mean(values: np.ndarray) -> float:
    """The mean, NaN without values."""
    return float(np.mean(values)) if np.size(values) else float("nan")


def lpips_network(weights: Path | None = None) -> nn.Module:
    """LPIPS v0.1 on AlexNet: torchmetrics' network and linear heads on torchvision's backbone.

    Args:
        weights: torchvision's AlexNet state dict (``alexnet-owt-7be5be79.pth``); None = torchvision's own download.

    Raises:
        InputError: the backbone cannot be had, or the file is not one.
    """
    from torchmetrics.functional.image.lpips import _NoTrainLpips  # here, as both imports take seconds
    from torchvision.models import AlexNet_Weights, alexnet

    try:
        if weights is None:
            state = alexnet(weights=AlexNet_Weights.DEFAULT, progress=False).state_dict()
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        source = "torchvision's download" if weights is None else str(weights)
        raise InputError(f"LPIPS needs AlexNet's weights, but {source} cannot be read ({error}).") from error
    network = _NoTrainLpips(net="alex", pnet_rand=True)
    backbone = {name: state.get(f"features.{name.split('.', 1)[1]}") for name in network.net.state_dict()}
    try:
        network.net.load_state_dict(backbone)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InputError(f"{weights} does not hold the layers of torchvision's AlexNet.") from error
    return network


@torch.no_grad()
def lpips(network: nn.Module, result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Learned perceptual image patch similarity (Zhang et al. 2018), lower is closer; ``network`` of ``lpips_network``.

    With ``where``, the mean over those pixels of the distance map (its layers upsampled bilinearly).
    """
    scores = []
    network.spatial = where is not None
    for t in range(len(truth)):
        a, b = (_unit(f[t]) for f in (result, truth))
        distance = network(a, b, normalize=True)[0, 0].numpy()
        scores.append(_mean(distance if where is None else distance[where[t]]))
    return np.array(scores)


def _unit(frame: np.ndarray) -> Tensor:
    """A uint8 frame ``(3, H, W)`` as a batch ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(frame.astype(np.float32) / 255.0)[None]
