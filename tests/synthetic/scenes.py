"""The scenes: each gives its layers, the nearest first, the last covering everything."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from omnifusion import geometry
from synthetic.layers import Layer, Motion
from synthetic.pictures import (
    ASTRONAUT,
    blob,
    crop,
    cut,
    opaque,
    photo,
    polygon,
    side_by_side,
)


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _heading(rng: np.random.Generator, speed: float) -> tuple[float, float]:
    """A drift of about this many frame heights per frame, mostly sideways."""
    angle, speed = rng.uniform(-0.5, 0.5), speed * rng.uniform(0.8, 1.2)
    return _sign(rng) * speed * math.cos(angle), speed * math.sin(angle)


def _background(rng: np.random.Generator, name: str, motion: Motion, height: float = 1.5, share: float = 0.9) -> Layer:
    return Layer(opaque(crop(rng, photo(name), share)), height, motion, endless=True)


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
        Layer(blob(rng, crop(rng, photo("astronaut"), 0.7)), 0.8, near),
        _background(rng, "coffee", Motion(drift=(-0.012 * side, 0.004), zoom=0.003, turn=0.003)),
    ]


def _three_layers(rng: np.random.Generator) -> list[Layer]:
    side = _sign(rng)
    near = Motion((-0.6 * side, 0.08), (0.036 * side, -0.002), turn=0.004 * side, wobble=0.012)
    middle = Motion((0.45 * side, -0.1), (-0.02 * side, 0.004), turn=-0.006 * side, wobble=0.008)
    return [
        Layer(blob(rng, crop(rng, photo("astronaut"), 0.7)), 0.7, near),
        Layer(blob(rng, crop(rng, photo("chelsea"), 0.8)), 0.65, middle),
        _background(rng, "coffee", Motion(drift=(0.012 * side, 0.006), zoom=0.004, turn=0.004)),
    ]


def _occlusion(rng: np.random.Generator) -> list[Layer]:
    """A small layer passes wholly behind a large one (hidden from about frame 9 to 14) and comes back."""
    side, level = _sign(rng), rng.uniform(-0.1, 0.1)
    near = Motion((0.37 * side, level), (-0.03 * side, 0.0), wobble=0.005)
    hidden = Motion((-0.33 * side, level + 0.01), (0.028 * side, 0.0), turn=0.008 * side)
    return [
        Layer(blob(rng, crop(rng, photo("astronaut"), 0.6), 0.03), 0.64, near),
        Layer(blob(rng, photo("chelsea")[:, 60:260, 120:320], 0.03), 0.3, hidden),
        _background(rng, "garage", Motion(drift=(0.006 * side, 0.003), turn=0.002)),
    ]


def _thin(rng: np.random.Generator) -> list[Layer]:
    """A moving fence of bars about 2.5 px wide at 108 rows."""
    rgb = photo("astronaut")[:, 240:500, 40:340]
    x, y = geometry.pixel_grid(*rgb.shape[1:]).unbind(-1)
    slant = rng.uniform(-0.2, 0.2)
    bars = ((x + slant * y) % 52 < 5) | ((y - 130).abs() < 3)
    side = _sign(rng)
    fence = Layer(cut(rgb, bars), 1.2, Motion((-0.15 * side, 0.0), (0.022 * side, 0.003), turn=0.004))
    return [fence, _background(rng, "coffee", Motion(drift=(-0.012 * side, 0.005), zoom=0.004))]


def _repeated(rng: np.random.Generator) -> list[Layer]:
    """One small tile over and over, under a faint photograph that alone tells the tiles apart."""
    tile = crop(rng, photo("coffee")[:, 20:220, 160:460], 0.4)
    tile = geometry.resize(tile[None], (64, 64))[0]
    wall = torch.cat([tile, tile.flip(2)], 2).repeat(1, 6, 5)
    shade = geometry.resize(photo("garage")[None], (wall.shape[1], wall.shape[2]))[0]
    motion = Motion(drift=_heading(rng, 0.015), turn=0.004 * _sign(rng))
    return [Layer(opaque(0.75 * wall + 0.25 * shade), 1.6, motion, endless=True)]


def _demo(rng: np.random.Generator) -> list[Layer]:
    """The astronaut drifts by while the camera follows and new scenery comes in."""
    side, pace = _sign(rng), rng.uniform(0.85, 1.05)
    near = Motion((-0.5 * side, 0.2), (0.022 * side * pace, -0.001), turn=0.002 * side, zoom=0.002, wobble=0.004)
    far = Motion((0.16 * side, -0.02), (-0.015 * side * pace, 0.002), zoom=0.001)
    return [
        Layer(polygon(photo("astronaut"), ASTRONAUT), 1.0, near),
        Layer(opaque(photo("garage")), 1.45, far, endless=True),
    ]


def _panorama(rng: np.random.Generator) -> list[Layer]:
    """The camera keeps up with somebody along a wide picture, behind posts: new places come into view for 80 frames."""
    side, pace = _sign(rng), rng.uniform(0.03, 0.04)
    names = rng.permutation(["garage", "coffee", "chelsea", "astronaut", "garage"])
    wide = side_by_side([crop(rng, photo(name), 0.9) for name in names])
    posts = crop(rng, photo("coffee"), 0.9)
    x = geometry.pixel_grid(*posts.shape[1:])[..., 0]
    near = Motion((0.3 * side, 0.0), travel=(1.6 * pace * side, 0.0))
    walker = Motion((-0.2 * side, 0.25), (0.003 * side, 0.001), turn=0.002, wobble=0.01)
    far = Motion(((1 - wide.shape[2] / wide.shape[1] * 1.1 / 2) * side, 0.0), travel=(pace * side, 0.0))
    return [
        Layer(cut(posts, (x - 60) % 240 < 22), 1.1, near, endless=True),
        Layer(polygon(photo("astronaut"), ASTRONAUT), 0.8, walker),
        Layer(opaque(wide), 1.1, far, endless=True),
    ]


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
    "panorama": _panorama,
    "demo": _demo,
}
"""Every scene by name; all are seeded."""
