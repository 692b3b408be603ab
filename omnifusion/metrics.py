"""How close a colored clip is to its ground truth, and how steady its colors are.

Clips are ``(T, 3, H, W)`` uint8 sRGB; scores that compare two clips come per frame, ``(T,)``.
"""

import pickle
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import skimage.color
import skimage.metrics
import torch
from scipy.spatial.distance import jensenshannon

from omnifusion.color import from_uint8
from omnifusion.progress import InputError

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

EXACT = 100.0  # the PSNR in dB of an exact frame, so that means stay finite


def psnr(result: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio over all three channels in dB, at most ``EXACT``."""
    return _decibels((r.astype(np.float64) - t) ** 2 for r, t in zip(result, ground_truth, strict=True))


def psnr_uint8(result: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """PSNR in dB as ColorMNet's released script computes it: differences and their squares wrap at 256.

    Far from the ground truth it is far too high (a difference of 16 counts as none); only for comparison with figures
    that were published by that formula. An exact frame gets ``EXACT`` where the script has infinity.
    """
    return _decibels((r - t) ** 2 for r, t in zip(result, ground_truth, strict=True))


def _decibels(squares: Iterable[np.ndarray]) -> np.ndarray:
    means = np.array([values.mean(dtype=np.float64) for values in squares])
    return np.minimum(EXACT, 10 * np.log10(255**2 / np.maximum(means, 1e-9)))


def ssim(result: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) with scikit-image's 7x7 window, mean of the channels."""
    similarity = partial(skimage.metrics.structural_similarity, channel_axis=0, data_range=255)
    return np.array([similarity(t, r) for r, t in zip(result, ground_truth, strict=True)])


def ciede2000(result: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Mean color difference CIEDE2000 (Sharma et al. 2005); 1 is about what people just notice."""
    lab = partial(skimage.color.rgb2lab, channel_axis=0)
    difference = partial(skimage.color.deltaE_ciede2000, channel_axis=0)
    pairs = zip(result, ground_truth, strict=True)
    return np.array([difference(lab(t), lab(r)).mean(dtype=np.float64) for r, t in pairs])


COMPARISONS: dict[str, Score] = {"psnr": psnr, "ssim": ssim, "ciede2000": ciede2000}
"""The scores of a result against its ground truth that need no weights."""


def cdc(clip: np.ndarray, gaps: Sequence[int] = (1, 2, 4)) -> float:
    """Color distribution consistency (Liu et al., TCVC): how much the colors of a clip jump; lower is steadier.

    Jensen-Shannon divergence (nats) of the 256-bin histograms of each channel, between frames ``gaps`` apart, averaged
    over frames, channels and gaps. Gaps as long as the clip are left out; a clip of one frame scores NaN.
    """
    histograms = np.array([[np.bincount(channel.ravel(), minlength=256) for channel in frame] for frame in clip])
    pairs = [(histograms[:-gap], histograms[gap:]) for gap in gaps if gap < len(clip)]
    return float(np.mean([(jensenshannon(p, q, axis=-1) ** 2).mean() for p, q in pairs])) if pairs else float("nan")


def load_lpips() -> Score:
    """Load LPIPS v0.1 on AlexNet (Zhang et al. 2018), a score per frame: lower is closer.

    InputError if torchvision cannot download AlexNet's weights, or has damaged ones.
    """
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity  # here, as it takes seconds

    try:
        distance = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        place = Path(torch.hub.get_dir(), "checkpoints")
        raise InputError(
            f"LPIPS needs AlexNet's weights, which torchvision cannot download ({error}); put them into {place}."
        ) from error

    def lpips(result: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
        pairs = zip(result, ground_truth, strict=True)
        return np.array([float(distance(from_uint8(r)[None], from_uint8(t)[None])) for r, t in pairs])

    return lpips
