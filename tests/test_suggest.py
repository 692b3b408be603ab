"""Suggestions go where uncertainty is and exemplars are far; export touches chroma alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from omnifusion import video
from omnifusion.cli import main
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.correction.suggest import drawn, suggest, uncertainty
from omnifusion.run.folder import open_run
from omnifusion.state import ColorState


def state() -> ColorState:
    """Twenty frames that show the same as the first, which was given."""
    gray = ColorState.gray(torch.rand(20, 1, 12, 16) * 100)
    source = -(torch.arange(20, dtype=torch.int32) * 12 * 16)[:, None, None].expand(20, 12, 16).contiguous()
    origin = torch.ones_like(gray.origin)
    origin[0] = 0
    return replace(gray, origin=origin, source=source, confidence=torch.ones_like(gray.confidence))


def test_an_uncertain_frame_far_from_exemplars_is_suggested_first() -> None:
    sure = state()
    confidence = sure.confidence.clone()
    confidence[13:16, 6:, 8:] = 0.1
    confidence[3, :8, :8] = 0.3
    first, second = suggest(replace(sure, confidence=confidence), 2)
    assert 13 <= first.frame <= 15 and first.region[8:, 10:].all() and not first.region[:3].any()
    assert abs(second.frame - first.frame) > 1 and first.share > 0.5 > second.share > 0
    assert uncertainty(ColorState.gray(sure.L)).min() == 1


def test_where_all_is_equally_uncertain_gaps_are_halved() -> None:
    ends = state()
    ends.origin[-1] = 0
    assert [s.frame for s in suggest(ends, 3)] in ([9, 4, 14], [9, 14, 4], [10, 5, 15], [9, 14, 5])


def test_an_exemplar_is_never_suggested() -> None:
    frames = [suggestion.frame for suggestion in suggest(state(), 30)]
    assert sorted(frames) == list(range(1, 20))
    assert len(suggest(ColorState.gray(torch.zeros(1, 1, 12, 16)))) == 1, "a clip without an exemplar"


def test_uncertainty_is_drawn_over_its_frame() -> None:
    picture = np.full((3, 24, 32), 90, np.uint8)
    unsure = torch.zeros(12, 16)
    unsure[:, 8:] = 1
    overlay = drawn(picture, unsure, torch.zeros(12, 16, dtype=torch.bool))
    assert overlay.shape == picture.shape and (overlay[:, :, :12] == 90).all() and (overlay[0, :, 20:] > 150).all()


def test_a_run_is_exported_and_its_uncertainty_is_drawn(tmp_path: Path, capsys) -> None:
    import synthetic

    frames = synthetic.make("pan", frames=3, size=(48, 80)).video.frames
    for t, frame in enumerate(frames):
        (tmp_path / "clip").mkdir(exist_ok=True)
        video.write_image(tmp_path / "clip" / f"{t}.png", frame)
    run = tmp_path / "run"
    assert main(["colorize", str(tmp_path / "clip"), "--out", str(run), "--preset", "draft", "--frames", "3"]) == 0
    assert main(["finish", str(run), "--out", str(tmp_path / "chroma"), "--chroma"]) == 0
    ab = np.stack([open_run(run).colors(t)["ab"].numpy() for t in range(3)])
    read = cv2.imread(str(tmp_path / "chroma" / "00001.png"), cv2.IMREAD_UNCHANGED).astype(float)
    assert read.shape == (48, 80, 3) and (read[..., 2] == 32768).all()
    assert np.abs((read[..., 1] - 32768) / 256 - ab[1, 0]).max() < 0.01
    assert main(["finish", str(run), "--out", str(tmp_path / "chroma.mkv"), "--chroma"]) == 0
    with av.open(str(tmp_path / "chroma.mkv")) as film:
        filmed = [picture.to_ndarray(format="rgb48le") for picture in film.decode(video=0)]
    assert len(filmed) == 3 and np.array_equal(filmed[1], read[..., ::-1]), "film and pictures hold the same"
    (run / "colors").rename(tmp_path / "colors")
    assert main(["finish", str(run), "--out", str(tmp_path / "none.mkv"), "--chroma"]) == 2
    (tmp_path / "colors").rename(run / "colors")
    assert main(["finish", str(run), "--out", str(tmp_path / "pale"), "--saturation", "0.5"]) == 0
    pale, full = (
        rgb_to_lab(from_uint8(video.read_image(folder / "frames" / "00001.png"))) for folder in (tmp_path / "pale", run)
    )
    assert (pale[0] - full[0]).abs().max() < 1 and (pale[1:] - full[1:] / 2).abs().max() < 1.5
    assert main(["export", str(run), "--out", str(tmp_path / "pale")]) == 2, "it is there already"
    capsys.readouterr()
    assert main(["suggest", str(run), "--most", "1", "--out", str(tmp_path / "next")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("frame ") and len(list((tmp_path / "next").iterdir())) == 1
