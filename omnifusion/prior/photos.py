"""Training examples for the bundled prior: photos with holes of the kind a run leaves, and the hint made for them."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.color import compose, from_uint8, rgb_to_lab
from omnifusion.geometry import resize
from omnifusion.hint import Reference, make_hint
from omnifusion.state import Hint, InputError

CROP = 128
"""Side of the training pictures in pixels."""

HINT_SIDE = 64
"""Side at which masks and hints are made: latents are coarser still, and a hint costs a quarter."""


@dataclass(frozen=True)
class Example:
    """One picture to learn from.

    Attributes:
        truth: ``(3, 128, 128)`` sRGB in [0, 1].
        hint: the same picture with the hint's colours.
        doubt: ``(64, 64)``, 1 - the hint's confidence: 0 at known pixels.
        hole: ``(64, 64)`` float, 1 where the colour was unknown.
    """

    truth: Tensor
    hint: Tensor
    doubt: Tensor
    hole: Tensor


class Photos:
    """JPEG pictures of several tar files, kept compressed in memory; large collections count as a thousand."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.collections = [_read_tar(Path(p)) for p in paths]
        if not self.collections:
            raise InputError("Name at least one tar file of JPEG photos to train on.")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A random photo, ``(H, W, 3)`` uint8 sRGB."""
        weights = np.array([min(len(c), 1000) for c in self.collections], float)
        collection = self.collections[rng.choice(len(weights), p=weights / weights.sum())]
        data = collection[rng.integers(len(collection))]
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        return np.ascontiguousarray(image[..., ::-1])


def _read_tar(path: Path) -> list[bytes]:
    try:
        with tarfile.open(path) as tar:
            files = [tar.extractfile(m) for m in sorted(tar.getmembers(), key=lambda m: m.name) if m.isfile()]
            photos = [f.read() for f in files if f is not None]
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} cannot be read as a tar file of JPEG photos: {error}.") from error
    if not photos or cv2.imdecode(np.frombuffer(photos[0], np.uint8), cv2.IMREAD_COLOR) is None:
        raise InputError(f"{path} holds no JPEG photos.")
    return photos


def crop(photo: np.ndarray, rng: np.random.Generator) -> Tensor:
    """A random square of the photo at a random scale, mirrored or not, colours calmed or not: ``(3, 128, 128)``."""
    short = min(photo.shape[:2])
    side = int(short * rng.uniform(0.5, 1.0))
    y, x = rng.integers(photo.shape[0] - side + 1), rng.integers(photo.shape[1] - side + 1)
    how = cv2.INTER_AREA if side > CROP else cv2.INTER_CUBIC
    square = cv2.resize(photo[y : y + side, x : x + side], (CROP, CROP), interpolation=how)
    if rng.random() < 0.5:
        square = square[:, ::-1]
    lab = rgb_to_lab(from_uint8(square.transpose(2, 0, 1)))
    return compose(lab[:1], lab[1:] * rng.uniform(0.45, 1.1))  # video is calmer in colour than these photos


def hole_mask(rng: np.random.Generator, side: int = HINT_SIDE) -> np.ndarray:
    """Holes as forward-backward checks and camera motion leave them: ``(side, side)`` bool, true where unknown."""
    hole = np.zeros((side, side), bool)
    if rng.random() < 0.12:
        hole[:] = True
    for _ in range(rng.integers(1, 3)):
        noise = _smooth_noise(rng, side, side * rng.uniform(0.03, 0.2))
        hole |= noise > np.quantile(noise, 1 - rng.uniform(0.05, 0.6))
    if rng.random() < 0.4:
        strip = np.zeros_like(hole)
        strip[: int(side * rng.uniform(0.05, 0.6))] = True
        hole |= np.rot90(strip, int(rng.integers(4)))
    if rng.random() < 0.25:
        hole &= rng.random((side, side)) > 0.02
    return hole


def _smooth_noise(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), sigma)
    return noise / noise.std()


def _moved(lab: np.ndarray, rng: np.random.Generator, rigid: float, waves: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture seen from elsewhere: a random similarity (size ``rigid``), smooth waves (in pixels); and validity."""
    side = lab.shape[0]
    angle, scale = rng.normal() * 0.1 * rigid, np.exp(rng.normal() * 0.1 * rigid)
    shift = rng.normal(size=2) * 0.1 * rigid * side
    y, x = np.mgrid[:side, :side].astype(np.float32) - side / 2
    u = scale * (np.cos(angle) * x - np.sin(angle) * y) + side / 2 + shift[0]
    v = scale * (np.sin(angle) * x + np.cos(angle) * y) + side / 2 + shift[1]
    u += waves * _smooth_noise(rng, side, side / 10)
    v += waves * _smooth_noise(rng, side, side / 10)
    moved = cv2.remap(lab, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return moved, (u >= 0) & (u <= side - 1) & (v >= 0) & (v <= side - 1)


def _reference(lab: np.ndarray, rng: np.random.Generator) -> Reference:
    """A second view of the picture as its exemplar; parts of it were never seen there."""
    moved, valid = _moved(lab, rng, rng.choice([0.5, 1.5, 3.0]), rng.uniform(1, 7))
    if rng.random() < 0.6:
        noise = _smooth_noise(rng, lab.shape[0], lab.shape[0] * rng.uniform(0.08, 0.2))
        valid &= noise < np.quantile(noise, rng.uniform(0.2, 0.9))
    L = moved[..., 0] * rng.uniform(0.9, 1.1) + rng.normal() * 3 + rng.normal(size=valid.shape)
    return Reference(_tensor(L[..., None].clip(0, 100)), _tensor(moved[..., 1:]), torch.from_numpy(valid))


def _guess(lab: np.ndarray, hole: np.ndarray, rng: np.random.Generator) -> Hint:
    """Colours fetched along tracks that miss by a few pixels, trusted by their agreement in luminance."""
    moved, _ = _moved(lab, rng, 0.1, rng.uniform(1, 5))
    agreement = np.exp(-0.5 * ((moved[..., 0] - lab[..., 0]) / 10) ** 2)
    return Hint(_tensor(moved[..., 1:]), torch.from_numpy((0.5 * agreement * hole).astype(np.float32)))


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()


def make_example(photos: Photos, rng: np.random.Generator) -> Example:
    """Draw a photo, punch holes in its colour, and make the hint from a moved copy of it as a run would."""
    truth = crop(photos.draw(rng), rng)
    lab = rgb_to_lab(resize(truth[None], (HINT_SIDE, HINT_SIDE))[0])
    pixels = lab.permute(1, 2, 0).numpy().copy()
    hole = hole_mask(rng)
    known, _ = _moved(pixels, rng, 0.0, rng.uniform(0, 0.7))
    references = [] if rng.random() < 0.25 else [_reference(pixels, rng)]
    guess = [_guess(pixels, hole, rng)] if rng.random() < 0.4 else []
    mask = torch.from_numpy(~hole)
    hint = make_hint(Reference(lab[:1], _tensor(known[..., 1:]) * mask, mask), references, guess)
    ab = resize(hint.ab[None], (CROP, CROP))[0]
    picture = compose(rgb_to_lab(truth)[:1], ab)
    return Example(truth, picture, 1 - hint.confidence, torch.from_numpy(hole).float())
