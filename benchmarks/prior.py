"""Measures of the colour prior on real clips: ``PYTHONPATH=. python benchmarks/prior.py WHAT`` (``-h`` names them).

Needs the environment variable OMNIFUSION_CLIPS: a folder with ``davis/CLIP/*.jpg``. Frames 10 and 30 of every clip at
256 x 144; three kinds of holes:

- short: frame t - 5 in true colour, carried on by recursive DIS flow with a cycle check; holes where it fails;
- strip: a border strip of 25 %, blob: smooth blobs of 25 %, the rest in true colour.

All may look colours up in the first frame in true colour; ``short`` also in frame t - 5, and along its failed tracks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.color import compose, from_uint8, rgb_to_lab, to_uint8
from omnifusion.evaluation.peers import consistent
from omnifusion.evaluation.tables import Table
from omnifusion.flow import dis
from omnifusion.geometry import warp
from omnifusion.hint import Reference, levin, make_hint
from omnifusion.meter import median_seconds
from omnifusion.picture import sheet
from omnifusion.prior.diffusion import DiffusionPrior, load_prior
from omnifusion.prior.guidance import Network
from omnifusion.settings import Settings, choose
from omnifusion.state import Hint, Task, drain
from omnifusion.video import write_image

KINDS = ("short", "strip", "blob")


@dataclass(frozen=True)
class Item:
    """One frame with a hole."""

    clip: str
    frame: int
    kind: str
    L: Tensor
    truth: Tensor
    ab: Tensor
    mask: Tensor
    references: list[Reference]
    guess: Hint | None

    def hint(self) -> Hint:
        return make_hint(self.L, self.ab, self.mask, self.references, self.guess)

    def error(self, ab: Tensor, where: Tensor | None = None) -> float:
        """ab RMSE in the hole, or where else."""
        return float((ab - self.truth)[:, ~self.mask if where is None else where].square().mean().sqrt())


def read(folder: Path, indices: list[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """L ``(T, 1, H, W)`` and ab ``(T, 2, H, W)`` of frames of a clip."""
    names = sorted(folder.glob("*.jpg"))
    frames = [cv2.resize(cv2.imread(str(names[i])), size[::-1], interpolation=cv2.INTER_AREA) for i in indices]
    lab = rgb_to_lab(from_uint8(torch.from_numpy(np.stack(frames)[..., ::-1].copy()).permute(0, 3, 1, 2)))
    return lab[:, :1], lab[:, 1:]


def carried(L: Tensor, ab: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first frame's colour in the last: colour, which pixels can be trusted, agreement in luminance."""
    carry, known = torch.cat([L[0], ab[0]]), torch.ones(L.shape[-2:], dtype=torch.bool)
    for t in range(1, len(L)):
        backward, forward = dis(L[t], L[t - 1]), dis(L[t - 1], L[t])
        carry = warp(carry, backward)
        known = (warp(known[None].float(), backward)[0] > 0.999) & consistent(backward, forward)
    return carry[1:], known, torch.exp(-0.5 * ((carry[0] - L[-1, 0]) / 10) ** 2)


def items(size: tuple[int, int] = (144, 256), frames: tuple[int, ...] = (10, 30)) -> Iterator[Item]:
    root = os.environ.get("OMNIFUSION_CLIPS")
    if not root:
        sys.exit("Set OMNIFUSION_CLIPS to the folder that holds davis/CLIP/*.jpg.")
    for folder in sorted((Path(root) / "davis").iterdir()):
        for t in frames:
            L, ab = read(folder, [0, *range(t - 5, t + 1)], size)
            everywhere = torch.ones(size, dtype=torch.bool)
            first, recent = Reference(L[0], ab[0], everywhere), Reference(L[1], ab[1], everywhere)
            colour, known, agreement = carried(L[1:], ab[1:])
            guess = Hint(colour, 0.5 * agreement * ~known)
            args = (L[-1], ab[-1], colour * known, known, [first, recent], guess)
            yield Item(folder.name, t, "short", *args)
            rng = np.random.default_rng(zlib.crc32(f"{folder.name}{t}".encode()))
            for kind, mask in (("strip", strip(rng, size)), ("blob", blob(rng, size))):
                yield Item(folder.name, t, kind, L[-1], ab[-1], ab[-1] * mask, mask, [first], None)


def strip(rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
    mask, side = torch.ones(size, dtype=torch.bool), rng.integers(4)
    n = round(0.25 * size[0 if side < 2 else 1])
    edge = slice(None, n) if side % 2 == 0 else slice(-n, None)
    mask[edge if side < 2 else slice(None), slice(None) if side < 2 else edge] = False
    return mask


def blob(rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
    noise = cv2.GaussianBlur(rng.normal(size=size), (0, 0), size[0] / 12)
    return torch.from_numpy(noise > np.quantile(noise, 0.25))


def least_sure(item: Item, hint: Hint) -> Tensor:
    """The quarter of the hole where the hint is least sure."""
    hole = ~item.mask
    return hole & (hint.confidence <= hint.confidence[hole].quantile(0.25))


def interval(clips: list[str], differences: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over clips of paired differences."""
    by_clip = [
        np.mean([d for c, d in zip(clips, differences, strict=True) if c == clip]) for clip in sorted(set(clips))
    ]
    rng = np.random.default_rng(0)
    means = rng.choice(by_clip, (10_000, len(by_clip))).mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def fill(prior: DiffusionPrior, item: Item, hint: Hint | None, seed: int = 0) -> Tensor:
    return drain(prior.fill([Task(item.L, item.ab, item.mask, hint, seed)]))[0]


def fills(prior: DiffusionPrior, kinds: tuple[str, ...] = KINDS) -> None:
    """Hole error of Levin, of the hint, and of the hint completed by the prior."""
    rows: dict[str, list[tuple[str, float, float, float, float, float]]] = {k: [] for k in kinds}
    for item in (i for i in items() if i.kind in kinds):
        hint = item.hint()
        full, quarter = fill(prior, item, hint), least_sure(item, hint)
        assert torch.equal(full[:, item.mask], item.ab[:, item.mask])
        old = levin(item.L, item.ab, item.mask)
        errors = (item.error(old), item.error(hint.ab), item.error(full))
        rows[item.kind].append((item.clip, *errors, item.error(hint.ab, quarter), item.error(full, quarter)))
    forms = {"holes": "", "n": "", "Levin": ".2f", "hint": ".2f", "hint + prior": ".2f", "vs. Levin": "+.1%"}
    forms |= {"95 % interval": "", "least sure quarter: hint": ".2f", "+ prior": ".2f", "gain": "+.1%"}
    table = Table("ab RMSE in the hole", forms, [])
    for kind, values in rows.items():
        clips, errors = [v[0] for v in values], np.array([v[1:] for v in values])
        a, b, c, p, q = errors.mean(axis=0)
        low, high = interval(clips, list(errors[:, 2] - errors[:, 0]))
        table.rows.append([kind, len(values), a, b, c, c / a - 1, f"[{low:.2f}, {high:.2f}]", p, q, q / p - 1])
    print(table)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def decoded(prior: DiffusionPrior, item: Item, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Without a hint, as in the paper: the decoded frame, and the one with L* and the known colours put back."""
    canvas = prior.canvas(item.L, item.ab, item.mask, None)
    z_0: Tensor = drain(prior.latents(canvas, False, torch.Generator().manual_seed(seed)))  # type: ignore[arg-type]
    with torch.no_grad():
        picture = prior.components.decode(z_0)[0, :, : canvas.inner[0], : canvas.inner[1]].clamp(0, 1)
    return picture, compose(item.L, torch.where(item.mask, item.ab, rgb_to_lab(picture)[1:]))


def compare(prior: DiffusionPrior, variants: dict[str, Settings], every: int = 2) -> None:
    """Whole-frame PSNR of variants of the paper's sampling on the ``short`` holes of frame 10 of every second clip."""
    scores: dict[str, list[tuple[float, ...]]] = {name: [] for name in variants}
    for item in [i for i in items(frames=(10,)) if i.kind == "short"][::every]:
        truth = compose(item.L, item.truth)
        for name, settings in variants.items():
            start = time.process_time()
            picture, final = decoded(DiffusionPrior(prior.components, settings), item)
            spent = time.process_time() - start
            scores[name].append((psnr(picture, truth), psnr(final, truth), item.error(rgb_to_lab(final)[1:]), spent))
    heads = ["variant", "decoded frame, dB", "L* and known colours put back, dB", "hole ab RMSE", "CPU s"]
    means = [[name, *np.mean(values, axis=0)] for name, values in scores.items()]
    print(Table("Whole frames", dict.fromkeys(heads, ".2f"), means))


def ablation(prior: DiffusionPrior) -> None:
    """Table 2 of the paper, in 20 steps."""
    paper = choose("paper", steps=20)
    compare(
        prior,
        {
            "none": replace(paper, color_condition=False, grey_constraint=False),
            "grey only": replace(paper, color_condition=False),
            "mask only": replace(paper, grey_constraint=False),
            "both": paper,
        },
    )


def sampling(prior: DiffusionPrior) -> None:
    """Steps, optimizations, eta, and what the approximations change."""
    paper = choose("paper")
    variants = {
        "50 steps, N = 1": paper,
        "50 steps, N = 1, shared evaluation": replace(paper, start=1.0),
        "50 steps, N = 1, gradient stops at the decoder": replace(paper, through_denoiser=False),
        "50 steps, N = 3": replace(paper, optimizations=3),
        "100 steps, N = 1": replace(paper, steps=100),
    }
    compare(prior, variants, every=4)


def eta(prior: DiffusionPrior) -> None:
    """The learning rate of eq. (4)."""
    compare(prior, {f"eta {e}": replace(choose("paper", steps=20), eta=e) for e in (0.0067, 0.02, 0.067, 0.2)})


def new_object(prior: DiffusionPrior) -> None:
    """A violet disc that no reference shows, its colour given on 1 % of its pixels: error inside the disc."""
    errors = []
    for item in (i for i in items(frames=(10,)) if i.kind == "strip"):
        H, W = item.mask.shape
        y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        disc = (y - H / 2) ** 2 + (x - W / 2) ** 2 < (H / 5) ** 2
        given = disc & (torch.rand(H, W, generator=torch.Generator().manual_seed(0)) < 0.01)
        texture = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(H, W)).astype(np.float32), (0, 0), 2)
        L = torch.where(disc, torch.from_numpy(50 + 100 * texture).clamp(20, 80), item.L)
        truth = torch.where(disc, torch.tensor([35.0, -45.0]).view(2, 1, 1), item.truth)
        mask = ~disc | given
        changed = replace(item, L=L, truth=truth, ab=truth * mask, mask=mask)
        hint = changed.hint()
        found = (levin(L, truth * mask, mask), hint.ab, fill(prior, changed, hint))
        errors.append([changed.error(ab) for ab in found])
    print("Levin {:.2f}, hint {:.2f}, hint + prior {:.2f}".format(*np.mean(errors, axis=0)))


def seconds(prior: DiffusionPrior) -> None:
    """Wall time of a frame at the standard preset: hint and fill."""
    for size in ((144, 256), (240, 427)):
        times = []
        for item in items(size, frames=(10,)):
            start = time.perf_counter()
            hint = item.hint()
            middle = time.perf_counter()
            fill(prior, item, hint)
            times.append((middle - start, time.perf_counter() - middle))
        h, f = np.median(times, axis=0)
        print(f"{size[1]} x {size[0]}: hint {h:.2f} s, fill {f:.2f} s")


def step(prior: DiffusionPrior) -> None:
    """A guided step beside its bare parts: denoiser and decoder, forward and backward; medians of seconds."""
    standard = choose("standard")
    for size in ((144, 256), (240, 427)):
        item = next(items(size, frames=(10,)))
        canvas = prior.canvas(item.L, item.ab, item.mask, None)
        z = prior.components.encode(canvas.known)
        extra = torch.cat([torch.ones_like(z[:, :1]), torch.zeros_like(z)], dim=1)
        network = prior.components.network(extra)

        def denoiser(z: Tensor = z, network: Network = network) -> None:
            leaf = z.detach().requires_grad_()
            torch.autograd.grad(network(leaf, 100).sum(), leaf)

        def decoder(z: Tensor = z) -> None:
            leaf = z.detach().requires_grad_()
            torch.autograd.grad(prior.components.decode(leaf).sum(), leaf)

        parts = sum(median_seconds(part, 9) for part in (denoiser, decoder))
        print(f"{size[1]} x {size[0]}: bare parts {parts:.3f} s", end="")
        for share in (True, False):
            settings = replace(standard, steps=12, start=standard.start if share else None)
            guided = DiffusionPrior(prior.components, settings).latents(canvas, False, torch.Generator().manual_seed(0))
            next(guided)  # the first one encodes as well
            seconds_each = median_seconds(lambda guided=guided: next(guided), 9)
            print(f", {'shared' if share else 'literal'} {seconds_each:.3f} s ({seconds_each / parts:.2f})", end="")
        print()


def contact(prior: DiffusionPrior, out: Path) -> None:
    """Twelve fills: truth, semi-coloured, Levin, hint, hint + prior."""
    chosen = [i for n, i in enumerate(items()) if n % 4 == 0]

    def show(L: Tensor, ab: Tensor) -> np.ndarray:
        return to_uint8(compose(L, ab)).permute(1, 2, 0).numpy()

    rows = []
    for item in chosen:
        hint = item.hint()
        fade = torch.where(item.mask, item.L, 0.5 * item.L + 45)
        pictures = [show(fade, item.ab * item.mask), show(item.L, levin(item.L, item.ab, item.mask))]
        rows.append([show(item.L, item.truth), *pictures, show(item.L, hint.ab), show(item.L, fill(prior, item, hint))])
    labels = [f"{i.clip} {i.frame} {i.kind}" for i in chosen]
    write_image(out, sheet(rows, labels, ["truth", "given", "Levin", "hint", "hint + prior"], 256).transpose(2, 0, 1))


def main() -> None:
    tables: dict[str, Callable[[DiffusionPrior], None]] = {
        "fills": fills,
        **{kind: partial(fills, kinds=(kind,)) for kind in KINDS},
        "ablation": ablation,
        "sampling": sampling,
        "eta": eta,
        "object": new_object,
        "time": seconds,
        "step": step,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*tables, "sheet"])
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--out", type=Path, default=Path("fills.png"), help="file of the contact sheet")
    args = parser.parse_args()
    prior = load_prior(choose(prior=args.prior))
    if args.what == "sheet":
        contact(prior, args.out)
    else:
        tables[args.what](prior)


if __name__ == "__main__":
    main()
