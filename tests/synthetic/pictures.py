"""Photographs and cut-outs: all ``(4, h, w)`` float32, RGB and outline in [0, 1], unless said otherwise."""

from __future__ import annotations

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from omnifusion import geometry
from omnifusion.color import from_uint8

ASTRONAUT = (  # her outline in the photograph, x,y
    "185,40 205,26 235,16 262,22 285,38 299,62 301,88 297,110 287,125 273,138 261,142 256,160 255,173 272,181 288,198 "
    "301,222 305,236 325,247 341,266 351,290 357,318 362,345 400,343 436,354 468,381 487,414 494,445 500,470 502,511 "
    "30,511 24,480 27,452 19,430 23,405 20,388 25,345 34,308 41,283 54,257 76,236 108,217 117,206 115,187 126,186 "
    "134,166 154,151 182,147 180,131 163,119 155,100 153,76 160,57"
)


def photo(name: str) -> Tensor:
    """A color photograph that scikit-image ships, ``(3, h, w)`` in [0, 1]."""
    image = skimage.data.stereo_motorcycle()[0] if name == "garage" else getattr(skimage.data, name)()
    return from_uint8(image[..., :3].transpose(2, 0, 1))


def opaque(rgb: Tensor) -> Tensor:
    """A picture ``(3, h, w)`` that covers all of its rectangle."""
    return torch.cat([rgb, torch.ones_like(rgb[:1])])


def cut(rgb: Tensor, outline: Tensor) -> Tensor:
    """The part of a picture ``(3, h, w)`` where ``outline`` ``(h, w)`` is true."""
    return torch.cat([rgb, outline[None].to(rgb.dtype)])


def crop(rng: np.random.Generator, rgb: Tensor, share: float) -> Tensor:
    """A random window with ``share`` of the picture's height and width, perhaps mirrored."""
    h, w = (round(share * s) for s in rgb.shape[1:])
    y, x = rng.integers(rgb.shape[1] - h + 1), rng.integers(rgb.shape[2] - w + 1)
    window = rgb[:, y : y + h, x : x + w]
    return window.flip(2) if rng.random() < 0.5 else window


def polygon(rgb: Tensor, corners: str) -> Tensor:
    """The part of a photograph within ``corners`` ("x,y x,y ..." in its pixels), cropped to it."""
    points = [tuple(float(v) for v in pair.split(",")) for pair in corners.split()]
    mask = Image.new("L", (rgb.shape[2], rgb.shape[1]))
    ImageDraw.Draw(mask).polygon(points, fill=1)
    xs, ys = zip(*points, strict=True)
    box = (slice(None), slice(int(min(ys)), int(max(ys)) + 1), slice(int(min(xs)), int(max(xs)) + 1))
    return cut(rgb, torch.from_numpy(np.array(mask)))[box]


def blob(rng: np.random.Generator, rgb: Tensor, ripple: float = 0.12) -> Tensor:
    """The largest upright ellipse of a photograph, with a gently waved outline."""
    h, w = rgb.shape[1:]
    q = (geometry.pixel_grid(h, w) / torch.tensor([(w - 1) / 2, (h - 1) / 2])) - 1
    angle, phase = torch.atan2(q[..., 1], q[..., 0]), rng.uniform(0, 6.28)
    return cut(rgb, q.norm(dim=-1) < 0.97 - ripple * (1 + torch.sin(3 * angle + phase)))


def side_by_side(pictures: list[Tensor], height: int = 500, overlap: int = 60) -> Tensor:
    """One wide picture ``(3, height, w)`` of several ``(3, h, w)``, which pass into each other."""
    ramp = torch.linspace(0, 1, overlap)
    scaled = [geometry.resize(p[None], (height, round(p.shape[2] * height / p.shape[1])))[0] for p in pictures]
    wide = scaled[0]
    for new in scaled[1:]:
        seam = wide[..., -overlap:] * (1 - ramp) + new[..., :overlap] * ramp
        wide = torch.cat([wide[..., :-overlap], seam, new[..., overlap:]], 2)
    return wide
