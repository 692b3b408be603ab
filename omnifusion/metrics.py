"""How close a colored clip is to the truth, and how steady its colors are.

Clips are ``(T, 3, H, W)`` uint8 sRGB, as published scores are taken on 8-bit frames. Scores that compare two clips
come per frame, ``(T,)``; ``where`` ``(T, H, W)`` bool restricts them to some pixels, and a frame with none scores NaN.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import scipy.stats
import skimage.color
import skimage.metrics
import torch
from torch import nn

from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.progress import InputError

EXACT = 100.0
"""The PSNR in dB that an exact frame is given, so that means stay finite."""

GAPS = (1, 2, 4)
"""The frame distances that CDC averages over (TCVC)."""


def psnr(result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio over all three channels in dB, at most ``EXACT``."""
    pairs = zip(result, truth, strict=True)
    return _decibels(_means(((r.astype(np.float64) - t) ** 2 for r, t in pairs), where))


def psnr_uint8(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """PSNR in dB as ColorMNet's released script computes it: differences and their squares wrap at 256.

    Far from the truth it is far too kind (a difference of 16 counts as none); only for comparison with figures that
    were published on that ruler. An exact frame gets ``EXACT`` where the script has infinity.
    """
    return _decibels(_means(((r - t) ** 2 for r, t in zip(result, truth, strict=True)), None))


def ssim(result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) with scikit-image's 7x7 window, mean of the channels.

    Without ``where``, over all pixels whose window lies in the frame.
    """
    similarity = partial(skimage.metrics.structural_similarity, channel_axis=0, data_range=255, full=True)
    maps = (similarity(t, r)[1] for r, t in zip(result, truth, strict=True))
    return _means(maps if where is not None else (m[:, 3:-3, 3:-3] for m in maps), where)


def ciede2000(result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Mean color difference CIEDE2000 (Sharma et al. 2005); 1 is about what people just notice."""
    lab = partial(skimage.color.rgb2lab, channel_axis=0)
    pairs = zip(result, truth, strict=True)
    return _means((skimage.color.deltaE_ciede2000(lab(t), lab(r), channel_axis=0) for r, t in pairs), where)


COMPARISONS: dict[str, Callable[..., np.ndarray]] = {"psnr": psnr, "ssim": ssim, "ciede2000": ciede2000}
"""The scores of a result against its truth that need no weights."""


def colorfulness(clip: np.ndarray) -> np.ndarray:
    """M3 of Hasler and Suesstrunk 2003, per frame: 0 = gray, 33 = moderately, 82 = highly colorful."""
    scores = []
    for frame in clip:
        r, g, b = frame.astype(np.float64)
        rg, yb = r - g, 0.5 * (r + g) - b
        scores.append(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))
    return np.array(scores)


def cdc(clip: np.ndarray, gaps: Sequence[int] = GAPS) -> float:
    """Color distribution consistency (Liu et al., TCVC): how much the colors of a clip jump; lower is steadier.

    Jensen-Shannon divergence (nats) of the 256-bin histograms of each channel, between frames ``gaps`` apart, averaged
    over frames, channels and gaps. Gaps as long as the clip are left out; a clip of one frame scores NaN.
    """
    counts = np.stack([[np.bincount(c.ravel(), minlength=256) for c in frame] for frame in clip])
    p = counts / counts.sum(-1, keepdims=True)
    jumps = [jensen_shannon(p[:-gap], p[gap:]).mean() for gap in gaps if gap < len(p)]
    return float(np.mean(jumps)) if jumps else float("nan")


def flicker(result: np.ndarray, truth: np.ndarray, radius: float = 4.0) -> float:
    """How much the error in a*, b* changes from frame to frame, on the mean, in surroundings of ``radius`` pixels.

    Motion is no flicker: the truth moves as the result does. Frames that repeat the one before them do not count.
    """
    errors = (rgb_to_lab(from_uint8(r))[1:] - rgb_to_lab(from_uint8(t))[1:] for r, t in zip(result, truth, strict=True))
    smooth = [cv2.GaussianBlur(error.permute(1, 2, 0).numpy(), (0, 0), radius) for error in errors]
    new = [t for t in range(1, len(truth)) if not np.array_equal(truth[t], truth[t - 1])]
    return (
        float(np.mean([np.linalg.norm(smooth[t] - smooth[t - 1], axis=-1).mean() for t in new]))
        if new
        else float("nan")
    )


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in nats of distributions over the last axis; 0 = equal, ln 2 = disjoint."""
    middle = (p + q) / 2
    return (scipy.stats.entropy(p, middle, axis=-1) + scipy.stats.entropy(q, middle, axis=-1)) / 2


def _means(maps: Iterable[np.ndarray], where: np.ndarray | None) -> np.ndarray:
    """The mean of each map ``(..., H, W)``, or of the pixels in its mask; NaN without any."""
    if where is not None:
        maps = (values[..., mask] for values, mask in zip(maps, where, strict=True))
    return np.array([values.mean(dtype=np.float64) if values.size else np.nan for values in maps])


def _decibels(squares: np.ndarray) -> np.ndarray:
    """The PSNR of mean squared errors of 8-bit values."""
    return np.minimum(EXACT, 10 * np.log10(255**2 / np.maximum(squares, 1e-9)))


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
        network = _NoTrainLpips(net="alex", pnet_rand=True)
        layers = {name: state[f"features.{name.split('.', 1)[1]}"] for name in network.net.state_dict()}
        network.net.load_state_dict(layers)
    except (OSError, EOFError, RuntimeError, LookupError, TypeError, pickle.UnpicklingError) as error:
        source = "torchvision's download" if weights is None else str(weights)
        raise InputError(f"LPIPS needs AlexNet's weights, but {source} cannot be read as them ({error}).") from error
    return network


@torch.no_grad()
def lpips(network: nn.Module, result: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Learned perceptual image patch similarity (Zhang et al. 2018), lower is closer; ``network`` of ``lpips_network``.

    With ``where``, the mean over those pixels of the distance map (its layers upsampled bilinearly).
    """
    network.spatial = where is not None
    pairs = ((from_uint8(f)[None] for f in pair) for pair in zip(result, truth, strict=True))
    return _means((network(*pair, normalize=True)[0, 0].numpy() for pair in pairs), where)
