"""The command line: real runs end to end, names that any system allows, and what costs a sentence."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import synthetic
import typer.main

from omnifusion import cli
from omnifusion.cli import main
from omnifusion.cli.options import read_pictures
from omnifusion.color import from_uint8, gray, luminance, to_uint8
from omnifusion.progress import Canceled, InputError
from omnifusion.run.folder import RunRequest, open_run
from omnifusion.settings import CHOICES, choose
from omnifusion.state import Video
from omnifusion.video import read, read_image, write, write_image

ROOT = Path(cli.__file__).parents[2]
FRAMES = 5


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.asarray(synthetic.make("two-layers", frames=FRAMES, size=(72, 96), seed=3).video.frames)


@pytest.fixture(scope="module")
def clips(truth: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a color clip, the same in gray (as frames, so that nothing is lost), and its first frame."""
    folder = tmp_path_factory.mktemp("clips")
    write(folder / "color.mp4", Video(truth, Fraction(25)))
    (folder / "gray").mkdir()
    for t, frame in enumerate(to_uint8(gray(from_uint8(truth))).numpy()):
        write_image(folder / "gray" / f"{t}.png", frame)
    write_image(folder / "first.png", truth[0])
    return folder


def run(*argv: object) -> int:
    return main([str(word) for word in argv])


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one sentence that bad input ends in."""
    assert run(*argv) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("omnifusion: ")
    return line


@pytest.mark.slow
def test_a_gray_clip_and_one_colored_frame_become_a_colored_clip(
    clips: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    argv = ["colorize", clips / "gray", "--out", out, "--exemplar", f"{clips / 'first.png'}@0", "--preset", "draft"]
    assert run(*argv) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["complete"] and report["frames"] == FRAMES and report["size"] == [72, 96]
    h, w = report["working_size"]
    assert sum(report["origin"].values()) == FRAMES * h * w
    assert report["origin"]["exemplar"] == h * w
    assert min(report["origin"].values()) > 0
    assert sum(i["propagated"] for i in report["iterations"]) == report["origin"]["propagated"]
    assert sum(i["inpainted"] for i in report["iterations"]) == report["origin"]["inpainted"]
    frames = np.stack([read_image(file) for file in sorted((out / "frames").iterdir())])
    difference = luminance(from_uint8(frames)) - luminance(from_uint8(truth))
    assert difference.abs().quantile(0.99) < 1.5
    assert np.abs(frames[0].astype(int) - truth[0]).max() <= 2, "the exemplar keeps its own colors"
    error = ((frames[1:].astype(float) - truth[1:]) ** 2).mean()
    assert error < 0.5 * ((frames[1:].mean(1, keepdims=True) - truth[1:]) ** 2).mean()
    for name in ("colorized.mp4", "origin.mp4"):
        film = read(out / name)
        assert len(film) == FRAMES and film.size == (72, 96) and film.fps == 24


@pytest.mark.slow
def test_a_color_clip_is_scored_and_the_seed_fixes_the_result(clips: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        argv = ["colorize", clips / "color.mp4", "--out", tmp_path / name, "--preset", "draft", "--seed", "7"]
        assert run(*argv) == 0
    a, b = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("a", "b"))
    assert a["scores"]["psnr"] > 20
    assert a["scores"] == b["scores"] and a["origin"] == b["origin"]
    assert (tmp_path / "a/frames/00002.png").read_bytes() == (tmp_path / "b/frames/00002.png").read_bytes()


@pytest.mark.slow
def test_a_gray_clip_without_an_exemplar_is_left_to_the_prior(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["colorize", clips / "gray", "--out", tmp_path / "out", "--preset", "draft", "--frames", "2"]
    assert run(*argv) == 0
    assert "the first frame's colors are guessed" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["complete"] and report["frames"] == 2
    assert report["origin"]["exemplar"] == 0 and report["origin"]["inpainted"] > 0
    assert report["iterations"][0]["frame"] == 0


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_is_done(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "omnifusion", "colorize", clips / "color.mp4", "--out", out, "--preset", "draft"]
    process = subprocess.Popen([str(w) for w in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    assert process.stdout is not None
    begun = b""
    while b"color  " not in begun and process.poll() is None:
        begun += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    output = (begun + process.communicate(timeout=120)[0]).decode()
    assert process.returncode == 130 and "Traceback" not in output, output
    report = json.loads((out / "report.json").read_text())
    assert not report["complete"]
    assert len(list((out / "frames").iterdir())) == FRAMES
    assert str(out) in output


@pytest.mark.slow
def test_a_run_of_the_command_line_can_be_opened_again(clips: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "out", f"{clips / 'first.png'}@0"
    chosen = ["--preset", "draft", "--frames", "3", "--steps", "2", "--prompt", "a garden"]
    assert run("colorize", clips / "gray", "--out", out, "--exemplar", first, *chosen) == 0
    settings = choose("draft", steps=2, prompt="a garden")
    assert open_run(out).request == RunRequest("gray", settings, 3, (0,), False, str((clips / "gray").absolute()))
    assert np.array_equal(read_image(out / "exemplar_00000.png"), read_image(clips / "first.png"))


@pytest.mark.slow
def test_any_name_that_the_system_allows_can_be_used(clips: Path, tmp_path: Path) -> None:
    film, image, out = b"-a:b'c\"d\xff@2.mp4", b"-e:\xe9@3@4.png", b"out:\xfe\xc3\xa9"
    for source, name in ((clips / "color.mp4", film), (clips / "first.png", image)):
        (tmp_path / os.fsdecode(name)).write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "omnifusion", "colorize", "--preset", "draft", "--frames", "2", "--max-side", "64"]
    done = subprocess.run(
        [*map(os.fsencode, command), b"--exemplar", image + b"@0", b"--out", out, b"--", film],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Results: out:" in done.stdout
    report = json.loads((tmp_path / os.fsdecode(out) / "report.json").read_text())
    assert (
        report["complete"] and report["exemplars"] == [0] and (tmp_path / os.fsdecode(out) / "colorized.mp4").is_file()
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_name_can_be_said_on_any_console(tmp_path: Path, encoding: str) -> None:
    command = [sys.executable, "-m", "omnifusion", "correct", "X", "--frames", b"\xff\xe9\xe2\x82\xac"]
    console = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(os.fsencode, command)), env=console, cwd=tmp_path, capture_output=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and b"names no frames" in done.stderr


def test_a_picture_belongs_to_one_frame(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = read_image(clips / "first.png")
    for name in ("a.png", "b@7.png", "c@5"):
        write_image(tmp_path / "x.png", picture)
        (tmp_path / "x.png").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert {t: p.shape for t, p in read_pictures(["a.png@3", "b@7.png@4"]).items()} == dict.fromkeys(
        (3, 4), picture.shape
    )
    assert list(read_pictures(["c@5@6"])) == [6] and not capsys.readouterr().err
    for text in ("b@7.png", "c@5"):
        assert list(read_pictures([text])) == [0] and "is taken for frame 0" in capsys.readouterr().err
    for texts, words in (
        (["a.png@3", "b@7.png@3"], "Frame 3 has two pictures, a.png and b@7.png; give one"),
        (["a.png", "a.png@0"], "Frame 0 has two pictures"),
        (["a.png@two"], "a.png@two names no frame; write IMAGE@FRAME"),
        (["nothing.png"], "names no frame"),
        (["nothing.png@1"], "nothing.png"),
        (["a.png@" + "9" * 5000], "names no frame"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            read_pictures(texts)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("colorize X --out Y --frames 0", "--frames"),
        ("colorize X --out Y --workers 0", "neither a whole number of at least 1 nor"),
        ("colorize X --out Y --threads -1", "--threads"),
        ("colorize X --out Y --format gif", "'gif' is not one of"),
        ("colorize X --out Y --steps 0", "steps is '0'; choose a whole number from 1 to 1000"),
        ("colorize X --out Y --preset fast", "There is no preset 'fast'; choose one of draft, standard, paper"),
        ("colorize X --out Y --exemplars a.png@0", "--exemplar"),
        ("colorize --out Y", "INPUT"),
        ("colorize X", "--out"),
        ("colorze X", "'colorize'"),
        ("demo --frames 0", "--frames"),
        ("evaluate X --scale 0", "--scale"),
        ("evaluate X --scale nan", "--scale"),
        ("suggest X --most 0", "--most"),
        ("suggest X", "X"),
        ("correct X --out Y", "--exemplar IMAGE@FRAME"),
        ("correct X --out Y --frames 4", "'4' names no frames"),
        ("export X", "--out"),
        ("export X --out Y --saturation 0", "--saturation"),
    ],
)
def test_a_mistake_costs_a_sentence(given: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(capsys, *given.split())


def test_sentences_stay_on_a_line_and_an_interruption_has_its_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a b" in refused(capsys, "suggest", "a\nb")
    for interruption in (KeyboardInterrupt, Canceled):
        monkeypatch.setattr("omnifusion.run.folder.open_run", mock.Mock(side_effect=interruption))
        assert run("suggest", "X") == 130 and not capsys.readouterr().out


def test_former_names_of_options_still_work_and_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    argv = "colorize X --out Y --fit none --no-literal --start none --no-grey-constraint --order greyest --steps 0"
    assert run(*argv.split()) == 2
    said = capsys.readouterr().err
    for old, new in (("fit", "omnimotion"), ("literal", "trust-tracker"), ("start", "strength")):
        assert f"--{old} is now --{new}" in said
    assert "--grey-constraint is now --gray-constraint" in said and "steps is '0'" in said


def test_every_option_is_explained_and_every_choice_has_one() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert {name for name, command in commands.items() if not command.hidden} == {
        "colorize", "correct", "suggest", "export", "evaluate", "ablate", "demo",
    }  # fmt: skip
    assert commands["finish"].hidden and {p.name for p in commands["finish"].params} == {
        p.name for p in commands["export"].params
    }
    for name, command in commands.items():
        silent = [p.name for p in command.params if len(getattr(p, "help", None) or "") < 8]
        assert command.help and not silent, f"{name} says nothing of {silent}"
    for name in ("colorize", "evaluate", "ablate", "demo"):
        assert set(CHOICES) <= {p.name for p in commands[name].params}


def loaded(*argv: object) -> set[str]:
    """The libraries that a command has loaded when it ends."""
    code = "import sys; from omnifusion.cli import main; main(sys.argv[1:]); print('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_and_mistakes_wait_for_no_heavy_library() -> None:
    for argv in (["colorize", "--help"], ["colorize", "X", "--out", "Y", "--steps", "0"]):
        assert not {"torch", "numpy", "cv2", "scipy", "diffusers", "gradio", "tqdm", "rich"} & loaded(*argv)


@pytest.mark.slow
def test_a_run_loads_only_what_it_uses(clips: Path, tmp_path: Path) -> None:
    argv = ["colorize", clips / "gray", "--out", tmp_path / "out", "--exemplar", f"{clips / 'first.png'}@0"]
    unused = {"diffusers", "transformers", "gradio", "kornia", "torchvision", "torchmetrics", "skimage", "scipy.stats"}
    assert not (unused | {"pandas", "typer.rich_utils", "omnifusion.ui"}) & loaded(*argv, "--preset", "draft")


@pytest.mark.slow
def test_the_demo_runs_and_prints_how_it_went_beside_simpler_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("demo", "--frames", "6", "--preset", "draft", "--max-side", "128", "--out", tmp_path / "demo") == 0
    table = re.findall(r"^  (\S.*?) +(\d+\.\d\d)$", capsys.readouterr().out, re.MULTILINE)
    psnr = {name.split()[0]: float(value) for name, value in table}
    assert set(psnr) == {"OmniFusion", "classical", "static", "gray"}
    assert min(psnr["OmniFusion"], psnr["classical"]) > psnr["static"] + 1 and psnr["static"] > psnr["gray"]
