"""The page's endpoints as ``gradio_client`` sees them, and what the server refuses."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from ui_server import ROOT, Server, serve

from omnifusion.state import Video
from omnifusion.ui.result_tab import gray_of
from omnifusion.video import Writer, read, write_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    caps = {"OMNIFUSION_MAX_MEGABYTES": "2", "OMNIFUSION_MAX_FRAMES": "4"}
    with serve(tmp_path_factory.mktemp("page"), "--mcp", **caps) as running:
        yield running


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Client:
    return connect(server, tmp_path)


def connect(server: Server, downloads: Path) -> Client:
    return Client(server.url, verbose=False, download_files=str(downloads))


def film(path: Path, hue: tuple[int, int, int], frames: int = 1) -> Path:
    """A clip with one color above and green below, shaded to the left; one color alone would pass for tinted film."""
    shade = np.linspace(0.4, 1.0, 64)[None, None, None, :] * np.ones((frames, 1, 48, 1))
    color = np.where(
        np.arange(48)[None, :, None] < 24, np.array(hue)[:, None, None], np.array((40, 170, 60))[:, None, None]
    )
    pictures = (color[None] * shade).astype(np.uint8)
    with Writer(path, Video(pictures, Fraction(12))) as writer:
        for picture in pictures:
            writer.add(picture)
    return path


def test_the_page_is_up_soon_and_light(server: Server) -> None:
    # The wall clock of a shared machine says little: the bound here is only a wide one; what counts is memory.
    assert server.seconds < 60
    assert server.resident_mib() < 1536


def test_endpoints_are_named_and_documented(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/colorize", "/correct", "/estimate", "/result"}
    parameters = {p["parameter_name"]: p for p in named["/colorize"]["parameters"]}
    assert list(parameters) == [
        "video", "exemplar", "exemplar_frame", "prior", "eta", "steps", "preset", "frames", "seed",
    ]  # fmt: skip
    assert [p for p, known in parameters.items() if not known["parameter_has_default"]] == ["video"]
    defaults = {name: p["parameter_default"] for name, p in parameters.items() if name != "video"}
    assert defaults == {
        "exemplar": None, "exemplar_frame": 0, "prior": "bundled", "eta": None, "steps": None, "preset": "draft",
        "frames": None, "seed": 0,
    }  # fmt: skip
    for name, endpoint in named.items():
        assert all(p["python_type"]["description"] for p in endpoint["parameters"]), name
        labels = [r["label"] for r in endpoint["returns"]]
        assert labels == (["estimate"] if name == "/estimate" else ["colorized", "origin", "report"])
    assert "brightness" in client.view_api(return_format="str", print_info=False)


def test_an_estimate_has_named_fields(client: Client, tmp_path: Path) -> None:
    found = client.predict(video=handle_file(str(film(tmp_path / "a.mp4", (90, 140, 200), 3))), api_name="/estimate")
    assert set(found) == {"frames", "seconds", "mib", "fits"} and found["frames"] == 3 and found["fits"]


def test_endpoints_are_mcp_tools_and_speak_the_same_sentences(server: Server) -> None:
    async def ask() -> tuple[dict[str, Any], str]:
        async with (
            streamablehttp_client(f"{server.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool.inputSchema["properties"] for tool in (await session.list_tools()).tools}
            answer = await session.call_tool("result", {"token": "0" * 32})
            return tools, answer.content[0].text

    tools, sentence = asyncio.run(ask())
    assert {"colorize", "correct", "estimate", "result"} <= set(tools)
    assert "diffusion steps" in tools["colorize"]["steps"]["description"]
    assert "expired" in sentence


def test_colorize_gives_films_and_a_report(client: Client, tmp_path: Path) -> None:
    clip = film(tmp_path / "red.mp4", (200, 60, 40), frames=2)
    colorized, origin, report = client.predict(video=handle_file(str(clip)), api_name="/colorize")
    films = [read(_path(answer)) for answer in (colorized, origin)]
    assert [len(f) for f in films] == [2, 2]
    assert report["frames"] == 2 and report["complete"] and report["origin"]["exemplar"] == 48 * 64
    assert sum(report["origin"].values()) == 2 * 48 * 64
    again, _, same = client.predict(token=report["token"], api_name="/result")
    assert same["origin"] == report["origin"]
    np.testing.assert_array_equal(read(_path(again)).frames, films[0].frames)


def test_a_gray_clip_takes_the_colors_of_its_exemplar(client: Client, tmp_path: Path) -> None:
    color = np.asarray(read(film(tmp_path / "color.mp4", (210, 80, 60))).frames[0])
    write_image(tmp_path / "exemplar.png", color)
    with Writer(tmp_path / "gray.mp4", Video(color[None], Fraction(12))) as writer:
        writer.add(gray_of(color.transpose(1, 2, 0)).transpose(2, 0, 1))
    colorized, _, report = client.predict(
        video=handle_file(str(tmp_path / "gray.mp4")),
        exemplar=handle_file(str(tmp_path / "exemplar.png")),
        api_name="/colorize",
    )
    assert report["exemplars"] == [0] and not report["scores"]
    assert np.abs(np.asarray(read(_path(colorized)).frames[0]).astype(int) - color).mean() < 6


def test_correct_changes_what_it_is_given_and_leaves_the_earlier_run_alone(client: Client, tmp_path: Path) -> None:
    clip = film(tmp_path / "a.mp4", (200, 60, 40), frames=3)
    first, _, report = client.predict(video=handle_file(str(clip)), api_name="/colorize")
    patch = np.zeros((4, 48, 64), np.uint8)
    patch[:, 28:44, 8:56] = np.array((40, 60, 190, 255))[:, None, None]  # on the green half
    write_image(tmp_path / "patch.png", patch)
    given = {"token": report["token"], "exemplar": handle_file(str(tmp_path / "patch.png"))}
    second, _, corrected = client.predict(**given, exemplar_frame=1, last=1, api_name="/correct")
    assert corrected["token"] != report["token"]
    (told,) = corrected["corrections"]
    assert told["patches"] == [1] and set(told["changed_frames"]) <= {0, 1} and told["changed_pixels"] > 0
    before, after = (np.asarray(read(_path(answer)).frames).astype(int) for answer in (first, second))
    assert (after[1, 2] - before[1, 2])[32:40, 20:40].mean() > 40, "blue where it was green"
    assert np.abs(after[2] - before[2]).mean() < 2, "not among the frames that may change"
    again, _, same = client.predict(token=report["token"], api_name="/result")
    assert "corrections" not in same
    np.testing.assert_array_equal(np.asarray(read(_path(again)).frames), before)
    for changes, sentence in (({"exemplar_frame": 7}, "frame 7"), ({"first": 2, "last": 1}, "Frames 2 to 1"),
                              ({"token": "a" * 22}, "expired")):  # fmt: skip
        with pytest.raises(AppError, match=sentence):
            client.predict(**given | changes, api_name="/correct")


def _path(answer: object) -> Path:
    return Path(answer["video"] if isinstance(answer, dict) else str(answer))


def test_ten_clients_at_once_each_get_their_own(server: Server, tmp_path: Path) -> None:
    hues = [(200, 40 + 15 * k, 220 - 18 * k) for k in range(10)]
    found: dict[int, np.ndarray] = {}
    errors: list[Exception] = []

    def visit(k: int) -> None:
        try:
            clip = film(tmp_path / f"clip{k}.mp4", hues[k])
            answer = connect(server, tmp_path / f"{k}").predict(
                video=handle_file(str(clip)), seed=k, api_name="/colorize"
            )
            assert answer[2]["seed"] == k
            found[k] = np.asarray(read(_path(answer[0])).frames)[:, :, :20].mean(axis=(0, 2, 3)) / 0.7
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=visit, args=(k,)) for k in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for k, mean in found.items():
        assert np.abs(mean - hues[k]).max() < 8, f"client {k} got the colors of another"
    tokens = [f.name for f in server.results.iterdir() if (f / "request.json").is_file()]
    assert len(tokens) >= 10


BAD = [
    ({"preset": "fast"}, "no preset 'fast'"),
    ({"prior": "/etc"}, "no prior '/etc'"),
    ({"eta": 99}, "eta is 99"),
    ({"steps": 0}, "steps is 0"),
    ({"exemplar_frame": 9, "exemplar": True}, "frame 9"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD)
def test_bad_input_is_one_sentence(client: Client, tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    clip = film(tmp_path / "a.mp4", (90, 140, 200))
    if "exemplar" in changes:
        write_image(tmp_path / "e.png", np.asarray(read(clip).frames[0]))
        changes = {**changes, "exemplar": handle_file(str(tmp_path / "e.png"))}
    with pytest.raises(AppError) as caught:
        client.predict(video=handle_file(str(clip)), api_name="/colorize", **changes)
    said = str(caught.value)
    assert sentence in said and "Traceback" not in said and str(ROOT) not in said


def test_not_a_video_and_too_large(client: Client, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("dear diary")
    with pytest.raises(AppError, match=r"notes\.mp4"):
        client.predict(video=handle_file(str(bad)), api_name="/colorize")
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(Exception, match=r"(?i)size|large|413"):
        client.predict(video=handle_file(str(tmp_path / "large.mp4")), api_name="/colorize")


def test_an_expired_token_says_so(client: Client) -> None:
    with pytest.raises(AppError, match="expired"):
        client.predict(token="a" * 22, api_name="/result")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", str(ROOT / "README.md"), str(ROOT / "app.py"), "../../etc/passwd", str(ROOT / "assets" / "prior")],
)
def test_files_outside_the_session_cannot_be_read(server: Server, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{server.url}/gradio_api/file={urllib.parse.quote(path)}", timeout=20)
    assert caught.value.code in (403, 404)


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "assets" / "examples" / "train.mp4")])
def test_a_path_on_the_server_is_no_upload(server: Server, path: str) -> None:
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "draft", None]}
    request = urllib.request.Request(
        f"{server.url}/gradio_api/call/estimate", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{server.url}/gradio_api/call/estimate/{event}", timeout=60) as answer:
        said = answer.read().decode()
    assert "event: error" in said and "frames" not in said
