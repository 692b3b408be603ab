"""A street of painted houses under a camera that travels right; cars and lamp posts pass in front of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from stage import Paint, ball, box, camera, copy, group, lathe, look, mesh, shoot, sky, tube

WALLS = ["#d9583f", "#e9b23a", "#3f86b8", "#d97ba0", "#5fa05a", "#e8dcc0", "#8a62b0", "#e07f35", "#3fa39a", "#c23f4a"]
SHUTTERS = [
    "#2f6b4a",
    "#28518f",
    "#f2ead8",
    "#3a6f5a",
    "#8f2f38",
    "#2a7f8f",
    "#f0d890",
    "#2f4f7f",
    "#e8c23a",
    "#f2ead8",
]


def window(
    x: float, y: float, z: float, shutter: Paint, kit: dict[str, Paint], boxed: bool, chance: random.Random
) -> None:
    box((x, y - 0.02, z), (0.95, 0.12, 1.35), kit["white"])
    box((x, y - 0.06, z), (0.78, 0.1, 1.18), kit["glass"], 0)
    box((x, y - 0.12, z), (0.06, 0.04, 1.18), kit["white"], 0)
    box((x, y - 0.12, z + 0.15), (0.78, 0.04, 0.05), kit["white"], 0)
    for side in (-1, 1):
        box((x + side * 0.74, y - 0.06, z), (0.46, 0.07, 1.32), shutter, 0.01)
        for k in range(6):
            box((x + side * 0.74, y - 0.1, z - 0.5 + 0.2 * k), (0.36, 0.03, 0.05), shutter, 0)
    if boxed:
        box((x, y - 0.22, z - 0.72), (1.0, 0.28, 0.2), kit["clay"])
        for k in range(9):
            kind = "leaf" if k % 3 == 1 else chance.choice(["red", "pink", "gold"])
            ball((x - 0.44 + 0.11 * k, y - 0.26, z - 0.56 + 0.08 * chance.random()), 0.13, kit[kind])


def house(x: float, width: float, floors: int, number: int, kit: dict[str, Paint], chance: random.Random) -> None:
    y, height = 6.0, 0.5 + 2.2 * floors
    color = WALLS[number % len(WALLS)]
    plaster = Paint(color, 0.85).bump(8, 0.25)
    box((x + width / 2, y + 2, height / 2), (width, 4, height), plaster, 0.01)
    box((x + width / 2, y - 0.02, 0.25), (width, 0.1, 0.5), kit["stone"], 0.01)
    box((x + width / 2, y - 0.08, height - 0.08), (width, 0.3, 0.18), kit["white"], 0.02)
    roof = [
        (x - 0.1, y - 0.35, height),
        (x + width + 0.1, y - 0.35, height),
        (x - 0.1, y + 2, height + 1.5),
        (x + width + 0.1, y + 2, height + 1.5),
    ]
    mesh(roof, [(0, 1, 3, 2)], kit["tiles"])
    box((x + width * 0.7, y + 1.2, height + 1.3), (0.5, 0.5, 1.2), kit["brick"])
    shutter = Paint(SHUTTERS[number % len(SHUTTERS)], 0.5)
    columns = 2 if width < 4.6 else 3
    for floor in range(floors):
        for column in range(columns):
            at = x + width * (column + 0.5) / columns
            if floor == 0 and column == number % columns:
                box((at, y - 0.03, 1.15), (1.15, 0.12, 2.3), kit["white"])
                box((at, y - 0.07, 1.1), (0.95, 0.12, 2.15), shutter)
                box((at, y - 0.14, 1.75), (0.6, 0.03, 0.5), kit["glass"], 0)
                ball((at + 0.35, y - 0.16, 1.05), 0.05, kit["brass"])
            else:
                window(at, y, 1.55 + 2.2 * floor, shutter, kit, (floor + column + number) % 2 == 0, chance)
    if number % 3 == 0:
        cloth = Paint("#f2ead8", 0.8).stripes([(0.0, "#f2ead8"), (0.5, ["#b3262f", "#2a5fa5"][number % 2])], 0.75)
        s, e = x + 0.3, x + width - 0.3
        mesh(
            [(s, y, 2.75), (e, y, 2.75), (s, y - 1.2, 2.3), (e, y - 1.2, 2.3), (s, y - 1.2, 2.08), (e, y - 1.2, 2.08)],
            [(0, 1, 3, 2), (2, 3, 5, 4)],
            cloth,
        )


def car(color: str, kit: dict[str, Paint], roof: str | None = None) -> Any:
    body, top = Paint(color, 0.2, coat=0.9), Paint(roof or color, 0.2, coat=0.9)
    whole = group()

    def hull(outline: list[tuple[float, float]], half: float, paint: Paint, y: float = 0.0) -> None:
        n = len(outline)
        points = [(x, y + s * half, z) for s in (-1, 1) for x, z in outline]
        faces = [tuple(range(n)), tuple(range(2 * n - 1, n - 1, -1))]
        faces += [(i, i + n, (i + 1) % n + n, (i + 1) % n) for i in range(n)]
        mesh(points, faces, paint, bevel=0.07, parent=whole)

    hull([(-1.75, 0.3), (-1.85, 0.62), (-1.7, 0.86), (1.0, 0.92), (1.75, 0.78), (1.85, 0.55), (1.8, 0.3)], 0.74, body)
    hull([(-1.5, 0.86), (-1.15, 1.34), (-0.9, 1.42), (0.35, 1.42), (0.55, 1.36), (1.05, 0.9)], 0.62, top)
    for a, b in (((-1.22, -0.42), (-0.98, -0.42)), ((-0.32, 0.72), (-0.32, 0.4))):
        low, high = 0.95, 1.3
        for s in (-1, 1):
            mesh(
                [(a[0], s * 0.626, low), (a[1], s * 0.626, low), (b[1], s * 0.626, high), (b[0], s * 0.626, high)],
                [(0, 1, 2, 3)],
                kit["glass"],
                parent=whole,
            )
    for x in (-1.15, 1.15):
        for s in (-1, 1):
            tube((x, s * 0.7, 0.33), 0.33, 0.2, kit["rubber"], (math.pi / 2, 0, 0), parent=whole)
            tube((x, s * 0.76, 0.33), 0.19, 0.12, kit["chrome"], (math.pi / 2, 0, 0), parent=whole)
    box((0, 0, 0.42), (3.74, 1.5, 0.06), kit["chrome"], parent=whole)
    for s in (-0.5, 0.5):
        ball((1.78, s, 0.66), 0.13, kit["lamp"], parent=whole)
        box((-1.8, s, 0.66), (0.08, 0.22, 0.12), kit["red"], parent=whole)
    return whole


def build() -> Callable[[float], None]:
    chance = random.Random(11)
    sky(38, 210, 0.07)
    kit = {
        "white": Paint("#efe9dc", 0.6),
        "glass": Paint("#33495a", 0.06, coat=0.5),
        "stone": Paint("#8f8a80", 0.9).bump(10, 0.3),
        "tiles": Paint("#b5573a", 0.8)
        .noise([(0.3, "#93422c"), (0.7, "#cf7450")], 3, (1, 4, 1))
        .bump(12, 0.5, (1, 0.2, 1)),
        "brick": Paint("#8f4a38", 0.9).bump(20, 0.3),
        "clay": Paint("#b0643f", 0.8),
        "leaf": Paint("#3f8a3a", 0.6),
        "red": Paint("#d8232f", 0.5),
        "pink": Paint("#ee6fa5", 0.5),
        "gold": Paint("#f2c42a", 0.5),
        "brass": Paint("#d8a73a", 0.3, 0.9),
        "rubber": Paint("#1b1b1d", 0.7),
        "chrome": Paint("#d0d2d4", 0.15, 1.0),
        "lamp": Paint("#fff3d0", 0.1, coat=1),
        "iron": Paint("#1f3a34", 0.4),
    }
    x = -16.0
    for number in range(9):
        width, floors = chance.uniform(3.9, 5.6), chance.choice([2, 3, 3])
        house(x, width, floors, number, kit, chance)
        x += width
    asphalt = Paint("#6d6a68", 0.9).noise([(0.35, "#625f5e"), (0.65, "#7c7975")], 1.2).bump(40, 0.3)
    box((0, -2, -0.1), (80, 12, 0.2), asphalt, 0)
    cobbles = Paint("#b8a98c", 0.9).noise([(0.35, "#a39478"), (0.65, "#cbbd9f")], 2.5).bump(7, 0.5)
    box((0, 5.1, 0), (80, 1.9, 0.28), cobbles, 0.03)
    box((0, -3.4, 0), (80, 1.6, 0.28), cobbles, 0.03)
    for k in range(-8, 9):
        box((4 * k, 0.9, 0.003), (1.8, 0.12, 0.01), kit["white"], 0)
    leaf = Paint("#4a8f3c", 0.6).noise([(0.32, "#2f6f2c"), (0.68, "#86b84a")], 3)
    clump = ball((0, 0, -50), 0.22, leaf)
    for at in (-7.2, 1.6, 9.5):
        box((at, 4.8, 0.45), (0.9, 0.9, 0.7), kit["clay"], 0.03)
        tube((at, 4.8, 1.2), 0.08, 1.6, kit["brick"])
        for _ in range(90):
            angle, r = chance.uniform(0, 6.28), 0.72 * math.sqrt(chance.random())
            copy(
                clump,
                (at + r * math.cos(angle), 4.8 + r * math.sin(angle), 2.3 + chance.uniform(-0.6, 0.75)),
                chance.uniform(0.6, 1.1),
                angle,
            )
    for at in (-4.6, 3.4):
        lathe(
            (at, -3.2, 0.1), [(0.18, 0), (0.18, 0.3), (0.07, 0.45), (0.06, 3.6), (0.12, 3.7), (0.01, 3.72)], kit["iron"]
        )
        ball((at, -3.2, 3.95), 0.24, kit["lamp"])
        for k in range(26):
            angle, r = 2.4 * k, 0.26 * chance.random()
            kind = kit[("leaf", "pink", "red")[k % 3]]
            ball((at + r * math.cos(angle), -3.2 + r * math.sin(angle), 2.42 + 0.06 * (k % 4)), 0.08, kind)
    near, far = car("#c8202c", kit, "#f0e6d0"), car("#2f7fb5", kit)
    parked, van = car("#e8b92a", kit), car("#4fa87a", kit, "#f0e6d0")
    parked.location, van.location = (-5.4, 3.2, 0), (7.6, 3.2, 0)
    far.rotation_euler = (0, 0, math.pi)
    view = camera(30)

    def move(t: float) -> None:
        x = -4.5 + 5.0 * t
        look(view, (x, -9.0, 2.3), (x + 0.6, 5, 3.0))
        near.location = (-8.6 + 9.5 * t, -0.6, 0)
        far.location = (5.8 - 8.0 * t, 1.9, 0)

    return move


if __name__ == "__main__":
    shoot("street", build)
