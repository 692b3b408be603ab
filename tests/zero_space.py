"""A ZeroGPU Space on this machine: the real ``spaces`` package, a scheduler of our own, and no GPU behind it.

Prints what was offered and asked for, and what came of three runs, as one line of JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ASKED: list[int] = []
REFUSE = threading.Event()


class Api(BaseHTTPRequestHandler):
    """The calls that ``spaces`` makes to the scheduler."""

    def do_POST(self) -> None:
        url = urllib.parse.urlparse(self.path)
        if url.path != "/schedule":
            return self.answer(200, {})
        ASKED.append(int(urllib.parse.parse_qs(url.query)["durationSeconds"][0]))
        if REFUSE.is_set():
            return self.answer(429, {"left": 1, "wait": "PT3H"})
        return self.answer(200, {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-none", "allowToken": "t"})

    def answer(self, code: int, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["SPACES_ZERO_DEVICE_API_URL"] = f"http://127.0.0.1:{server.server_port}"

import spaces  # noqa: E402, F401
import spaces.zero.torch as zero  # noqa: E402
import spaces.zero.torch.patching as patching  # noqa: E402


def move(callback: Any = None) -> None:
    """Stands for the way of the weights to the GPU: what seemed to be there gets its values."""
    for fake, original in list(patching.cuda_aliases.items()):
        if original is not None:
            fake.data = original


zero.init, zero.move = (lambda uuid: None), move

import synthetic  # noqa: E402
import torch  # noqa: E402

from omnifusion.progress import run_to_end  # noqa: E402
from omnifusion.run.folder import RunRequest  # noqa: E402
from omnifusion.run.pipeline import begin, color  # noqa: E402
from omnifusion.settings import choose  # noqa: E402
from omnifusion.ui import zerogpu  # noqa: E402
from omnifusion.ui.store import Store  # noqa: E402
from omnifusion.video import Writer  # noqa: E402


def visit(clip: Path, results: Path, runs: list[dict[str, Any]]) -> None:
    """Three runs in a thread of their own, as the page has them."""
    for changes in ({"diffusion": "always"}, {"prior": "sd15"}, {"prior": "sd15"}):
        ASKED.clear()
        settings = choose("draft", max_side=64, steps=1, **changes)
        claimed = begin(Store(results).new(), RunRequest("clip", settings), {}, clip)
        run = run_to_end(color(claimed, stages=zerogpu.stages()))
        notes = [note for note in run.report["warnings"] if "could not go on" in note]
        runs.append({"asked": list(ASKED), "complete": run.report["complete"], "notes": notes})
        if "prior" in changes:
            REFUSE.set()


def main() -> None:
    zerogpu.preload()
    results, clip, runs = Path(os.environ["OMNIFUSION_RESULTS"]), Path(os.environ["HOME"]) / "clip.mp4", []
    made = synthetic.make("two-layers", frames=4, size=(48, 64)).video
    with Writer(clip, made) as film:
        for frame in made.frames:
            film.add(frame)
    visitor = threading.Thread(target=visit, args=(clip, results, runs))
    visitor.start()
    visitor.join()
    offered = [name for _, name in zerogpu.priors()]
    print(json.dumps({"offered": offered, "runs": runs, "emulated": torch.cuda.is_available()}), flush=True)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
