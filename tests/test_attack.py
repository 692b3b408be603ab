"""The page under attack: bounded requests to a server of our own on this machine, and a table of what came of them.

``pytest tests/test_attack.py -s`` prints what came of each; ``docs/deploy.md`` says what is promised.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from ui_server import ROOT, Server, serve

from omnifusion.state import Video
from omnifusion.video import write, write_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALLOWED_MIB = 600
"""How far a request may lift the server's memory over that of an ordinary draft run."""

CAPS = {"OMNIFUSION_MAX_FRAMES": "120", "OMNIFUSION_MAX_MEGABYTES": "8", "OMNIFUSION_QUEUE": "12"}


@dataclass
class Target:
    """The server, what it holds while it is attacked, and what came of each attack."""

    server: Server
    folder: Path
    ordinary_mib: float = 0.0
    most_mib: float = 0.0
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def watch(self, done: threading.Event) -> None:
        while not done.wait(0.05):
            self.most_mib = max(self.most_mib, self.server.resident_mib())

    def log(self) -> str:
        return (self.folder / "app.log").read_text()

    def computing(self) -> list[int]:
        """How many runs computed, each time that one began or ended."""
        return [int(n) for n in re.findall(r"a run (?:begins|has ended); (\d+) computing", self.log())]

    def idle(self, seconds: float) -> bool:
        """Whether, within this many seconds, no run computes any more."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not (found := self.computing()) or found[-1] == 0:
                return True
            time.sleep(0.1)
        return False

    def upload(self, path: Path, name: str | None = None) -> str:
        """The server's path of an uploaded file."""
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name or path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        request = urllib.request.Request(f"{self.server.url}/gradio_api/upload", body, kind)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.load(answer)[0])

    def call(self, endpoint: str, *data: Any) -> tuple[bool, Any]:
        """Call an endpoint without any client: whether it answered, and the data or the sentence."""
        address = f"{self.server.url}/gradio_api/call/{endpoint}"
        body = json.dumps({"data": list(data)}).encode()
        with urllib.request.urlopen(
            urllib.request.Request(address, body, {"Content-Type": "application/json"}), timeout=60
        ) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{address}/{event}", timeout=300) as answer:
            kind, told = re.findall(r"event: (\w+)\ndata: (.*)\n", answer.read().decode())[-1]
        found = json.loads(told)
        return kind == "complete", found if kind == "complete" else (found or {}).get("error")


def given(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def film(path: Path, frames: int = 1, size: tuple[int, int] = (48, 64), hue: int = 200, motion: int = 0) -> Path:
    """A small clip in two colors, shaded; all of it moves by ``motion`` px a frame."""
    h, w = size
    shade = np.linspace(0.4, 1.0, w) * np.ones((frames, 1, h, 1))
    top = (np.arange(h) < h // 2)[None, :, None]
    color = np.where(top, np.array((hue, 60, 40))[:, None, None], np.array((40, 170, 60))[:, None, None])
    still = (color * shade).astype(np.uint8)
    moving = np.stack([np.roll(frame, motion * t, axis=-1) for t, frame in enumerate(still)])
    write(path, Video(moving, Fraction(12)), overwrite=True)
    return path


def bomb(path: Path, side: int) -> Path:
    """A valid PNG of ``side`` x ``side`` black pixels in a file a thousand times smaller."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze, rows = zlib.compressobj(9), bytes(3 * side + 1)
    data = b"".join(squeeze.compress(rows) for _ in range(side)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("attacked")
    with serve(folder, **CAPS) as server:
        found, done = Target(server, folder), threading.Event()
        thread = threading.Thread(target=found.watch, args=(done,))
        thread.start()
        answered, _ = found.call("colorize", given(found.upload(film(folder / "ordinary.mp4", 3, (96, 128)))))
        assert answered
        found.ordinary_mib = found.most_mib
        yield found
        done.set()
        thread.join()
        print("\n\n| attack | what came of it | |\n|---|---|---|")
        for what, answer, verdict in found.rows:
            print(f"| {what} | {answer} | {verdict} |")


@pytest.fixture
def note(target: Target, request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], None]]:
    """Put a row into the table; the memory that the server holds is looked at after every attack."""
    noted: list[tuple[str, str]] = []
    target.most_mib = target.server.resident_mib()
    yield lambda what, answer: noted.append((what, answer))
    lifted = target.most_mib - target.ordinary_mib
    target.rows += [(what, answer, "ok" if lifted < ALLOWED_MIB else f"{lifted:.0f} MiB") for what, answer in noted]
    assert lifted < ALLOWED_MIB


def sentence(said: Any) -> str:
    """What an endpoint refused with: one sentence for people, without a place on the server."""
    assert isinstance(said, str) and said.strip().endswith((".", "!", "?")), said
    for never in ("Traceback", "Error(", str(ROOT), "/tmp", "gradio", "NoneType", "Something went wrong"):
        assert never not in said, said
    return said


VIDEO = "the clip"
COLORIZE = ["video", "exemplar", "exemplar_frame", "prior", "eta", "steps", "preset", "frames", "seed"]
ORDINARY = [VIDEO, None, 0, "bundled", None, None, "draft", 1, 0]

ODD: list[tuple[str, Any, str]] = [
    ("video", None, "no clip"),
    ("video", 7, "video is 7"),
    ("video", "clip.mp4", "video is 'clip.mp4'"),
    ("video", {}, "video is {}"),
    ("video", {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "uploaded"),
    ("video", {"path": "../../app.py", "meta": {"_type": "gradio.FileData"}}, "uploaded"),
    ("video", {"path": "http://127.0.0.1:9/a.mp4", "meta": {"_type": "gradio.FileData"}}, "an address public"),
    ("exemplar", "x", "exemplar is 'x'"),
    ("exemplar", {"path": str(ROOT / "assets" / "first.webp")}, "uploaded here"),
    ("exemplar", {"path": str(ROOT / "assets" / "first.webp"), "meta": {}}, "uploaded here"),
    ("exemplar_frame", 9, "frame 9"),
    ("exemplar_frame", -1, "frame -1"),
    ("exemplar_frame", "first", "exemplar_frame is 'first'"),
    ("prior", "/etc", "no prior"),
    ("prior", ["bundled"], "prior is"),
    ("eta", "abc", "eta is 'abc'"),
    ("eta", float("nan"), "eta is nan"),
    ("eta", 1e300, "eta is"),
    ("eta", 10**400, "eta is 1000"),
    ("frames", 10**400, "frames is 1000"),
    ("video", {"path": "a\0b.mp4", "meta": {"_type": "gradio.FileData"}}, "uploaded here"),
    ("steps", 0, "steps is 0"),
    ("steps", 10**30, "steps is"),
    ("preset", "fast", "no preset 'fast'"),
    ("preset", {"a": 1}, "preset is"),
    ("frames", 0, "frames is 0"),
    ("frames", -5, "frames is -5"),
    ("frames", float("inf"), "frames is inf"),
    ("frames", float("nan"), "frames is nan"),
    ("seed", 2**80, "seed is"),
    ("seed", -1, "seed is -1"),
    ("seed", [1], "seed is"),
]


def test_odd_values_are_answered_in_a_sentence_each(target: Target, note: Callable[[str, str], None]) -> None:
    clip = target.upload(film(target.folder / "a.mp4"))
    picture = target.folder / "exemplar.png"
    write_image(picture, np.random.default_rng(0).integers(0, 255, (3, 48, 64), dtype=np.uint8))
    for name, value, words in ODD:
        asked = dict(zip(COLORIZE, ORDINARY, strict=True)) | {"video": given(clip), name: value}
        if name == "exemplar_frame":
            asked["exemplar"] = given(target.upload(picture))
        answered, said = target.call("colorize", *asked.values())
        assert not answered, (name, value)
        assert re.search(words, sentence(said)), (name, value, said)
    for data, words in (
        ([None, "draft", None], "no clip"),
        ([given(clip), "draft", 0], "frames is 0"),
        ([given(clip), "best", None], "no preset 'best'"),
    ):
        answered, said = target.call("estimate", *data)
        assert not answered and re.search(words, sentence(said)), (data, said)
    for token in (None, "", "../results", "a" * 22, "x" * 10_000):
        answered, said = target.call("result", token)
        assert not answered and "expired" in sentence(said)
    answered, said = target.call("result", {"a": 1})
    assert not answered and "token is" in sentence(said)
    note(f"{len(ODD)} odd values for /colorize, 3 for /estimate, 6 for /result", "one sentence each")


def test_pictures_that_do_not_show_their_frame_are_told_without_advice_for_the_page(
    target: Target, note: Callable[[str, str], None]
) -> None:
    clip = given(target.upload(film(target.folder / "a.mp4")))
    noise, broken = target.folder / "noise.png", target.folder / "broken.png"
    write_image(noise, np.random.default_rng(0).integers(0, 255, (3, 48, 64), dtype=np.uint8))
    broken.write_bytes(noise.read_bytes()[:400])
    answered, said = target.call("colorize", clip, given(target.upload(noise)))
    assert not answered and "does not seem to show" in sentence(said)
    assert "Accept any picture" not in said and "--force" not in said
    answered, said = target.call("colorize", clip, given(target.upload(broken)))
    assert not answered and "broken.png" in sentence(said)
    note("an exemplar of noise, and a broken one", "refused, without advice that programs cannot follow")


def test_bombs_are_refused_by_their_headers(target: Target, note: Callable[[str, str], None]) -> None:
    large, huge = bomb(target.folder / "large.png", 13_000), bomb(target.folder / "huge.png", 20_000)
    assert large.stat().st_size < 2e6
    clip = given(target.upload(film(target.folder / "a.mp4")))
    for path in (large, huge):
        bad = given(target.upload(path))
        for endpoint, data in (("colorize", [bad]), ("estimate", [bad]), ("colorize", [clip, bad])):
            answered, said = target.call(endpoint, *data)
            assert not answered and "million pixels" in sentence(said)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: target.call("estimate", bad), range(8)))
    assert not any(answered for answered, _ in found)
    note("PNG of 13,000 x 13,000 and 20,000 x 20,000 as clip and exemplar; eight at once", "refused before decoding")


def test_files_that_are_none(target: Target, note: Callable[[str, str], None]) -> None:
    lists = {
        "list.m3u8": "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        "list.mp4": "ffconcat version 1.0\nfile /etc/passwd\n",
        "page.mp4": "<html><script>alert(1)</script></html>",
        "empty.mp4": "",
        "picture.svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "$(touch hacked); a'b\".mp4": "no film",
        "..%2f..%2fetc%2fpasswd.mp4": "no film",
    }
    for name, content in lists.items():
        path = target.folder / "file"
        path.write_text(content)
        answered, said = target.call("colorize", given(target.upload(path, name)))
        assert not answered and "root:" not in sentence(said)
    assert not list(target.folder.rglob("hacked")) and not (ROOT / "hacked").exists()
    note(
        f"{len(lists)} files that are no film: playlists, markup, an empty one, names with quotes and paths", "refused"
    )


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "app.py"), "../../etc/passwd", "visits"])
def test_nothing_but_results_can_be_read(target: Target, path: str, note: Callable[[str, str], None]) -> None:
    place = path if "/" in path else str(target.server.results / path)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{target.server.url}/gradio_api/file={urllib.parse.quote(place)}", timeout=20)
    assert caught.value.code in (403, 404)
    note(f"reading `{path if not path.startswith(str(ROOT)) else 'app.py'}`", str(caught.value.code))


@pytest.mark.parametrize(
    "path", ["call/estimate", "call/upload", "run/x/upload", "upload", "queue/join", "upload?a=/upload"]
)
def test_bodies_are_bounded(target: Target, path: str, note: Callable[[str, str], None]) -> None:
    """Whatever the path; an upload has its own bound, for all its files together."""
    url = urllib.parse.urlparse(target.server.url)
    link = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    parts, kind = [b'{"data": ["', b'"]}'], "application/json"
    if path.startswith("upload"):
        file = b'--m\r\nContent-Disposition: form-data; name="files"; filename="%d.mp4"\r\n\r\n'
        parts, kind = [file % k for k in range(8)] + [b"\r\n--m--\r\n"], "multipart/form-data; boundary=m"
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for part in parts:
            yield part
            for _ in range(100 if len(parts) < 3 else 6):
                sent += 1
                yield b"x" * 2**20 + b"\r\n" * (len(parts) > 2)

    with contextlib.suppress(ConnectionError):
        link.request("POST", f"/gradio_api/{path}", body(), {"Content-Type": kind}, encode_chunked=True)
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        assert link.getresponse().status in (404, 405, 413)
    assert target.most_mib - target.server.resident_mib() < 100
    note(f"100 MiB of JSON, or 8 files, to `{path}`", "413")


def test_browsers_are_told_who_may_frame_the_page_and_foreign_hosts_are_refused(
    target: Target, note: Callable[[str, str], None]
) -> None:
    with urllib.request.urlopen(target.server.url, timeout=20) as answer:
        assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    foreign = {"Host": "evil.example", "Origin": "http://evil.example"}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{target.server.url}/config", headers=foreign), timeout=20)
    assert caught.value.code == 400
    forwarded = urllib.request.Request(f"{target.server.url}/config", headers={"X-Forwarded-Host": "evil.example"})
    with urllib.request.urlopen(forwarded, timeout=20) as answer:
        assert "evil.example" not in answer.read().decode()
    note("a foreign Host (DNS rebinding), X-Forwarded-Host", "400; not accepted")


@pytest.mark.parametrize("path", ["call/nothing", "run/nothing", "call/..%2fupload"])
def test_endpoints_that_are_not_there(target: Target, path: str, note: Callable[[str, str], None]) -> None:
    before = target.log().count("Traceback")
    request = urllib.request.Request(
        f"{target.server.url}/gradio_api/{path}", b'{"data": []}', {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)
    assert caught.value.code in (404, 405) and target.log().count("Traceback") == before
    note(f"posting to `{path}`", str(caught.value.code))


def test_one_thumbnail_teaches_the_estimates_nothing(target: Target, note: Callable[[str, str], None]) -> None:
    clip, thumbnail = (given(target.upload(film(target.folder / name, 2, size)))
                       for name, size in (("large.mp4", (480, 854)), ("thumb.mp4", (16, 16))))  # fmt: skip
    before = target.call("estimate", clip)
    target.call("colorize", thumbnail)
    assert before[0] and target.call("estimate", clip) == before
    note("a run of two frames of 16 x 16", "estimates stay as they are")


def test_what_cannot_end_is_refused(target: Target, note: Callable[[str, str], None]) -> None:
    clip = given(target.upload(film(target.folder / "p.mp4", 4, (96, 128))))
    answered, said = target.call("colorize", clip, None, 0, "bundled", None, 1000, "paper")
    assert not answered and re.search(r"would take about .* it would fit with", sentence(said))
    answered, found = target.call("estimate", clip, "paper", None, "bundled", 1000)
    assert answered and not found[0]["fits"] and found[0]["seconds"] > 3600
    narrow = given(target.upload(film(target.folder / "narrow.mp4", 2, (16, 1024))))
    answered, said = target.call("colorize", narrow)
    assert not answered and "1024 x 16" in sentence(said)
    note("preset paper with 1000 steps; frames of 1024 x 16", "refused: what would fit is named")


def test_ten_clients_at_once_each_get_their_own(target: Target, note: Callable[[str, str], None]) -> None:
    def visit(k: int) -> int:
        clip = given(target.upload(film(target.folder / f"c{k}.mp4", hue=120 + 10 * k)))
        answered, found = target.call("colorize", clip, None, 0, "bundled", None, None, "draft", 1, k)
        assert answered, found
        return int(found[2]["seed"])

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(visit, range(10))) == list(range(10))
    assert max(target.computing()) == 1
    note("ten clients at once", "each its own result, one run at a time")


def test_submitting_and_canceling_computes_one_run_at_a_time(target: Target, note: Callable[[str, str], None]) -> None:
    path = str(film(target.folder / "b.mp4", 2, (96, 128)))
    client = Client(target.server.url, verbose=False, download_files=False)
    began = time.monotonic()
    client.predict(video=handle_file(path), api_name="/colorize")
    ordinary, before = time.monotonic() - began, len(target.computing())
    for k in range(20):
        job = client.submit(video=handle_file(path), seed=k, api_name="/colorize")
        time.sleep(0.4)
        job.cancel()
    began = time.monotonic()
    report = client.predict(video=handle_file(path), seed=99, api_name="/colorize")[2]
    took = time.monotonic() - began
    assert report["seed"] == 99 and report["complete"]
    assert max(target.computing()) == 1
    begun = (len(target.computing()) - before) // 2 - 1
    assert begun > 0, "no run had begun before it was canceled"
    assert took < 2 * ordinary + 5
    note(
        f"submit and cancel, twenty times ({begun} had begun)",
        f"one at a time; the next took {took:.0f} s, alone {ordinary:.0f}",
    )


def test_clients_that_vanish_leave_no_run_behind(target: Target, note: Callable[[str, str], None]) -> None:
    clip = given(target.upload(film(target.folder / "v.mp4", 4, (192, 256))))
    address = urllib.parse.urlparse(target.server.url)
    begun = len(target.computing())
    for _ in range(3):
        link = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        link.request("POST", "/gradio_api/call/colorize", json.dumps({"data": [clip]}),
                     {"Content-Type": "application/json"})  # fmt: skip
        event = json.load(link.getresponse())["event_id"]
        link.request("GET", f"/gradio_api/call/colorize/{event}")
        time.sleep(1.0)
        link.close()
    assert len(target.computing()) > begun
    assert target.idle(30)
    note("three clients that vanish in the middle of a run", "their runs end within seconds")


def test_programs_that_never_listen_leave_no_run_behind(target: Target, note: Callable[[str, str], None]) -> None:
    """A minute of work each, on the two cores of a small server; they are waited for five seconds."""
    clip = given(target.upload(film(target.folder / "v.mp4", 120, (240, 427), motion=3)))
    body = json.dumps({"data": [clip, None, 0, "bundled", None, None, "standard", 120, 0]}).encode()
    begun, earlier = len(target.computing()), set(target.server.results.glob("*"))
    for _ in range(6):
        address, kind = f"{target.server.url}/gradio_api/call/colorize", {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(address, body, kind), timeout=60)
    end = time.monotonic() + 60
    while len(target.computing()) == begun and time.monotonic() < end:
        time.sleep(0.1)
    assert target.idle(60)
    while (more := set(target.server.results.glob("*")) - earlier) and time.monotonic() < end + 60:
        time.sleep(0.1)
    assert not more, "no run was computed to its end, and none stays"
    note("six runs of programs that never listen", "dropped within seconds")


def test_what_a_peak_has_lifted_is_given_back(target: Target, note: Callable[[str, str], None]) -> None:
    clip = given(target.upload(film(target.folder / "l.mp4", 4, (480, 854))))
    answered, _ = target.call("colorize", clip)
    assert answered and target.idle(30)
    peak, rest = target.most_mib, target.server.resident_mib()
    assert rest < target.ordinary_mib + 200
    note(f"a run that lifts the memory to {peak:.0f} MiB", f"{rest:.0f} MiB at rest")


def test_a_restart_keeps_results_and_forgets_visitors(target: Target, note: Callable[[str, str], None]) -> None:
    answered, found = target.call("colorize", given(target.upload(film(target.folder / "r.mp4"))))
    assert answered
    token = found[2]["token"]
    with serve(target.folder, **CAPS) as second:
        other = Target(second, target.folder)
        answered, again = other.call("result", token)
        assert answered and again[2]["token"] == token
    note("a restart", "a finished run opens by its token")
