"""Registration: an exemplar is checked against its frame and aligned with it.

People color a scan of their own, crop it differently, change its contrast. So the picture is moved: by an affine map,
from features (SIFT, RANSAC) or by maximizing the correlation (ECC, Evangelidis & Psarakis 2008), whichever fits better;
then by dense flow (DIS) where that is certain. All this uses luminance without local brightness and contrast.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from omnifusion.color import from_uint8, luminance, rgb_to_lab, to_uint8
from omnifusion.flow import dis as of
from omnifusion.flow import features
from omnifusion.geometry import fit_size, resize
from omnifusion.progress import InputError
from omnifusion.video.images import GRAY_SPREAD, color_deviation

LARGEST_ASPECT_ERROR = 0.03
LEAST_CORRELATION, GOOD_CORRELATION = 0.5, 0.9
IN_PLACE = 0.5  # px (of the working size): an exemplar of which 95 % would move less lines up as it is
WORTHWHILE = 0.01  # gain in correlation of detail for which a movement is accepted
STRETCH = 0.35  # largest deviation of the affine map from the identity, as a share
AGREEING = 12  # matches that must agree on an affine map
WORKING_SIDE = 720  # px, longest side at which the movement is sought
LEAST_ALIKE = 0.2  # correlation of detail around a pixel from which its match is accepted
FLAT = 600.0  # variance of detail under which surroundings are flat, and match anything
NO_CHROMA = 3.0  # of the most colorful thousandth: under it a picture has no color
EVEN_BAR = 12  # gray levels between the darkest and the lightest of a line of a bar
BETTER, TURNED = 0.1, 0.5  # gain in correlation for which a placement is preferred; correlation that rotated ones need
REACH = 0.03  # of the longer side: how far flow may move what the affine map left

Box: TypeAlias = tuple[slice, slice, slice]  # a part of a picture: all channels, rows, columns
WHOLE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Registered:
    """An exemplar ``image`` in place, ``(3, H, W)`` uint8 at the frame's size; if a part matches nothing, with a fourth
    channel that is 0 there.

    ``before`` and ``after`` alignment its luminance correlates so with the frame's, in [-1, 1]. The ``warning`` is one
    sentence where the user should look, else None.
    """

    image: np.ndarray
    before: float
    after: float
    warning: str | None


def register(image: np.ndarray, frame: np.ndarray, force: bool = False, pixel_aspect: float = 1.0) -> Registered:
    """Align a colored picture with the gray frame it shows; one that is already aligned is only resized.

    Args:
        image: ``(3, h, w)`` uint8 sRGB, the colored picture; ``(4, h, w)`` where some of it is transparent.
        frame: ``(3, H, W)`` uint8 sRGB, gray.
        force: accept a picture that has no color, or does not seem to show the frame.
        pixel_aspect: width of the frame's pixels by their height; the picture may have the shape that players show.

    Raises:
        InputError: the picture is gray, of another aspect ratio (by more than 3 %, and not a crop of the frame), or
            does not show the frame (correlation under 0.5 even after an affine movement).
    """
    (h, w), (H, W) = image.shape[1:], frame.shape[1:]
    words = _check_color(image[:3], force)
    target = _luminance(frame)
    image, stretch, changes = _lay(image, frame, target, pixel_aspect)
    words += changes
    opaque, picture = np.ones((H, W), bool), image[:3]
    if len(image) == 4:
        opaque, picture = image[3] >= 128, np.where(image[3] >= 128, image[:3], frame)
    source = _luminance(picture)
    before = correlation(source, target)
    size = fit_size((H, W), WORKING_SIDE)
    details = detail(_resize(source, size)), detail(_resize(target, size))
    move = _affine(*details)
    common = _resize(_inside(move).astype(np.uint8), (H, W)) > 0
    fit = max(before, correlation(_moved(source, move)[common], target[common]))
    if stretch > np.log(1 + (LARGEST_ASPECT_ERROR if fit < GOOD_CORRELATION else STRETCH)):
        raise InputError(
            f"The picture is {w}x{h}, the clip {W}x{H}: their aspect ratios differ by over 3 %; crop the picture to "
            "what its frame shows, bars included."
        )
    if fit < LEAST_CORRELATION and not force:
        raise InputError(
            f"The picture does not seem to show its frame: it matches at {fit:.2f} (0.5 is the least)",
            {"": "check the frame number", "force": "use it anyway"},
        )
    move, after = _add_flow(*details, move), before
    if np.percentile(np.linalg.norm(move, axis=-1), 95) >= IN_PLACE:
        opaque = _matching(*details, move, (H, W)) & (_moved(opaque.astype(np.float32), move) > 0.5)
        after = correlation(_moved(source, move)[opaque], target[opaque])
        picture = np.stack([_moved(channel, move) for channel in picture])
    if not opaque.all():
        picture = np.concatenate([picture, 255 * opaque[None].astype(np.uint8)])
    if before < GOOD_CORRELATION:
        moved = f"it was moved into place ({after:.2f} now)" if after > before else "no movement makes it fit better"
        words.append(f"as given it matched at {before:.2f} only; {moved}")
    return Registered(picture, before, after, "; ".join(words) + "." if words else None)


def _check_color(image: np.ndarray, force: bool) -> list[str]:
    """Refuse a picture without color; returns warnings about one with little."""
    ab = rgb_to_lab(resize(from_uint8(image)[None], fit_size(image.shape[1:], 128)))[0, 1:].numpy()
    if np.percentile(np.hypot(*ab), 99.9) < NO_CHROMA and not force:
        raise InputError(
            "The picture is gray throughout and cannot show its frame's colors",
            {"": "give a picture in color", "force": "use it anyway"},
        )
    muted = np.percentile(color_deviation(image), 99) < GRAY_SPREAD
    return ["it has little color, or a single tint, and can give no more"] if muted else []


def _lay(
    image: np.ndarray, frame: np.ndarray, target: np.ndarray, pixel_aspect: float
) -> tuple[np.ndarray, float, list[str]]:
    """Fit a picture to the size of its frame, whose L* is ``target``; returns it, the logarithm of its stretch, and the
    changes in words. Either is tried with and without its bars, as the shapes allow; the picture is turned only if it
    shows the frame in no other way."""
    best, most = (_over(image, frame, WHOLE), abs(_stretch(image, frame)), list[str]()), -1.0
    for turn in (0, 1, 3, 2):
        turned = np.rot90(image, turn, (1, 2))
        for crop, box in _ways(turned, frame):
            part, place = turned[crop], frame[box]
            stretch = _stretch(part, place)
            if min(abs(stretch), abs(stretch - np.log(pixel_aspect))) > np.log(1 + LARGEST_ASPECT_ERROR):
                continue
            laid = _over(part, frame, box)
            fit = correlation(_luminance(laid[:3]), target)
            if fit > (max(most, TURNED) if turn else most) + BETTER:
                words = [f"it was turned by {90 * turn} degrees"] if turn else []
                words += ["it was laid between the frame's bars"] if place.shape != frame.shape else []
                words += ["its bars were cut off"] if part.shape != turned.shape else []
                best, most = (laid, 0.0, words), fit
            if most >= LEAST_CORRELATION:
                return best
    return best


def _stretch(image: np.ndarray, frame: np.ndarray) -> float:
    """The logarithm of how much wider a picture is than a frame."""
    return float(np.log(image.shape[2] * frame.shape[1] / (image.shape[1] * frame.shape[2])))


def _ways(image: np.ndarray, frame: np.ndarray) -> Iterator[tuple[Box, Box]]:
    """Pairs of regions to align: whole picture to whole frame, then each without its black bars."""
    yield WHOLE, WHOLE
    inner_image, inner_frame = _content(image), _content(frame)
    yield from ((WHOLE, inner_frame), (inner_image, WHOLE), (inner_image, inner_frame))


def _over(image: np.ndarray, frame: np.ndarray, box: Box) -> np.ndarray:
    """``frame`` with a picture laid over a part of it."""
    h, w = frame[box].shape[1:]
    if image.shape[1:] != (h, w):
        image = to_uint8(resize(from_uint8(image)[None], (h, w)))[0].numpy()
    if (h, w) == frame.shape[1:]:
        return np.ascontiguousarray(image)
    laid = np.concatenate([frame, np.full_like(frame[:1], 255)])[: len(image)]
    laid[box] = image
    return laid


def _content(image: np.ndarray) -> Box:
    """The part of a picture ``(3 or 4, h, w)`` between its bars."""
    values = np.where(image[3] >= 128, image[1], 0) if len(image) == 4 else image[1]

    def between(lines: np.ndarray) -> slice:
        darkest, lightest = np.percentile(lines, (2, 98), axis=1)
        uneven = np.flatnonzero(lightest - darkest > EVEN_BAR)
        enough = len(uneven) > len(lines) / 4
        return slice(int(uneven[0]), int(uneven[-1]) + 1) if enough else slice(0, len(lines))

    return slice(None), between(values), between(values.T)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two pictures of the same shape; of flat ones 0, or 1 where both are."""
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    flat = a.std() < 0.1, b.std() < 0.1
    return float(all(flat)) if any(flat) else float((a * b).mean() / (a.std() * b.std()))


def _luminance(image: np.ndarray) -> np.ndarray:
    return luminance(from_uint8(image))[0].numpy()


def detail(L: np.ndarray) -> np.ndarray:
    """L* without local brightness and contrast, ``(H, W)`` uint8: alike in pictures of different tone scales."""
    radius = max(L.shape) / 16
    base = L - cv2.GaussianBlur(L, (0, 0), radius)
    contrast = np.sqrt(cv2.GaussianBlur(base * base, (0, 0), radius) + 9.0)  # + 9: grain alone stays small
    return np.clip(128 + 48 * base / contrast, 0, 255).astype(np.uint8)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if size[0] < len(image) else cv2.INTER_LINEAR)


def _moved(image: np.ndarray, move: np.ndarray) -> np.ndarray:
    """``image`` ``(H, W)`` warped along ``move`` ``(h, w, 2)``, in px at the size of ``move``; the border repeats."""
    H, W = image.shape
    h, w = move.shape[:2]
    full = _resize(move, (H, W)) * np.array([W / w, H / h], np.float32)
    return cv2.remap(image, of.grid(H, W) + full, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _matching(source: np.ndarray, target: np.ndarray, move: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of ``target`` that match ``source`` moved by ``move``, at another ``size``."""
    h, w = target.shape
    a, b = (x.astype(np.float32) - 128 for x in (_moved(source, move), target))
    radius = max(h, w) / 64
    both, one, other = (cv2.GaussianBlur(x, (0, 0), radius) for x in (a * b, a * a, b * b))
    alike = both / np.sqrt(one * other + 1)
    matched = (_inside(move) & ((alike > LEAST_ALIKE) | (np.minimum(one, other) < FLAT))).astype(np.uint8)
    return cv2.resize(matched, size[::-1], interpolation=cv2.INTER_NEAREST) > 0


def _inside(move: np.ndarray) -> np.ndarray:
    """Pixels of ``move`` ``(h, w, 2)`` that are warped from inside the picture, ``(h, w)`` bool."""
    h, w = move.shape[:2]
    points = of.grid(h, w) + move
    return ((points > -1) & (points < (w, h))).all(-1)


def _affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where ``target``'s pixels are in ``source`` by the best affine map, ``(h, w, 2)`` px, if it is clearly better."""
    pixels = of.grid(*target.shape)
    best, most = np.zeros_like(pixels), correlation(source, target) + WORTHWHILE
    here, there = features.describe(target, 2000), features.describe(source, 2000)
    by_features, agree = features.affine_motion(*features.matches(here, there, 0.75, mutual=False), within=2.0)
    for matrix in (by_features if agree.sum() >= AGREEING else None, _by_correlation(source, target)):
        if matrix is None or np.abs(matrix[:, :2] - np.eye(2)).max() > STRETCH:
            continue
        move = (pixels @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32) - pixels
        if (fit := correlation(_moved(source, move), target)) > most:
            best, most = move, fit
    return best


def _by_correlation(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Affine map ``(2, 3)`` from target to source by ECC, coarse to fine, or None where it does not converge."""
    H, W = target.shape
    matrix = np.eye(2, 3, dtype=np.float32)
    blank: Any = None  # no mask
    for scale in (8, 4, 2, 1):
        size = (max(16, W // scale), max(16, H // scale))
        small_target, small_source = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (target, source))
        shrink = np.array([size[0] / W, size[1] / H], np.float32)
        matrix[:, 2] *= shrink
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
        try:
            _, matrix = cv2.findTransformECC(small_target, small_source, matrix, cv2.MOTION_AFFINE, stop, blank, 5)
        except cv2.error:
            return None
        matrix[:, 2] /= shrink
    return matrix


def _add_flow(source: np.ndarray, target: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Add flow to ``move`` where forward and backward flow agree, fading out elsewhere; none if it gains little."""
    moved = _moved(source, move)
    forward, backward = of.dis(target, moved), of.dis(moved, target)
    sure = of.cycle_error(forward, backward) < IN_PLACE
    sure &= np.linalg.norm(forward, axis=-1) < REACH * max(target.shape)
    radius = max(target.shape) / 64
    weight = cv2.GaussianBlur(sure.astype(np.float32), (0, 0), radius)
    smooth = cv2.GaussianBlur(forward * sure[..., None], (0, 0), radius) / (weight + 0.1)[..., None]
    gain = correlation(_moved(source, move + smooth), target) - correlation(moved, target)
    return move + smooth if gain > WORTHWHILE else move
