"""Analytic clips made from the photographs inside scikit-image, with exact motion, visibility and colour.

A scene is a stack of flat layers. Each is a picture with an outline that moves by a map which is inverted in closed
form, so the truth is known to rounding: which layer a pixel shows (that of its centre), where it goes in any other
frame, and whether it is seen there. Lengths are in frame heights, the frame's centre is the origin; the motion per
frame does not depend on the length of the clip, so a shorter clip is the beginning of a longer one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from omnifusion import geometry
from omnifusion.state import Video

SUPERSAMPLES = 3  # per pixel and axis: soft outlines from hard masks
TEXELS = 1.5  # per pixel: fine enough to keep a frame sharp, coarse enough not to alias
TURNING_TIME = 160.0  # frames per period: motion is close to steady over 24 frames and stays bounded in long clips


@dataclass(frozen=True)
class Motion:
    """Non-rigid wobble, then similarity: layer coordinates ``q`` to frame coordinates ``p``, both ``(N, 2)`` float64.

    The wobble is two shears ``x += A sin(k y + phase)``, ``y += A sin(k x + phase)``: undone one by one, hence exact.
    Speeds are per frame.
    """

    start: tuple[float, float] = (0.0, 0.0)
    drift: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    wobble: float = 0.0
    wavelength: float = 0.7
    tempo: float = 0.2

    def _place(self, t: float) -> tuple[float, float, float, float]:
        """Complex scale-and-rotation, then offset, at time ``t``."""
        steady = TURNING_TIME / (2 * math.pi) * math.sin(2 * math.pi * t / TURNING_TIME)
        angle, scale = self.angle + self.turn * steady, math.exp(self.zoom * steady)
        x, y = (s + d * steady for s, d in zip(self.start, self.drift, strict=True))
        return scale * math.cos(angle), scale * math.sin(angle), x, y

    def _shear(self, along: Tensor, t: float, axis: int) -> Tensor:
        return self.wobble * torch.sin(2 * math.pi / self.wavelength * along + self.tempo * t * (1 - 0.3 * axis) + axis)

    def forward(self, q: Tensor, t: float) -> Tensor:
        x = q[:, 0] + self._shear(q[:, 1], t, 0)
        y = q[:, 1] + self._shear(x, t, 1)
        c, s, dx, dy = self._place(t)
        return torch.stack([c * x - s * y + dx, s * x + c * y + dy], dim=1)

    def inverse(self, p: Tensor, t: float) -> Tensor:
        c, s, dx, dy = self._place(t)
        u, v = p[:, 0] - dx, p[:, 1] - dy
        x, y = (torch.stack([c * u + s * v, c * v - s * u])) / (c * c + s * s)
        y = y - self._shear(x, t, 1)
        x = x - self._shear(y, t, 0)
        return torch.stack([x, y], dim=1)


@dataclass(frozen=True)
class Layer:
    """A moving picture.

    Attributes:
        picture: ``(4, h, w)`` float32 RGB and outline in [0, 1]; the layer is where the outline is above one half.
        height: of the picture, in frame heights.
        motion: of the layer.
        endless: the picture goes on beyond its border, mirrored (backgrounds); otherwise nothing is there.
    """

    picture: Tensor
    height: float
    motion: Motion
    endless: bool = False

    def at(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Colour ``(3, N)`` and cover ``(N,)`` bool at layer coordinates ``q`` ``(N, 2)``."""
        h, w = self.picture.shape[1:]
        texel = q * (h / self.height) + q.new_tensor([(w - 1) / 2, (h - 1) / 2])
        if self.endless:
            last = texel.new_tensor([w - 1.0, h - 1.0])
            texel = last - (texel % (2 * last) - last).abs()
        values = geometry.sample(self.picture, texel.float())
        return values[:3], (values[3] > 0.5) & geometry.inside(texel, h, w)


@dataclass(frozen=True)
class Sample:
    """A made clip and its truth; ``layers`` run from the nearest to the farthest (which covers every pixel)."""

    video: Video
    layers: tuple[Layer, ...]

    def _to_units(self, points: Tensor) -> Tensor:
        H, W = self.video.size
        return (points.double() - torch.tensor([(W - 1) / 2, (H - 1) / 2], dtype=torch.float64)) / H

    def layer_of(self, points: Tensor, frame: int) -> Tensor:
        """Which layer, ``(N,)`` int64, shows at ``points`` ``(N, 2)`` px of a frame (or beyond its border)."""
        return _look(self.layers, self._to_units(points), frame)[1]

    def correspond(self, points: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
        """Where ``points`` ``(N, 2)`` px of frame ``i`` are in frame ``j``, and whether they are seen there: exact.

        The answer may lie outside the frame; seen means inside the frame and behind no nearer layer.
        """
        H, W = self.video.size
        p, owner = self._to_units(points), self.layer_of(points, i)
        there = torch.empty_like(p)
        for index, layer in enumerate(self.layers):
            mine = owner == index
            there[mine] = layer.motion.forward(layer.motion.inverse(p[mine], i), j)
        there = there * H + p.new_tensor([(W - 1) / 2, (H - 1) / 2])
        if i == j:
            there = points.double()
        visible = geometry.inside(there, H, W) & (self.layer_of(there, j) == owner)
        return there.to(points.dtype), visible


def make(name: str, frames: int = 24, size: tuple[int, int] = (108, 192), seed: int = 0, noise: float = 1.5) -> Sample:
    """Render one of ``SCENES``.

    Args:
        frames: length T, from 1; size: (H, W) in pixels; noise: standard deviation of the sensor noise, of 255.
        seed: varies directions, speeds, crops and noise.

    Raises:
        KeyError: there is no such scene.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    layers = tuple(_prepare(layer, size[0]) for layer in SCENES[name](rng))
    clip = np.empty((frames, 3, *size), dtype=np.uint8)
    for t in range(frames):
        clean = _render(layers, size, t).numpy()
        noisy = clean * 255 + rng.normal(0.0, noise, clean.shape) if noise else clean * 255
        clip[t] = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    return Sample(Video(clip, Fraction(24)), layers)


def _prepare(layer: Layer, H: int) -> Layer:
    """The same layer with its picture at the resolution that suits frames of height ``H``."""
    h, w = layer.picture.shape[1:]
    height = max(2, round(TEXELS * H * layer.height))
    picture = geometry.resize(layer.picture[None], (height, max(2, round(w * height / h))))[0].clamp(0, 1)
    return Layer(picture, layer.height, layer.motion, layer.endless)


def _look(layers: Sequence[Layer], p: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """What the frame coordinates ``p`` ``(N, 2)`` show at time ``t``: colour ``(3, N)`` and layer ``(N,)``."""
    color, owner = torch.zeros(3, len(p)), torch.full((len(p),), -1)
    for index, layer in enumerate(layers):
        open_ = (owner < 0).nonzero()[:, 0]
        values, cover = layer.at(layer.motion.inverse(p[open_], t))
        color[:, open_[cover]], owner[open_[cover]] = values[:, cover], index
    return color, owner


def _render(layers: Sequence[Layer], size: tuple[int, int], t: float) -> Tensor:
    """One clean frame ``(3, H, W)`` in [0, 1], averaged over the area of each pixel."""
    H, W = size
    n = SUPERSAMPLES
    fine = geometry.pixel_grid(H * n, W * n).reshape(-1, 2)
    p = (fine - fine.new_tensor([(W * n - 1) / 2, (H * n - 1) / 2])) / (H * n)
    color, _ = _look(layers, p, t)
    return geometry.resize(color.reshape(1, 3, H * n, W * n), size)[0]


# --- pictures ---------------------------------------------------------------------------------------------------------

_ASTRONAUT = (
    "185,40 205,26 235,16 262,22 285,38 299,62 301,88 297,110 287,125 273,138 261,142 256,160 255,173 272,181 288,198 "
    "301,222 305,236 325,247 341,266 351,290 357,318 362,345 400,343 436,354 468,381 487,414 494,445 500,470 502,511 "
    "30,511 24,480 27,452 19,430 23,405 20,388 25,345 34,308 41,283 54,257 76,236 108,217 117,206 115,187 126,186 "
    "134,166 154,151 182,147 180,131 163,119 155,100 153,76 160,57"
)
_CUP = "79,225 86,187 106,150 140,109 172,86 176,62 205,35 245,21 285,18 330,24 370,44 397,71 420,67 424,82 417,107"
_CUP += " 447,138 470,185 479,228 473,267 450,310 410,348 360,374 300,388 240,384 180,367 130,336 96,293 82,255"


def _photo(name: str) -> Tensor:
    """A colour photograph that scikit-image ships, ``(3, h, w)`` in [0, 1]."""
    image = skimage.data.stereo_motorcycle()[0] if name == "garage" else getattr(skimage.data, name)()
    return torch.from_numpy(np.ascontiguousarray(image[..., :3])).permute(2, 0, 1).float() / 255


def _opaque(rgb: Tensor) -> Tensor:
    return torch.cat([rgb, torch.ones_like(rgb[:1])])


def _cut(rgb: Tensor, outline: Tensor) -> Tensor:
    return torch.cat([rgb, outline[None].to(rgb.dtype)])


def _crop(rng: np.random.Generator, rgb: Tensor, share: float) -> Tensor:
    """A random window with ``share`` of the picture's height and width, perhaps mirrored."""
    h, w = (round(share * s) for s in rgb.shape[1:])
    y, x = rng.integers(rgb.shape[1] - h + 1), rng.integers(rgb.shape[2] - w + 1)
    window = rgb[:, y : y + h, x : x + w]
    return window.flip(2) if rng.random() < 0.5 else window


def _polygon(rgb: Tensor, corners: str) -> Tensor:
    """The part of a photograph within ``corners`` ("x,y x,y ..." in its pixels), cropped to it."""
    points = [tuple(float(v) for v in pair.split(",")) for pair in corners.split()]
    mask = Image.new("L", (rgb.shape[2], rgb.shape[1]))
    ImageDraw.Draw(mask).polygon(points, fill=1)
    xs, ys = zip(*points, strict=True)
    box = (slice(None), slice(int(min(ys)), int(max(ys)) + 1), slice(int(min(xs)), int(max(xs)) + 1))
    return _cut(rgb, torch.from_numpy(np.array(mask)))[box]


def _blob(rng: np.random.Generator, rgb: Tensor, ripple: float = 0.12) -> Tensor:
    """The largest upright ellipse of a photograph, with a gently waved outline."""
    h, w = rgb.shape[1:]
    q = (geometry.pixel_grid(h, w) / torch.tensor([(w - 1) / 2, (h - 1) / 2])) - 1
    angle, phase = torch.atan2(q[..., 1], q[..., 0]), rng.uniform(0, 6.28)
    return _cut(rgb, q.norm(dim=-1) < 0.97 - ripple * (1 + torch.sin(3 * angle + phase)))


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _heading(rng: np.random.Generator, speed: float) -> tuple[float, float]:
    """A drift of about this many frame heights per frame, mostly sideways."""
    angle, speed = rng.uniform(-0.5, 0.5), speed * rng.uniform(0.8, 1.2)
    return _sign(rng) * speed * math.cos(angle), speed * math.sin(angle)


def _background(rng: np.random.Generator, name: str, motion: Motion, height: float = 1.5, share: float = 0.9) -> Layer:
    return Layer(_opaque(_crop(rng, _photo(name), share)), height, motion, endless=True)


# --- scenes: each gives its layers, the nearest first -----------------------------------------------------------------


def _pan(rng: np.random.Generator) -> list[Layer]:
    return [_background(rng, "coffee", Motion(drift=_heading(rng, 0.02)))]


def _zoom(rng: np.random.Generator) -> list[Layer]:
    return [_background(rng, "garage", Motion(drift=_heading(rng, 0.003), zoom=0.014 * _sign(rng)))]


def _rotation(rng: np.random.Generator) -> list[Layer]:
    motion = Motion(
        drift=_heading(rng, 0.003), turn=_sign(rng) * rng.uniform(0.015, 0.025), angle=rng.uniform(-0.3, 0.3)
    )
    return [_background(rng, "coffee", motion)]


def _nonrigid(rng: np.random.Generator) -> list[Layer]:
    motion = Motion(drift=_heading(rng, 0.006), wobble=0.035, wavelength=rng.uniform(0.6, 0.9), tempo=0.25)
    return [_background(rng, "chelsea", motion)]


def _two_layers(rng: np.random.Generator) -> list[Layer]:
    side = _sign(rng)
    near = Motion((-0.35 * side, rng.uniform(-0.1, 0.1)), (0.028 * side, 0.002), turn=0.006 * side, wobble=0.01)
    return [
        Layer(_blob(rng, _crop(rng, _photo("astronaut"), 0.7)), 0.8, near),
        _background(rng, "coffee", Motion(drift=(-0.012 * side, 0.004), zoom=0.003, turn=0.003)),
    ]


def _three_layers(rng: np.random.Generator) -> list[Layer]:
    side = _sign(rng)
    near = Motion((-0.6 * side, 0.08), (0.036 * side, -0.002), turn=0.004 * side, wobble=0.012)
    middle = Motion((0.45 * side, -0.1), (-0.02 * side, 0.004), turn=-0.006 * side, wobble=0.008)
    return [
        Layer(_blob(rng, _crop(rng, _photo("astronaut"), 0.7)), 0.7, near),
        Layer(_blob(rng, _crop(rng, _photo("chelsea"), 0.8)), 0.65, middle),
        _background(rng, "coffee", Motion(drift=(0.012 * side, 0.006), zoom=0.004, turn=0.004)),
    ]


def _occlusion(rng: np.random.Generator) -> list[Layer]:
    """A small layer passes wholly behind a large one (hidden from about frame 9 to 14) and comes back."""
    side, level = _sign(rng), rng.uniform(-0.1, 0.1)
    near = Motion((0.37 * side, level), (-0.03 * side, 0.0), wobble=0.005)
    hidden = Motion((-0.33 * side, level + 0.01), (0.028 * side, 0.0), turn=0.008 * side)
    return [
        Layer(_blob(rng, _crop(rng, _photo("astronaut"), 0.6), 0.03), 0.64, near),
        Layer(_blob(rng, _photo("chelsea")[:, 60:260, 120:320], 0.03), 0.3, hidden),
        _background(rng, "garage", Motion(drift=(0.006 * side, 0.003), turn=0.002)),
    ]


def _thin(rng: np.random.Generator) -> list[Layer]:
    """A moving fence of bars about 2.5 px wide at 108 rows."""
    rgb = _photo("astronaut")[:, 240:500, 40:340]
    x, y = geometry.pixel_grid(*rgb.shape[1:]).unbind(-1)
    slant = rng.uniform(-0.2, 0.2)
    bars = ((x + slant * y) % 52 < 5) | ((y - 130).abs() < 3)
    side = _sign(rng)
    fence = Layer(_cut(rgb, bars), 1.2, Motion((-0.15 * side, 0.0), (0.022 * side, 0.003), turn=0.004))
    return [fence, _background(rng, "coffee", Motion(drift=(-0.012 * side, 0.005), zoom=0.004))]


def _repeated(rng: np.random.Generator) -> list[Layer]:
    """One small tile over and over, under a faint photograph that alone tells the tiles apart."""
    tile = _crop(rng, _photo("coffee")[:, 20:220, 160:460], 0.4)
    tile = geometry.resize(tile[None], (64, 64))[0]
    wall = torch.cat([tile, tile.flip(2)], 2).repeat(1, 6, 5)
    shade = geometry.resize(_photo("garage")[None], (wall.shape[1], wall.shape[2]))[0]
    motion = Motion(drift=_heading(rng, 0.015), turn=0.004 * _sign(rng))
    return [Layer(_opaque(0.75 * wall + 0.25 * shade), 1.6, motion, endless=True)]


def _cartoon(rng: np.random.Generator) -> list[Layer]:
    """Flat colours in black outlines: a balloon before a house among hills."""
    side = _sign(rng)
    return [
        Layer(_draw_balloon(rng), 0.8, Motion((-0.5 * side, 0.12), (0.03 * side, -0.008), turn=0.003 * side)),
        Layer(_draw_house(rng), 0.62, Motion((0.3 * side, 0.2), (-0.012 * side, 0.0))),
        Layer(_draw_hills(rng), 1.5, Motion(drift=(-0.007 * side, 0.0)), endless=True),
    ]


def _demo(rng: np.random.Generator) -> list[Layer]:
    """The astronaut drifts by while the camera follows and new scenery comes in."""
    side, pace = _sign(rng), rng.uniform(0.85, 1.05)
    near = Motion((-0.5 * side, 0.2), (0.022 * side * pace, -0.001), turn=0.002 * side, zoom=0.002, wobble=0.004)
    far = Motion((0.16 * side, -0.02), (-0.015 * side * pace, 0.002), zoom=0.001)
    return [
        Layer(_polygon(_photo("astronaut"), _ASTRONAUT), 1.0, near),
        Layer(_opaque(_photo("garage")), 1.45, far, endless=True),
    ]


def _paint(size: tuple[int, int], draw: Callable[[ImageDraw.ImageDraw], None], ground: str = "#0000") -> Tensor:
    """A drawing on ``size`` (h, w) texels as ``(4, h, w)``."""
    canvas = Image.new("RGBA", (size[1], size[0]), ground)
    draw(ImageDraw.Draw(canvas))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float() / 255


def _pick(rng: np.random.Generator, *colors: str) -> str:
    return str(rng.choice(colors))


def _draw_balloon(rng: np.random.Generator) -> Tensor:
    envelope, stripe = _pick(rng, "#d8352f", "#7a3fb0", "#e06a12"), _pick(rng, "#f6d33c", "#fff1cf")

    def draw(d: ImageDraw.ImageDraw) -> None:
        for x in (165, 235):
            d.line((x, 340, 200 + (x - 200) * 0.5, 480), "black", 8)
        d.ellipse((30, 10, 370, 370), envelope, "black", 10)
        d.ellipse((110, 10, 290, 370), stripe, "black", 8)
        d.ellipse((165, 10, 235, 370), envelope, "black", 8)
        d.rounded_rectangle((155, 460, 245, 530), 12, "#8a5a2b", "black", 9)

    return _paint((540, 400), draw)


def _draw_house(rng: np.random.Generator) -> Tensor:
    wall, roof = _pick(rng, "#f2e2b8", "#f4b9a0", "#b9d7ea"), _pick(rng, "#a8322a", "#3c5fa8", "#7d4a2a")

    def draw(d: ImageDraw.ImageDraw) -> None:
        d.rectangle((290, 40, 340, 160), "#7c7c84", "black", 8)
        d.rectangle((60, 190, 380, 430), wall, "black", 9)
        d.polygon([(20, 200), (220, 40), (420, 200)], roof, "black", 9)
        d.rectangle((185, 290, 255, 430), "#5b3a1e", "black", 8)
        for x in (90, 285):
            d.rectangle((x, 250, x + 65, 315), "#ffe27a", "black", 8)

    return _paint((440, 440), draw)


def _draw_hills(rng: np.random.Generator) -> Tensor:
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


SCENES: dict[str, Callable[[np.random.Generator], list[Layer]]] = {
    "pan": _pan,
    "zoom": _zoom,
    "rotation": _rotation,
    "nonrigid": _nonrigid,
    "two-layers": _two_layers,
    "three-layers": _three_layers,
    "occlusion": _occlusion,
    "thin": _thin,
    "repeated": _repeated,
    "cartoon": _cartoon,
    "demo": _demo,
}
"""Every scene by name; all are seeded."""
