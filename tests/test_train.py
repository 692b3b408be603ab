"""Training of the bundled prior: its examples, its end whether interrupted or not, and the app that loads it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import synthetic
import torch
import torch.nn.functional as F
from PIL import Image

from omnifusion.prior.chroma import ChromaNet, Denoiser, Encoder
from omnifusion.prior.diffusion import load_prior
from omnifusion.prior.source import BUNDLED
from omnifusion.progress import InputError
from omnifusion.settings import choose
from training import data, train
from training.__main__ import main

SMALL = {"minutes": None, "steps": 4, "start": BUNDLED, "batch": 4, "side": 64, "tasks": 4, "frozen": True}


def write_tar(path: Path, pictures: dict[str, np.ndarray], **texts: str) -> Path:
    with tarfile.open(path, "w") as tar:
        files = {name: io.BytesIO() for name in pictures}
        for name, picture in pictures.items():
            Image.fromarray(picture).save(files[name], "JPEG", quality=95)
        files |= {name: io.BytesIO(text.encode()) for name, text in texts.items()}
        for name, file in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(file.getvalue())
            tar.addfile(info, io.BytesIO(file.getvalue()))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (10, 6, 8, 3), dtype=np.uint8)
    pictures = [cv2.resize(picture, (200, 150), interpolation=cv2.INTER_CUBIC) for picture in small]
    return write_tar(
        tmp_path_factory.mktemp("photos") / "photos.tar", {f"{n:05d}.jpg": p for n, p in enumerate(pictures)}
    )


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of nine sources, each of three frames far apart."""
    pictures = {}
    for n in range(10):
        frames = np.asarray(synthetic.make("two-layers", frames=13, size=(96, 128), seed=n).video.frames)[::6]
        pictures |= {f"{n:04d}/{t:03d}.jpg": frame.transpose(1, 2, 0) for t, frame in enumerate(frames)}
    names = "".join(f"wave/film{min(n, 8)}_wave_u_{n}.avi\n" for n in range(10))
    return write_tar(tmp_path_factory.mktemp("films") / "films.tar", pictures, **{"clips.txt": names})


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_examples_show_the_truth_with_holes_and_an_estimate(photos: Path, films: Path) -> None:
    shown, recorded = data.Photos([photos], "cpu"), data.Tasks(films, 6, "cpu", 0)

    def draw(kind: str, seed: int) -> data.Examples:
        g = torch.Generator().manual_seed(seed)
        return recorded.draw(8, 64, g) if kind == "fills" else data.draw_photos(shown, 8, 64, g, kind == "bare")

    for kind in ("bare", "guided", "fills"):
        e = draw(kind, 3)
        assert e.L.shape == e.uncertainty.shape == (8, 1, 64, 64) and e.ab.shape == e.estimate.shape == (8, 2, 64, 64)
        assert e.L.min() >= 0 and e.L.max() <= 100 and e.uncertainty.min() >= 0 and e.uncertainty.max() <= 1
        known = (e.hole == 0).expand_as(e.ab)
        assert not e.uncertainty[e.hole == 0].any()
        assert torch.equal(draw(kind, 3).estimate, e.estimate) and not torch.equal(draw(kind, 4).L, e.L)
        if kind == "bare":
            assert not e.references and not e.estimate.any() and e.uncertainty.all() and not known.any()
        else:
            assert known.any() and (e.estimate - e.ab)[known].abs().mean() < (0.01 if kind == "guided" else 4)
            assert 1 < (e.estimate - e.ab)[~known].abs().mean() < e.ab.abs().mean() + 5
            assert e.references[0][1].shape == e.ab.shape and e.references[0][2].any()


def test_what_is_held_out_is_not_trained_on(photos: Path, films: Path) -> None:
    for read, path, held_count in ((data.photographs, photos, 2), (data.videos, films, 3)):
        seen, held = ({p.tobytes() for p in read(path, held_out=kept)} for kept in (False, True))
        assert len(held) == held_count and len(seen) == 10 - held_count and not seen & held


def test_recorded_fills_are_those_of_a_run(films: Path) -> None:
    clips = data.videos(films)
    for task, lab in data.record(clips[:2], 10):
        assert task.estimate is not None and not task.mask.all()
        ((L, _, mask),) = task.references
        assert torch.equal(task.L, lab[:1]) and not torch.equal(L, task.L) and mask.all()
        assert torch.equal(task.estimate.ab[:, task.mask], task.ab[:, task.mask])
        assert (task.ab - lab[1:])[:, task.mask].abs().mean() < 4


def test_an_untrained_network_keeps_a_certain_estimate_and_spreads_the_latents_where_there_is_none() -> None:
    g = torch.Generator().manual_seed(0)
    net, L, ab = ChromaNet(), torch.rand(1, 1, 64, 96, generator=g) * 100, torch.randn(1, 2, 64, 96, generator=g)
    z_0 = net.encode(torch.ones_like(ab) * torch.tensor([8.0, -24.0]).view(1, 2, 1, 1))
    with torch.no_grad():
        certain, uncertain = (net.frames(L, ab, torch.full_like(L, u)) for u in (0.0, 1.0))
        assert torch.equal(net.decode(z_0, certain)[0], ab)
        assert torch.allclose(net.decode(z_0, uncertain)[0][0, :, 3, 5], torch.tensor([8.0, -24.0]))
        assert torch.equal(net.denoise(z_0, torch.tensor([9]), certain), net.encode(ab))
        assert not Denoiser(7)(torch.randn(1, 7, 16, 16, generator=g), torch.tensor([9])).any()


def test_color_is_copied_from_the_cells_of_a_reference_that_look_alike() -> None:
    g = torch.Generator().manual_seed(0)
    net = ChromaNet()
    net.encoder.load_state_dict(load_prior(choose()).components.net.encoder.state_dict())  # type: ignore[union-attr]
    net.sharpness.data.fill_(6.0)
    L, ab = (F.interpolate(torch.rand(1, c, 8, 8, generator=g) * 90, scale_factor=8.0) for c in (1, 2))
    with torch.no_grad():
        frames = net.frames(L, 0 * ab, torch.ones_like(L), [(L, ab, torch.ones_like(L))])
    copied = frames.extra[0, -16:].unflatten(0, (4, 4))
    assert ((copied[:, :2] - net.encode(ab)).abs().mean(0) < 0.5).float().mean() > 0.9
    nothing = net.frames(L, ab, torch.ones_like(L), [(L, ab, torch.zeros_like(L))]).extra[0, -16:].unflatten(0, (4, 4))
    assert not nothing[:, :2].any()


@pytest.mark.slow
def test_an_interrupted_training_ends_like_a_whole_one_and_the_app_loads_it(
    photos: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train.train([photos], films, whole, **SMALL)
    learn, count = train.Training.learn, iter(range(100))

    def interrupted(self: train.Training, *given: Any) -> float:
        if next(count) == 2:
            raise KeyboardInterrupt
        return learn(self, *given)

    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(train.Training, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train([photos], films, parts, **SMALL)
    with pytest.raises(InputError, match="other settings"):
        train.train([photos], films, parts, **(SMALL | {"seed": 1}))
    train.train([photos], films, parts, **SMALL)
    assert weights(whole) == weights(parts) != weights(BUNDLED) and not (parts / "checkpoint.pt").exists()
    before, after = (load_prior(choose(prior=str(folder))).components for folder in (BUNDLED, parts))
    assert after.chromatic and all(
        torch.equal(a, b) == name.startswith("encoder")
        for (name, a), b in zip(before.net.state_dict().items(), after.net.state_dict().values(), strict=True)  # type: ignore[union-attr]
        if a.numel() > 1000
    )


@pytest.mark.slow
def test_the_command_trains_by_the_clock_and_evaluates(
    photos: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    words = ["--videos", str(films), "--tasks", "3", "--device", "cpu"]
    plan = ["--minutes", "0.05", "--batch", "4", "--side", "64", "--fresh"]
    assert main(["train", str(photos), *words, "--out", str(out), *plan]) == 0
    assert main(["evaluate", str(photos), *words, "--prior", str(out), "--sheet", str(sheet)]) == 0
    table = capsys.readouterr().out
    assert "| photos | 2 |" in table and "ab RMSE" in table and sheet.stat().st_size > 1000


def test_bad_files_are_one_sentence(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "not.tar").write_bytes(b"not a tar")
    assert main(["train", str(tmp_path / "not.tar"), "--out", str(tmp_path / "out"), "--steps", "1"]) == 2
    assert "cannot be read as a tar file" in capsys.readouterr().err
    with pytest.raises(InputError, match="no JPEG photos"):
        data.photographs(write_tar(tmp_path / "empty.tar", {}))
    gray = np.full((40, 40, 3), 90, np.uint8)
    with pytest.raises(InputError, match="two photos in color"):
        data.photographs(write_tar(tmp_path / "gray.tar", {"0.jpg": gray, "1.jpg": gray}))


def test_the_encoder_reads_luminance_at_five_sizes() -> None:
    shapes: list[tuple[int, ...]] = [tuple(x.shape[1:]) for x in Encoder()(torch.zeros(1, 1, 64, 96))]
    assert shapes == [(16, 32, 48), (24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]


@pytest.mark.slow
def test_steps_too_large_do_not_last(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is bounded: at a hundred times the rate weights are still numbers."""
    loss: Callable[..., torch.Tensor] = train.Training.loss
    monkeypatch.setattr(train.Training, "loss", lambda self, e, g: 1e6 * loss(self, e, g))
    train.train([photos], None, tmp_path, **(SMALL | {"rate": 0.1, "steps": 2}))
    assert all(v.isfinite().all() for v in load_prior(choose(prior=str(tmp_path))).components.net.state_dict().values())  # type: ignore[union-attr]
