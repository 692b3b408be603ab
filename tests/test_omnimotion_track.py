"""The ``track`` and ``bench-tracker`` commands, and kernels where nothing can be cached."""

from dataclasses import replace

import numpy as np
import pytest
import synthetic

from omnifusion.cli import main
from omnifusion.omnimotion import PRESETS, compiled
from omnifusion.omnimotion.optimize import Schedule
from omnifusion.video import read_image, write_image


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setitem(PRESETS, "draft", replace(PRESETS["draft"], iterations=30, schedule=Schedule(rays=32)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip")
    for t, frame in enumerate(synthetic.make("pan", frames=4, size=(72, 96)).video.frames):
        write_image(place / f"{t:03d}.png", frame)
    return place


def test_track_writes_points_visibility_and_a_picture(folder, tmp_path, capsys):
    out, picture = tmp_path / "tracks.npz", tmp_path / "tracks.png"
    words = [
        "track",
        str(folder),
        "--out",
        str(out),
        "--query-frame",
        "1",
        "--preset",
        "draft",
        "--picture",
        str(picture),
    ]
    assert main(words) == 0
    data = np.load(out)
    assert data["points"].shape == (4, 72, 96, 2) and data["points"].dtype == np.float32
    assert data["visible"].shape == (4, 72, 96) and data["visible"].dtype == bool
    assert data["size"].tolist() == [72, 96]
    y, x = np.mgrid[:72, :96]
    assert np.array_equal(data["points"][1], np.stack([x, y], -1)) and data["visible"][1].all()
    truth = synthetic.make("pan", frames=4, size=(72, 96))
    assert read_image(picture).shape == (3, 144, 288)
    import torch

    exact, seen = truth.correspond(torch.from_numpy(data["points"][1].reshape(-1, 2)), 1, 3)
    error = np.linalg.norm(data["points"][3].reshape(-1, 2) - exact.numpy(), axis=1)[seen.numpy()]
    assert np.median(error) < 0.3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query-frame", "9"], "no frame 9"),
        (["--max-side", "20"], "from 64 on"),
        (["--preset", "fast"], "preset"),
    ],
)
def test_track_tells_what_is_wrong(folder, tmp_path, capsys, words, message):
    assert main(["track", str(folder), "--out", str(tmp_path / "t.npz"), *words]) == 2
    assert message in capsys.readouterr().err


def test_kernels_work_where_no_cache_can_be_written(monkeypatch):
    made = []

    def fussy(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: made.append(function) or function

    monkeypatch.setattr(compiled, "njit", fussy)
    assert compiled.kernel(len) is len
    assert made == [len]


@pytest.mark.slow
def test_bench_shows_growth(folder, tmp_path, capsys):
    words = ["bench-tracker", "--scenes", "", "--preset", "draft", "--growth", str(folder), "--lengths", "3", "2"]
    page = tmp_path / "tracker.md"
    assert main([*words, "--markdown", str(page)]) == 0
    rows = [line.split("|")[1:3] for line in page.read_text().splitlines() if line.startswith(("| 2 ", "| 3 "))]
    assert [int(frames) for frames, _ in rows] == [2, 3] and all(float(seconds) > 0 for _, seconds in rows)
    assert main([*words[:-2], "99"]) == 2
    assert "ask for fewer" in capsys.readouterr().err


@pytest.mark.slow
def test_bench_writes_its_tables(tmp_path):
    page = tmp_path / "tracker.md"
    assert (
        main(
            [
                "bench-tracker",
                "--scenes",
                "pan",
                "--seeds",
                "1",
                "--frames",
                "4",
                "--preset",
                "draft",
                "--markdown",
                str(page),
            ]
        )
        == 0
    )
    cells = next(line for line in page.read_text().splitlines() if line.startswith("| pan")).split("|")
    assert float(cells[2]) > 80 and float(cells[3]) > 90
