"""What the docs say is there: links, names of code, commands, settings, variables and layers; and docs stay short."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from test_architecture import LAYERS

from omnifusion import cli
from omnifusion.run.estimate import BASE_MIB, FRAME_BYTES, FULL_BYTES
from omnifusion.settings import CHOICES, RENAMED

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
REFERENCE = [page for page in PAGES if page.name != "experiments.md"]
MOST_WORDS, MOST_LINES_OF_README = 9000, 120

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The code blocks of a page, each with its language; indented ones have none."""
    text = page.read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", prose(page), re.MULTILINE)
    return [*fenced, *(("", re.sub(r"^    ", "", block, flags=re.MULTILINE)) for block in indented)]


def commands(page: Path) -> list[str]:
    lines = [
        line for kind, block in blocks(page) if kind != "python" for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line.partition(" #")[0].strip() for line in lines]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def resolve(name: str) -> bool:
    """Whether a dotted name is a module, a thing in one, or a field of a class in one."""
    parts = name.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            if part in getattr(thing, "__annotations__", {}):
                return True
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_names_of_code_exist(page: Path) -> None:
    text = prose(page)
    assert not [name for name in set(re.findall(r"`(omnifusion(?:\.\w+)+)", text)) if not resolve(name)]
    paths = re.findall(
        r"`((?:omnifusion|tests|docs|benchmarks|training|assets|requirements)[\w./-]*[/.][\w./-]*)`", text
    )
    missing = [path for path in set(paths) if not (ROOT / path).exists() and not resolve(path)]
    assert not missing
    for line in text.splitlines():  # "| eq. (1) | `warp` in [propagate.py](omnifusion/propagate.py) |"
        for names, target in re.findall(r"((?:`\w+`,? ?(?:and )?)+) in (?:\[[^]]*\]\(|`)([\w/.]+\.py)", line):
            source = (ROOT / target).read_text()
            for name in re.findall(r"\w+", names.replace("and ", "")):
                assert re.search(rf"^ *(?:def|class) {name}\b|^{name}\b.*=", source, re.MULTILINE), (
                    f"{name} in {target}"
                )


@each_page
def test_commands_parse(page: Path) -> None:
    group = typer.main.get_command(cli.app)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(page):
        words = shlex.split(command)
        while words and re.fullmatch(r"[A-Z_]\w*=.*", words[0]):
            words = words[1:]
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets, command
        script = next((word for word in words[1:] if word.endswith(".py")), None) if words else None
        if script and "python" in words[0]:
            assert (ROOT / script).is_file(), command
        if words[1:3] == ["-m", "omnifusion"]:
            words = ["omnifusion", *words[3:]]
        if words[:1] == ["omnifusion"]:
            with group.make_context("omnifusion", words[1:2]) as context:
                name, known, rest = group.resolve_command(context, words[1:])  # type: ignore[attr-defined]
                known.make_context(name, rest, parent=context).close()


@each_page
def test_python_blocks_import_what_exists(page: Path) -> None:
    for block in (block for kind, block in blocks(page) if kind == "python"):
        check_imports(ast.parse(block))


def test_the_example_imports_what_exists() -> None:
    check_imports(ast.parse((DOCS / "example.py").read_text()))


def check_imports(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("omnifusion"):
            for alias in node.names:
                assert resolve(f"{node.module}.{alias.name}"), f"{node.module}.{alias.name}"


def test_the_table_of_settings_is_that_of_the_presets() -> None:
    table = (DOCS / "usage.md").read_text().partition("| setting |")[2].partition("\n\n")[0]
    words = {"True": "on", "False": "off", "None": "none"}
    found = {}
    for names, *values in re.findall(r"^\| (`.*?) \| (.*?) ?\| (.*?) ?\| (.*?) ?\|", table, re.MULTILINE):
        found |= {name: tuple(values) for name in re.findall(r"`(\w+)`", names)}
    presets = {name: tuple(words.get(str(v), str(v)) for v in c.presets.values()) for name, c in CHOICES.items()}
    assert found == {name: values for name, values in presets.items() if name != "preset"}
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert all(f"--{old.replace('_', '-')}" in changes for old in RENAMED)


def test_the_table_of_variables_is_that_of_the_code() -> None:
    sources = [ROOT / "app.py", *(ROOT / "omnifusion").rglob("*.py")]
    used = {name for path in sources for name in re.findall(r"\bOMNIFUSION_[A-Z0-9_]+", path.read_text())}
    documented = set(re.findall(r"`(OMNIFUSION_[A-Z0-9_]+)`", (DOCS / "deploy.md").read_text()))
    assert documented == used - {"OMNIFUSION_CLIPS"}


def test_the_table_of_layers_is_that_of_the_imports() -> None:
    rows = re.findall(r"^\| \d+ \| (.*?) \|", (DOCS / "development.md").read_text(), re.MULTILINE)
    there = [
        {n for n in layer if (ROOT / "omnifusion" / n).is_dir() or (ROOT / f"omnifusion/{n}.py").exists()}
        for layer in LAYERS
    ]
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == [layer for layer in there if layer - {"__main__"}]


def test_the_rule_for_memory_is_that_of_the_code() -> None:
    (row,) = re.findall(r"^\| memory \| (.*) \|", (DOCS / "usage.md").read_text(), re.MULTILINE)
    assert [float(number) for number in re.findall(r"\d+", row)] == [BASE_MIB, FULL_BYTES, FRAME_BYTES]


def test_code_points_to_pages_that_exist() -> None:
    for path in [ROOT / "app.py", *(ROOT / "omnifusion").rglob("*.py"), *(ROOT / "tests").rglob("test_*.py")]:
        for name in re.findall(r"\bdocs/[\w.]+\.(?:md|py)\b", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


def test_docs_are_short() -> None:
    assert sum(len(page.read_text().split()) for page in REFERENCE) <= MOST_WORDS
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES_OF_README
