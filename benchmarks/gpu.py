"""What Stable Diffusion, the paper's volume and a run's loop cost on a GPU: counted without one, measured with one.

``python benchmarks/gpu.py`` prints the bytes that a guided evaluation saves for its gradient, its arithmetic, and the
kernels of a step of the volume's fit and of the loop's twins; on a machine with a GPU (``make gpu-check``) it also
measures seconds, peak memory and agreement with the CPU, with random weights and pictures.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from omnifusion.color import luminance
from omnifusion.prior.components import GRADIENT_SCALE, Components
from omnifusion.prior.guidance import GreyConstraint, gradient

PUBLISHED = Path(__file__).parents[1] / "tests" / "data" / "sd"
GIB = 2**30
SIZE = (512, 896)
OFF = "off the CPU's own: colour, probability"


def components(
    version: str, checkpointing: bool, device: str = "cpu", dtype: torch.dtype = torch.float16
) -> Components:
    """Stable Diffusion in its published shape, weights random."""
    config = json.loads((PUBLISHED / f"{version}.json").read_text())
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)  # tensors without values cannot be converted
    with torch.device(device):
        parts = [UNet2DConditionModel.from_config(config["unet"]), AutoencoderKL.from_config(config["vae"])]
    torch.set_default_dtype(torch.float32)
    for part in parts:
        part.eval().requires_grad_(False)
        if checkpointing:
            part.enable_gradient_checkpointing()
    text = torch.zeros(1, 77, config["unet"]["cross_attention_dim"])
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return Components(*parts, scheduler, text, "masked", GRADIENT_SCALE)


def guided(parts: Components, frames: int, size: tuple[int, int] = SIZE, through: bool = True) -> Tensor:
    """The gradient of eq. (3)-(4), once."""
    generator = torch.Generator().manual_seed(0)
    h, w = (side // 8 for side in size)
    z = torch.randn(frames, 4, h, w, generator=generator).to(parts.device)
    grey = torch.rand(frames, 1, *size, generator=generator).to(parts.device)
    constraint = GreyConstraint(
        F=lambda z_0: luminance(parts.decode(z_0).clamp(1e-3, 1)) / 100,
        x=grey,
        unknown=torch.ones_like(grey),
        eta=0.02 * parts.gradient_scale,
        through_denoiser=through,
    )
    return gradient(z, parts.network(None), 300, 0.5, "epsilon", constraint)[0]


class Saved:
    """Counts what is saved for the gradient beside the weights: each storage once."""

    def __init__(self, parts: Components) -> None:
        weights = [p for module in (parts.unet, parts.vae) for p in module.parameters()]
        self.known = {p.untyped_storage()._cdata for p in weights}
        self.weights = sum(p.numel() * p.element_size() for p in weights)
        self.kept: list[Any] = []
        self.bytes = 0

    def pack(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.kept.append(storage)
            self.bytes += storage.nbytes()
        return x


def count_guided(version: str, size: tuple[int, int], checkpointing: bool, through: bool = True) -> str:
    """A row: GiB of weights, GiB saved, TFLOP of one guided evaluation of one frame."""
    with FakeTensorMode(), FlopCounterMode(display=False) as flops:
        parts = components(version, checkpointing)
        saved = Saved(parts)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda x: x):
            guided(parts, 1, size, through)
    done = flops.get_total_flops() / 1e12
    kind = "checkpointed" if checkpointing else "all saved" if through else "all saved, gradient stops at the decoder"
    gib = f"{saved.weights / GIB:.2f} | {saved.bytes / GIB:.2f}"
    return f"| {version} | {size[1]}x{size[0]} | {kind} | {gib} | {done:.1f} |"


class Kernels(TorchDispatchMode):
    """Counts operations that launch work, all but those that only look at a tensor differently, and the bytes that they
    read and write."""

    count, bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.count += 1
            self.bytes += sum(x.nbytes for x in tree_flatten((args, kwargs, out))[0] if isinstance(x, Tensor))
        return out


def volume_step(device: str = "cpu", rays: int = 2048, samples: int = 32) -> Callable[[], Tensor]:
    """Loss and gradients of the paper's volume, of 24 frames, on random rays."""
    from omnifusion.omnimotion.official import OfficialVolume  # more than a bare machine has
    from omnifusion.omnimotion.optimise import slope
    from omnifusion.omnimotion.volume import Rays, depths

    volume = OfficialVolume(24).to(device)
    g = torch.Generator().manual_seed(0)
    i, j = torch.randint(0, volume.frames, (2, rays), generator=g)
    batch = Rays(torch.rand(rays, 2, generator=g), i, j, torch.rand(rays, 2, generator=g), torch.ones(rays))
    given = [value.to(device) for value in (*batch, depths(rays, samples, g))]
    return lambda: slope(volume, Rays(*given[:-1]), given[-1], 224.0)


def graph(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A step captured as a CUDA graph."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        out = step()

    def replay() -> Tensor:
        captured.replay()
        return out

    return replay


def loop(size: tuple[int, int] = (252, 448)) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Calls of a run's loop on made pictures, of usual size: name -> on the CPU, and its twin, which takes a device."""
    from omnifusion import gpu, hint, levin, propagate  # more than a bare machine has
    from omnifusion.flow.direct import Correspondence
    from omnifusion.geometry import resize
    from omnifusion.state import ColorState

    g = torch.Generator().manual_seed(0)
    lab = resize(torch.rand(4, 3, 32, 56, generator=g), size) * 100
    state = ColorState.of_exemplars(lab[:, :1], {0: lab[0, 1:] - 50})
    flow = 8 * resize(torch.rand(1, 2, 8, 14, generator=g), size)[0].permute(1, 2, 0).contiguous().numpy()

    class Known:
        """A tracker that has searched."""

        def pairs(self, i: int, j: int, near: bool) -> list[Correspondence]:
            return [Correspondence(flow, back=-flow)]

    mask = resize(torch.rand(1, 1, 8, 14, generator=g), size)[0, 0] > 0.4
    frame = hint.Reference(lab[1, :1], lab[1, 1:] * mask, mask)
    references = [hint.Reference(lab[t, :1], lab[t, 1:], mask | True) for t in (0, 2, 3)]
    asked = torch.from_numpy(hint.subset(~mask.numpy(), hint.ASKED))
    weight = 0.15 * asked * torch.rand(size, generator=g) ** 4 * 100
    given = {
        "fetched": (propagate.fetched, gpu.fetched, (Known(), state, 1, 0)),
        "lookup": (hint.lookup, gpu.lookup, (frame, asked, [*references, frame])),
        "levin": (levin.levin, gpu.levin, (frame.L, frame.ab, mask, lab[2, 1:], weight)),
    }
    return {name: (partial(here, *args), partial(there, *args)) for name, (here, there, args) in given.items()}


def difference(one: Any, other: Any) -> str:
    """Between the colours and the probabilities of two results, in words."""
    tensors = [
        [x for x in tree_flatten(vars(y) if hasattr(y, "ab") else y)[0] if x.is_floating_point()]
        for y in ((one[0], other[0]) if isinstance(one, tuple) else (one, other))
    ]
    off = [(a - b).abs().flatten() for a, b in zip(*tensors, strict=True)]
    return ", ".join(f"{float(x.mean()):.1e} (at most {float(x.max()):.1e})" for x in off)


def count_loop() -> None:
    """Kernels, bytes and arithmetic of the loop's twins, from the traced calls on a CPU."""
    calls = loop()
    print("\nA run's loop at 448x252, one call of each twin:\n")
    print(f"| call | kernels | GB read and written | GFLOP | {OFF} |\n|---|---|---|---|---|")
    for name, (here, there) in calls.items():
        there(device="cpu")  # from now on what is kept from call to call is there
        with FlopCounterMode(display=False) as flops, Kernels() as kernels:
            found = there(device="cpu")
        done = f"{kernels.count} | {kernels.bytes / 1e9:.2f} | {flops.get_total_flops() / 1e9:.1f}"
        print(f"| {name} | {done} | {difference(here(), found)} |", flush=True)


def seconds(work: Callable[[], Any], repeats: int = 3) -> tuple[float, float]:
    """Median seconds and peak GiB of GPU memory."""
    work()
    torch.cuda.reset_peak_memory_stats()
    took = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return sorted(took)[repeats // 2], torch.cuda.max_memory_allocated() / GIB


def counted() -> None:
    """What needs no GPU."""
    print("Counted, half precision, one frame:\n")
    print("| model | frame | gradient | weights, GiB | saved, GiB | TFLOP |\n|---|---|---|---|---|---|")
    for version in ("v1.5", "v2.0-base"):
        for checkpointing in (False, True):
            print(count_guided(version, SIZE, checkpointing), flush=True)
    print(count_guided("v1.5", SIZE, False, through=False))
    print(count_guided("v1.5", (768, 1344), True))
    with told(), FlopCounterMode(display=False) as flops, Kernels() as kernels:
        volume_step(rays=64)()
        whole = flops.get_total_flops() / 1e12 * 2048 / 64
        print(f"\nThe paper's volume, one step of its fit (8 x 256 rays): {kernels.count} kernels, {whole:.2f} TFLOP.")
    with told():
        count_loop()


@contextmanager
def told() -> Iterator[None]:
    """What a machine lacks is skipped with a word."""
    try:
        yield
    except ImportError as missing:
        print(f"\nSkipped: {missing}.")


def measure_loop() -> None:
    """Seconds of the loop's calls on CPU and GPU, and of the volume's step."""
    calls = loop()
    print(f"\n| call | CPU, s | GPU, s | peak, GiB | {OFF} |\n|---|---|---|---|---|")
    for name, (here, there) in calls.items():
        wanted, began = here(), time.perf_counter()
        here()
        alone = time.perf_counter() - began
        took, peak = seconds(partial(there, device="cuda"))
        off = difference(wanted, there(device="cuda"))
        print(f"| {name} | {alone:.4f} | {took:.4f} | {peak:.2f} | {off} |", flush=True)
    ways = {"kernel by kernel": lambda step: step, "as a CUDA graph": graph, "compiled": torch.compile}
    for name, way in ways.items():
        try:
            step = way(volume_step("cuda"))
            took, peak = seconds(step)
            print(f"| volume's step {name} | | {took:.4f} | {peak:.2f} | loss {float(step()[0]):.6f} |", flush=True)
        except RuntimeError as error:
            print(f"| volume's step {name} | refused: {str(error).splitlines()[0]} | | | |", flush=True)


def measured() -> None:
    """What needs one."""
    name = torch.cuda.get_device_name()
    print(f"\nMeasured on {name}, torch {torch.__version__}, random weights:\n")
    print("| work | s | peak, GiB |\n|---|---|---|")
    for dtype in (torch.float16, torch.bfloat16):
        parts = components("v1.5", True, "cuda", dtype)
        for frames in (1, 4, 8):
            took, peak = seconds(lambda n=frames, p=parts: guided(p, n))
            print(f"| v1.5, guided evaluation, {frames} frames, {dtype} | {took:.3f} | {peak:.2f} |", flush=True)
    with told():
        measure_loop()
    single = components("v1.5", False, "cpu", torch.float32)
    small = (128, 128)
    there = guided(single, 1, small)
    here = copy.copy(single)
    here.unet, here.vae = copy.deepcopy(single.unet).cuda(), copy.deepcopy(single.vae).cuda()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        here.unet.to(dtype), here.vae.to(dtype)
        off = float((guided(here, 1, small).cpu() - there).abs().max())
        print(f"\nAgreement with the CPU, {dtype}: largest difference of a latent {off:.2e}.", flush=True)


def main() -> None:
    """Count, and measure where there is a GPU."""
    counted()
    if torch.cuda.is_available():
        measured()
    else:
        print("\nThere is no GPU here: nothing was measured.")


if __name__ == "__main__":
    main()
