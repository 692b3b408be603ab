"""Stable Diffusion in its true shape: published configurations without weights, tiny copies with random ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from test_prior import frame, write_prior
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from omnifusion.color import luminance
from omnifusion.inpaint import ReferenceFrame, estimate_color
from omnifusion.prior.components import StableDiffusion, load_components
from omnifusion.prior.diffusion import DiffusionPrior
from omnifusion.prior.guidance import GrayConstraint, optimize
from omnifusion.progress import Note, run_to_end
from omnifusion.settings import choose
from omnifusion.state import FillTask

PUBLISHED = Path(__file__).parent / "data" / "sd"
VERSIONS = ("v1.5", "v2.0-base")


def built(version: str, part: str) -> nn.Module:
    """A part as its published configuration describes it, on the meta device: shapes without values."""
    config = json.loads((PUBLISHED / f"{version}.json").read_text())[part]
    with torch.device("meta"):
        if part == "text_encoder":
            return CLIPTextModel(CLIPTextConfig.from_dict(config))
        return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part].from_config(config)


@pytest.mark.parametrize(
    ("version", "part", "parameters", "tensors"),
    [
        ("v1.5", "unet", 859_520_964, 686),
        ("v1.5", "vae", 83_653_863, 248),
        ("v1.5", "text_encoder", 123_060_480, 196),
        ("v2.0-base", "unet", 865_910_724, 686),
        ("v2.0-base", "vae", 83_653_863, 248),
        ("v2.0-base", "text_encoder", 340_387_840, 372),
    ],
)
def test_parts_have_the_published_shape(version: str, part: str, parameters: int, tensors: int) -> None:
    model = built(version, part)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors


@pytest.mark.parametrize("version", VERSIONS)
def test_tensors_have_the_published_names(version: str) -> None:
    """Those that loaders elsewhere name, too; transformers leaves "text_model." out since its version 5."""
    width = {"v1.5": 768, "v2.0-base": 1024}[version]
    unet, vae, text = (built(version, part).state_dict() for part in ("unet", "vae", "text_encoder"))
    projection = (320, 320, 1, 1) if version == "v1.5" else (320, 320)
    for name, shape in {
        "conv_in.weight": (320, 4, 3, 3),
        "time_embedding.linear_1.weight": (1280, 320),
        "down_blocks.0.attentions.0.proj_in.weight": projection,
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, width),
        "down_blocks.3.resnets.1.conv2.weight": (1280, 1280, 3, 3),
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
        "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0.bias": (320,),
        "conv_out.weight": (4, 320, 3, 3),
    }.items():
        assert unet[name].shape == shape, name
    for name, shape in {
        "encoder.conv_out.weight": (8, 512, 3, 3),
        "decoder.mid_block.attentions.0.to_q.weight": (512, 512),
        "decoder.up_blocks.3.resnets.2.conv2.weight": (128, 128, 3, 3),
        "post_quant_conv.weight": (4, 4, 1, 1),
        "quant_conv.weight": (8, 8, 1, 1),
    }.items():
        assert vae[name].shape == shape, name
    named = {name.removeprefix("text_model."): value.shape for name, value in text.items()}
    last = {"v1.5": 11, "v2.0-base": 22}[version]
    assert named["embeddings.token_embedding.weight"] == (49408, width)
    assert named[f"encoder.layers.{last}.self_attn.q_proj.weight"] == (width, width)
    assert named["final_layer_norm.weight"] == (width,)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prior(tmp_path_factory.mktemp("prior") / "tiny")


def in_precision(folder: Path, dtype: torch.dtype, channels: int = 4) -> StableDiffusion:
    """The tiny prior in another precision, with checkpointing as on a GPU."""
    load_components.cache_clear()
    parts = load_components(str(folder), "cpu")
    assert isinstance(parts, StableDiffusion)
    load_components.cache_clear()
    for module in (parts.unet, parts.vae):
        module.to(dtype).enable_gradient_checkpointing()
    parts.text = torch.zeros(1, 8, 8)
    return parts


def gradient(parts: StableDiffusion, z: torch.Tensor, checkpointing: bool = True) -> torch.Tensor:
    if not checkpointing:
        parts.unet.disable_gradient_checkpointing(), parts.vae.disable_gradient_checkpointing()
    constraint = GrayConstraint(
        F=lambda z_0: parts.decode(z_0).mean(1, keepdim=True),
        x=torch.rand(1, 1, 32, 32),
        unknown=torch.ones(1, 1, 32, 32),
        eta=1.0,
    )
    return z - optimize(z, parts.network, 300, 0.5, "epsilon", constraint)[0]


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision_gives_the_gradient_of_single(tiny: Path, dtype: torch.dtype, near: float) -> None:
    """Through decoder and denoiser, checkpointed; nothing overflows, nothing vanishes."""
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    exact = gradient(in_precision(tiny, torch.float32), z, checkpointing=False)
    torch.manual_seed(0)
    half = gradient(in_precision(tiny, dtype), z)
    assert (half - exact).norm() < near * exact.norm()
    assert (half == 0).float().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_runs_end_to_end_in_half_precision(tiny: Path, dtype: torch.dtype) -> None:
    L, ab, mask = frame()
    prior = DiffusionPrior(in_precision(tiny, dtype), choose("draft", steps=2, prior=str(tiny)))
    tasks = [FillTask(L, ab, mask, estimate_color(ReferenceFrame(L, ab * mask, mask), []), seed) for seed in (0, 1)]
    seen: list[Any] = []
    filled = run_to_end(prior.fill(tasks), seen.append)
    assert all(a.isfinite().all() and torch.equal(a[:, mask], ab[:, mask]) for a in filled)
    assert not any(isinstance(step, Note) for step in seen)


PREVIEWS = (
    [[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264], [-0.184, -0.271, -0.473]],
    [[0.3512, 0.2297, 0.3227], [0.3250, 0.4974, 0.2350], [-0.2829, 0.1762, 0.2721], [-0.2120, -0.2616, -0.7177]],
)
"""Linear maps from latents to RGB in [-1, 1] that others have fitted to Stable Diffusion's decoder."""


@pytest.mark.parametrize("linear", PREVIEWS)
def test_a_step_of_eq_4_moves_luminance_a_little(linear: list[list[float]]) -> None:
    """Where all pixels are too bright by however much: by 1 to 2.5 L*, at the paper's own eta by five times that."""

    def decode(z: torch.Tensor) -> torch.Tensor:
        rgb = torch.einsum("bchw,cr->brhw", z, torch.tensor(linear)) / 2 + 0.5
        return rgb.repeat_interleave(8, -1).repeat_interleave(8, -2)

    def gray(z: torch.Tensor) -> torch.Tensor:
        return luminance(decode(z).clamp(1e-3, 1)) / 100

    z, size = 0.3 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), (1, 1, 64, 64)
    for preset, least, most in (("standard", 1.0, 2.5), ("paper", 5.0, 12.5)):
        eta = choose(preset).eta
        constraint = GrayConstraint(F=gray, x=torch.zeros(size), unknown=torch.ones(size), eta=eta)
        moved, _ = optimize(z, None, 1, 1.0, "sample", constraint)
        assert least < 100 * float((gray(z) - gray(moved)).mean()) < most


def overflow(limit: float) -> Any:
    """A gray picture whose gradient is no number where it is passed more than ``limit``."""

    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
            return z * 1.0

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return torch.where(g.abs() > limit, torch.inf, g)

    return Steep.apply


def test_a_gradient_that_overflows_is_taken_of_a_smaller_loss() -> None:
    z, unknown = torch.ones(2, 1, 4, 4), torch.ones(1, 1, 4, 4)
    plain = GrayConstraint(F=lambda z_0: z_0 * 1.0, x=0 * unknown, unknown=unknown, eta=0.1)
    steep = GrayConstraint(F=overflow(0.5), x=0 * unknown, unknown=unknown, eta=0.1)
    hopeless = GrayConstraint(F=overflow(1e-9), x=0 * unknown, unknown=unknown, eta=0.1)
    wanted = optimize(z, None, 1, 1.0, "sample", plain)[0]
    assert torch.allclose(optimize(z, None, 1, 1.0, "sample", steep)[0], wanted) and steep.lost == []
    assert torch.equal(optimize(z, None, 7, 1.0, "sample", hopeless)[0], z) and hopeless.lost == [7]


def test_colors_that_are_no_numbers_are_left_out_and_told(tiny: Path) -> None:
    parts = in_precision(tiny, torch.float32)
    decode, broken = parts.vae.decode, torch.tensor([torch.nan, 1.0]).view(2, 1, 1, 1)
    parts.vae.decode = lambda z: type("", (), {"sample": decode(z).sample * broken[: len(z)]})()  # type: ignore[method-assign]
    L, ab, mask = frame()
    estimate = estimate_color(ReferenceFrame(L, ab * mask, mask), [])
    prior = DiffusionPrior(parts, choose("draft", steps=1, prior=str(tiny)))
    seen: list[Any] = []
    first, second = run_to_end(
        prior.fill([FillTask(L, ab, mask, estimate, 0), FillTask(L, ab, mask, estimate, 1)]), seen.append
    )
    hole = ~mask
    assert torch.equal(first[:, hole], estimate.ab[:, hole])
    assert not torch.equal(second[:, hole], estimate.ab[:, hole])
    told = [step.message for step in seen if isinstance(step, Note)]
    assert len(told) == 2 and "Eq. (4)" in told[0] and "no numbers" in told[1]
