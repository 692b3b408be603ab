"""Bad input costs one sentence and nothing else: the kinds that ``docs/usage.md`` names, on the command line and,
where a program can give them, to the page's endpoints."""

from __future__ import annotations

import re
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from test_attack import Target, bomb, sentence
from ui_server import serve

from omnifusion.cli import main
from omnifusion.state import Video
from omnifusion.video import write, write_image

KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "a clip that is not there": ({"video": "missing.mp4"}, "no file or folder|no clip|uploaded"),
    "text that is called a film": ({"video": "text.mp4"}, "cannot be read as a video"),
    "an empty file": ({"video": "void.mp4"}, "cannot be read as a video|is empty"),
    "a film cut short": ({"video": "cut.mp4"}, "cannot be read as a video|damaged or cut short"),
    "sound without pictures": ({"video": "sound.wav"}, "no pictures|not a video"),
    "a folder without frames": ({"video": "empty"}, "holds no frames"),
    "frames that differ in size": ({"video": "sizes"}, "differ in size|make them equal"),
    "a picture of 13,000 x 13,000 pixels as the clip": ({"video": "huge.png"}, "million pixels"),
    "an interlaced film": ({"video": "woven.mp4"}, "interlaced.*bwdif"),
    "an exemplar for a frame that the clip has not": ({"exemplar": "first.png", "exemplar_frame": 99}, "frame 99"),
    "no number of a frame": ({"exemplar": "first.png", "exemplar_frame": "two"}, "IMAGE@FRAME|exemplar_frame is 'two'"),
    "an exemplar that is not there": ({"exemplar": "nothing.png"}, "no file|no picture|uploaded"),
    "a broken picture as exemplar": ({"exemplar": "broken.png"}, "broken.png"),
    "a picture of 13,000 x 13,000 pixels as exemplar": ({"exemplar": "huge.png"}, "million pixels"),
    "a gray exemplar": ({"exemplar": "gray.png"}, "gray throughout"),
    "an exemplar of another shape": ({"exemplar": "wide.png"}, "aspect ratios"),
    "an exemplar that does not show its frame": ({"exemplar": "noise.png"}, "does not seem to show its frame"),
    "an unknown preset": ({"preset": "fast"}, "no preset 'fast'"),
    "an unknown prior": ({"prior": "nobody"}, "prior"),
    "a text as eta": ({"eta": "much"}, "eta is 'much'"),
    "no steps": ({"steps": 0}, "steps is .?0"),
    "a seed beyond 64 bits": ({"seed": 2**80}, "seed is"),
    "no frames": ({"frames": 0}, "frames is 0|'--frames'"),
}
"""What is given instead of what is good, and the words of the answer."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good clip, its first frame in color, and every bad file."""
    folder = tmp_path_factory.mktemp("given")
    frames = np.asarray(synthetic.make("pan", frames=6, size=(144, 256)).video.frames)
    write(folder / "good.mp4", Video(frames))
    woven = frames[:-1].copy()
    woven[:, :, 1::2] = frames[1:, :, 1::2]
    write(folder / "woven.mp4", Video(woven))
    (folder / "text.mp4").write_text("no film")
    (folder / "void.mp4").touch()
    (folder / "cut.mp4").write_bytes((folder / "good.mp4").read_bytes()[:600])
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(8000))
    (folder / "empty").mkdir()
    (folder / "sizes").mkdir()
    write_image(folder / "sizes" / "0.png", frames[0])
    write_image(folder / "sizes" / "1.png", frames[1, :, :100])
    write_image(folder / "first.png", frames[0])
    write_image(folder / "gray.png", np.repeat(frames[0, 1:2], 3, 0))
    write_image(folder / "wide.png", np.repeat(frames[0], 2, axis=2))
    write_image(folder / "noise.png", np.random.default_rng(0).integers(0, 255, (3, 144, 256), dtype=np.uint8))
    (folder / "broken.png").write_bytes((folder / "noise.png").read_bytes()[:400])
    bomb(folder / "huge.png", 13_000)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_answers_in_a_sentence_and_leaves_nothing(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    asked, words = KINDS[kind]
    argv = ["colorize", str(given / asked.get("video", "good.mp4")), "--out", str(tmp_path / "out")]
    if "exemplar" in asked:
        argv += ["--exemplar", f"{given / asked['exemplar']}@{asked.get('exemplar_frame', 0)}"]
    for name in ("preset", "prior", "eta", "steps", "seed", "frames"):
        argv += [f"--{name}", str(asked[name])] if name in asked else []
    assert main(argv) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(words, said), said
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("page")
    with serve(folder, OMNIFUSION_QUEUE="12") as server:
        yield Target(server, folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_endpoints_answer_in_a_sentence(given: Path, target: Target) -> None:
    asked: dict[str, Any] = {
        "video": "good.mp4", "exemplar": None, "exemplar_frame": 0, "prior": "bundled", "eta": None, "steps": None,
        "preset": "draft", "frames": 1, "seed": 0,
    }  # fmt: skip

    def sent(name: str, value: Any) -> Any:
        if name not in ("video", "exemplar") or value is None:
            return value
        path = given / value
        place = target.upload(path) if path.is_file() else str(path)
        return {"path": place, "meta": {"_type": "gradio.FileData"}}

    for kind, (bad, words) in KINDS.items():
        if bad.get("video") in ("empty", "sizes"):  # a folder cannot be uploaded
            continue
        answered, said = target.call("colorize", *(sent(*item) for item in (asked | bad).items()))
        assert not answered and re.search(words, sentence(said)), (kind, said)
    answered, said = target.call("result", None)
    assert not answered and "expired" in sentence(said)
