"""Runs everything that can use a GPU, with random weights, and compares it with the CPU: ``make gpu-check``.

On a GPU in the published sizes, in at most three minutes; on a CPU in small. Prints seconds, peak memory and agreement,
and ends with 1 where something disagrees.
"""

from __future__ import annotations

import io
import json
import string
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion import omnimotion
from omnifusion.algorithm import colorize
from omnifusion.flow.dis import raft, to_bytes
from omnifusion.prior.components import Canvas, load_components
from omnifusion.prior.source import BUNDLED
from omnifusion.progress import Fitting, held_mib, run_to_end
from omnifusion.settings import choose
from omnifusion.stages import usable_device
from training.train import train

PUBLISHED = Path(__file__).parents[1] / "tests" / "data" / "sd" / "v1.5.json"
BOTH = {"block_out_channels": [8] * 4, "norm_num_groups": 4, "layers_per_block": 1}
SMALL: dict[str, dict[str, Any]] = {
    "unet": BOTH | {"attention_head_dim": 4, "cross_attention_dim": 8, "sample_size": 8},
    "vae": BOTH,
    "text_encoder": {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
}
"""On a CPU, what differs from Stable Diffusion's published configuration."""


class Check:
    """Where a row is computed, in small or not, with an empty folder; seconds and MiB of what ``with check:`` held."""

    def __init__(self, device: str, place: Path) -> None:
        self.device, self.small, self.place, self.seconds, self.mib = device, device == "cpu", place, 0.0, 0.0

    def __enter__(self) -> None:
        if not self.small:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if not self.small:
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.began
        self.mib = held_mib() if self.small else torch.cuda.max_memory_allocated() / 2**20


def clip(frames: int, size: tuple[int, int]) -> Tensor:
    """L* ``(T, 1, H, W)`` of a texture that moves by 1.5 and 0.5 px a frame."""
    noise = np.random.default_rng(0).normal(size=(size[0] + 32, size[1] + 64)).astype(np.float32)
    texture = 50 + 200 * cv2.GaussianBlur(noise, (0, 0), 3)
    moves = [np.array([[1, 0, -1.5 * t - 8], [0, 1, -0.5 * t - 8]], np.float32) for t in range(frames)]
    return torch.from_numpy(np.stack([cv2.warpAffine(texture, m, size[::-1]) for m in moves])[:, None]).clamp(0, 100)


def off(a: Tensor, b: Tensor) -> float:
    """How far ``a`` is from ``b``, relative to its size."""
    return float((a.cpu().float() - b.cpu().float()).norm() / b.cpu().float().norm())


def stable_diffusion(check: Check) -> tuple[float, float]:
    """Stable Diffusion v1.5: a run of 8 frames, 2 steps, the prior always asked"""
    folder = write_prior(check.place / "sd", check.device)
    settings = choose("standard", prior=str(folder), diffusion="always", steps=2, max_side=64 if check.small else 448)
    L = clip(8, (36, 64) if check.small else (252, 448))
    with check:
        result = run_to_end(colorize(L, {0: torch.cat([0.3 * L[0], -0.3 * L[0]])}, settings))
    assert all(result.state.is_complete(t) for t in range(8)), "a frame is not complete"
    z, outputs = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), []
    for device in (check.device, "cpu"):
        parts: Any = load_components(str(folder), device)
        parts.text = torch.zeros(1, 77, parts.unet.config.cross_attention_dim)
        with torch.no_grad():
            outputs.append(parts.network(z.to(device), 300))
    return off(outputs[0], outputs[1]), 0.02


def write_prior(folder: Path, device: str) -> Path:
    """Random components in Stable Diffusion's published layout."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    config = json.loads(PUBLISHED.read_text())
    if device == "cpu":
        config = {name: part | SMALL.get(name, {}) for name, part in config.items()}
    torch.manual_seed(0)
    with torch.device(device):
        unet, vae = (
            kind.from_config(config[n]) for n, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL))
        )
        text = CLIPTextModel(CLIPTextConfig.from_dict(config["text_encoder"]))
    for name, part in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        (part if device == "cpu" else part.half()).save_pretrained(folder / name)
    for name in ("scheduler", "tokenizer"):
        (folder / name).mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config["scheduler"]))
    words = ["<|startoftext|>", "<|endoftext|>", *(c + end for c in string.ascii_lowercase for end in ("", "</w>"))]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    files = (str(folder / "tokenizer" / name) for name in ("vocab.json", "merges.txt"))
    CLIPTokenizer(*files, model_max_length=77).save_pretrained(folder / "tokenizer")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


def volume(check: Check) -> tuple[float, float]:
    """The paper's volume: 12 frames fitted for 60 steps, a frame traced"""
    L = clip(3 if check.small else 12, (24, 32) if check.small else (252, 448))
    steps: list[Any] = []
    paper = omnimotion.PRESETS["paper"]
    few = {"iterations": 10, "pairs": 2, "rays": 16} if check.small else {"iterations": 60}
    omnimotion.PRESETS["check"] = replace(paper, **few)
    flows = run_to_end(omnimotion.find_flows(L, "draft"))
    with check:
        tracker = run_to_end(omnimotion.fit(L, "check", flows=flows, device=check.device), steps.append)
        tracker.matches(np.arange(0, L[0].numel(), 16 if check.small else 1), 0, 2)
    del omnimotion.PRESETS["check"]
    losses = [step.loss for step in steps if isinstance(step, Fitting)]
    assert len(losses) == few["iterations"] // 10 and np.isfinite(losses).all(), f"losses {losses}"
    points = np.random.default_rng(0).uniform(8, 24, (200, 2)).astype(np.float32)
    there = tracker.trace(points, 0, 2)[0]
    tracker.volume.cpu()
    return float(np.median(np.linalg.norm(there - tracker.trace(points, 0, 2)[0], axis=1))), 0.05


def flow(check: Check) -> tuple[float, float]:
    """RAFT: flows of 16 pairs of 448x252, untrained"""
    images = to_bytes(clip(2 if check.small else 17, (64, 96) if check.small else (252, 448))[:, 0])

    def search(device: str, count: int) -> Tensor:
        torch.manual_seed(0)
        find = raft(device, pretrained=False)
        with check:
            return torch.from_numpy(find(images[:count], images[1 : count + 1]))

    one = search("cpu", 1)
    return off(search(check.device, len(images) - 1)[:1], one), 0.05


def training(check: Check) -> tuple[float, float]:
    """The bundled prior's training: 20 steps of 96 pictures of 160 px"""
    rng = np.random.default_rng(0)
    with tarfile.open(check.place / "photos.tar", "w") as tar:
        for n in range(16):
            picture = cv2.resize(
                rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (256, 192), interpolation=cv2.INTER_CUBIC
            )
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
            entry = tarfile.TarInfo(f"{n:05d}.jpg")
            entry.size = len(jpeg)
            tar.addfile(entry, io.BytesIO(jpeg))
    size = {"batch": 4, "side": 64} if check.small else {"batch": 96, "side": 160}
    with check:
        out = train(
            [check.place / "photos.tar"], None, check.place / "out", None, 20, BUNDLED, device=check.device, **size
        )
    L, colors = clip(1, (64, 96)), []
    for device in (check.device, "cpu"):
        frame = (x.to(device) for x in (L, 0 * L.expand(-1, 2, -1, -1), torch.ones_like(L), torch.ones_like(L)))
        bound = load_components(str(out), device).bind(Canvas(*frame), True)
        with torch.no_grad():
            colors.append(bound.decode(bound.network(0 * bound.z_known, 999)))
    return off(colors[0], colors[1]), 0.01


def main() -> int:
    """Run all rows; 1 where one disagrees with the CPU."""
    device, warning = usable_device()
    print(f"{'CPU, in small' if device == 'cpu' else torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    rows, failed = (
        ["| what | seconds | peak MiB | off the CPU | at most |\n|---|---|---|---|---|"],
        [warning] * bool(warning),
    )
    for row in (stable_diffusion, volume, flow, training):
        with tempfile.TemporaryDirectory() as place:
            check = Check(device, Path(place))
            try:
                difference, most = row(check)
            except Exception as error:  # a check that breaks off must not hide the others
                failed.append(f"{row.__name__}: {type(error).__name__}: {error}")
                continue
        rows.append(f"| {row.__doc__} | {check.seconds:.2f} | {check.mib:.0f} | {difference:.2g} | {most:.2g} |")
        if not difference <= most:
            failed.append(f"{row.__name__}: {difference:.2g} off the CPU")
    print("\n".join([*rows, *(f"FAILED: {what}" for what in failed)]))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
