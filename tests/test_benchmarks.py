"""The research tools run, and measure what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import synthetic

from omnifusion.evaluation.evaluate import Protocol, evaluate
from omnifusion.evaluation.methods import METHODS, Sample
from omnifusion.progress import InputError, run_to_end
from omnifusion.settings import choose
from omnifusion.video import write_image

sys.path.append(str(Path(__file__).parent.parent))

from benchmarks import confidence, gpu, results


def test_a_logistic_and_its_reliability_are_found_again() -> None:
    random = np.random.default_rng(0)
    figures = random.normal(size=(20_000, 2))
    p = 1 / (1 + np.exp(-(figures @ [1.5, -0.7] + 0.4)))
    labels = random.random(len(p)) < p
    assert confidence.logistic(figures, labels) == pytest.approx([1.5, -0.7, 0.4], abs=0.1)
    table = confidence.reliability(p, labels)
    assert table["pixels"].sum() == len(p) and list(table.index) == pytest.approx(np.arange(10) / 10)
    assert np.abs(table["mean"] - table["right"]).max() < 0.06
    modest = confidence.reliability(p**3, labels)
    assert (modest["right"] - modest["mean"]).max() > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("sample", [confidence.warped, confidence.transferred])
def test_confidence_is_calibrated_on_clips(sample) -> None:
    fitted, tested = (
        {name: np.asarray(synthetic.make(name, 6, (90, 160), seed=seed).video.frames)}
        for name, seed in (("two-layers", 0), ("three-layers", 1))
    )
    weights, table = confidence.calibrate(fitted, tested, sample)
    assert (weights[:-1] < 0).sum() >= 2 if sample is confidence.warped else weights[0] > 0.3
    low, high = table[table.index < 0.5], table[table.index >= 0.8]
    assert table["pixels"].sum() > 300
    assert np.average(high["right"], weights=high["pixels"]) > np.average(low["right"], weights=low["pixels"]) + 0.2


def test_evaluations_are_joined_into_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise InputError("no weights here")

    monkeypatch.setattr("omnifusion.metrics.load_lpips", missing)
    frames = synthetic.make("pan", 3, (32, 48)).video.frames
    (tmp_path / "set" / "one").mkdir(parents=True)
    for t, frame in enumerate(frames):
        write_image(tmp_path / "set" / "one" / f"{t}.png", frame)

    def ours(sample: Sample):
        return METHODS["static" if sample.settings.preset == "draft" else "flow-warp"](sample)

    def measured(preset: str, frames: int | None = None) -> Path:
        out, protocol = tmp_path / f"{preset}{frames}.json", Protocol("set", choose(preset), frames)
        methods = {"omnifusion": ours, "levin": METHODS["levin"]}
        run_to_end(evaluate({"one": tmp_path / "set" / "one"}, methods, protocol, out))
        return out

    rows = results.joined([measured("standard"), measured("draft")])
    means, every, gain = results.tables(rows)
    names = [line.split("|")[1].strip() for line in means.splitlines()[2:]]
    assert names == ["omnifusion, standard", "omnifusion, draft", "levin", "ground truth"]
    psnr = rows.set_index("method")["psnr"]
    assert f"{psnr['omnifusion, draft']:.2f}" in every and "LPIPS" not in means
    assert f"{psnr['omnifusion, draft'] - psnr['levin']:+.2f}" in gain
    with pytest.raises(ValueError, match="different clips"):
        results.joined([measured("standard"), measured("draft", 2)])


@pytest.mark.slow
def test_what_can_use_a_gpu_runs_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main() == 0, capsys.readouterr().out
