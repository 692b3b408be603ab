"""Measuring: clips found, every method scored, failures noted, files resumed, tables that say what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
import torch

from omnifusion.cli import main
from omnifusion.evaluation import methods, tables
from omnifusion.evaluation.evaluate import Protocol, discover, evaluate, read, read_clip
from omnifusion.evaluation.methods import METHODS, Method, Sample, omnifusion
from omnifusion.progress import Canceled, InputError, Step, run_to_end
from omnifusion.settings import choose
from omnifusion.stages import Stages
from omnifusion.state import Origin
from omnifusion.video import write_image

PAINT = torch.tensor([12.0, -34.0])
SETTINGS = choose(omnimotion="draft", diffusion="always")
PROTOCOL = Protocol("set", SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def no_download() -> Iterator[None]:
    """LPIPS has tests of its own; here its weights are not to be had."""

    def missing() -> None:
        raise InputError("no weights here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnifusion.metrics.load_lpips", missing)
        yield


@pytest.fixture(scope="module")
def made() -> synthetic.MadeClip:
    return synthetic.make("two-layers", frames=6, size=(48, 80), seed=1)


@pytest.fixture(scope="module")
def clips(made: synthetic.MadeClip, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One clip that can be measured, one that is a broken file."""
    folder = tmp_path_factory.mktemp("set")
    (folder / "whole").mkdir()
    for t, frame in enumerate(made.video.frames):
        write_image(folder / "whole" / f"{t:05d}.png", frame)
    (folder / "broken.mp4").write_bytes(b"not a film")
    return discover(folder)


class Exact:
    """The scene's own correspondence as tracker, one color as prior; keeps what is asked of it."""

    def __init__(self, made: synthetic.MadeClip) -> None:
        self.made, self.fits, self.settings = made, 0, []
        self.stages = Stages(self.fit, self.paint)

    def fit(self, L, settings):
        self.fits += 1
        yield Step("fit", done=1.0)
        return self.made

    def paint(self, tasks, settings):
        self.settings.append(settings)
        yield Step("inpaint", done=1.0)
        return [torch.where(task.mask, task.ab, PAINT[:, None, None].expand_as(task.ab)) for task in tasks]


def measure(clips, methods, out: Path, stages: Stages | None = None, protocol: Protocol = PROTOCOL) -> pd.DataFrame:
    return run_to_end(evaluate(clips, methods, protocol, out, stages))


@pytest.fixture(scope="module")
def rows(made, clips, tmp_path_factory) -> pd.DataFrame:
    """Every method on both clips."""
    return measure(clips, METHODS, tmp_path_factory.mktemp("scores") / "deep" / "scores.json", Exact(made).stages)


@pytest.mark.parametrize("place", ["", "JPEGImages/480p", "input/videvo"])
def test_layouts(place: str, tmp_path: Path) -> None:
    for name in ("swan", "camel"):
        (tmp_path / place / name).mkdir(parents=True)
        write_image(tmp_path / place / name / "00000.png", np.zeros((3, 8, 8), np.uint8))
    (tmp_path / "Annotations" / "480p").mkdir(parents=True)
    (tmp_path / "val.txt").write_text("swan\n")
    assert list(discover(tmp_path)) == ["camel", "swan"]
    assert list(discover(tmp_path, ["swan"])) == ["swan"]
    assert list(discover(tmp_path, [str(tmp_path / "val.txt")])) == ["swan"]
    with pytest.raises(InputError, match="no clip dog"):
        discover(tmp_path, ["dog"])


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no clips"):
        discover(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        discover(tmp_path / "nowhere")


def test_frames_are_resized_by_area(clips, made) -> None:
    small = read_clip(clips["whole"], frames=3, scale=0.5)
    assert small.shape == (3, 3, 24, 40)
    blocks = made.video.frames[:3].reshape(3, 3, 24, 2, 40, 2).mean((3, 5))
    assert np.abs(small - blocks).max() <= 0.5
    assert np.array_equal(read_clip(clips["whole"]), made.video.frames)


def test_every_method_is_scored(rows) -> None:
    whole = rows[rows["clip"] == "whole"].set_index("method")
    assert list(whole.index) == [tables.GROUND_TRUTH, *METHODS] and whole["error"].isna().all()
    scored = whole.drop(tables.GROUND_TRUTH)
    assert scored[["psnr", "psnr_uint8", "ssim", "ciede2000", "cdc", "inpainted_psnr"]].notna().all(axis=None)
    assert (scored["seconds"] > 0).all() and (scored["peak_mib"] > 0).all() and scored["lpips"].isna().all()
    ours = whole.loc["omnifusion"]
    assert ours["propagated"] + ours["inpainted"] == pytest.approx(1.0) and ours["propagated"] > 0
    assert ours["psnr"] > whole.loc["gray", "psnr"]


def test_the_inpainted_region_is_scored_alone(made, clips, tmp_path: Path) -> None:
    sample = Sample(made.video.frames, SETTINGS, Exact(made).stages)
    frames, kind = run_to_end(omnifusion(sample))
    inside = kind == Origin.INPAINTED
    assert inside.shape == (6, 48, 80) and inside.any() and not inside[0].any()
    error = (frames.astype(float) - made.video.frames).transpose(0, 2, 3, 1)[inside]
    rows = measure({"whole": clips["whole"]}, {"omnifusion": omnifusion}, tmp_path / "s.json", Exact(made).stages)
    ours = rows.set_index("method").loc["omnifusion"]
    assert ours["inpainted_psnr"] == pytest.approx(10 * np.log10(255**2 / (error**2).mean()))
    assert ours["inpainted"] == pytest.approx(inside[1:].mean())


def test_a_fitted_tracker_is_asked_with_its_own_frame_numbers(made) -> None:
    """An old film has duplicate frames, which no tracker knows; they change little, whoever fits the tracker."""
    order, settings = [0, 1, 2, 2, 3, 4, 5], choose("draft", omnimotion="draft", max_side=80)

    def result(chosen: list[int], times: int) -> tuple[np.ndarray, np.ndarray, int]:
        truth, exact = made.video.frames[chosen], Exact(made)
        sample = Sample(truth, settings, exact.stages)
        frames, kind = [run_to_end(omnifusion(sample)) for _ in range(times)][-1]
        return frames.transpose(1, 0, 2, 3).astype(int), kind == Origin.INPAINTED, exact.fits

    clean, guessed, _ = result(list(range(6)), 1)
    for times in (1, 2):
        frames, inpainted, fits = result(order, times)
        tracked = ~(inpainted | guessed[order])
        assert np.abs(frames - clean[:, order])[:, tracked].mean() < 0.1 and fits == 1 and tracked.mean() > 0.8


def test_a_failure_is_noted_and_the_rest_goes_on(clips, tmp_path: Path) -> None:
    def fails(sample: Sample):
        yield Step("fit")
        raise RuntimeError("no luck today")

    rows = measure(clips, {"fails": fails, "gray": METHODS["gray"]}, tmp_path / "s.json")
    sentences = tables.failures(rows)
    assert len(sentences) == 2 and "reading failed on broken" in sentences[0]
    assert sentences[1] == "fails failed on whole: RuntimeError: no luck today"
    assert tables.means(rows).loc["gray", "psnr"] > 10 and sentences[1] in tables.evaluation(rows)


def test_cancellation_is_no_failure(clips, tmp_path: Path) -> None:
    def canceled(sample: Sample):
        yield Step("fit")
        raise Canceled

    with pytest.raises(Canceled):
        measure({"whole": clips["whole"]}, {"canceled": canceled}, tmp_path / "s.json")


def test_an_evaluation_resumes(clips, tmp_path: Path) -> None:
    out, runs, luck = tmp_path / "s.json", [], [False]

    def once(sample: Sample):
        runs.append(len(sample.ground_truth))
        if not luck[0]:
            raise RuntimeError("no luck")
        return (yield from METHODS["static"](sample))

    methods: dict[str, Method] = {"once": once, "gray": METHODS["gray"]}
    one = {"whole": clips["whole"]}
    assert len(tables.failures(measure(one, methods, out))) == 1
    luck[0] = True
    first = measure(one, methods, out)
    assert runs == [6, 6] and not tables.failures(first)
    assert measure(one, methods, out).equals(first) and runs == [6, 6]
    both = measure(one | {"again": clips["whole"]}, methods, out)
    assert runs == [6, 6, 6] and list(both["clip"].unique()) == ["whole", "again"]
    with pytest.raises(InputError, match="other choices"):
        measure(one, methods, out, protocol=replace(PROTOCOL, scale=0.5))
    with pytest.raises(InputError, match="other choices"):
        measure(one, {"gray": METHODS["gray"]}, out)
    for text in ("{}", "[]", '{"rows": 3}', "no json"):
        out.write_text(text)
        with pytest.raises(InputError, match="does not hold"):
            measure(one, methods, out)
    with pytest.raises(OSError):
        measure(one, methods, out / "below.json")


def test_a_clip_without_color_has_no_ground_truth(made) -> None:
    gray = np.repeat(made.video.frames[:, :1], 3, axis=1)
    with pytest.raises(InputError, match="black and white"):
        Sample(gray, SETTINGS).clip()


def test_tables(rows) -> None:
    text = tables.evaluation(rows)
    assert all(f"| {name} " in text for name in METHODS) and "27.87" in text and "no weights here" in text
    assert "set, 2 clips, whole clips, scale 1, standard preset, bundled prior" in text
    levin = rows.set_index("method").loc["levin", "psnr"]
    assert tables.by_clip(rows).loc["levin", "whole"] == pytest.approx(levin) and f" {levin:.2f} |" in text
    assert tables.means(rows).loc["levin", "psnr"] == pytest.approx(levin)
    assert " – " in text and "nan" not in text.lower()


def test_means_are_over_clips_and_peaks_the_largest() -> None:
    rows = pd.DataFrame(columns=["clip", "method", *tables.COLUMNS, "error"])
    rows.loc[0, ["clip", "method", "psnr", "peak_mib"]] = ["a", "gray", 20.0, 300.0]
    rows.loc[1, ["clip", "method", "psnr", "peak_mib"]] = ["b", "gray", 23.0, 200.0]
    rows.loc[2, ["clip", "method", "error"]] = ["c", "gray", "no luck"]
    rows = rows.astype(dict.fromkeys(tables.COLUMNS, float))
    assert tables.means(rows).loc["gray", ["psnr", "peak_mib"]].tolist() == [21.5, 300.0]
    assert tables.by_clip(rows).loc["gray"].to_dict() == {"a": 20.0, "b": 23.0, "mean": 21.5}


@pytest.mark.slow
def test_ablation_changes_what_it_says(made, clips, tmp_path: Path) -> None:
    exact = Exact(made)
    variants, short = methods.TABLE_2_METHODS, replace(PROTOCOL, frames=3)
    rows = measure({"whole": clips["whole"]}, variants, tmp_path / "s.json", exact.stages, short)
    assert exact.fits == 1, "the rows share the clip's tracker"
    asked = [(s.steps, s.optimizations, s.color_condition, s.gray_constraint) for s in exact.settings]
    S = SETTINGS.steps
    assert list(dict.fromkeys(asked)) == [
        (S, 1, True, True),
        (2 * S, 1, True, True),
        (S, 3, True, True),
        (S, 1, False, True),
        (S, 1, True, False),
        (S, 1, False, False),
    ]
    text = tables.table_2(rows)
    assert all(f"| {name} " in text for name in methods.TABLE_2) and "25.37" in text


def test_evaluate_from_the_command_line(clips, tmp_path: Path, capsys) -> None:
    folder, scores, page = str(clips["whole"].parent), tmp_path / "s.json", tmp_path / "results.md"
    command = ["evaluate", folder, "--clips", "whole", "--frames", "4", "--methods", "flow-warp,gray"]
    assert main([*command, "--json", str(scores), "--markdown", str(page)]) == 0
    assert page.read_text() in capsys.readouterr().out and "flow-warp" in page.read_text()
    assert json.loads(scores.read_text())["protocol"]["frames"] == 4
    assert set(read(scores)["method"]) == {tables.GROUND_TRUTH, "flow-warp", "gray"}
    assert main(["evaluate", folder, "--methods", "flow-wrap"]) == 2
    assert "flow-wrap" in capsys.readouterr().err
    assert main(["evaluate", folder, "--prior", "no/where/at/all"]) == 2, "a prior is missed before any work"
    assert "no/where/at/all" in capsys.readouterr().err
    assert main(["evaluate", folder, "--frames", "3", "--methods", "gray"]) == 1, "a clip is broken"
    assert "reading failed on broken" in capsys.readouterr().out
