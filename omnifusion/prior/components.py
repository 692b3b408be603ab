"""The parts of a prior on one device: Stable Diffusion's in diffusers layout, or the bundled network.

Both kinds have the same interface: sizes, noise levels, and ``bind``, which gives the network for certain frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from omnifusion.color import compose, lab_to_rgb, rgb_to_lab
from omnifusion.prior import chroma
from omnifusion.prior.guidance import Network, PredictionType
from omnifusion.prior.source import FIXES, checked_folder, incomplete, is_chroma
from omnifusion.progress import InputError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

DAMAGE = (OSError, ValueError, RuntimeError, KeyError)  # what the libraries raise where weights are missing or broken
TEXT_GUIDANCE = 7.5  # classifier-free guidance scale where a prompt is given (Stable Diffusion's default)


class Canvas(NamedTuple):
    """Frames at a prior's working size, one a row."""

    L: Tensor  # (B, 1, H, W)
    ab: Tensor  # (B, 2, H, W), the colors that are known or estimated
    unknown: Tensor  # (B, 1, H, W), 1 where the color is unknown
    uncertainty: Tensor  # (B, 1, H, W), 1 - the estimate's confidence


References = Sequence[tuple[Tensor, Tensor, Tensor]]
"""Colored frames for a canvas to look at: L, ab, and 1 where it is known, ``(B, C, H, W)`` each."""


class Bound(NamedTuple):
    """A prior for certain frames."""

    network: Network
    z_known: Tensor  # latents of the canvas
    decode: Callable[[Tensor], Tensor]  # latents z_0 to sRGB (B, 3, H, W), about [0, 1], differentiable
    known_ab: Tensor  # the colors of the canvas after the prior's own encoding and decoding


@dataclass
class StableDiffusion:
    """A denoiser, an autoencoder and a noise schedule, as diffusers gives them; ``text``: embeddings of the negative
    and the given prompt ``(2, tokens, D)``, or of the empty one alone, on the CPU; None until a run is known."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: DDIMScheduler
    text: Tensor | None = None
    chromatic, largest = False, 1.5  # whether latents are chroma alone; working size, at most, by the training's

    def __post_init__(self) -> None:
        size = self.unet.config.sample_size
        self.factor = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pixels per latent cell along each side
        # What the sides of a frame must be a multiple of, and those of the pictures that it was trained on
        self.multiple = self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        self.training_size: int = self.factor * (size if isinstance(size, int) else min(size))
        self.levels: Tensor = self.scheduler.alphas_cumprod  # alpha-bar at every time
        self.prediction_type: PredictionType = self.scheduler.config.prediction_type
        self.device = self.vae.device

    def times(self, steps: int) -> tuple[list[int], float]:
        """The scheduler's own times from pure noise, and alpha-bar where the last step ends."""
        self.scheduler.set_timesteps(steps)
        times = [int(t) for t in self.scheduler.timesteps]
        end = times[-1] - len(self.levels) // steps
        return times, float(self.levels[end] if end >= 0 else self.scheduler.final_alpha_cumprod)

    @torch.no_grad()
    def encode(self, rgb: Tensor) -> Tensor:
        """sRGB ``(B, 3, H, W)`` in [0, 1] to latents, float32."""
        z_0 = self.vae.encode((2 * rgb - 1).to(self.vae.dtype)).latent_dist.mode()
        return z_0.float() * self.vae.config.scaling_factor

    def decode(self, z_0: Tensor) -> Tensor:
        """See ``Bound``."""
        latent: Any = self.vae
        return latent.decode((z_0 / latent.config.scaling_factor).to(latent.dtype)).sample.float() / 2 + 0.5

    def bind(self, canvas: Canvas, color_condition: bool, references: References = ()) -> Bound:
        """The prior for these frames; the denoiser sees neither their colors nor references."""
        z_known = self.encode(compose(canvas.L, canvas.ab))
        with torch.no_grad():
            known_ab = rgb_to_lab(self.decode(z_known).clamp(0, 1))[:, 1:]
        return Bound(self.network, z_known, self.decode, known_ab)

    def network(self, z: Tensor, t: int) -> Tensor:
        """The denoiser with its text: raw output, float32."""
        assert self.text is not None
        text = self.text.to(self.device, self.unet.dtype)
        inputs, words = torch.cat([z.to(self.unet.dtype)] * len(text)), text.repeat_interleave(len(z), 0)
        output = self.unet(inputs, t, encoder_hidden_states=words).sample.float()
        if len(text) == 2:
            negative, positive = output.chunk(2)
            output = negative + TEXT_GUIDANCE * (positive - negative)
        return output


@dataclass
class Chroma:
    """The bundled network: latents are chroma alone, conditioned on luminance; see ``StableDiffusion``."""

    net: chroma.ChromaNet
    text = None
    chromatic, largest = True, 2.0
    factor, multiple, training_size = chroma.FACTOR, 4 * chroma.FACTOR, 128
    levels = chroma.noise_levels()
    prediction_type: ClassVar[PredictionType] = "sample"

    def __post_init__(self) -> None:
        self.device = self.net.last.weight.device

    def times(self, steps: int) -> tuple[list[int], float]:
        """Times from pure noise, evenly down, and alpha-bar where the last step ends."""
        return [round(chroma.STEPS * (1 - k / steps)) - 1 for k in range(steps)], 1.0

    @torch.no_grad()
    def bind(self, canvas: Canvas, color_condition: bool, references: References = ()) -> Bound:
        """The prior for these frames; without ``color_condition`` it reads nothing of their colors."""
        frames = self.net.frames(canvas.L, canvas.ab, canvas.uncertainty, references)
        read = frames
        if not color_condition:
            read = self.net.frames(canvas.L, torch.zeros_like(canvas.ab), torch.ones_like(canvas.uncertainty))

        def network(z: Tensor, t: int) -> Tensor:
            return self.net.denoise(z, torch.full((len(z),), t, device=z.device), read)

        def decode(z_0: Tensor) -> Tensor:
            return lab_to_rgb(torch.cat([canvas.L, self.net.decode(z_0, frames)[0]], dim=1))

        return Bound(network, self.net.encode(canvas.ab), decode, canvas.ab)


Components = StableDiffusion | Chroma


@lru_cache(maxsize=1)
def load_components(source: str, device: str) -> Components:
    """Load a prior from a folder or hub id, without text; the latest one is cached.

    On a GPU, Stable Diffusion has half precision, and gradient checkpointing for eq. (4). InputError for weights that
    are missing, partial, gated or of a kind that cannot be used.
    """
    folder = checked_folder(source)
    try:
        if is_chroma(folder):
            from safetensors.torch import load_model

            net = chroma.ChromaNet()
            load_model(net, folder / "model.safetensors")  # from half to single precision
            return Chroma(net.to(device, memory_format=torch.channels_last).requires_grad_(False).eval())

        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # seconds of start-up
        from diffusers.utils.logging import set_verbosity_error

        set_verbosity_error()  # it warns of config entries that it writes itself
        options = {"torch_dtype": torch.float16 if device.startswith("cuda") else torch.float32}
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options).to(device)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **options).to(device)
        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    except torch.OutOfMemoryError as error:
        raise InputError(f"The prior {source} does not fit the GPU's memory", FIXES) from error
    except DAMAGE as error:
        raise incomplete(source, error) from error
    for module in (unet, vae):
        module.requires_grad_(False).eval()
        if device.startswith("cuda"):
            module.enable_gradient_checkpointing()
    return StableDiffusion(unet, vae, scheduler)


@lru_cache(maxsize=8)
@torch.no_grad()
def embed(source: str, prompt: str, negative_prompt: str) -> Tensor | None:
    """Embeddings of the negative and the given prompt, ``(2, tokens, D)``, of the empty one alone without them; None
    for the bundled prior, which reads none. The text encoder is not kept. InputError as ``load_components``."""
    folder = checked_folder(source)
    if is_chroma(folder):
        return None

    from transformers import CLIPTextModel, CLIPTokenizer  # seconds of start-up
    from transformers.utils import logging

    logging.disable_progress_bar()
    prompts = [negative_prompt, prompt] if prompt or negative_prompt else [""]
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", torch_dtype=torch.float32)
    except DAMAGE as error:
        raise incomplete(source, error) from error
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    return encoder(tokenizer(prompts, max_length=tokenizer.model_max_length, **options).input_ids)[0]
