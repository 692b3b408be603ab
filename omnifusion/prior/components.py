"""The parts of a latent diffusion model, loaded from a folder or the hub in diffusers layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omnifusion.color import lab_to_rgb, rgb_to_lab
from omnifusion.prior.guidance import Network, PredictionType
from omnifusion.prior.source import FIXES, checked_folder, incomplete, read_json
from omnifusion.progress import InputError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel, UNet2DModel

    from omnifusion.prior.chroma import ChromaCoder

DAMAGE = (OSError, ValueError, RuntimeError, KeyError)
"""What the libraries raise where weights are missing or broken."""
TEXT_GUIDANCE = 7.5
"""Classifier-free guidance scale where a prompt is given (Stable Diffusion's default)."""


@dataclass
class Components:
    """A denoiser, an autoencoder and a noise schedule, in one device's memory.

    Attributes:
        unet, vae, scheduler: as diffusers gives them.
        text: embeddings of the negative and the given prompt ``(2, tokens, D)``, or of the empty one alone, on the CPU;
            None for a denoiser that reads none.
        frames: of a prior of chroma, what the frames show that it colors, the hint's ab and the doubt about it.
    """

    unet: UNet2DModel | UNet2DConditionModel
    vae: AutoencoderKL | AutoencoderTiny | ChromaCoder
    scheduler: DDIMScheduler
    text: Tensor | None
    frames: tuple[list[Tensor], Tensor, Tensor] | None = None

    @property
    def chromatic(self) -> bool:
        """Whether latents are chroma alone, beside a luminance that is given (the bundled prior)."""
        return type(self.vae).__name__ == "ChromaCoder"

    @torch.no_grad()
    def at(self, L: Tensor, ab: Tensor, doubt: Tensor) -> Components:
        """The same for these frames, ``(B, C, H, W)`` each; only priors of chroma look at them."""
        if not self.chromatic:
            return self
        L, ab, doubt = (x.to(self.vae.dtype) for x in (L, ab, doubt))
        return replace(self, frames=(self.vae.look(L), ab, doubt))

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        return self.vae.device

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return self.vae.factor if self.chromatic else 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """What the sides of a frame must be a multiple of."""
        return self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def training_size(self) -> int:
        """The side of the pictures that the prior was trained on."""
        size = self.unet.config.sample_size
        return self.factor * (size if isinstance(size, int) else min(size))

    @property
    def input_channels(self) -> int:
        """4, or 9 for an inpainting denoiser."""
        return self.unet.config.in_channels

    @property
    def prediction_type(self) -> PredictionType:
        """What the denoiser's output is."""
        return self.scheduler.config.prediction_type

    def encode(self, rgb: Tensor) -> Tensor:
        """sRGB ``(B, 3, H, W)`` in [0, 1] to latents, float32."""
        if self.chromatic:
            return self.vae.encode(rgb_to_lab(rgb)[:, 1:])
        encoded = self.vae.encode((2 * rgb - 1).to(self.vae.dtype))
        z_0 = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return z_0.float() * self.vae.config.scaling_factor

    def decode(self, z_0: Tensor) -> Tensor:
        """Latents to sRGB ``(B, 3, H, W)``, about [0, 1], differentiable."""
        if self.frames is not None:
            L, ab = self.frames[0][-1].float() * 50 + 50, self.vae.decode(z_0.to(self.vae.dtype), *self.frames).float()
            return lab_to_rgb(torch.cat([L, ab], dim=1))
        latent: Any = self.vae
        return latent.decode((z_0 / latent.config.scaling_factor).to(latent.dtype)).sample.float() / 2 + 0.5

    def network(self, extra: Tensor | None) -> Network:
        """The denoiser with its extra channels ``(B, C, h, w)`` and text in place: raw output, float32."""

        text = None if self.text is None else self.text.to(self.device, self.unet.dtype)

        def network(z: Tensor, t: int) -> Tensor:
            inputs = z if extra is None else torch.cat([z, extra.expand(len(z), -1, -1, -1)], dim=1)
            inputs = inputs.to(self.unet.dtype)
            if text is None:
                output = self.unet(inputs, t).sample.float()
            else:
                words = text.repeat_interleave(len(z), 0)
                output = self.unet(torch.cat([inputs] * len(text)), t, encoder_hidden_states=words).sample.float()
                if len(text) == 2:
                    negative, given = output.chunk(2)
                    output = negative + TEXT_GUIDANCE * (given - negative)
            if extra is not None and self.chromatic:  # it predicts what the hint lacks
                output = output + (1 - extra[:, :1]) * extra[:, 1:3]
            return output

        return network


@lru_cache(maxsize=1)
def load_components(source: str, device: str) -> Components:
    """Load a prior from a folder or hub id, without text; the latest one is kept.

    On a GPU it has half precision, and what the gradient of eq. (4) needs is computed again instead of held
    (docs/experiments.md).

    Raises:
        InputError: weights that are missing, partial, gated or of a kind that cannot be used.
    """
    folder = checked_folder(source)

    import diffusers  # seconds of start-up

    diffusers.utils.logging.set_verbosity_error()  # it warns of config entries that it writes itself
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    unet_class, vae_class = (_class_of(folder / part) for part in ("unet", "vae"))
    try:
        unet = unet_class.from_pretrained(folder, subfolder="unet", torch_dtype=dtype).to(device)
        vae = vae_class.from_pretrained(folder, subfolder="vae", torch_dtype=dtype).to(device)
        scheduler = diffusers.DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    except torch.OutOfMemoryError as error:
        raise InputError(f"The prior {source} does not fit the GPU's memory", FIXES) from error
    except DAMAGE as error:
        raise incomplete(source, error) from error
    for module in (unet, vae):
        module.requires_grad_(False).eval()
        if device.startswith("cuda") and vae_class.__name__ != "ChromaCoder":
            module.enable_gradient_checkpointing()
    return Components(unet, vae, scheduler, None)


def _class_of(folder: Path) -> Any:
    """The class of diffusers that a part says it is."""
    import diffusers

    name = read_json(folder / "config.json")["_class_name"]
    if name == "ChromaCoder":
        from omnifusion.prior import chroma as diffusers
    return getattr(diffusers, name)


@lru_cache(maxsize=8)
@torch.no_grad()
def embed(source: str, prompt: str, negative_prompt: str) -> Tensor | None:
    """Embeddings of the negative and the given prompt, ``(2, tokens, D)``, of the empty one alone without them; None
    where the denoiser of ``source`` reads none. The text encoder is dropped when it has spoken.

    Raises:
        InputError: as ``load_components``.
    """
    folder = checked_folder(source)
    if read_json(folder / "unet" / "config.json")["_class_name"] != "UNet2DConditionModel":
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
    tokens = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    return encoder(tokens.input_ids)[0]
