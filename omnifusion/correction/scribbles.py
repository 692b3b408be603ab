"""From scribbles to colors: a connected scribble of one color colors the object under it, up to its edges.

Each object is cut out of its frame by GrabCut (Rother, Kolmogorov and Blake 2004). Plain GrabCut uses colors alone;
this one also uses what distinguishes the scribble from its surroundings in luminance, texture and features of the
bundled prior's encoder, which recognizes objects even without color.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from skimage.measure import label
from torch import Tensor, nn

from omnifusion.color import compose, from_uint8, rgb_to_lab, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.pool import parallel
from omnifusion.prior.components import Chroma, load_components
from omnifusion.prior.source import BUNDLED
from omnifusion.progress import InputError

Array = np.ndarray

SIDE, FEATURE_SIDE = 320, 864  # longest side in pixels at which scribbles are cut out, and at which the encoder reads
MAX_SCRIBBLES = 24  # the largest spread; further ones color what they cover
# Log odds that a pixel belongs to a scribble: for each standard deviation by which it is more like it than its
# surroundings are, less for its distance from the scribble and from its convex hull, in diameters of the scribble.
# Fitted to the masks of 24 frames and five kinds of scribbles along each.
LIKENESS, DISTANCE, HULL = 1.9, 1.0, 1.4
CERTAIN = 4.6  # log odds (99 to 1) from which on GrabCut is not asked
ROUNDS = 2  # of cutting out; each but the first learns from the object that the one before cut out
KEEP, OPEN = -1, -2  # instead of a color: for scribbles over pixels to keep, and for no scribble


class Appearance(NamedTuple):
    """Features of a frame: L* ``(h, w)`` of ``SIDE``; of its pixels ``(h, w, 5)`` L*, its local mean and deviation, a*
    and b*, of variance 1; of its cells ``(h', w', C)`` the same and the encoder's features at 1/8 and 1/16."""

    L: Array
    pixels: Array
    cells: Array


@lru_cache(maxsize=1)
def encoder() -> nn.Module:
    """The bundled prior's encoder."""
    prior = load_components(str(BUNDLED), "cpu")
    assert isinstance(prior, Chroma)
    return prior.net.encoder


def appearance(lab: Tensor) -> Appearance:
    """The features of a frame ``(3, H, W)``."""
    L, *ab = resize(lab[None], fit_size(lab.shape[1:], SIDE))[0].numpy()
    mean, square = (cv2.GaussianBlur(x, (0, 0), 0.01 * SIDE) for x in (L, L * L))
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    pixels = np.stack([L, mean, 12 * np.log1p(deviation), 1.5 * ab[0], 1.5 * ab[1]])
    scale = FEATURE_SIDE / max(lab.shape)
    with torch.no_grad():
        sides = [32 * max(1, round(side * scale / 32)) for side in lab.shape[1:]]
        _, _, *features, _ = encoder()(resize(lab[None, :1], (sides[0], sides[1])))
    at = features[0].shape[-2:]
    kinds = [torch.from_numpy(pixels)[None], *features]
    cells = [_standard(F.interpolate(x, at, mode="bilinear", antialias=True)[0].numpy(), 1e-3) for x in kinds]
    cells = [x / n**0.5 for x, n in zip(cells, (3, 40, 112), strict=True)]
    return Appearance(L, _standard(pixels, 1.0), np.concatenate(cells, -1))


def _standard(x: Array, least: float) -> Array:
    """``(C, h, w)`` to ``(h, w, C)`` of mean 0 and variance 1, or less where the deviation is near ``least``."""
    mean, deviation = x.mean((1, 2)), x.std((1, 2))
    return (x.transpose(1, 2, 0) - mean) / (deviation + least)


def spread(picture: Array, scribbles: Array, keep: Array | None = None) -> Array:
    """Color the objects under scribbles: ``(4, H, W)`` uint8, the frame in its new colors, opaque in these objects.

    Where scribbles of two colors compete, or one with pixels to keep, the more likely one wins. Luminance stays; chroma
    is the scribble's, and less in shadows.

    Args:
        picture: the frame, ``(3, H, W)`` uint8, gray or in the colors that are to be corrected.
        scribbles: ``(4, H, W)`` uint8, opaque where painted. InputError if nothing is.
        keep: ``(H, W)`` bool, scribbles over pixels to keep; None = none.
    """
    full = picture.shape[1:]
    if scribbles.shape[1:] != full or (keep is not None and keep.shape != full):
        raise InputError("The scribbles are of another size than their frame; paint over the frame itself.")
    codes = np.tensordot([65536, 256, 1], scribbles[:3].astype(np.int32), 1)
    codes = np.where(scribbles[3] >= 128, codes, OPEN)
    codes = codes if keep is None else np.where(keep, KEEP, codes)
    if not (codes >= 0).any():
        raise InputError("There is no stroke; paint some color over the frame.")
    lab = rgb_to_lab(from_uint8(picture))
    reach = _reach(appearance(lab), codes)
    winner, best = np.full(full, OPEN), np.full(full, 0.5, np.float32)
    for code in np.unique(reach):
        if code != OPEN:
            share = cv2.resize((reach == code).astype(np.float32), full[::-1], interpolation=cv2.INTER_LINEAR)
            winner, best = np.where(share > best, code, winner), np.maximum(share, best)
    winner = np.where(codes != OPEN, codes, winner)
    ab = lab[1:].clone()
    for code in np.unique(winner[winner >= 0]):
        color = torch.tensor([code >> 16, code >> 8 & 255, code & 255], dtype=torch.uint8)[:, None, None]
        L, *chroma = rgb_to_lab(from_uint8(color))
        shade = ((lab[0] + 16) / (L + 16)).clamp_max(1)  # a shadow scales L* + 16, a* and b* alike
        ab = torch.where(torch.from_numpy(winner == code), torch.stack(chroma) * shade, ab)
    alpha = np.where(winner >= 0, 255, 0).astype(np.uint8)
    return np.concatenate([to_uint8(compose(lab[:1], ab)).numpy(), alpha[None]])


def _reach(look: Appearance, codes: Array) -> Array:
    """The color code that each pixel ``(h, w)`` of ``SIDE`` takes."""
    numbers, size = label(codes, background=OPEN, connectivity=2), look.L.shape
    _, first, areas = np.unique(numbers[numbers > 0], return_index=True, return_counts=True)
    largest = 1 + np.argsort(-areas, kind="stable")[:MAX_SCRIBBLES]
    scribbles = [_covered(numbers == k, size) for k in largest]
    names = codes[numbers > 0][first][largest - 1]
    rivals = {name: _covered((codes != OPEN) & (codes != name), size) for name in names}
    allies = {name: _covered(codes == name, size) for name in names}
    jobs = [(x, allies[name], rivals[name] & ~x) for name, x in zip(names, scribbles, strict=True)]
    odds = np.stack([np.zeros(size), *parallel(lambda job: cut_out(look, *job), jobs)])
    return np.array([OPEN, *names])[odds.argmax(0)]


def _covered(mask: Array, size: tuple[int, int]) -> Array:
    """A mask at another size: pixels that it covers by half, or by half of its largest cover where it is thin."""
    share = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    return (share > 0.5 * share.max()) & (share > 0)


def cut_out(look: Appearance, scribble: Array, same: Array, others: Array) -> Array:
    """Log odds ``(h, w)``, at least a little over 0 where a pixel belongs to ``scribble``, -inf where it does not."""
    ys, xs = np.nonzero(scribble)
    diameter = np.hypot(np.ptp(ys), np.ptp(xs)) + 0.03 * max(scribble.shape)
    hull = cv2.fillConvexPoly(scribble.astype(np.uint8), cv2.convexHull(np.stack([xs, ys], 1).astype(np.int32)), 1)
    masks = scribble.astype(np.uint8), hull
    far, beyond = (cv2.distanceTransform(1 - x, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / diameter for x in masks)
    inside, outside = scribble.astype(np.float64), np.minimum(far, 1).astype(np.float64) * ~same
    outside += others * outside.sum() / max(1, others.sum())
    for _ in range(ROUNDS):
        pixels, cells = (_likeness(x, inside, outside, scribble.shape) for x in (look.pixels, look.cells))
        odds = LIKENESS * cells - DISTANCE * np.minimum(far, 3) - HULL * np.minimum(beyond, 2)
        odds[scribble], odds[others] = np.inf, -np.inf
        image = np.dstack([2.55 * look.L, 128 + 30 * pixels, 128 + 30 * cells]).clip(0, 255).astype(np.uint8)
        cut = _grabcut(image, odds)
        inside, outside = np.maximum(scribble, 0.5 * cut), outside * ~cut
    return np.where(cut, np.maximum(odds, 1e-3), -np.inf)


def _likeness(features: Array, inside: Array, outside: Array, size: tuple[int, int]) -> Array:
    """How much more similar each pixel ``(h, w)`` is to the pixels ``inside`` than to those ``outside``, by Fisher's
    linear discriminant of ``features`` ``(h', w', C)``, in standard deviations of the outside."""
    at, x = features.shape[:2], features.reshape(-1, features.shape[2]).astype(np.float64)
    weights = [cv2.resize(w, at[::-1], interpolation=cv2.INTER_AREA).ravel() for w in (inside, outside)]
    weights = [w / max(w.sum(), 1e-9) for w in weights]
    means = [w @ x for w in weights]
    scatter = sum(((x - m) * w[:, None]).T @ (x - m) for w, m in zip(weights, means, strict=True)) / 2
    scatter += 0.3 * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    way = np.linalg.solve(scatter, means[0] - means[1])
    value = (x - (means[0] + means[1]) / 2) @ way
    value = (value / np.sqrt(weights[1] @ value**2 + 1e-9)).clip(-4, 4).reshape(at)
    return cv2.resize(value, size[::-1], interpolation=cv2.INTER_CUBIC)


def _grabcut(image: Array, odds: Array) -> Array:
    """The foreground ``(h, w)`` bool of an image whose log odds are known roughly."""
    labels = [cv2.GC_BGD, cv2.GC_PR_BGD, cv2.GC_PR_FGD, cv2.GC_FGD]
    mask = np.array(labels, np.uint8)[np.digitize(odds, [-CERTAIN, 0, CERTAIN])]
    foreground = int((mask & 1).sum())
    if min(foreground, mask.size - foreground) >= 5:  # its models have five components each
        cv2.setRNGSeed(0)
        cv2.grabCut(image, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    return (mask & 1) > 0
