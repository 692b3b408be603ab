"""Training examples for the bundled prior: photographs, holes as a run leaves them, and the hint made there."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.inpaint import ReferenceFrame, estimate_color
from omnifusion.progress import InputError
from omnifusion.state import ColorEstimate

HELD_OUT = 8
"""Every eighth photo of each collection, from the first on, is never trained on."""

AT_MOST = 600
"""A larger collection is drawn from as often as one of this size."""

SIDE = 128
"""Of the training pictures in pixels."""


@dataclass(frozen=True)
class Example:
    """One picture to learn from, side s.

    Attributes:
        lab: ``(3, s, s)`` the truth; its L* may carry an old film's blur and grain.
        hint: ``(2, s, s)`` ab. doubt: ``(1, s, s)``, 1 - the hint's confidence, 0 at known pixels.
        hole: ``(1, s, s)`` float, 1 where the color is unknown.
    """

    lab: Tensor
    hint: Tensor
    doubt: Tensor
    hole: Tensor


class Photos:
    """JPEG photographs of several tar files, kept compressed in memory, without grayish ones and cut-outs.

    Raises:
        InputError: no files, or one that cannot be read.
    """

    def __init__(self, paths: Sequence[str | Path], held_out: bool = False) -> None:
        read = [_read_tar(Path(p)) for p in paths]
        if not read:
            raise InputError("Name at least one tar file of JPEG photos to train on.")
        chosen = [[p for n, p in enumerate(photos) if (n % HELD_OUT == 0) == held_out] for photos in read]
        self.collections = [[p for p in photos if _natural(p)] for photos in chosen]
        if not all(self.collections):
            raise InputError("Every tar file must hold at least two photos in color.")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A random photo, ``(H, W, 3)`` uint8 sRGB."""
        weights = np.array([min(len(c), AT_MOST) for c in self.collections], float)
        collection = self.collections[rng.choice(len(weights), p=weights / weights.sum())]
        return decoded(collection[rng.integers(len(collection))])


def decoded(jpeg: bytes) -> np.ndarray:
    """``(H, W, 3)`` uint8 sRGB."""
    image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
    return np.ascontiguousarray(image[..., ::-1])


def _natural(jpeg: bytes) -> bool:
    small = cv2.resize(decoded(jpeg), (32, 32), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return bool(chroma.mean() > 4 and ((lab[..., 0] > 96) & (chroma < 4)).mean() < 0.25)


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


def crop(photo: np.ndarray, rng: np.random.Generator, side: int = SIDE) -> Tensor:
    """A random square of the photo at a random scale, mirrored or not, as Lab ``(3, side, side)``; colors are calmed,
    as film is calmer than these photos, and the light is another."""
    short = min(photo.shape[:2])
    wide = int(short * rng.uniform(0.5, 1.0))
    y, x = rng.integers(photo.shape[0] - wide + 1), rng.integers(photo.shape[1] - wide + 1)
    how = cv2.INTER_AREA if wide > side else cv2.INTER_CUBIC
    square = cv2.resize(photo[y : y + wide, x : x + wide], (side, side), interpolation=how)
    if rng.random() < 0.5:
        square = square[:, ::-1]
    lab = rgb_to_lab(from_uint8(square.transpose(2, 0, 1)))
    L = 100 * (lab[:1] / 100).clamp(0, 1) ** float(np.exp(rng.normal() * 0.2))
    return torch.cat([L, lab[1:] * rng.uniform(0.65, 1.05)])


def aged(L: Tensor, rng: np.random.Generator) -> Tensor:
    """L* ``(1, s, s)``, sometimes blurred and grainy, as old film is."""
    image = L[0].numpy()
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.0))
    if rng.random() < 0.3:
        image = image + rng.normal(size=image.shape) * rng.uniform(0.5, 5)
    return torch.from_numpy(np.clip(image, 0, 100)[None]).float()


def bare_example(photos: Photos, rng: np.random.Generator) -> Example:
    """A photo of which nothing is known."""
    lab = crop(photos.draw(rng), rng)
    one = torch.ones_like(lab[:1])
    return Example(torch.cat([aged(lab[:1], rng), lab[1:]]), torch.zeros_like(lab[1:]), one, one)


def hinted_example(photos: Photos, rng: np.random.Generator) -> Example:
    """A photo with holes in its color, and the hint made from other views of it, as a run makes it."""
    lab = crop(photos.draw(rng), rng)
    lab = torch.cat([aged(lab[:1], rng), lab[1:]])
    pixels = lab.permute(1, 2, 0).numpy().copy()
    hole = hole_mask(rng)
    known, _ = _moved(pixels, rng, 0.0, rng.uniform(0, 1.0))
    references = [_reference(pixels, rng) for _ in range(rng.integers(3))]
    fetched = [_fetched(pixels, hole, rng)] if rng.random() < 0.4 else []
    mask = torch.from_numpy(~hole)
    frame = ReferenceFrame(lab[:1], _tensor(known[..., 1:]) * mask, mask)
    hint = estimate_color(frame, references, fetched)
    return Example(lab, hint.ab, 1 - hint.confidence[None], torch.from_numpy(hole)[None].float())


def hole_mask(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Holes as cycle checks and camera motion leave them: ``(side, side)`` bool, true where unknown."""
    hole = np.zeros((side, side), bool)
    for _ in range(rng.integers(1, 3)):
        noise = _smooth_noise(rng, side, side * rng.uniform(0.03, 0.2))
        hole |= noise > np.quantile(noise, 1 - rng.uniform(0.05, 0.6))
    if rng.random() < 0.4:
        strip = np.zeros_like(hole)
        strip[: int(side * rng.uniform(0.05, 0.6))] = True
        hole |= np.rot90(strip, int(rng.integers(4)))
    if rng.random() < 0.1:
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


def _reference(lab: np.ndarray, rng: np.random.Generator) -> ReferenceFrame:
    """A second view of the picture as its exemplar, in another light and blur; parts of it were never seen there."""
    moved, valid = _moved(lab, rng, rng.choice([0.5, 1.5, 3.0]), rng.uniform(1, 7))
    if rng.random() < 0.6:
        noise = _smooth_noise(rng, lab.shape[0], lab.shape[0] * rng.uniform(0.08, 0.2))
        valid &= noise < np.quantile(noise, rng.uniform(0.2, 0.9))
    L = moved[..., 0] * rng.uniform(0.85, 1.15) + rng.normal() * 4 + rng.normal(size=valid.shape)
    if rng.random() < 0.3:
        L = cv2.GaussianBlur(L, (0, 0), rng.uniform(0.5, 2.5))
    return ReferenceFrame(_tensor(L[..., None].clip(0, 100)), _tensor(moved[..., 1:]), torch.from_numpy(valid))


def _fetched(lab: np.ndarray, hole: np.ndarray, rng: np.random.Generator) -> ColorEstimate:
    """Colors fetched along tracks that miss by a few pixels, trusted by their agreement in luminance."""
    moved, _ = _moved(lab, rng, 0.1, rng.uniform(1, 5))
    agreement = np.exp(-0.5 * ((moved[..., 0] - lab[..., 0]) / 10) ** 2)
    return ColorEstimate(_tensor(moved[..., 1:]), torch.from_numpy((0.7 * agreement * hole).astype(np.float32)))


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
