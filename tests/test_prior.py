"""Priors through one loader: tiny random ones in Stable Diffusion's layout, and the bundled one."""

from __future__ import annotations

import json
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from omnifusion.inpaint import ReferenceFrame, estimate_color, suggest
from omnifusion.prior import diffusion
from omnifusion.prior.diffusion import DiffusionPrior, load_prior
from omnifusion.prior.guidance import conditional_denoising
from omnifusion.prior.source import BUNDLED, PRIORS, check_source, prior_fingerprint
from omnifusion.progress import InputError, run_to_end
from omnifusion.settings import choose
from omnifusion.state import ColorEstimate, FillTask

Make = Callable[..., Path]


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    letters = [c + end for c in string.ascii_lowercase for end in ("", "</w>")]
    words = ["<|startoftext|>", "<|endoftext|>", *letters]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8).save_pretrained(folder)


def write_prior(folder: Path, channels: int = 4, prediction: str = "epsilon") -> Path:
    """Tiny random components in the layout of Stable Diffusion."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        latent_channels=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=54,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    for name, part in (("unet", unet), ("vae", vae), ("scheduler", scheduler), ("text_encoder", text)):
        part.save_pretrained(folder / name)
    write_tokenizer(folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    made: dict[str, Path] = {}

    def give(prediction: str = "epsilon") -> Path:
        if prediction not in made:
            made[prediction] = write_prior(tmp_path_factory.mktemp("prior") / "tiny", prediction=prediction)
        return made[prediction]

    return give


def frame(H: int = 20, W: int = 28) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    L = torch.nn.functional.interpolate(torch.rand(1, 1, 5, 7, generator=g) * 80 + 10, (H, W), mode="bilinear")[0]
    ab = torch.cat([0.3 * L - 15, 12 - 0.3 * L])
    mask = torch.ones(H, W, dtype=torch.bool)
    mask[4:16, 8:22] = False
    return L, ab, mask


def fill(prior: DiffusionPrior, seed: int = 0, estimated: bool = False, size: tuple[int, int] = (20, 28)) -> Tensor:
    L, ab, mask = frame(*size)
    estimate = estimate_color(ReferenceFrame(L, ab * mask, mask), []) if estimated else None
    return run_to_end(prior.fill([FillTask(L, ab, mask, estimate, seed)]))[0]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_plain_denoising_is_that_of_diffusers_own_pipeline(make: Make, prediction: str) -> None:
    folder = make(prediction)
    prior = load_prior(choose("paper", prior=str(folder), steps=6))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = pipeline("", num_inference_steps=6, guidance_scale=1.0, latents=z, output_type="latent").images
    c = prior.components
    ours = run_to_end(
        conditional_denoising(
            c.network, prior.schedule(None, prior.settings.steps), z, [torch.Generator()], c.prediction_type
        )
    )
    assert (ours - theirs).abs().max() < 1e-4


def test_a_prompt_is_guided_as_diffusers_does(make: Make) -> None:
    prior = load_prior(choose("paper", prior=str(make()), steps=3, prompt="a dog", negative_prompt="gray"))
    pipeline = StableDiffusionPipeline.from_pretrained(make(), safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"negative_prompt": "gray", "num_inference_steps": 3, "output_type": "latent"}
    theirs = pipeline("a dog", guidance_scale=7.5, latents=z, **options).images
    c = prior.components
    ours = run_to_end(
        conditional_denoising(
            c.network, prior.schedule(None, prior.settings.steps), z, [torch.Generator()], c.prediction_type
        )
    )
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("start", [None, 0.3])
def test_known_pixels_come_back_bit_for_bit(make: Make, start: float | None) -> None:
    prior = load_prior(choose("paper", prior=str(make()), steps=2, strength=start))
    _, ab, mask = frame()
    filled = fill(prior, estimated=start is not None)
    assert filled.shape == ab.shape and torch.isfinite(filled).all()
    assert torch.equal(filled[:, mask], ab[:, mask])
    assert not torch.equal(filled[:, ~mask], ab[:, ~mask])


@pytest.mark.parametrize("size", [(9, 13), (33, 21), (40, 300)])
def test_any_frame_size_will_do(make: Make, size: tuple[int, int]) -> None:
    prior = load_prior(choose("paper", prior=str(make()), steps=1))
    L, ab, mask = frame(*size)
    working = prior.working_size(size)
    assert prior.components.training_size <= min(working) <= 1.5 * prior.components.training_size
    assert abs(working[0] / working[1] - size[0] / size[1]) < 0.06 * size[0] / size[1]
    mask[:] = True
    mask[1, 2] = False
    assert run_to_end(prior.fill([FillTask(L, ab, mask, None, 0)]))[0].shape == ab.shape


def test_the_seed_fixes_the_fill_and_other_seeds_give_others(make: Make) -> None:
    prior = load_prior(choose("paper", prior=str(make()), steps=2))
    assert torch.equal(fill(prior, 1), fill(prior, 1))
    L, ab, mask = frame()
    together = run_to_end(prior.fill([FillTask(L, ab, mask, None, seed) for seed in (1, 2)]))
    assert all(torch.allclose(a, fill(prior, seed), atol=1e-3) for seed, a in zip((1, 2), together, strict=True))
    assert not torch.allclose(fill(prior, 1), fill(prior, 2))


@pytest.mark.parametrize("switch", ["color_condition", "gray_constraint", "through_denoiser"])
def test_every_switch_changes_the_fill(make: Make, switch: str) -> None:
    options: dict[str, Any] = {"steps": 2, "eta": 0.5}
    on = load_prior(choose("paper", prior=str(make()), **options))
    off = DiffusionPrior(on.components, choose("paper", **options, **{switch: False}))
    assert not torch.allclose(fill(on), fill(off), atol=1e-4)


def test_the_papers_preset_is_guided_as_the_paper_says(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eta, N and steps as printed, from pure noise, through the denoiser, by two evaluations a step."""
    seen: list[Any] = []

    def watched(network: Any, schedule: Any, z: Tensor, *rest: Any) -> Any:
        seen.append((schedule, *rest))
        return conditional_denoising(network, schedule, z, *rest)

    monkeypatch.setattr(diffusion, "conditional_denoising", watched)
    prior = load_prior(choose("paper", prior=str(make())))
    fill(DiffusionPrior(prior.components, replace(prior.settings, steps=3)))
    (schedule, _, _, condition, constraint) = seen[0]
    assert prior.settings.steps == 50 and schedule.times == (667, 334, 1)
    assert (constraint.eta, constraint.optimizations) == (0.02, 1)
    assert constraint.through_denoiser and not constraint.share and condition is not None


def test_every_denoising_step_is_a_step(make: Make) -> None:
    L, ab, mask = frame()
    prior = load_prior(choose("paper", prior=str(make()), steps=3))
    steps = list(prior.fill([FillTask(L, ab, mask, None, 0)]))
    assert [s.stage for s in steps] == ["inpaint"] * 3
    assert [s.done for s in steps] == pytest.approx([1 / 3, 2 / 3, 1])
    mask[:] = True
    assert torch.equal(run_to_end(prior.fill([FillTask(L, ab, mask, None, 0)]))[0], ab)


def test_the_text_encoder_does_not_stay(make: Make) -> None:
    components = load_prior(choose(prior=str(make()))).components
    assert components.text is not None and components.text.shape == (1, 8, 8)
    assert not any("text_model" in type(v).__module__ for v in vars(components).values())


@pytest.mark.parametrize(
    ("lost", "names"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "incomplete"),
        ("vae/config.json", "vae/config.json"),
        ("model_index.json", "model_index.json"),
        ("tokenizer/vocab.json", "incomplete"),
        ("tokenizer", "incomplete"),
        ("text_encoder/model.safetensors", "incomplete"),
    ],
)
def test_partial_weights_are_one_sentence(make: Make, tmp_path: Path, lost: str, names: str) -> None:
    folder = shutil.copytree(make(), tmp_path / "prior")
    if (folder / lost).is_dir():
        shutil.rmtree(folder / lost)
    else:
        (folder / lost).unlink()
        (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok="vocab" in lost)
    with pytest.raises(InputError, match=names) as caught:
        check_source(choose(prior=str(folder)))
    assert "choose the bundled prior" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda data: b"not weights", lambda data: data[:-1], lambda data: b""])
def test_damaged_weights_are_found_before_anything_is_loaded(
    make: Make, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = shutil.copytree(make(), tmp_path / "prior")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    for use in (check_source, load_prior):
        with pytest.raises(InputError, match="damaged"):
            use(choose(prior=str(folder)))


def test_the_fingerprint_is_that_of_the_weights_wherever_they_are(make: Make, tmp_path: Path) -> None:
    folder = shutil.copytree(make(), tmp_path / "prior")
    settings = choose(prior=str(folder))
    first = prior_fingerprint(settings)
    assert first == prior_fingerprint(choose("paper", prior=str(make()), seed=3)) != prior_fingerprint(choose())
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    second = prior_fingerprint(settings)
    (folder / "model_index.json").write_text('{"another": 0.3}')
    assert len({first, second, prior_fingerprint(settings)}) == 3


def test_checking_and_naming_a_prior_loads_no_library_of_models() -> None:
    code = (
        "import sys\n"
        "import omnifusion.algorithm, omnifusion.prior.diffusion\n"
        "from omnifusion.prior.source import check_source, prior_fingerprint\n"
        "from omnifusion.settings import choose\n"
        "check_source(choose()), prior_fingerprint(choose())\n"
        "print([name for name in ('diffusers', 'transformers', 'torchvision') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_unknown_and_unreachable_priors_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    with pytest.raises(InputError, match="There is no prior"):
        check_source(choose(prior=str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match="cannot be downloaded"):
        check_source(choose(prior="no hub/id"))

    class Gated(GatedRepoError):
        def __init__(self) -> None:
            OSError.__init__(self, "401")

    for error, words in ((LocalEntryNotFoundError("offline"), "cannot be reached"), (Gated(), "gated")):

        def fail(*args: Any, error: Exception = error, **options: Any) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(InputError, match=words) as caught:
            check_source(choose(prior="sd15"))
        assert "choose the bundled prior" in str(caught.value)


def test_an_environment_variable_points_to_other_weights(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRIORS["sd15"][1], str(make()))
    assert load_prior(choose(prior="sd15")).components.training_size == 16


def test_denoisers_of_other_kinds_are_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="9 channels"):
        check_source(choose(prior=str(write_prior(tmp_path / "inpainting", channels=9))))
    folder = shutil.copytree(make(), tmp_path / "flux")
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(InputError, match="FluxTransformer2DModel"):
        check_source(choose(prior=str(folder)))


@pytest.fixture(scope="module")
def bundled() -> DiffusionPrior:
    return load_prior(choose())


def test_the_bundled_prior_is_small_and_described() -> None:
    assert sum(f.stat().st_size for f in BUNDLED.rglob("*")) < 25e6
    card = (BUNDLED / "README.md").read_text()
    for word in (
        "license",
        "python -m training",
        "Caltech-101",
        "BSDS500",
        "ImageNet",
        "EfficientNet",
        "Apache",
        "Held out",
        "Limits",
    ):
        assert word in card


@pytest.fixture(scope="module")
def correction(bundled: DiffusionPrior) -> Tensor:
    """How far the bundled prior moves ab, ``(72, 128)``, where an estimate is sure on the left alone."""
    L, ab, mask = frame(72, 128)
    mask[:] = True
    mask[10:60, 20:110] = False
    confidence = torch.zeros(72, 128)
    confidence[:, :64] = 1.0
    (filled,) = run_to_end(bundled.fill([FillTask(L, ab * mask, mask, ColorEstimate(ab, confidence), 0)]))
    return (filled - ab).norm(dim=0)


def test_the_bundled_prior_corrects_an_estimate_only_where_it_is_unsure(correction: Tensor) -> None:
    assert correction[:, :64].max() < 1e-4
    assert 0.1 < correction[16:54, 70:104].mean() < 10


def test_the_bundled_prior_makes_no_seams(correction: Tensor) -> None:
    rim = torch.cat([correction[10, 64:110], correction[59, 64:110], correction[10:60, 109]])
    assert 0 < rim.mean() < 0.3 * correction[16:54, 70:104].mean()


def test_a_frame_without_colors_gets_a_version_per_seed(bundled: DiffusionPrior) -> None:
    L, _, _ = frame(72, 128)
    first, other, again = run_to_end(suggest(L, [1, 2, 1], bundled.fill))
    assert torch.equal(first, again) and (first - other).abs().mean() > 0.05


def test_a_frame_of_which_nothing_is_known_takes_the_mean_in_one_step_whatever_the_seed(
    bundled: DiffusionPrior,
) -> None:
    L, ab, _ = frame(72, 128)
    nothing = torch.zeros(72, 128, dtype=torch.bool)
    found = []
    for seed in (1, 2):
        task = FillTask(L, 0 * ab, nothing, estimate_color(ReferenceFrame(L, 0 * ab, nothing), []), seed)
        work = bundled.fill([task])
        assert next(work).done == 1.0
        found.append(run_to_end(work)[0])
    assert torch.equal(*found) and found[0].abs().mean() > 0.5


def test_the_bundled_prior_takes_after_the_exemplars_that_it_sees(bundled: DiffusionPrior) -> None:
    L, _, _ = frame(72, 128)
    nothing, color = torch.zeros(72, 128, dtype=torch.bool), torch.tensor([25.0, -25.0]).view(2, 1, 1)
    tasks = [
        FillTask(L, torch.zeros(2, 72, 128), nothing, None, 0, [(L, sign * color.expand(2, 72, 128), ~nothing)])
        for sign in (1, -1)
    ]
    one, other = run_to_end(bundled.fill(tasks))
    assert ((one - other) * color).mean() > 0
