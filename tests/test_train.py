"""Training of the bundled prior: examples keep their promises, and interruption changes nothing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omnifusion.__main__ import main
from omnifusion.color import luminance
from omnifusion.prior.diffusion import load_prior
from omnifusion.prior.photos import CROP, HINT_SIDE, Photos, crop, hole_mask, make_example
from omnifusion.prior.train import Plan, new_denoiser, train
from omnifusion.settings import choose
from omnifusion.state import InputError, drain

PLAN = Plan(autoencoder_steps=3, denoiser_steps=4, batch=2, fresh=1, pool=4, save_every=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photos.tar"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for n in range(4):
            small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
            data = io.BytesIO()
            small.resize((200, 150), Image.Resampling.BICUBIC).save(data, "JPEG")
            info = tarfile.TarInfo(f"{n:05d}.jpg")
            info.size = data.tell()
            data.seek(0)
            tar.addfile(info, data)
    return path


def test_examples_show_the_truth_with_holes_and_a_hint(photos: Path) -> None:
    collection = Photos([photos])
    for seed in range(4):
        example = make_example(collection, np.random.default_rng(seed))
        assert example.truth.shape == example.hint.shape == (3, CROP, CROP)
        assert example.hole.shape == example.doubt.shape == (HINT_SIDE, HINT_SIDE)
        assert not example.doubt[example.hole == 0].any()
        assert (luminance(example.hint) - luminance(example.truth)).abs().mean() < 0.1
    same = make_example(collection, np.random.default_rng(3))
    assert torch.equal(same.hint, example.hint)


def test_holes_come_in_all_sizes() -> None:
    shares = [hole_mask(np.random.default_rng(n)).mean() for n in range(60)]
    assert min(shares) < 0.2 and max(shares) == 1.0 and 0.3 < np.median(shares) < 0.8


def test_crops_are_pictures(photos: Path) -> None:
    rng = np.random.default_rng(0)
    image = crop(Photos([photos]).draw(rng), rng)
    assert image.shape == (3, CROP, CROP) and image.min() >= 0 and image.max() <= 1


def test_an_untrained_denoiser_copies_the_hint() -> None:
    z = torch.randn(1, 9, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not new_denoiser()(z, 100).sample.any()


@pytest.mark.slow
def test_an_interrupted_training_ends_like_a_whole_one(photos: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    drain(train([photos], whole, PLAN))
    for stop in (2, 9):  # in the first stage, in the second
        steps = train([photos], parts, PLAN)
        for _ in range(stop):
            next(steps)
        steps.close()
    assert (parts / "checkpoint.pt").exists()
    drain(train([photos], parts, PLAN))
    assert not (parts / "checkpoint.pt").exists()
    for part in ("unet", "vae"):
        names = [p / part / "diffusion_pytorch_model.safetensors" for p in (whole, parts)]
        assert names[0].read_bytes() == names[1].read_bytes()
    prior = load_prior(choose("paper", prior=str(parts), steps=1))
    assert prior.components.condition == "hint" and prior.components.training_size == CROP


def test_a_checkpoint_of_another_plan_is_refused(photos: Path, tmp_path: Path) -> None:
    steps = train([photos], tmp_path, PLAN)
    for _ in range(3):
        next(steps)
    steps.close()
    with pytest.raises(InputError, match="other settings"):
        drain(train([photos], tmp_path, Plan(seed=1)))


def test_bad_photos_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "not.tar").write_bytes(b"not a tar")
    assert main(["train-prior", str(tmp_path / "not.tar"), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read as a tar file" in capsys.readouterr().err
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(InputError, match="no JPEG photos"):
        Photos([tmp_path / "empty.tar"])
