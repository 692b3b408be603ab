"""Trains the bundled prior: first an autoencoder (f = 8, 4 latents), then a 9-channel denoiser on its latents.

The denoiser reads the noised latents, the doubt about the hint (0 = known, 1 = nothing to go by) and the hint's
latents, and predicts z_0 as a correction of the hint's latents. In one example of four the condition is dropped
(doubt 1, latents 0): that is the unconditional model on which the paper's own method runs.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DModel
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from omnifusion.color import rgb_to_lab
from omnifusion.prior.photos import Photos, crop, make_example
from omnifusion.state import InputError, Step, Steps

DROPPED = 0.25
"""Share of the examples without a condition."""

FROM_HINT = 0.6
"""Share of the lightly noised examples whose noise lies on the hint and not on the truth, as when a run starts."""

LIGHT = 0.4
"""Fraction of the noise schedule that counts as lightly noised; runs from a hint start below it."""

GRADIENT_SCALE = 0.3
"""Scale of eq. (4)'s gradient for the bundled prior, found by measurement (see docs/prior.md)."""


@dataclass(frozen=True)
class Plan:
    """How long to train: batches of ``batch`` pictures, the denoiser's drawn from the ``pool`` latest examples, of
    which ``fresh`` are new at every step."""

    autoencoder_steps: int = 250
    denoiser_steps: int = 1200
    batch: int = 16
    fresh: int = 2
    pool: int = 512
    save_every: int = 100
    seed: int = 0


def new_autoencoder() -> AutoencoderTiny:
    """The bundled autoencoder, untrained; normalisation layers would cost so small a network the absolute colour."""
    autoencoder = AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4,
        decoder_block_out_channels=(16,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
        latent_channels=4,
        scaling_factor=1.0,
    )
    _start_as_pyramid(autoencoder)
    return autoencoder


@torch.no_grad()
def _start_as_pyramid(autoencoder: AutoencoderTiny) -> None:
    """Let three channels carry the picture's colour down by box averages and up by linear interpolation.

    From random weights, colour is learnt last, after hours; this start has it at once, and learns the rest.
    """
    opponents = torch.tensor([[0.75, 1.5, 0.25], [4.0, -4.0, 0.0], [-2.0, -2.0, 4.0]])
    middle = opponents @ torch.full((3,), 0.45)
    box, linear, same = torch.tensor([[0.0, 0.5, 0.5], [0.25, 0.5, 0.25], [0.0, 1.0, 0.0]])
    for side in (autoencoder.encoder, autoencoder.decoder):
        for layer in side.layers:
            if isinstance(layer, AutoencoderTinyBlock):
                nn.init.zeros_(layer.conv[-1].weight)
                nn.init.zeros_(layer.conv[-1].bias)
            elif isinstance(layer, nn.Conv2d):
                layer.weight[:3] = 0
                taps = box if layer.stride == (2, 2) else linear if layer.bias is None else same
                layer.weight[:3, :3] = torch.eye(3)[..., None, None] * torch.outer(taps, taps)
                if layer.bias is not None:
                    layer.bias[:3] = 0
    down, up = autoencoder.encoder.layers[-1], autoencoder.decoder.layers[0]
    down.weight[:3, :3, 1, 1], down.bias[:3] = opponents, -middle
    up.weight[:3, :3, 1, 1], up.bias[:3] = torch.linalg.inv(opponents), 0.45


def new_denoiser() -> UNet2DModel:
    """The bundled denoiser, untrained; its last layer is zero, so that it starts as a copy of the hint."""
    net = UNet2DModel(
        sample_size=16,
        in_channels=9,
        out_channels=4,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
    )
    nn.init.zeros_(net.conv_out.weight)
    nn.init.zeros_(net.conv_out.bias)
    return net


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, predicting z_0."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="sample",
    )


def train(photos: list[Path], out: Path, plan: Plan | None = None) -> Steps[Path]:
    """Train on tar files of JPEGs and write the prior to ``out`` in diffusers layout; returns ``out``.

    Progress is saved in ``out/checkpoint.pt`` and taken up again, with the same result, when called again; the file
    is removed at the end.

    Raises:
        InputError: a tar file cannot be read, or ``out`` holds a checkpoint of another plan.
    """
    run = _Training(Photos(photos), out, plan or Plan())
    run.resume()
    yield from run.fit_autoencoder()
    yield from run.fit_denoiser()
    run.write(final=True)
    return out


class _Training:
    """The moving parts of one training."""

    def __init__(self, photos: Photos, out: Path, plan: Plan) -> None:
        self.photos, self.out, self.plan = photos, out, plan
        torch.manual_seed(plan.seed)  # diffusers initialises its layers from the global state and offers no generator
        self.autoencoder, self.denoiser = new_autoencoder(), new_denoiser()
        self.average = new_denoiser()
        self.average.load_state_dict(self.denoiser.state_dict())
        self.alphas = new_scheduler().alphas_cumprod
        self.done = {"autoencoder": 0, "denoiser": 0}
        self.optimizers = {
            "autoencoder": torch.optim.AdamW(self.autoencoder.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.0),
            "denoiser": torch.optim.AdamW(self.denoiser.parameters(), 6e-4, (0.9, 0.99), weight_decay=0.01),
        }

    def rng(self, stage: int, index: int) -> np.random.Generator:
        """The same numbers for the same step, whether the training was interrupted or not."""
        return np.random.default_rng([self.plan.seed, stage, index])

    def resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        saved = torch.load(path, weights_only=True)
        if saved["plan"] != asdict(self.plan):
            raise InputError(f"{path} belongs to a training with other settings; use them, or another --out folder.")
        self.done = saved["done"]
        for name, module in self.modules().items():
            module.load_state_dict(saved[name])
        self.autoencoder.register_to_config(scaling_factor=saved["scaling_factor"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved[f"{name}_optimizer"])

    def modules(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, "denoiser": self.denoiser, "average": self.average}

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        saved = {"plan": asdict(self.plan), "done": self.done}
        saved |= {"scaling_factor": self.autoencoder.config.scaling_factor}
        saved |= {name: module.state_dict() for name, module in self.modules().items()}
        saved |= {f"{name}_optimizer": optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        torch.save(saved, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")
        self.write(final=False)

    def write(self, final: bool) -> None:
        """The prior as it is now, in diffusers layout, half precision."""
        for folder, module in (("vae", self.autoencoder), ("unet", self.average)):
            copy = type(module).from_config(module.config)
            copy.load_state_dict(module.state_dict())
            copy.half().save_pretrained(self.out / folder)
        new_scheduler().save_pretrained(self.out / "scheduler")
        index = {"_class_name": "OmniFusionPrior", "condition": "hint", "gradient_scale": GRADIENT_SCALE}
        (self.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        if final:
            (self.out / "checkpoint.pt").unlink(missing_ok=True)

    def fit(self, stage: str, total: int, step: Callable[[int], float]) -> Steps[None]:
        """The bookkeeping around the steps of a stage: warm-up and cosine decay, saving, progress."""
        began, first = time.monotonic(), self.done[stage]
        optimizer = self.optimizers[stage]
        base = optimizer.defaults["lr"]
        losses: deque[float] = deque(maxlen=100)
        for n in range(first, total):
            lr = base * min(1.0, (n + 1) / 50) * (0.51 + 0.5 * math.cos(math.pi * n / total))
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses.append(step(n))
            self.done[stage] = n + 1
            left = (time.monotonic() - began) / (n + 1 - first) * (total - n - 1)
            if (n + 1) % self.plan.save_every == 0 or n + 1 == total:
                self.save()
            yield Step("train", f"{stage} {n + 1}/{total}, loss {np.mean(losses):.4f}", (n + 1) / total, left)

    def fit_autoencoder(self) -> Steps[None]:
        yield from self.fit("autoencoder", self.plan.autoencoder_steps, self.autoencoder_step)
        self.autoencoder.requires_grad_(False).eval()
        if self.autoencoder.config.scaling_factor == 1.0:
            rng = self.rng(2, 0)
            z = self.encode(torch.stack([crop(self.photos.draw(rng), rng) for _ in range(64)]))
            self.autoencoder.register_to_config(scaling_factor=float(1 / z.std()))

    def autoencoder_step(self, n: int) -> float:
        rng = self.rng(0, n)
        x = torch.stack([_window(crop(self.photos.draw(rng), rng), rng) for _ in range(self.plan.batch)])
        z = self.autoencoder.encode(2 * x - 1).latents
        y = self.autoencoder.decode(z).sample / 2 + 0.5
        # What counts in the end is colour: L* comes from the frame. RGB keeps the decoder out of impossible colours.
        difference = (rgb_to_lab(y.clamp(1e-3, 1)) - rgb_to_lab(x)).abs().mean(dim=(0, 2, 3))
        loss = (difference * difference.new_tensor([0.5, 1.0, 1.0])).sum() / 10 + 4 * F.l1_loss(y, x)
        loss = loss + 1e-3 * z.square().mean()  # keeps latents small: the decoder saturates at 3
        return self.descend("autoencoder", loss)

    def descend(self, stage: str, loss: Tensor) -> float:
        optimizer = self.optimizers[stage]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        return loss.item()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents ``(B, 4, h, w)`` of sRGB ``(B, 3, H, W)`` in [0, 1], of unit deviation."""
        return self.autoencoder.encode(2 * images - 1).latents * self.autoencoder.config.scaling_factor

    def fit_denoiser(self) -> Steps[None]:
        if self.done["denoiser"] >= self.plan.denoiser_steps:
            return
        n = self.done["denoiser"]
        self.pool: deque[_Latents] = deque(maxlen=self.plan.pool)
        for index in range(n * self.plan.fresh, n * self.plan.fresh + self.plan.pool):
            self.pool.append(self.example(3, index))
            yield Step("train", "examples", len(self.pool) / self.plan.pool)
        self.chroma = self.fit_chroma()
        yield from self.fit("denoiser", self.plan.denoiser_steps, self.denoiser_step)

    def example(self, stage: int, index: int) -> _Latents:
        example = make_example(self.photos, self.rng(stage, index))
        z_0, z_hint = self.encode(torch.stack([example.truth, example.hint]))
        doubt, hole = (F.adaptive_avg_pool2d(v[None], z_0.shape[-2:]) for v in (example.doubt, example.hole))
        ab = F.adaptive_avg_pool2d(rgb_to_lab(example.truth)[1:], z_0.shape[-2:])
        return _Latents(z_0, z_hint, doubt, hole, ab)

    def fit_chroma(self) -> Tensor:
        """The linear map ``(2, 4)`` from latents to ab / 10 of their cell: which errors in latents show as colour."""
        fixed = [self.example(4, index) for index in range(max(4, self.plan.pool // 8))]
        z = torch.cat([p.z_0.reshape(4, -1) for p in fixed], dim=1)
        ab = torch.cat([p.ab.reshape(2, -1) for p in fixed], dim=1) / 10
        z, ab = z - z.mean(1, keepdim=True), ab - ab.mean(1, keepdim=True)
        return torch.linalg.lstsq(z.T, ab.T).solution.T

    def denoiser_step(self, n: int) -> float:
        rng, plan = self.rng(1, n), self.plan
        self.pool.extend(self.example(3, plan.pool + n * plan.fresh + k) for k in range(plan.fresh))
        batch = [self.pool[i] for i in rng.choice(len(self.pool), plan.batch, replace=False)]
        z_0, z_hint, doubt, hole, _ = map(torch.stack, zip(*batch, strict=True))
        dropped = torch.from_numpy(rng.random(plan.batch) < DROPPED).view(-1, 1, 1, 1)
        z_hint, doubt = torch.where(dropped, 0.0, z_hint), torch.where(dropped, 1.0, doubt)
        t = torch.from_numpy(len(self.alphas) * rng.random(plan.batch) ** np.where(dropped.view(-1), 1, 2)).long()
        light = torch.from_numpy(rng.random(plan.batch) < FROM_HINT).view(-1, 1, 1, 1)
        light &= ~dropped & (t < LIGHT * len(self.alphas)).view(-1, 1, 1, 1)
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        epsilon = torch.from_numpy(rng.standard_normal(z_0.shape, dtype=np.float32))
        z_t = alpha.sqrt() * torch.where(light, z_hint, z_0) + (1 - alpha).sqrt() * epsilon
        error = z_hint + self.denoiser(torch.cat([z_t, doubt, z_hint], dim=1), t).sample - z_0
        color_error = torch.einsum("ij,bjhw->bihw", self.chroma, error).square().sum(1, keepdim=True)
        loss = ((0.1 + torch.where(dropped, 1.0, hole)) * (color_error + 0.2 * error.square())).mean()
        told = self.descend("denoiser", loss)
        decay = min(0.998, (n + 1) / (n + 10))
        with torch.no_grad():
            for a, p in zip(self.average.parameters(), self.denoiser.parameters(), strict=True):
                a.lerp_(p, 1 - decay)
        return told


def _window(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A random quarter of a picture: the autoencoder learns more from many small pictures than from few large ones."""
    side = image.shape[-1] // 2
    y, x = rng.integers(side + 1, size=2)
    return image[:, y : y + side, x : x + side]


class _Latents(NamedTuple):
    """An example at latent size: z_0, z_hint ``(4, h, w)``; doubt, hole ``(1, h, w)``; the truth's ab ``(2, h, w)``."""

    z_0: Tensor
    z_hint: Tensor
    doubt: Tensor
    hole: Tensor
    ab: Tensor
