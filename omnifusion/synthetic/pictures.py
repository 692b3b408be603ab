"""Photographs, cut-outs and drawings: all ``(4, h, w)`` float32, RGB and outline in [0, 1], unless said otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable

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
    """A colour photograph that scikit-image ships, ``(3, h, w)`` in [0, 1]."""
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


def _paint(size: tuple[int, int], draw: Callable[[ImageDraw.ImageDraw], None], ground: str = "#0000") -> Tensor:
    """A drawing on ``size`` (h, w) texels as ``(4, h, w)``."""
    canvas = Image.new("RGBA", (size[1], size[0]), ground)
    draw(ImageDraw.Draw(canvas))
    return from_uint8(np.asarray(canvas).transpose(2, 0, 1))


def _pick(rng: np.random.Generator, *colors: str) -> str:
    return str(rng.choice(colors))


def balloon(rng: np.random.Generator) -> Tensor:
    """A striped hot-air balloon."""
    envelope, stripe = _pick(rng, "#d8352f", "#7a3fb0", "#e06a12"), _pick(rng, "#f6d33c", "#fff1cf")

    def draw(d: ImageDraw.ImageDraw) -> None:
        for x in (165, 235):
            d.line((x, 340, 200 + (x - 200) * 0.5, 480), "black", 8)
        d.ellipse((30, 10, 370, 370), envelope, "black", 10)
        d.ellipse((110, 10, 290, 370), stripe, "black", 8)
        d.ellipse((165, 10, 235, 370), envelope, "black", 8)
        d.rounded_rectangle((155, 460, 245, 530), 12, "#8a5a2b", "black", 9)

    return _paint((540, 400), draw)


def house(rng: np.random.Generator) -> Tensor:
    """A house with a chimney."""
    wall, roof = _pick(rng, "#f2e2b8", "#f4b9a0", "#b9d7ea"), _pick(rng, "#a8322a", "#3c5fa8", "#7d4a2a")

    def draw(d: ImageDraw.ImageDraw) -> None:
        d.rectangle((290, 40, 340, 160), "#7c7c84", "black", 8)
        d.rectangle((60, 190, 380, 430), wall, "black", 9)
        d.polygon([(20, 200), (220, 40), (420, 200)], roof, "black", 9)
        d.rectangle((185, 290, 255, 430), "#5b3a1e", "black", 8)
        for x in (90, 285):
            d.rectangle((x, 250, x + 65, 315), "#ffe27a", "black", 8)

    return _paint((440, 440), draw)


def hills(rng: np.random.Generator) -> Tensor:
    """Hills, trees, clouds and the sun."""
    shift = rng.uniform(0, 6.28)

    def ridge(level: float, height: float, waves: float) -> list[tuple[float, float]]:
        line = [(x, level + height * math.sin(waves * x / 200 + shift)) for x in range(-20, 1421, 4)]
        return [*line, (1420, 720), (-20, 720)]

    def draw(d: ImageDraw.ImageDraw) -> None:
        d.ellipse((980, 140, 1120, 280), "#ffd23f", "black", 8)
        for x, y in ((180, 210), (560, 150), (840, 260), (1240, 180)):
            for dx, r in ((-70, 34), (-20, 52), (40, 44), (84, 28)):
                d.ellipse((x + dx - r, y - r, x + dx + r, y + r), "white", "black", 7)
            for dx, r in ((-70, 34), (-20, 52), (40, 44), (84, 28)):
                d.ellipse((x + dx - r + 7, y - r + 7, x + dx + r - 7, y + r - 7), "white")
        for color, level, height, waves in (
            ("#6f8fc9", 400, 40, 1.9),
            ("#3f9b57", 470, 26, 1.2),
            ("#8cc63f", 560, 18, 0.8),
        ):
            line = ridge(level, height, waves)
            d.polygon(line, color)
            d.line(line[:-2], "black", 8, joint="curve")
        for x in range(60, 1400, 170):
            d.rectangle((x - 8, 500, x + 8, 580), "#6b4423", "black", 5)
            d.ellipse((x - 44, 420, x + 44, 520), "#1f7a3d", "black", 7)

    return _paint((720, 1400), draw, "#8fd3f4")
