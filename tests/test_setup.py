"""``make setup`` takes PyTorch's CPU build where there is no card; the requirements are what is imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


class Index(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/torch/" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def installs(tmp_path: Path, *variables: str, fails: str = "never") -> list[str]:
    """What ``make setup`` asks pip to install, with an environment that only writes that down."""
    bin, log = tmp_path / "bin", tmp_path / "log"
    bin.mkdir()
    log.touch()
    python = bin / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in *{fails}*) exit 1;; esac\n')
    python.chmod(0o755)
    command = ["make", "setup", f"BIN={bin}", f"STAMP={tmp_path / 'stamp'}", f"PYTHON={sys.executable}", *variables]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "stamp").exists()
    return log.read_text().splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's PyTorch is the CPU's")
def test_the_cpu_build_is_taken_where_there_is_no_card(tmp_path: Path, index: str) -> None:
    first, second = installs(tmp_path, f"TORCH_INDEX={index}", "NVIDIA=")
    assert f"--index-url {index} torch>=" in first and " torchvision>=" in first and "torchmetrics" not in first
    assert second.endswith("-r requirements.txt -r requirements-dev.txt")


@pytest.mark.parametrize("case", ["a card", "no index", "another index", "an index without wheels"])
def test_else_pypi_has_it(tmp_path: Path, index: str, case: str) -> None:
    card = "/proc/driver/nvidia/version" if case == "a card" else ""
    address = {"no index": "http://127.0.0.1:9", "another index": f"{index}/elsewhere"}.get(case, index)
    fails = "index-url" if case == "an index without wheels" else "never"
    asked = installs(tmp_path, f"TORCH_INDEX={address}", f"NVIDIA={card}", fails=fails)
    assert len(asked) == (2 if fails == "index-url" else 1)
    assert asked[-1].endswith("-r requirements.txt -r requirements-dev.txt")


UNNAMED = {"httpx", "starlette", "safehttpx", "ray"}
"""What comes with Gradio and speaks for it; Ray is an extra of its own."""
UNSEEN = {"accelerate", "tabulate"}
"""What diffusers loads large weights with, and pandas writes Markdown with."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_requirements_are_what_is_imported() -> None:
    imported = set()
    for path in [ROOT / "app.py", *(ROOT / "omnifusion").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    owners = packages_distributions()
    used = {normal(owners.get(name, [name])[0]) for name in imported - sys.stdlib_module_names - {"omnifusion"}}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    named = {normal(re.split(r"[\[<>=]", line)[0]) for line in lines}
    assert used - UNNAMED == named - UNSEEN
