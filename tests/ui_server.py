"""The page as a process of its own, for the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A page that is up: its address, its process, how long it took, where its results go."""

    url: str
    pid: int
    seconds: float
    results: Path

    def resident_mib(self) -> float:
        """Memory that the process holds."""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(lines["VmRSS"].split()[0]) / 1024


@contextmanager
def serve(folder: Path, *flags: str, **environment: str) -> Iterator[Server]:
    """Start ``app.py`` with ``flags`` on a free port with all its data under ``folder``; stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, results = f"http://127.0.0.1:{port}", folder / "results"
    env = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "OMNIFUSION_RESULTS": str(results),
        "PYTHONFAULTHANDLER": "1",
        **environment,
    }
    log = (folder / "app.log").open("w")
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), *flags], cwd=ROOT, env=env, stdout=log, stderr=log
    )
    try:
        while not _answers(url):
            if process.poll() is not None or time.monotonic() - start > START_SECONDS:
                raise RuntimeError(f"the page did not come up:\n{(folder / 'app.log').read_text()}")
            time.sleep(0.2)
        yield Server(url, process.pid, time.monotonic() - start, results)
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
