"""Training of the bundled prior: examples keep their promises, and interruption changes nothing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omnifusion.prior.chroma import ChromaCoder, Encoder
from omnifusion.prior.diffusion import load_prior
from omnifusion.prior.photos import HELD_OUT, SIDE, Photos, bare_example, crop, hinted_example, hole_mask
from omnifusion.prior.train import Plan, new_denoiser, train
from omnifusion.progress import InputError, run_to_end
from omnifusion.settings import choose

PLAN = Plan(steps=5, batch=2, fresh=1, pool=4, save_every=2)


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
    for make in (bare_example, hinted_example):
        example = make(collection, np.random.default_rng(3))
        assert example.lab.shape == (3, SIDE, SIDE) and example.hint.shape == (2, SIDE, SIDE)
        assert example.hole.shape == example.doubt.shape == (1, SIDE, SIDE)
        assert not example.doubt[example.hole == 0].any()
        assert torch.equal(make(collection, np.random.default_rng(3)).hint, example.hint)
    known = (example.hole == 0)[0]
    assert (example.hint - example.lab[1:])[:, known].norm(dim=0).mean() < 8 < example.lab[1:].norm(dim=0).mean()


def test_held_out_photos_are_not_trained_on(photos: Path) -> None:
    seen, held = (set(Photos([photos], held_out=kept).collections[0]) for kept in (False, True))
    assert len(held) == 1 and len(seen) == 3 < HELD_OUT and not seen & held


def test_holes_come_in_all_sizes() -> None:
    shares = [hole_mask(np.random.default_rng(n)).mean() for n in range(60)]
    assert min(shares) < 0.2 and max(shares) > 0.85 and 0.3 < np.median(shares) < 0.8


def test_crops_are_pictures(photos: Path) -> None:
    rng = np.random.default_rng(0)
    lab = crop(Photos([photos]).draw(rng), rng)
    assert lab.shape == (3, SIDE, SIDE) and lab[0].min() >= 0 and lab[0].max() <= 100


def test_an_untrained_denoiser_copies_the_hint() -> None:
    z = torch.randn(1, 9, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not new_denoiser(4)(z, 100).sample.any()


def test_an_untrained_decoder_keeps_a_sure_hint_and_spreads_the_latents_where_there_is_none() -> None:
    g = torch.Generator().manual_seed(0)
    coder, L, hint = ChromaCoder(), torch.rand(1, 1, 64, 96, generator=g) * 100, torch.randn(1, 2, 64, 96, generator=g)
    z_0 = coder.encode(torch.ones_like(hint) * torch.tensor([8.0, -24.0]).view(1, 2, 1, 1))
    with torch.no_grad():
        sure, unsure = (coder.decode(z_0, coder.look(L), hint, torch.full_like(L, doubt)) for doubt in (0.0, 1.0))
    assert torch.equal(sure, hint)
    assert torch.allclose(unsure[0, :, 3, 5], torch.tensor([8.0, -24.0]))


def test_the_encoder_folds_the_normalizations_of_the_published_weights_into_its_own() -> None:
    encoder, weights = Encoder(), {}
    g = torch.Generator().manual_seed(0)

    def publish(name: str, norm: str, conv: torch.nn.Conv2d, inner: int) -> None:
        weights[f"{name}.weight"] = torch.randn(conv.out_channels, inner, *conv.kernel_size, generator=g)
        for key in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{key}"] = torch.rand(conv.out_channels, generator=g) + 0.5

    publish("_conv_stem", "_bn0", encoder.stem, 3)
    for n, block in enumerate(block for stage in encoder.stages for block in stage):
        for conv, name, norm in (
            (block.widen, "expand", 0),
            (block.look, "depthwise", 1),
            (block.narrow, "project", 2),
        ):
            if conv is not None:
                inner = conv.in_channels // conv.groups
                publish(f"_blocks.{n}._{name}_conv", f"_blocks.{n}._bn{norm}", conv, inner)
    encoder.load_imagenet(weights)
    x = torch.rand(1, 3, 9, 9, generator=g)[:, :1].expand(-1, 3, -1, -1)
    theirs = torch.nn.functional.batch_norm(
        torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1)), weights["_conv_stem.weight"], stride=2),
        *(weights[f"_bn0.{k}"] for k in ("running_mean", "running_var", "weight", "bias")),
        eps=1e-3,
    )
    assert torch.allclose(encoder.stem(x[:, :1]), theirs, atol=1e-4)


@pytest.mark.slow
def test_an_interrupted_training_ends_like_a_whole_one(photos: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_to_end(train([photos], whole, plan=PLAN))
    steps = train([photos], parts, plan=PLAN)
    for _ in range(3):
        next(steps)
    steps.close()
    assert (parts / "checkpoint.pt").exists()
    run_to_end(train([photos], parts, plan=PLAN))
    assert not (parts / "checkpoint.pt").exists()
    for part in ("unet", "vae"):
        names = [p / part / "diffusion_pytorch_model.safetensors" for p in (whole, parts)]
        assert names[0].read_bytes() == names[1].read_bytes()
    prior = load_prior(choose("paper", prior=str(parts), steps=1))
    assert prior.components.chromatic and prior.components.training_size == SIDE


def test_a_training_goes_on_from_a_trained_prior(photos: Path, tmp_path: Path) -> None:
    first = run_to_end(train([photos], tmp_path / "first", plan=PLAN))
    again = run_to_end(train([photos], tmp_path / "again", plan=Plan(steps=0), start=first))
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        assert (again / name).read_bytes() == (first / name).read_bytes()


def test_a_checkpoint_of_another_plan_is_refused(photos: Path, tmp_path: Path) -> None:
    steps = train([photos], tmp_path, plan=PLAN)
    for _ in range(3):
        next(steps)
    steps.close()
    with pytest.raises(InputError, match="other settings"):
        run_to_end(train([photos], tmp_path, plan=Plan(seed=1)))


def test_bad_files_are_one_sentence(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "not.tar").write_bytes(b"not a tar")
    with pytest.raises(InputError, match="cannot be read as a tar file"):
        run_to_end(train([tmp_path / "not.tar"], tmp_path / "out"))
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(InputError, match="no JPEG photos"):
        Photos([tmp_path / "empty.tar"])
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match="EfficientNet"):
        run_to_end(train([photos], tmp_path / "out", tmp_path / "weights.pth"))
