"""Imports point one way, heavy libraries stay in their rooms, and every public name is documented."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "omnifusion"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS: list[set[str]] = [
    {"progress"},
    {"state"},
    {"color", "geometry", "settings", "visualize"},
    {"video", "flow", "features", "levin", "metrics"},
    {"clip", "omnimotion", "hint"},
    {"propagate", "prior"},
    {"inpaint"},
    {"stages"},
    {"algorithm"},
    {"run"},
    {"terminal", "evaluation", "correction"},
    {"commands", "cli", "ui"},
    {"__main__"},
]
"""A room imports from rooms of its own layer or of layers above it in this list, never from one below."""

ONLY_IN = {
    "gradio": {"ui"},
    "diffusers": {"prior"},
    "av": {"video"},
    "spaces": {"ui"},
    "ray": {"run"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in the file but for types alone."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def rooms_of(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names if name.startswith("omnifusion.")]
    return {p[1] for p in parts if (PACKAGE / p[1]).is_dir() or (PACKAGE / f"{p[1]}.py").exists()}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert not rooms_of(imported(path))
        return
    rank = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
    here = room(path)
    assert here in rank, f"{here} has no place in the order of rooms"
    for other in rooms_of(imported(path)) - {here}:
        assert rank[other] <= rank[here], f"{here} imports {other}, which stands below it"


@pytest.mark.parametrize(("library", "rooms"), ONLY_IN.items())
def test_heavy_libraries_stay_in_their_rooms(library: str, rooms: set[str]) -> None:
    users = {room(p) for p in FILES if any(n.split(".")[0] == library for n in imported(p))}
    assert users <= rooms


def test_no_two_rooms_import_each_other() -> None:
    edges: dict[str, set[str]] = {}
    for path in FILES:
        if path.name != "__init__.py" or path.parent != PACKAGE:
            edges.setdefault(room(path), set()).update(rooms_of(imported(path)) - {room(path)})

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        return any(n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in edges.get(start, ()))

    assert not [name for name in edges if reaches(name, name, {name})]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module says nothing of itself"
    silent = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                silent.append(node.name)
            if isinstance(node, ast.ClassDef):
                methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
                silent += [f"{node.name}.{m.name}" for m in methods if not ast.get_docstring(m)]
    assert not silent


def test_only_geometry_calls_grid_sample() -> None:
    assert [room(p) for p in FILES if "grid_sample(" in p.read_text()] == ["geometry"]
