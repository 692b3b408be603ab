"""A still life on a table; a toy train passes behind a mug and in front of the fruit while the camera travels right."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from stage import Paint, ball, box, camera, group, lamp, lathe, look, shoot, tube


def wood(light: str, dark: str, scale: float = 1.2) -> Paint:
    paint = Paint(light, 0.45, coat=0.15).noise([(0.3, dark), (0.5, light), (0.7, dark)], scale, (0.25, 2.2, 1), 8)
    return paint.bump(14, 0.06, (0.3, 4, 1))


def room() -> None:
    box((0, 1.5, -0.05), (24, 6, 0.1), wood("#b07a45", "#7a4a22"))
    wall = Paint("#3f7f86", 0.9).noise([(0.35, "#2f6c74"), (0.65, "#4a8f94")], 0.7).bump(60, 0.08)
    box((0, 4.5, 3), (30, 0.1, 8), wall)
    box((0, 4.42, 0.3), (30, 0.08, 0.62), Paint("#efe6d2", 0.5))
    frame, canvas = Paint("#c79a3a", 0.35, 0.7), Paint("#d98f5a", 0.8)
    canvas.noise([(0.38, "#27407c"), (0.47, "#e0b45a"), (0.55, "#c2542f"), (0.66, "#6f8f4a")], 1.3, (0.5, 1, 2.4), 3)
    box((-1.2, 4.36, 2.55), (2.3, 0.08, 1.7), frame, 0.05)
    box((-1.2, 4.3, 2.55), (2.0, 0.06, 1.4), canvas, 0.0)


def books(x: float, y: float, chance: random.Random) -> None:
    colors = ["#a3262a", "#e0a526", "#20508c", "#2f7d4f", "#6b3a7a", "#d8663a", "#e9dcc0", "#1f7f8a", "#b8497a"]
    for i in range(12):
        height, width = chance.uniform(0.95, 1.5), chance.uniform(0.13, 0.24)
        book = group((x, y, 0))
        book.rotation_euler = (0, 0.22 if i == 11 else 0, 0)
        cover = Paint(colors[i % len(colors)], 0.6, coat=0.1).bump(80, 0.05)
        box((width / 2, 0, height / 2), (width - 0.01, 0.95, height), cover, 0.02, parent=book)
        gilt = Paint("#e3c165", 0.3, 0.8)
        for z in (0.2, 0.75, 0.82):
            box((width / 2, -0.478, height * z), (width - 0.02, 0.01, 0.03), gilt, 0, parent=book)
        x += width


def fruit(x: float, y: float, chance: random.Random) -> None:
    glaze = Paint("#2b5ca8", 0.12, coat=0.6).noise([(0.42, "#1f4a94"), (0.6, "#3f78c4")], 5)
    lathe(
        (x, y, 0),
        [(0.01, 0), (0.38, 0), (0.4, 0.06), (0.7, 0.28), (0.86, 0.52), (0.83, 0.53), (0.66, 0.3), (0.01, 0.12)],
        glaze,
    )
    kinds = [("#e8821a", "#f0962e"), ("#c4202a", "#e0532f"), ("#e8c922", "#f2dc4a"), ("#7fa82a", "#a8c842")]
    spots = [
        (-0.4, 0, 0.5),
        (0.1, -0.35, 0.52),
        (0.42, 0.1, 0.5),
        (-0.05, 0.35, 0.52),
        (0.02, 0, 0.82),
        (-0.3, -0.25, 0.66),
        (0.33, -0.2, 0.75),
    ]
    for i, (dx, dy, z) in enumerate(spots):
        a, b = kinds[(i * 3 + i // 4) % 4]
        skin = Paint(a, 0.35, coat=0.3).noise([(0.35, a), (0.65, b)], 2.5).bump(60, 0.08)
        piece = ball(
            (x + dx, y + dy, z), chance.uniform(0.25, 0.29), skin, (1.25, 0.95, 0.95) if i % 4 == 2 else (1, 1, 0.93)
        )
        piece.rotation_euler = (chance.random(), chance.random(), chance.random() * 3)


def flowers(x: float, y: float, chance: random.Random) -> None:
    glass = Paint("#8e3f8a", 0.08, coat=0.8)
    lathe(
        (x, y, 0),
        [
            (0.01, 0),
            (0.3, 0),
            (0.36, 0.2),
            (0.38, 0.5),
            (0.2, 0.85),
            (0.18, 1.0),
            (0.26, 1.12),
            (0.22, 1.1),
            (0.01, 0.9),
        ],
        glaze(glass),
    )
    stem, leaf = Paint("#3f7a2a", 0.5), Paint("#4f9136", 0.5).noise([(0.3, "#3c7a28"), (0.7, "#6aa843")], 3)
    for i in range(11):
        angle, lean = i * 2.4, 0.12 + 0.3 * chance.random()
        top = (x + 1.3 * lean * math.cos(angle), y + 1.3 * lean * math.sin(angle), 1.55 + chance.random() * 0.5)
        tube(
            ((x + top[0]) / 2, (y + top[1]) / 2, (1 + top[2]) / 2),
            0.018,
            top[2] - 0.9,
            stem,
            (0, lean * math.cos(angle), 0),
        )
        color, deep = [("#e8415a", "#b3203f"), ("#f5a51f", "#e07a12"), ("#f3e04a", "#e6b91f"), ("#f08fb4", "#d8558c")][
            i % 4
        ]
        petals = Paint(color, 0.5).noise([(0.4, deep), (0.6, color)], 6)
        for k in range(5):
            around = k * 2 * math.pi / 5
            ball(
                (top[0] + 0.075 * math.cos(around), top[1] + 0.075 * math.sin(around), top[2]),
                0.13,
                petals,
                (0.75, 0.75, 1.25),
            )
        blade = ball((x + 0.3 * math.cos(angle + 1), y + 0.3 * math.sin(angle + 1), 1.25), 0.34, leaf, (0.16, 0.4, 1))
        blade.rotation_euler = (0.5 * math.sin(angle), 0.6 * math.cos(angle), angle)


def glaze(paint: Paint) -> Paint:
    return paint.noise([(0.4, "#7c3178"), (0.6, "#a55aa0")], 3)


def teapot(x: float, y: float) -> None:
    china = Paint("#f2ead8", 0.15, coat=0.7).stripes([(0.0, "#f2ead8"), (0.62, "#c8352f"), (0.9, "#f2ead8")], 0.55, "Z")
    profile = [
        (0.01, 0),
        (0.36, 0),
        (0.5, 0.15),
        (0.58, 0.4),
        (0.5, 0.66),
        (0.3, 0.8),
        (0.26, 0.84),
        (0.12, 0.93),
        (0.05, 0.95),
        (0.08, 1.02),
        (0.01, 1.08),
    ]
    lathe((x, y, 0), profile, china)
    plain = Paint("#c8352f", 0.2, coat=0.6)
    spout = lathe((x - 0.45, y, 0.35), [(0.17, 0), (0.13, 0.25), (0.08, 0.5), (0.08, 0.62)], plain, turn=(0, -0.7, 0))
    spout.scale = (1, 1, 1)
    for i in range(25):
        angle = -1.3 + i * 2.6 / 24
        ball((x + 0.5 + 0.26 * math.cos(angle), y, 0.45 + 0.28 * math.sin(angle)), 0.06, plain)


def mug(x: float, y: float) -> None:
    paint = Paint("#f0b429", 0.2, coat=0.6)
    lathe((x, y, 0), [(0.01, 0), (0.3, 0), (0.33, 0.05), (0.33, 0.74), (0.29, 0.74), (0.28, 0.1), (0.01, 0.08)], paint)
    for i in range(25):
        angle = -1.4 + i * 2.8 / 24
        ball((x + 0.33 + 0.19 * math.cos(angle), y - 0.05, 0.4 + 0.22 * math.sin(angle)), 0.05, paint)
    for i, color in enumerate(["#c8352f", "#2a63b0", "#3f9142", "#e8e0cc", "#e07a1a"]):
        lean = -0.35 + 0.17 * i
        pencil = Paint(color, 0.35, coat=0.3)
        tube(
            (x + 0.5 * lean * 0.9, y + 0.1 * math.sin(i * 2.0), 0.72),
            0.045,
            1.15,
            pencil,
            (0.1 * math.cos(i * 3.0), lean, 0),
        )


def wagon(parent: Any, x: float, color: str, load: str | None) -> None:
    paint, dark, brass = Paint(color, 0.25, coat=0.5), Paint("#2a2622", 0.4), Paint("#d8a73a", 0.25, 0.8)
    box((x, 0, 0.2), (1.0, 0.44, 0.07), dark, parent=parent)
    box((x, 0, 0.42), (0.94, 0.46, 0.36), paint, 0.03, parent=parent)
    box((x, -0.235, 0.42), (0.8, 0.02, 0.06), brass, 0, parent=parent)
    if load:
        for i in range(6):
            ball((x - 0.33 + 0.13 * i, 0.06 * (-1) ** i, 0.64), 0.14, Paint(load, 0.5), parent=parent)
    for dx in (-0.3, 0.3):
        for y in (-0.22, 0.22):
            tube((x + dx, y, 0.13), 0.13, 0.06, Paint("#b5281f", 0.3, coat=0.4), (math.pi / 2, 0, 0), parent=parent)
            tube((x + dx, y * 1.1, 0.13), 0.05, 0.06, brass, (math.pi / 2, 0, 0), parent=parent)
    box((x - 0.56, 0, 0.2), (0.2, 0.06, 0.04), dark, parent=parent)


def locomotive(parent: Any, x: float) -> None:
    red, green, dark, brass = (
        Paint("#c4261f", 0.22, coat=0.6),
        Paint("#1f6b45", 0.22, coat=0.6),
        Paint("#26221f", 0.35),
        Paint("#e0ac35", 0.22, 0.85),
    )
    box((x, 0, 0.22), (1.45, 0.46, 0.1), dark, parent=parent)
    tube((x + 0.2, 0, 0.52), 0.24, 0.95, green, (0, math.pi / 2, 0), parent=parent)
    for dx in (-0.15, 0.2, 0.55):
        tube((x + dx, 0, 0.52), 0.25, 0.04, brass, (0, math.pi / 2, 0), parent=parent)
    tube((x + 0.7, 0, 0.52), 0.2, 0.08, red, (0, math.pi / 2, 0), parent=parent)
    lathe((x + 0.48, 0, 0.72), [(0.08, 0), (0.07, 0.15), (0.13, 0.34), (0.1, 0.35), (0.01, 0.3)], dark, parent=parent)
    ball((x + 0.12, 0, 0.76), 0.11, brass, parent=parent)
    box((x - 0.48, 0, 0.6), (0.46, 0.5, 0.72), red, 0.03, parent=parent)
    box((x - 0.48, -0.252, 0.72), (0.26, 0.01, 0.26), Paint("#bcd8e0", 0.1), 0.03, parent=parent)
    box((x - 0.5, 0, 0.99), (0.62, 0.6, 0.07), dark, 0.03, parent=parent)
    for dx, r in ((-0.48, 0.2), (0.0, 0.16), (0.4, 0.16)):
        for y in (-0.24, 0.24):
            tube((x + dx, y, r), r, 0.07, red, (math.pi / 2, 0, 0), parent=parent)
            tube((x + dx, y * 1.12, r), r * 0.4, 0.06, brass, (math.pi / 2, 0, 0), parent=parent)


def build() -> Callable[[float], None]:
    chance = random.Random(4)
    room()
    flowers(-2.9, 2.2, chance)
    fruit(-0.75, 2.0, chance)
    teapot(1.35, 2.3)
    books(2.75, 3.2, chance)
    lathe(
        (3.6, 1.5, 0),
        [(0.01, 0), (0.4, 0), (0.52, 0.6), (0.56, 0.62), (0.5, 0.6), (0.01, 0.55)],
        Paint("#c4683a", 0.8).bump(40, 0.1),
    )
    leaf = Paint("#4a8f3a", 0.45).noise([(0.3, "#2f6f2a"), (0.7, "#7fb84a")], 4)
    for i in range(26):
        angle, out = i * 2.4, 0.12 + 0.4 * chance.random()
        blade = ball(
            (3.6 + out * math.cos(angle), 1.5 + out * math.sin(angle), 0.8 + 0.6 * chance.random()),
            0.3,
            leaf,
            (0.12, 0.35, 1),
        )
        blade.rotation_euler = (0.9 * math.sin(angle), 0.9 * math.cos(angle), angle)
    mug(1.0, -0.55)
    ball((-2.35, -0.35, 0.24), 0.25, Paint("#cf2a2f", 0.3, coat=0.4).noise([(0.4, "#b81f2a"), (0.62, "#dba03a")], 2.0))
    for y in (0.43, 0.77):
        box((0, y, 0.02), (24, 0.05, 0.05), Paint("#9a9a98", 0.3, 0.9), 0)
    for i in range(60):
        box((-9 + 0.3 * i, 0.6, 0.005), (0.1, 0.6, 0.02), Paint("#5a3a22", 0.8), 0)
    train = group()
    locomotive(train, 0)
    for i, (color, load) in enumerate(
        [("#2460b4", "#e8b820"), ("#eab51e", "#c73a2a"), ("#2f8f5a", "#8a5ab0"), ("#d0562a", None)]
    ):
        wagon(train, -1.35 - 1.16 * i, color, load)
    train.location = (0, 0.6, 0.04)
    lamp((-4, -3, 6), (0, 2, 0.5), 560, 2.5, "#fff0d8")
    lamp((6, -1, 4.5), (1, 2, 0.5), 190, 3, "#d8e6ff")
    lamp((0, 1, 7), (0, 3, 1), 240, 5, "#fff6e6")
    view = camera(38, 5.6)

    def move(t: float) -> None:
        x = -1.3 + 2.3 * t
        look(view, (x, -5.4 + 0.3 * t, 2.0), (x + 0.15, 1.6, 0.95))
        train.location.x = -2.3 + 4.4 * t

    return move


if __name__ == "__main__":
    shoot("train", build)
