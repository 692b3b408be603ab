"""Measuring: clips found, scores kept and resumed, failures noted, tables and pictures that say what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import synthetic
import torch

from omnifusion import visualize as picture
from omnifusion.cli import main
from omnifusion.evaluation import ablation, dataset, figures, methods, tables
from omnifusion.evaluation.evaluate import Evaluation, Scorer, pooled
from omnifusion.evaluation.methods import Case, Outcome
from omnifusion.evaluation.report import html_report
from omnifusion.evaluation.scores import Protocol, Scoreboard
from omnifusion.inpaint import Kernels
from omnifusion.progress import InputError, Meter, Step, run_to_end
from omnifusion.settings import choose
from omnifusion.stages import Stages
from omnifusion.state import ColorState, Origin
from omnifusion.video import write_image

PAINT = torch.tensor([12.0, -34.0])
SETTINGS = choose(omnimotion="draft", diffusion="always")
PROTOCOL = Protocol("set", None, 1.0, SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def no_download() -> Iterator[None]:
    """LPIPS has tests of its own; here its backbone is not to be had."""

    def missing(weights: Path | None = None) -> None:
        raise InputError("no backbone here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnifusion.metrics.lpips_network", missing)
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
    return dataset.discover(folder)


class Exact:
    """The sample's own correspondence as tracker, one color as prior; counts what is asked of it."""

    def __init__(self, made: synthetic.MadeClip) -> None:
        self.made, self.fits, self.settings = made, 0, []
        self.stages = Stages(self.flow, self.fit, self.paint)

    def flow(self, L, settings):
        yield Step("flow", done=1.0)

    def fit(self, L, flows, settings):
        self.fits += 1
        yield Step("fit", done=1.0)
        return self.made

    def paint(self, tasks, settings):
        self.settings.append(settings)
        yield Step("inpaint", done=1.0)
        return [torch.where(task.mask, task.ab, PAINT[:, None, None].expand_as(task.ab)) for task in tasks]


@pytest.fixture(scope="module")
def measured(made, clips, tmp_path_factory) -> Scoreboard:
    """Every method on both clips."""
    return measure(clips, methods.METHODS, tmp_path_factory.mktemp("scores") / "scores.json", Exact(made).stages)


def measure(clips, methods, path: Path, stages: Stages | None = None) -> Scoreboard:
    scores = Scoreboard.begin(path, PROTOCOL)
    return run_to_end(Evaluation(PROTOCOL, scores, Scorer(), stages or Stages()).run(clips, methods))


def kept(scores: Scoreboard, method: str) -> Outcome:
    return scores.outcomes("whole", [method])[method]


# --- clips ---


@pytest.mark.parametrize("place", ["", "JPEGImages/480p", "input/videvo"])
def test_layouts(place: str, tmp_path: Path) -> None:
    for name in ("swan", "camel"):
        (tmp_path / place / name).mkdir(parents=True)
        write_image(tmp_path / place / name / "00000.png", np.zeros((3, 8, 8), np.uint8))
    (tmp_path / "Annotations" / "480p").mkdir(parents=True)
    (tmp_path / "val.txt").write_text("swan\n")
    assert list(dataset.discover(tmp_path)) == ["camel", "swan"]
    assert list(dataset.discover(tmp_path, ["swan"])) == ["swan"]
    assert list(dataset.discover(tmp_path, [str(tmp_path / "val.txt")])) == ["swan"]
    with pytest.raises(InputError, match="no clip dog"):
        dataset.discover(tmp_path, ["dog"])


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no clips"):
        dataset.discover(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        dataset.discover(tmp_path / "nowhere")


def test_load_resizes_by_area(clips, made) -> None:
    small = dataset.read_clip(clips["whole"], frames=3, scale=0.5)
    assert small.shape == (3, 3, 24, 40)
    blocks = made.video.frames[:3].reshape(3, 3, 24, 2, 40, 2).mean((3, 5))
    assert np.abs(small - blocks).max() <= 0.5
    assert np.array_equal(dataset.read_clip(clips["whole"]), made.video.frames)


# --- scores ---


def test_pooled_scores_are_those_of_all_pixels_together() -> None:
    errors = [np.array([1.0, 2.0, 9.0]), np.array([4.0])]
    psnr = np.array([*(10 * np.log10(255**2 / np.mean(e**2)) for e in errors), np.nan])
    counts = np.array([3, 1, 0])
    assert pooled("psnr", psnr, counts) == pytest.approx(10 * np.log10(255**2 / np.mean(np.concatenate(errors) ** 2)))
    assert pooled("ciede2000", np.array([4.0, 4.0, np.nan]), counts) == pytest.approx(4.0)
    assert pooled("ssim", np.array([1.0, 0.0, np.nan]), counts) == pytest.approx(0.75)


def test_a_measurement_is_whole(measured, made) -> None:
    assert Scoreboard.read(measured.path) == measured
    whole = measured.clips["whole"]
    assert set(whole["methods"]) == set(methods.METHODS)
    for name, entry in whole["methods"].items():
        assert "error" not in entry, entry
        assert set(entry) >= {"psnr", "psnr_uint8", "ssim", "ciede2000", "cdc", "color"}
        assert entry["seconds"] >= 0 and entry["peak_mib"] > 0
        assert len(entry["curves"]["psnr"]) == 5
        assert entry["psnr"] == pytest.approx(np.mean(entry["curves"]["psnr"]), abs=1e-4)
        frames = kept(measured, name).frames
        assert frames.shape == made.video.frames.shape
        assert np.abs(frames[0].astype(int) - made.video.frames[0]).max() <= (255 if name == "gray" else 3)
    assert whole["methods"]["gray"]["color"] < 0.02
    assert whole["methods"]["omnifusion"]["cpu_seconds"] > 0


def test_shares_and_regions(measured) -> None:
    entries, whole = measured.clips["whole"]["methods"], kept(measured, "omnifusion")
    ours, blind = entries["omnifusion"], entries["inpainting-only"]
    assert ours["propagated"] + ours["inpainted"] == pytest.approx(1.0)
    assert ours["inpainted"] == pytest.approx((whole.kind[1:] == Origin.INPAINTED).mean())
    alone = kept(measured, "omnimotion-only")
    assert set(np.unique(alone.kind[1:])) == {-1, Origin.PROPAGATED}
    gray = alone.frames.transpose(0, 2, 3, 1)[alone.kind < 0].astype(int)
    assert np.ptp(gray, axis=1).max() <= 2
    assert (blind["propagated"], blind["inpainted"]) == (0.0, 1.0)
    # where OmniFusion propagated at its first iteration, the tracker alone has the same colors: better than gray there
    assert entries["omnimotion-only"]["propagated psnr"] > entries["gray"]["propagated psnr"]
    truth, inside = kept(measured, "truth").frames, whole.kind == Origin.INPAINTED
    error = (whole.frames.astype(float) - truth).transpose(0, 2, 3, 1)[inside]
    assert ours["inpainted psnr"] == pytest.approx(10 * np.log10(255**2 / (error**2).mean()))


def test_a_failure_is_noted_and_the_rest_goes_on(made, clips, tmp_path: Path) -> None:
    def fails(case: Case):
        yield Step("fit")
        raise RuntimeError("no luck today")

    wanted = {"fails": fails, "gray": methods.METHODS["gray"]}
    scores = measure(clips, wanted, tmp_path / "s.json")
    assert "no luck today" in scores.clips["whole"]["methods"]["fails"]["error"]
    assert "psnr" in scores.clips["whole"]["methods"]["gray"]
    assert scores.clips["broken"]["error"]
    notes = scores.failures()
    assert len(notes) == 2 and any("broken" in note for note in notes)
    assert "no luck today" in str(tables.main_table(scores))


def test_a_measurement_resumes(made, clips, tmp_path: Path) -> None:
    one, path, ran = {"whole": clips["whole"]}, tmp_path / "s.json", []

    def counted(name: str) -> methods.Method:
        def run(case: Case):
            ran.append(name)
            return (yield from methods.METHODS[name](case))

        return run

    def again(*names: str) -> list[str]:
        ran.clear()
        measure(one, {n: counted(n) for n in names}, path, exact.stages)
        return list(ran)

    exact = Exact(made)
    assert again("static", "gray") == ["static", "gray"]
    assert again("static", "gray") == []
    assert again("static", "gray", "flow-warp") == ["flow-warp"]
    assert again("omnifusion", "static", "gray") == ["omnifusion", "static", "gray"]
    assert "inpainted psnr" in json.loads(path.read_text())["clips"]["whole"]["methods"]["gray"]
    with pytest.raises(InputError, match="other choices"):
        Scoreboard.begin(path, replace(PROTOCOL, scale=0.5))
    path.write_text("{}")
    with pytest.raises(InputError, match="not a file"):
        Scoreboard.begin(path, PROTOCOL)


def test_a_shared_fit_is_charged_to_all_who_use_it(made) -> None:
    case = Case(made.video.frames, SETTINGS, Exact(made).stages)
    fitted = run_to_end(methods.omnifusion(case))
    shared = run_to_end(methods.omnimotion_only(case))
    assert fitted.borrowed == (0.0, 0.0)
    assert shared.borrowed == case.spent() and min(shared.borrowed) > 0
    assert run_to_end(methods.METHODS["gray"](case)).borrowed == (0.0, 0.0)


def test_a_clip_without_color_has_no_truth(made) -> None:
    gray = np.repeat(made.video.frames[:, :1], 3, axis=1)
    with pytest.raises(InputError, match="black and white"):
        Case(gray, SETTINGS).clip()


def test_meter_sees_time_and_memory() -> None:
    with Meter() as meter:
        np.ones(100 << 17).sum()
    with Meter() as after:
        pass
    assert meter.seconds > 0 and meter.cpu_seconds > 0
    assert 90 <= meter.added_mib <= meter.peak_mib
    assert after.added_mib < 50


# --- tables and pictures ---


def test_tables(measured) -> None:
    text = str(tables.main_table(measured))
    assert all(name in text for name in methods.METHODS)
    assert "broken could not be measured" in text
    levin = measured.entries("levin")["whole"]["psnr"]
    assert f"{levin:.2f}" in str(tables.clip_table(measured))
    beside = str(tables.paper_table(measured))
    assert "no backbone here" in text
    assert "27.87" in beside and beside.count("not run") >= 8
    assert tables.region_table(measured) is not None


def test_gains_over_the_better_peer() -> None:
    def entry(psnr: float, delta: float) -> dict:
        return {"psnr": psnr, "ciede2000": delta, "cdc": 0.01, "inpainted psnr": psnr - 5}

    clips = {
        "a": {"omnifusion": entry(32, 3.0), "levin": entry(30, 4.0), "flow-warp": entry(31, 5.0)},
        "b": {"omnifusion": entry(29, 6.0), "levin": entry(30, 5.0), "flow-warp": entry(20, 8.0)},
    }
    table = tables.gain_table(Scoreboard(Path(), {}, {name: {"methods": m} for name, m in clips.items()}))
    rows = {row[0]: row[1:] for row in table.cells()}
    # means: 30.5 against levin's 30, 4.5 against levin's 4.5
    assert rows["PSNR, dB"] == ["+1.00", "-1.00", "+0.50"]
    assert rows["ΔE00"] == ["-25.0%", "+20.0%", "+0.0%"]
    assert rows["PSNR of inpainted pixels, dB"] == ["+1.00", "-1.00", "+0.50"]
    assert rows["PSNR of propagated pixels, dB"] == ["–"] * 3


def test_sections_are_replaced_in_place(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n")
    for key, body in [("a", "one"), ("b", "two"), ("a", "three"), ("a", "three")]:
        tables.put_section(page, key, key.upper(), body)
    assert re.findall(r"^# .*|^## .*|^\w+$", page.read_text(), re.M) == ["# Results", "## A", "three", "## B", "two"]


def test_report_opens_offline(measured) -> None:
    page = html_report(measured, tables.evaluation_tables(measured))
    assert not re.search(r"https?:|<script|<link|src='(?!data:)", page)
    assert page.count("<svg") == 2 and page.count("<polyline") == len(methods.METHODS) + 2
    assert "data:image/jpeg;base64," in page


def test_overlay_tints_by_origin() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    kind = np.array([[-1, 0], [1, 2]])
    tinted = picture.overlay(image, kind, opacity=0.5)
    assert (tinted[:2, :2] == 100).all()
    for origin, corner in ((0, (0, 3)), (1, (3, 0)), (2, (3, 3))):
        expected = (100 + np.array(picture.TINTS[Origin(origin)])) / 2
        assert np.abs(tinted[corner] - expected).max() <= 0.5


def test_sheet_places_every_cell() -> None:
    red, blue = (np.full((10, 20, 3), c, np.uint8) for c in ((255, 0, 0), (0, 0, 255)))
    page = picture.sheet([[red, None], [None, blue]], ["a", "b"], ["x", "y"], width=40)
    for color in ((255, 0, 0), (0, 0, 255)):
        y, x = np.nonzero((page == color).all(-1))
        assert len(y) == 20 * 40 and np.ptp(y) == 19 and np.ptp(x) == 39
    assert np.nonzero((page == (255, 0, 0)).all(-1))[1].max() < np.nonzero((page == (0, 0, 255)).all(-1))[1].min()


def test_the_zoom_finds_where_methods_differ() -> None:
    frames = np.full((3, 3, 40, 60), 120, np.uint8)
    other = frames.copy()
    other[2, 0, 20:28, 30:44] = 250
    region = figures.most_different("clip", {"a": Outcome(frames), "b": Outcome(other)}, range(3))
    left, top, right, bottom = region.box
    assert region.frame == 2
    assert left <= 30 and right >= 44 and top <= 20 and bottom >= 28
    assert (right - left, bottom - top) == (18, 12)


def test_partly_colored_is_gray_where_inpainted() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
    kind = np.full((1, 4, 4), Origin.PROPAGATED)
    kind[0, :2] = Origin.INPAINTED
    image = figures.partly_colored(Outcome(frames, kind), 0)
    assert np.ptp(image[:4], axis=-1).max() == 0
    assert np.array_equal(image[4:], frames[0].transpose(1, 2, 0)[4:])


def test_origins_are_stretched_to_the_frames() -> None:
    kind = np.array([[[0, 1], [2, -1]]])
    where = Outcome(np.zeros((1, 3, 4, 4), np.uint8), kind).came_by(Origin.INPAINTED)
    assert np.array_equal(where[0], np.kron(kind[0] == 2, np.ones((2, 2), bool)))


# --- commands ---


def test_ablation_changes_what_it_says(made, clips, tmp_path: Path) -> None:
    exact = Exact(made)
    scores = measure({"whole": clips["whole"]}, ablation.rows_of_table_2(), tmp_path / "s.json", exact.stages)
    assert exact.fits == 1
    seen = list(dict.fromkeys((s.steps, s.optimizations, s.color_condition, s.gray_constraint) for s in exact.settings))
    S = SETTINGS.steps
    assert seen == [
        (S, 1, True, True),
        (2 * S, 1, True, True),
        (S, 3, True, True),
        (S, 1, False, True),
        (S, 1, True, False),
        (S, 1, False, False),
    ]
    table = ablation.paper_ablation(scores, SETTINGS)
    assert [row[0] for row in table.rows] == list(ablation.ROWS)
    assert figures.details(scores, list(ablation.ROWS), 6).shape[1] > 8 * 190


def test_each_part_is_measured_with_and_without_it(made, clips, tmp_path: Path) -> None:
    exact, plain = Exact(made), Kernels()
    heard, asked, near = {}, {}, {}

    def fetched(tracker, state, i, j, close, *rest):
        near[name].add(close)
        return plain.fetched(tracker, state, i, j, close, *rest)

    def lookup(frame, where, references):
        asked[name].append(int(where.sum()))
        return plain.lookup(frame, where, references)

    stages = replace(exact.stages, kernels=replace(plain, fetched=fetched, lookup=lookup))
    scores = Scoreboard.begin(tmp_path / "s.json", PROTOCOL)
    for name, method in ablation.with_and_without_parts().items():
        near[name], asked[name], before = set(), [], len(exact.settings)
        run_to_end(Evaluation(PROTOCOL, scores, Scorer(), stages).run({"whole": clips["whole"]}, {name: method}))
        heard[name] = exact.settings[before:]
    assert not scores.failures()
    assert not any(asked["no lookup"]) and any(asked[ablation.WHOLE])
    assert near["chains alone"] == {True} and near[ablation.WHOLE] == {True, False}
    assert {s.order for s in heard["next in time"]} == {"next"} and {
        s.trust_tracker for s in heard["all believed"]
    } == {True}
    assert not any(s.color_condition for s in heard["diffusion without eq. (2)"])
    assert not any(s.gray_constraint for s in heard["diffusion without eq. (3)-(4)"])
    assert {s.strength for s in heard["diffusion from noise"]} == {None}
    assert [row[0] for row in ablation.part_table(scores).rows] == list(ablation.PARTS)


def test_only_sure_colors_are_heard(made) -> None:
    case = methods.Case(made.video.frames, SETTINGS)
    kernels = ablation.VARIANTS["sure colors alone"](case).stages.kernels
    state = ColorState.of_exemplars(case.clip().L, case.clip().exemplar_ab())
    (found, believed), (all_found, _) = (k.fetched(made, state, 3, 0) for k in (kernels, Kernels()))
    assert torch.equal(found.confidence, all_found.confidence * believed)


def test_what_a_part_earns_and_takes() -> None:
    def entry(psnr: float, seconds: float) -> dict:
        return {"psnr": psnr, "ciede2000": 3.0, "cdc": 0.01, "cpu_seconds": seconds}

    clips = {
        "a": {ablation.WHOLE: entry(32, 100), "a volume": entry(33, 200), "next in time": entry(32.5, 100)},
        "b": {ablation.WHOLE: entry(30, 60), "a volume": entry(31, 120), "next in time": {"error": "no luck"}},
    }
    table = ablation.part_table(Scoreboard(Path(), {}, {name: {"methods": m} for name, m in clips.items()}))
    order, volume = (dict(zip(table.forms, row, strict=True)) for row in table.cells())
    assert volume["part"] == "fitted volume" and volume["earned, dB"] == "+1.00"
    assert volume["of the time with it"] == "50.0%" and volume["dB per tenth of the time"] == "+0.20"
    assert order["earned, dB"] == "-0.50" and order["dB per tenth of the time"] == "costs nothing"


def test_evaluate_and_gallery_from_the_command_line(clips, tmp_path: Path, capsys) -> None:
    scores, page = tmp_path / "s.json", tmp_path / "results.md"
    folder = str(clips["whole"].parent)
    words = [
        "evaluate",
        folder,
        "--clips",
        "whole",
        "--frames",
        "4",
        "--methods",
        "flow-warp,gray",
        "--json",
        str(scores),
    ]
    assert main([*words, "--html", str(tmp_path / "r.html"), "--markdown", str(page)]) == 0
    assert "flow-warp" in capsys.readouterr().out
    assert "not run" in page.read_text()
    assert (tmp_path / "r.html").stat().st_size > 10_000
    assert main(["gallery", str(scores), "--out", str(tmp_path / "g"), "--box", "4,4,30,20"]) == 0
    assert cv2.imread(str(tmp_path / "g" / "whole.png")).shape[1] > 3 * 320
    assert main(["gallery", str(scores), "--out", str(tmp_path / "g"), "--frames", "9"]) == 2
    assert main([*words, "--html", str(scores / "below" / "a" / "file.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["evaluate", folder, "--methods", "flow-wrap"]) == 2
    assert "flow-wrap" in capsys.readouterr().err


def test_a_missing_prior_is_told_before_any_fit(clips, capsys) -> None:
    assert main(["evaluate", str(clips["whole"].parent), "--prior", "no/where/at/all"]) == 2
    assert "no/where/at/all" in capsys.readouterr().err


def test_a_broken_clip_ends_in_status_1(clips, capsys) -> None:
    assert main(["evaluate", str(clips["broken"].parent), "--frames", "3", "--methods", "gray"]) == 1
    assert "broken could not be measured" in capsys.readouterr().out


@pytest.mark.slow
def test_bench_measures_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("omnifusion.evaluation.bench.SIZE", (64, 96))
    figures_file = tmp_path / "bench.json"
    assert main(["bench", "--preset", "draft", "--frames", "2,4", "--json", str(figures_file)]) == 0
    rows = json.loads(figures_file.read_text())["rows"]
    assert {(row["stage"], row["frames"]) for row in rows} == {
        (s, n) for s in ("tracker", "propagation of one exemplar", "whole run", "frames at full size") for n in (2, 4)
    }
    by = {(row["stage"], row["frames"]): row for row in rows}
    for row in rows:
        assert row["seconds"] > 0 and row["ratio"] == pytest.approx(row["seconds"] / row["reference_seconds"])
    assert by["whole run", 4]["seconds"] > by["tracker", 4]["seconds"]
    assert "ratio to reference" in capsys.readouterr().out
    assert main(["bench", "--frames", "1"]) == 2
