"""Trains the bundled prior: denoiser and decoder of chroma at once, and, unless it is frozen, their encoder.

The denoiser learns z_0 from latents at all noise levels, beside a color estimate or none; the decoder to place what it
says at full size, and to say how sure it is. The schedule goes by the clock: it ends with cooled-down weights.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.flow.confidence import RIGHT
from omnifusion.prior.chroma import FACTOR, SCALE, STEPS, ChromaNet, Frames, noise_levels
from omnifusion.prior.components import Chroma, load_components
from omnifusion.prior.source import CHROMA
from omnifusion.progress import InputError
from training.data import Examples, Photos, Tasks, draw_photos

RECORDED, GUIDED = 0.3, 0.2  # shares of a batch: recorded fills, and photographs of which something is known
PURE, LIGHT = 0.4, 0.4
"""Share of the pictures at pure noise; fraction of the schedule in which those with an estimate start there, as runs
do."""
VIVID = 20.0
"""Where little is known, errors weigh 0.5 at gray, 1.5 at this chroma, 2.5 at most: a mean of colors is too gray."""
SOFT = 6.0 / SCALE
"""Errors beyond this count by their size, not their square: what a thing is like counts, not the mean of all things."""
STEADY = 0.35  # fraction of the training after which the learning rate falls to nothing
SAVE_EVERY, TELL_EVERY = 60.0, 10.0  # seconds between two checkpoints, and between two lines on the terminal


def train(
    photos: list[Path],
    videos: Path | None,
    out: Path,
    minutes: float | None,
    steps: int | None,
    start: Path,
    fresh: bool = False,
    frozen: bool = False,
    batch: int = 96,
    side: int = 160,
    rate: float = 1e-3,
    tasks: int = 2000,
    seed: int = 0,
    device: str | None = None,
) -> Path:
    """Train and write the prior to ``out``, which is returned; see ``python -m training train -h``.

    Progress is kept in ``out/checkpoint.pt`` and taken up again by the same call; the file goes at the end.

    Raises:
        InputError: a file cannot be read, or ``out`` holds a checkpoint of another training.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True  # all batches have one size
    run = Training(device, start, fresh, frozen, rate, seed, out)
    run.plan = {"batch": batch, "side": side, "rate": rate, "seed": seed, "frozen": frozen, "minutes": minutes}
    run.resume()
    before = run.seconds
    shown = Photos(photos, device)
    recorded = Tasks(videos, tasks, device, seed) if videos is not None and tasks else None
    print(f"{device}: {len(shown.squares)} photographs, {0 if recorded is None else len(recorded.rows)} fills")
    began, saved, told = *[time.monotonic()] * 2, -math.inf
    while True:
        run.seconds = before + time.monotonic() - began
        done = run.step / steps if steps else run.seconds / (60 * (minutes or 1))
        if done >= 1:
            break
        g = torch.Generator(device).manual_seed(seed * 1_000_003 + run.step)
        guided, filled = round(GUIDED * batch), round(RECORDED * batch) if recorded is not None else 0
        parts = [draw_photos(shown, batch - guided - filled, side, g, bare=True)]
        parts += [draw_photos(shown, guided, side, g, bare=False)] if guided else []
        parts += [recorded.draw(filled, side, g)] if recorded is not None and filled else []
        loss = run.learn(parts, done, g)
        now = time.monotonic()
        if now - told > TELL_EVERY:
            told = now
            print(f"{run.step} {run.seconds:.0f} s, loss {loss:.4f}, {run.step * batch / run.seconds:.0f} pictures/s")
        if now - saved > SAVE_EVERY:
            saved = now
            run.save()
    run.write()
    return out


class Training:
    """The moving parts of one training.

    Attributes:
        step, seconds: of training so far; plan: what a checkpoint must have in common with it.
    """

    def __init__(self, device: str, start: Path, fresh: bool, frozen: bool, rate: float, seed: int, out: Path) -> None:
        self.out, self.step, self.seconds, self.plan = out, 0, 1e-9, dict[str, Any]()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = ChromaNet()
        trained = load_components(str(start), "cpu")
        if not isinstance(trained, Chroma):
            raise InputError(f"{start} is no prior of the bundled kind.")
        taken = trained.net.encoder if fresh else trained.net
        (self.net.encoder if fresh else self.net).load_state_dict(taken.state_dict())
        self.net.to(device, memory_format=torch.channels_last).encoder.requires_grad_(not frozen)
        self.learnt = [p for p in self.net.parameters() if p.requires_grad]
        groups = [
            {"params": [p], "rate": rate / 6 if name.startswith("encoder") else rate}
            for name, p in self.net.named_parameters()
            if p.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(groups, rate, (0.9, 0.98), weight_decay=0.01)
        self.average = [p.detach().clone() for p in self.learnt]
        self.levels = noise_levels().to(device)

    def learn(self, parts: list[Examples], done: float, g: torch.Generator) -> float:
        """One batch, ``done`` in [0, 1) of the way; its loss."""
        fall = 1.0 if done < STEADY else 0.5 * (1 + math.cos(math.pi * (done - STEADY) / (1 - STEADY)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * fall * min(1.0, (self.step + 1) / 100)
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(len(part.L) for part in parts)
        loss = torch.zeros((), device=self.levels.device)
        for part in parts:
            with torch.autocast(self.levels.device.type, torch.bfloat16, enabled=self.levels.is_cuda):
                share = self.loss(part, g) * (len(part.L) / total)
            share.backward()
            loss += share.detach()
        torch.nn.utils.clip_grad_norm_(self.learnt, 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.9985, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.learnt], 1 - decay)
        return float(loss)

    def loss(self, e: Examples, g: torch.Generator) -> Tensor:
        """Of latents at random noise levels, and of the colors that are placed by what the denoiser says."""
        count, device = len(e.L), e.L.device

        def chance() -> Tensor:
            return torch.rand(count, generator=g, device=device)

        frames = self.net.frames(e.L, e.estimate, e.uncertainty, e.references)
        z_0, z_estimate = self.net.encode(e.ab), self.net.encode(e.estimate)
        t = torch.where(chance() < PURE, STEPS - 1, (chance() * STEPS).long())
        epsilon = torch.randn(z_0.shape, generator=g, device=device)
        epsilon = epsilon * ((t < STEPS - 1) | (chance() < 0.5)).view(-1, 1, 1, 1)  # a mean starts from no noise at all
        light = (t < LIGHT * STEPS).view(-1, 1, 1, 1) & (e.uncertainty.amin((1, 2, 3), True) < 1)
        alpha = self.levels[t].view(-1, 1, 1, 1)
        z_t = alpha.sqrt() * torch.where(light, z_estimate, z_0) + (1 - alpha).sqrt() * epsilon
        z = self.net.denoise(z_t, t, frames)
        vivid = (e.ab.norm(dim=1, keepdim=True) / VIVID - 0.5).clamp(-0.5, 1.5)
        weight = 0.1 + e.hole * (1 + e.uncertainty * vivid)
        loss = (F.avg_pool2d(weight, FACTOR) * _soft((z.float() - z_0).square().sum(1, keepdim=True))).mean()
        cells = z.shape[-1]
        y, x = (int(c * (cells - cells // 2 + 1)) for c in torch.rand(2, generator=g, device=device).tolist())

        def cut(m: Tensor) -> Tensor:
            """A quarter of the picture, which is enough for the decoder to learn from."""
            k = m.shape[-1] // cells
            return m[..., k * y : k * (y + cells // 2), k * x : k * (x + cells // 2)]

        quarter = Frames([cut(m) for m in frames.features], cut(frames.ab), cut(frames.uncertainty), cut(frames.extra))
        placed, sure = self.net.decode(cut(z), quarter)
        error = ((placed.float() - cut(e.ab)) / SCALE).square().sum(1, keepdim=True)
        right = (error.detach().sqrt() * SCALE < RIGHT).float()
        loss = loss + (cut(weight) * _soft(error)).mean()
        return loss + 0.1 * F.binary_cross_entropy_with_logits(sure.float(), right, weight=0.1 + cut(e.hole))

    def save(self) -> None:
        """Keep the progress."""
        self.out.mkdir(parents=True, exist_ok=True)
        state = {"plan": self.plan, "step": self.step, "seconds": self.seconds, "average": self.average}
        state |= {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.out / "checkpoint.part")
        (self.out / "checkpoint.part").replace(self.out / "checkpoint.pt")

    def resume(self) -> None:
        """Go on where a training was interrupted."""
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.levels.device, weights_only=True)
        if state["plan"] != self.plan:
            raise InputError(f"{path} is of a training with other settings; use them again, or another folder.")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]

    def write(self) -> None:
        """The averaged weights in half precision, as the app loads them; ends the training."""
        from safetensors.torch import save_file

        self.out.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            for p, average in zip(self.learnt, self.average, strict=True):
                p.copy_(average)
        save_file(
            {k: v.half().cpu().contiguous() for k, v in self.net.state_dict().items()}, self.out / "model.safetensors"
        )
        (self.out / "model_index.json").write_text(json.dumps({"_class_name": CHROMA}, indent=2) + "\n")
        (self.out / "checkpoint.pt").unlink(missing_ok=True)


def _soft(square: Tensor) -> Tensor:
    """Charbonnier's loss of squared errors."""
    return (square + SOFT**2).sqrt() - SOFT
