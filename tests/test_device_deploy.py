"""What the container file and the page on deploying name has to exist."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_container_copies_what_there_is_and_keeps_out_the_rest() -> None:
    copied = [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    assert {"app.py", "omnifusion", "assets", "requirements.txt"} == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    kept = {line.lstrip("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == set(copied)


def test_the_container_bounds_torch_as_the_requirements_do() -> None:
    bounds = {r.name: r.specifier for r in map(Requirement, (ROOT / "requirements.txt").read_text().splitlines())}
    for text in re.findall(r'"(torch(?:vision)?[^"]+)"', DOCKERFILE):
        assert Requirement(text).specifier == bounds[Requirement(text).name]
    assert "2.13.0" in bounds["torch"] and "2.8.0" in bounds["torch"] and "2.7.1" not in bounds["torch"]


def test_every_variable_named_is_read() -> None:
    code = "".join(path.read_text() for path in (ROOT / "omnifusion").rglob("*.py"))
    told = (ROOT / "docs" / "deploy.md").read_text() + DOCKERFILE
    named = set(re.findall(r"OMNIFUSION_[A-Z0-9_]*[A-Z0-9]", told)) - {"OMNIFUSION_MAX"}
    assert named and all(name in code for name in named)
