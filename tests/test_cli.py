"""The command line: real runs end to end, and bad input that costs one sentence and nothing else."""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import synthetic

from omnifusion.__main__ import main, parser
from omnifusion.algorithm import colorize
from omnifusion.clip.prepare import prepare
from omnifusion.color import from_uint8, gray, luminance, to_uint8
from omnifusion.progress import run_to_end
from omnifusion.run.folder import RunRequest, open_run
from omnifusion.settings import choose
from omnifusion.state import Exemplar, Video
from omnifusion.video import read, read_image, write, write_image

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


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one sentence that bad input ends in."""
    assert main([str(word) for word in argv]) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1
    assert "Traceback" not in message[0]
    return message[0]


@pytest.mark.slow
def test_a_gray_clip_and_one_colored_frame_become_a_colored_clip(
    clips: Path, truth: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    argv = ["colorize", clips / "gray", "--out", out, "--exemplar", f"{clips / 'first.png'}@0", "--preset", "draft"]
    assert main([str(word) for word in argv]) == 0
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
        assert main([str(word) for word in argv]) == 0
    a, b = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("a", "b"))
    assert a["scores"]["psnr"] > 20
    assert a["scores"] == b["scores"] and a["origin"] == b["origin"]
    assert (tmp_path / "a/frames/00002.png").read_bytes() == (tmp_path / "b/frames/00002.png").read_bytes()


@pytest.mark.slow
def test_a_gray_clip_without_an_exemplar_is_left_to_the_prior(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["colorize", clips / "gray", "--out", tmp_path / "out", "--preset", "draft", "--frames", "2"]
    assert main([str(word) for word in argv]) == 0
    assert "prior invents" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["complete"] and report["frames"] == 2
    assert report["origin"]["exemplar"] == 0 and report["origin"]["inpainted"] > 0
    assert report["iterations"][0]["frame"] == 0


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_is_done(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "omnifusion", "colorize", clips / "color.mp4", "--out", out, "--preset", "draft"]
    process = subprocess.Popen([str(w) for w in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(out.glob("segments.json")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the run was faster than the interruption")
    assert process.returncode == 130, output
    assert "Traceback" not in output
    report = json.loads((out / "report.json").read_text())
    assert not report["complete"]
    assert len(list((out / "frames").iterdir())) == FRAMES
    assert str(out) in output


def test_bad_inputs_cost_one_sentence(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, color = tmp_path / "out", clips / "color.mp4"
    text, empty, cut = tmp_path / "notes.mp4", tmp_path / "empty", tmp_path / "cut.mp4"
    text.write_text("not a film")
    empty.mkdir()
    cut.write_bytes(color.read_bytes()[: color.stat().st_size // 2])
    wide, photo = tmp_path / "wide.png", tmp_path / "photo.png"
    write_image(wide, np.repeat(read_image(clips / "first.png"), 2, axis=2))
    noise = np.random.default_rng(0).integers(0, 256, (3, 72, 96), dtype=np.uint8)
    write_image(photo, noise)
    gray_first = clips / "gray" / "0.png"

    def colorize(*more: object) -> str:
        return refused(capsys, "colorize", *more, "--out", out)

    assert "missing.mp4" in colorize(tmp_path / "missing.mp4")
    assert "notes.mp4" in colorize(text)
    assert "empty" in colorize(empty)
    assert "cut.mp4" in colorize(cut)
    assert "frame 99" in colorize(color, "--exemplar", f"{clips / 'first.png'}@99")
    assert "aspect" in colorize(color, "--exemplar", f"{wide}@0")
    assert "--force" in colorize(color, "--exemplar", f"{photo}@0")
    assert "color" in colorize(color, "--exemplar", f"{gray_first}@0")
    assert "IMAGE@FRAME" in colorize(color, "--exemplar", f"{clips / 'first.png'}@two")
    assert "preset" in colorize(color, "--preset", "fast")
    assert "steps" in colorize(color, "--steps", "0")
    assert "prior" in colorize(color, "--prior", str(tmp_path / "no-such-prior")).lower()
    assert not out.exists()


def test_a_full_disk_is_told_before_the_run(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert "MiB" in refused(capsys, "colorize", clips / "color.mp4", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "given",
    [
        "colorize X --out Y --frames 0",
        "demo --frames 0",
        "evaluate X --scale 0",
        "evaluate X --frames 1",
    ],
)
def test_a_number_out_of_range_is_told_before_anything_starts(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(given.split())
    assert stop.value.code == 2
    option, number = given.split()[-2:]
    assert f"argument {option}: {number!r} is not a" in capsys.readouterr().err


def test_every_option_is_explained() -> None:
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(commands.choices) >= {"colorize", "demo", "track", "inpaint", "train-prior", "evaluate", "ablate"}
    for name, command in commands.choices.items():
        silent = [action.dest for action in command._actions if not action.help or len(action.help) < 8]
        assert command.description and not silent, f"{name} says nothing of {silent}"


def test_a_usage_error_waits_for_no_heavy_library() -> None:
    code = "import sys; from omnifusion.__main__ import parser; parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "cv2", "diffusers", "gradio", "tqdm"} & set(loaded)


@pytest.mark.slow
def test_a_run_of_the_command_line_can_be_opened_again(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ["colorize", clips / "gray", "--out", out, "--exemplar", f"{clips / 'first.png'}@0", "--preset", "draft"]
    assert main([str(word) for word in [*argv, "--frames", "3", "--steps", "2", "--prompt", "a garden"]]) == 0
    run = open_run(out)
    assert run.request == RunRequest(
        "gray", choose("draft", steps=2, prompt="a garden"), 3, (0,), False, str((clips / "gray").absolute())
    )
    assert np.array_equal(read_image(run.exemplar(0)), read_image(clips / "first.png"))
    clip = prepare(read(run.clip, max_frames=3), [Exemplar(0, read_image(run.exemplar(0)))], 256)
    state, trackers = run.state(clip.L), run.trackers()
    assert state.mask.all() and not trackers and run.report["versions"]["torch"]
    assert all(np.array_equal(clip.full_size(state, t), run.frame(t).transpose(2, 0, 1)) for t in range(3))
    again = run_to_end(colorize(clip.L, clip.exemplar_ab(), run.request.settings, clip.shots, trackers=trackers))
    assert again.state.ab.equal(state.ab) and again.state.origin.int().equal(state.origin)


@pytest.mark.slow
def test_inpaint_fills_the_white_part_of_a_mask(
    clips: Path, truth: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = np.zeros((3, 72, 96), np.uint8)
    hole[:, 20:50, 30:70] = 255
    write_image(tmp_path / "mask.png", hole)
    argv = ["inpaint", clips / "first.png", "--mask", tmp_path / "mask.png", "--out", tmp_path / "out.png"]
    argv += ["--preset", "draft", "--steps", "2", "--exemplar", clips / "first.png", "--samples", "2"]
    assert main([str(word) for word in argv]) == 0
    names = [tmp_path / "out-1.png", tmp_path / "out-2.png"]
    assert capsys.readouterr().out.split() == [str(name) for name in names]
    fills = [read_image(name).astype(int) for name in names]
    known = hole[0] == 0
    assert max(np.abs(fill - truth[0])[:, known].max() for fill in fills) <= 2
    assert all(np.abs(fill - fill.mean(0))[:, ~known].mean() > 3 for fill in fills), "there is color in the hole"
    assert main([str(word) for word in [*argv, "--average"]]) == 0
    mean = read_image(tmp_path / "out.png")
    assert np.abs(mean - (fills[0] + fills[1]) / 2)[:, ~known].mean() < 1.5, "the average lies between the fills"
    write_image(tmp_path / "wide.png", np.zeros((3, 72, 200), np.uint8))
    argv[3] = tmp_path / "wide.png"
    assert "differ in size" in refused(capsys, *argv)


@pytest.mark.slow
def test_the_demo_runs_and_prints_how_it_went_beside_simpler_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["demo", "--frames", "6", "--preset", "draft", "--out", str(tmp_path / "demo")]
    assert main(argv) == 0
    table = re.findall(r"^  (\S.*?) +(\d+\.\d\d)$", capsys.readouterr().out, re.MULTILINE)
    psnr = {name.split()[0]: float(value) for name, value in table}
    assert set(psnr) == {"OmniFusion", "classical", "static", "gray"}
    assert psnr["OmniFusion"] > psnr["classical"] > psnr["static"] > psnr["gray"]
