"""Hot-air balloons drift over fields and a lake at dawn; the near one passes in front of the far ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import bpy
from stage import Paint, ball, box, camera, copy, group, lathe, look, mesh, shoot, sky, tube

AIR = "#c9d3dc"
GORES = 16


def height(x: float, y: float) -> float:
    """The land."""
    hills = 1.6 * math.sin(0.11 * x + 0.6) * math.cos(0.09 * y) + 0.9 * math.sin(0.23 * x + 0.17 * y)
    far = max(0.0, (y - 45) / 40)
    ridge = far**1.4 * (6 + 4.5 * math.sin(0.12 * x + 1.0) + 2.5 * math.sin(0.29 * x))
    lake = math.exp(-(((x - 4) / 11) ** 2 + ((y - 22) / 6) ** 2))
    return hills * (1 - lake) + ridge - 2.2 * lake


def land() -> None:
    n, m = 160, 120
    points = [(-80 + i, -5 + j, height(-80 + i, -5 + j)) for j in range(m) for i in range(n)]
    faces = [
        (j * n + i, j * n + i + 1, (j + 1) * n + i + 1, (j + 1) * n + i) for j in range(m - 1) for i in range(n - 1)
    ]
    field = Paint("#7f9a44", 0.95)
    cells, rows = field.node("TexVoronoi", Scale=0.16), field.node("TexWave", Scale=1.1, Distortion=1.5)
    field.links.new(field.coordinates((1, 0.7, 0)), cells.inputs["Vector"])
    field.links.new(field.coordinates((1, 0.5, 0)), rows.inputs["Vector"])
    split = field.node("SeparateColor")
    field.links.new(cells.outputs["Color"], split.inputs[0])
    crops = ["#6f8f3a", "#d8b548", "#7a5aa8", "#4f7a34", "#b8c25a", "#94603c", "#8a6fc0", "#5f9440"]
    color = field.ramp(split.outputs[0], [(i / len(crops), c) for i, c in enumerate(crops)], True)
    furrow, mix = (
        field.ramp(rows.outputs["Fac"], [(0.0, "#8a8a70"), (0.6, "#ffffff")]),
        field.node("Mix", data_type="RGBA", blend_type="MULTIPLY"),
    )
    mix.inputs[0].default_value = 0.55
    field.links.new(color, mix.inputs[6])
    field.links.new(furrow, mix.inputs[7])
    field.links.new(mix.outputs[2], field.shader.inputs["Base Color"])
    mesh(points, faces, field.haze(AIR, 25, 120, 0.85), smooth=True)
    water = Paint("#3f7f96", 0.08).bump(1.2, 0.12, (1, 3, 1)).haze(AIR, 25, 120, 0.85)
    box((4, 22, -1.0), (40, 20, 0.1), water, 0)


def woods(chance: random.Random) -> None:
    kinds = [("#3f6f34", "#5f8f3f"), ("#5a7f30", "#86a544"), ("#a8702a", "#cf9a3a"), ("#2f5a3a", "#447a48")]
    models = []
    for dark, light in kinds:
        leaf = Paint(dark, 0.9).noise([(0.35, dark), (0.65, light)], 2.2).haze(AIR, 25, 120, 0.85)
        tree = ball((0, 0, -80), 0.5, leaf, (1, 1, 1.2))
        lumps = tree.modifiers.new("lumps", "DISPLACE")
        lumps.texture, lumps.strength = bpy.data.textures.new("lumps", "CLOUDS"), 0.6
        lumps.texture.noise_scale = 0.22
        models.append(tree)
    for _ in range(640):
        y = 10.5 + 66 * chance.random() ** 1.2
        x = chance.gauss(0, 9) if chance.random() < 0.3 else chance.uniform(-30 - y, 30 + y) * 0.75
        x = 6 * round(x / 6) + chance.gauss(0, 0.9)
        ground = height(x, y)
        if ground < -0.7:
            continue
        scale = chance.uniform(0.5, 1.25)
        copy(chance.choice(models), (x, y, ground + 0.6 * scale), scale, chance.random() * 6)
    wall, roof = Paint("#efe0c4", 0.8).haze(AIR, 25, 120, 0.85), Paint("#b04a30", 0.8).haze(AIR, 25, 120, 0.85)
    for x, y in ((-9, 15), (-7.2, 16), (-10.5, 17.2), (-8, 18.5), (15, 31), (17, 32.5), (13, 33), (-3, 34), (-1, 35.4)):
        z = height(x, y)
        box((x, y, z + 0.5), (1.4, 1.1, 1.4), wall)
        points = [(x + a, y + b, z + 1.15) for a in (-0.85, 0.85) for b in (-0.7, 0.7)] + [
            (x - 0.85, y, z + 1.8),
            (x + 0.85, y, z + 1.8),
        ]
        mesh(points, [(0, 2, 5, 4), (1, 4, 5, 3), (0, 4, 1), (2, 3, 5)], roof)


def balloon(colors: list[str], bands: list[str]) -> Any:
    """One of radius 1: gores in turn of ``colors``, with rings of ``bands`` round the waist."""
    whole = group()
    profile = []
    for k in range(29):
        s = k / 28
        angle = math.pi * (0.06 + 0.94 * s)
        radius = math.sin(angle) * (1.0 if angle > math.pi / 2 else 0.55 + 0.45 * math.sin(angle) ** 0.7)
        z = -math.cos(angle) * (1.0 if angle > math.pi / 2 else 1.35)
        profile.append((max(radius, 0.002), z))
    around = GORES * 6
    points, faces, which = [], [], []
    for r, z in profile:
        for i in range(around):
            swell = 1 + 0.03 * abs(math.sin(math.pi * i / 6))
            a = 2 * math.pi * i / around
            points.append((r * swell * math.cos(a), r * swell * math.sin(a), z))
    for k in range(len(profile) - 1):
        for i in range(around):
            faces.append(
                (
                    k * around + i,
                    k * around + (i + 1) % around,
                    (k + 1) * around + (i + 1) % around,
                    (k + 1) * around + i,
                )
            )
            band = k - 12 if 12 <= k < 12 + len(bands) else None
            which.append(len(colors) + band if band is not None else (i // 6) % len(colors))
    paints = [Paint(c, 0.55).haze(AIR, 25, 120, 0.85) for c in [*colors, *bands]]
    skin = mesh(points, faces, paints[0], smooth=True, parent=whole)
    for paint in paints[1:]:
        skin.data.materials.append(paint.material)
    for polygon, index in zip(skin.data.polygons, which, strict=True):
        polygon.material_index = index
    wicker, rope = Paint("#8a5a30", 0.8), Paint("#4a3a2c", 0.8)
    box((0, 0, -1.78), (0.26, 0.26, 0.2), wicker, 0.03, parent=whole)
    for a in (-1, 1):
        for b in (-1, 1):
            tube((a * 0.12, b * 0.12, -1.5), 0.008, 0.5, rope, parent=whole)
    lathe((0, 0, -1.42), [(0.05, 0), (0.12, 0.1), (0.17, 0.14)], Paint("#c8402a", 0.6), parent=whole)
    return whole


def build() -> Callable[[float], None]:
    chance = random.Random(3)
    sky(17, 235, 0.095, 0.8)
    land()
    woods(chance)
    fleet = [
        (balloon(["#d8262f", "#f3c12f"], ["#f2ead8", "#2450a0", "#f2ead8"]), 2.3, (-6.4, 9.5, 5.5), (8.2, 0.0, 0.9)),
        (balloon(["#2458b0", "#f2f0e8"], ["#e8431f", "#e8431f"]), 2.1, (2.2, 17, 6.3), (-1.2, 0, 0.5)),
        (balloon(["#f08a1f", "#f5d23a", "#e0422a", "#f5d23a"], []), 2.1, (9.2, 15, 3.9), (-2.2, 0, 1.0)),
        (balloon(["#2f9a5a", "#f0e8c8"], ["#7a3fa0", "#7a3fa0", "#7a3fa0"]), 2.2, (-4.0, 27, 8.6), (0.8, 0, -0.3)),
        (balloon(["#a5328f", "#f07fb0"], ["#f5d23a"]), 2.2, (8.0, 34, 10.3), (-1.0, 0, 0.2)),
        (balloon(["#18a0a8", "#f5a02a", "#f2ead8"], []), 2.4, (16.5, 26, 8.0), (-1.5, 0, 0.4)),
        (balloon(["#c8262f", "#f2ead8"], []), 2.2, (-15, 42, 11.5), (0.6, 0, 0.2)),
    ]
    view = camera(32)

    def move(t: float) -> None:
        x = -2.4 + 4.2 * t
        look(view, (x, -4, 4.3 + 0.5 * t), (x + 0.6, 20, 4.9))
        for index, (thing, scale, start, way) in enumerate(fleet):
            thing.location = [s + t * w for s, w in zip(start, way, strict=True)]
            thing.scale = (scale, scale, scale)
            thing.rotation_euler = (0, 0, 0.25 * t + index)

    return move


if __name__ == "__main__":
    shoot("balloons", build)
