"""Measures of the color prior on real clips: ``PYTHONPATH=. python benchmarks/prior.py WHAT`` (``-h`` names them).

Needs the environment variable OMNIFUSION_CLIPS: a folder with ``davis/CLIP/*.jpg``. Frames 10 and 30 of every clip at
256 x 144; kinds of holes:

- short: frame t - 5 in true color, propagated as in a run; holes where no answer is believed;
- strip: a border strip of 25 %, blob: smooth blobs of 25 %, the rest in true color;
- blur: the whole frame, seen larger, darker and blurred by motion: frame 0 alone knows its colors, flow does not;
- nothing: the whole frame, and no frame in color.

All but ``nothing`` may look colors up in frame 0 in true color; ``short`` also in frame t - 5, and along flows.
``photos`` needs OMNIFUSION_PHOTOS, the folder of the tar files, and colors 200 held-out photographs from nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.color import compose, from_uint8, gray, rgb_to_lab, to_uint8
from omnifusion.evaluation.tables import Table
from omnifusion.flow.dis import to_bytes
from omnifusion.flow.tracker import DirectFlow
from omnifusion.inpaint import ReferenceFrame, estimate_color
from omnifusion.metrics import colorfulness
from omnifusion.prior.diffusion import DiffusionPrior, load_prior
from omnifusion.prior.photos import Photos, decoded
from omnifusion.progress import run_to_end
from omnifusion.propagate import fetched, propagate
from omnifusion.settings import Settings, choose
from omnifusion.state import ColorEstimate, ColorState, FillTask
from omnifusion.video import write_image
from omnifusion.visualize import sheet

KINDS = ("short", "strip", "blob", "blur", "nothing")
COLLECTIONS = {"imagenet_samples": 1000, "bsds500": 1000, "caltech101": 29}
"""Photographs for training, and how many of those held out are looked at."""


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
    references: list[ReferenceFrame]
    told: list[ColorEstimate]

    @cached_property
    def hint(self) -> ColorEstimate:
        return estimate_color(ReferenceFrame(self.L, self.ab, self.mask), self.references, self.told)

    def error(self, ab: Tensor, where: Tensor | None = None) -> float:
        """ab RMSE in the hole, or where else."""
        return float((ab - self.truth)[:, ~self.mask if where is None else where].square().mean().sqrt())


def read(folder: Path, indices: list[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """L ``(T, 1, H, W)`` and ab ``(T, 2, H, W)`` of frames of a clip."""
    names = sorted(folder.glob("*.jpg"))
    frames = [cv2.resize(cv2.imread(str(names[i])), size[::-1], interpolation=cv2.INTER_AREA) for i in indices]
    lab = rgb_to_lab(from_uint8(torch.from_numpy(np.stack(frames)[..., ::-1].copy()).permute(0, 3, 1, 2)))
    return lab[:, :1], lab[:, 1:]


def items(
    size: tuple[int, int] = (144, 256), frames: tuple[int, ...] = (10, 30), kinds: tuple[str, ...] = KINDS
) -> Iterator[Item]:
    root = os.environ.get("OMNIFUSION_CLIPS")
    if not root:
        sys.exit("Set OMNIFUSION_CLIPS to the folder that holds davis/CLIP/*.jpg.")
    everything, nothing = torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    for folder in sorted((Path(root) / "davis").iterdir()):
        for t in frames:
            L, ab = read(folder, [0, *range(t - 5, t + 1)], size)
            first, recent = ReferenceFrame(L[0], ab[0], everything), ReferenceFrame(L[1], ab[1], everything)
            if "short" in kinds:
                tracker = DirectFlow(to_bytes(L[:, 0]))
                state = ColorState.of_exemplars(L, {0: ab[0], 1: ab[1]})
                told = [fetched(tracker, state, 6, j)[0] for j in (1, 0)]
                state = propagate(tracker, state, 1, 0, [6])
                yield Item(folder.name, t, "short", L[-1], ab[-1], state.ab[6], state.colored(6), [recent, first], told)
            rng = np.random.default_rng(zlib.crc32(f"{folder.name}{t}".encode()))
            for kind, mask in (("strip", strip(rng, size)), ("blob", blob(rng, size))):
                if kind in kinds:
                    yield Item(folder.name, t, kind, L[-1], ab[-1], ab[-1] * mask, mask, [first], [])
            if "blur" in kinds:
                swung = blurred(torch.cat([L[-1], ab[-1]]))
                yield Item(folder.name, t, "blur", swung[:1], swung[1:], 0 * ab[-1], nothing, [first], [])
            if "nothing" in kinds:
                yield Item(folder.name, t, "nothing", L[-1], ab[-1], 0 * ab[-1], nothing, [], [])


def blurred(lab: Tensor) -> Tensor:
    """Lab ``(3, H, W)``: nearer by a third, a fifth darker, blurred by 15 px of motion."""
    image = lab.permute(1, 2, 0).numpy()
    H, W = image.shape[:2]
    image = cv2.resize(image[H // 8 : H - H // 8, W // 8 : W - W // 8], (W, H), interpolation=cv2.INTER_CUBIC)
    image = cv2.filter2D(image, -1, np.full((1, 15), 1 / 15)) * (0.8, 1, 1)
    return torch.from_numpy(image).permute(2, 0, 1).float()


def strip(rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
    mask, side = torch.ones(size, dtype=torch.bool), rng.integers(4)
    n = round(0.25 * size[0 if side < 2 else 1])
    edge = slice(None, n) if side % 2 == 0 else slice(-n, None)
    mask[edge if side < 2 else slice(None), slice(None) if side < 2 else edge] = False
    return mask


def blob(rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
    noise = cv2.GaussianBlur(rng.normal(size=size), (0, 0), size[0] / 12)
    return torch.from_numpy(noise > np.quantile(noise, 0.25))


def least_sure(item: Item, hint: ColorEstimate) -> Tensor:
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


def fill(prior: DiffusionPrior, item: Item, hint: ColorEstimate | None, seed: int = 0) -> Tensor:
    return run_to_end(prior.fill([FillTask(item.L, item.ab, item.mask, hint, seed)]))[0]


def fills(prior: DiffusionPrior, kinds: tuple[str, ...] = KINDS) -> None:
    """Hole error of Levin, of the hint, and of the hint completed by the prior."""
    rows: dict[str, list[tuple[str, float, float, float, float, float]]] = {k: [] for k in kinds}
    for item in items(kinds=kinds):
        hint = item.hint
        full, quarter = fill(prior, item, hint), least_sure(item, hint)
        assert torch.equal(full[:, item.mask], item.ab[:, item.mask])
        old = levin(item.L, item.ab, item.mask)
        errors = (item.error(old), item.error(hint.ab), item.error(full))
        rows[item.kind].append((item.clip, *errors, item.error(hint.ab, quarter), item.error(full, quarter)))
    forms = {"holes": "", "n": "", "Levin": ".2f", "hint": ".2f", "hint + prior": ".2f", "vs. hint": "+.1%"}
    forms |= {"95 % interval": "", "least sure quarter: hint": ".2f", "+ prior": ".2f", "gain": "+.1%"}
    table = Table("ab RMSE in the hole", forms, [])
    for kind, values in rows.items():
        clips, errors = [v[0] for v in values], np.array([v[1:] for v in values])
        a, b, c, p, q = errors.mean(axis=0)
        low, high = interval(clips, list(errors[:, 2] - errors[:, 1]))
        table.rows.append([kind, len(values), a, b, c, c / b - 1, f"[{low:.2f}, {high:.2f}]", p, q, q / p - 1])
    print(table)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def sampled(prior: DiffusionPrior, item: Item, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Without a hint, as in the paper: the decoded frame, and the one with L* and the known colors put back."""
    H, W = item.mask.shape
    task, generator = FillTask(item.L, item.ab, item.mask, None, seed), torch.Generator().manual_seed(seed)
    canvas = prior.canvas(task, None, prior.working_size((H, W)))
    parts = prior.bound(canvas)
    z_0: Tensor = run_to_end(prior.latents(parts, canvas, False, [generator], []))  # type: ignore[arg-type]
    with torch.no_grad():
        picture = parts.decode(z_0)[0, :, :H, :W].clamp(0, 1)
    return picture, compose(item.L, torch.where(item.mask, item.ab, rgb_to_lab(picture)[1:]))


def compare(prior: DiffusionPrior, variants: dict[str, Settings], every: int = 2) -> None:
    """Whole-frame PSNR of variants of the paper's sampling on the ``short`` holes of frame 10 of every second clip."""
    scores: dict[str, list[tuple[float, ...]]] = {name: [] for name in variants}
    for item in list(items(frames=(10,), kinds=("short",)))[::every]:
        truth = compose(item.L, item.truth)
        for name, settings in variants.items():
            start = time.process_time()
            picture, final = sampled(DiffusionPrior(prior.components, settings), item)
            spent = time.process_time() - start
            scores[name].append((psnr(picture, truth), psnr(final, truth), item.error(rgb_to_lab(final)[1:]), spent))
    heads = ["variant", "decoded frame, dB", "L* and known colors put back, dB", "hole ab RMSE", "CPU s"]
    means = [[name, *np.mean(values, axis=0)] for name, values in scores.items()]
    print(Table("Whole frames", dict.fromkeys(heads, ".2f"), means))


def ablation(prior: DiffusionPrior) -> None:
    """Table 2 of the paper, in 20 steps."""
    paper = choose("paper", steps=20)
    compare(
        prior,
        {
            "none": replace(paper, color_condition=False, gray_constraint=False),
            "gray only": replace(paper, color_condition=False),
            "mask only": replace(paper, gray_constraint=False),
            "both": paper,
        },
    )


def sampling(prior: DiffusionPrior) -> None:
    """Steps, optimizations, eta, and what the approximations change."""
    paper = choose("paper")
    variants = {
        "50 steps, N = 1": paper,
        "50 steps, N = 1, shared evaluation": replace(paper, strength=1.0),
        "50 steps, N = 1, gradient stops at the decoder": replace(paper, through_denoiser=False),
        "50 steps, N = 3": replace(paper, optimizations=3),
        "100 steps, N = 1": replace(paper, steps=100),
    }
    compare(prior, variants, every=4)


def eta(prior: DiffusionPrior) -> None:
    """The learning rate of eq. (4)."""
    compare(prior, {f"eta {e}": replace(choose("paper", steps=20), eta=e) for e in (0.0067, 0.02, 0.067, 0.2)})


def new_object(prior: DiffusionPrior) -> None:
    """A violet disc that no reference shows, its color given on 1 % of its pixels: error inside the disc."""
    errors = []
    for item in items(frames=(10,), kinds=("strip",)):
        H, W = item.mask.shape
        y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        disc = (y - H / 2) ** 2 + (x - W / 2) ** 2 < (H / 5) ** 2
        given = disc & (torch.rand(H, W, generator=torch.Generator().manual_seed(0)) < 0.01)
        texture = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(H, W)).astype(np.float32), (0, 0), 2)
        L = torch.where(disc, torch.from_numpy(50 + 100 * texture).clamp(20, 80), item.L)
        truth = torch.where(disc, torch.tensor([35.0, -45.0]).view(2, 1, 1), item.truth)
        mask = ~disc | given
        changed = replace(item, L=L, truth=truth, ab=truth * mask, mask=mask)
        hint = changed.hint
        found = (levin(L, truth * mask, mask), hint.ab, fill(prior, changed, hint))
        errors.append([changed.error(ab) for ab in found])
    print("Levin {:.2f}, hint {:.2f}, hint + prior {:.2f}".format(*np.mean(errors, axis=0)))


def seconds(prior: DiffusionPrior) -> None:
    """CPU seconds of a frame at the standard preset, one thread: hint, fill, and color from nothing."""
    torch.set_num_threads(1)
    for size in ((144, 256), (240, 427)):
        times = []
        for item in items(size, frames=(10,)):
            start = time.process_time()
            hint = item.hint
            middle = time.process_time()
            fill(prior, item, hint)
            end = time.process_time()
            fill(prior, replace(item, mask=0 * item.mask > 0), ColorEstimate(0 * item.ab, 0 * item.L[0]))
            times.append((middle - start, end - middle, time.process_time() - end))
        h, f, n = np.median(times, axis=0)
        print(f"{size[1]} x {size[0]}: hint {h:.2f} s, fill {f:.2f} s, from nothing {n:.2f} s")


def photographs(prior: DiffusionPrior, out: Path) -> None:
    """Held-out photographs colored from nothing: PSNR above gray, colorfulness by the truth; forty to see."""
    root = os.environ.get("OMNIFUSION_PHOTOS")
    if not root:
        sys.exit("Set OMNIFUSION_PHOTOS to the folder that holds the tar files of photographs.")
    rows, pictures = [], []
    for name, most in COLLECTIONS.items():
        (held,) = Photos([Path(root) / f"{name}.tar"], held_out=True).collections
        for jpeg in held[:: -(-len(held) // most)]:
            photo = decoded(jpeg)
            truth = from_uint8(photo.transpose(2, 0, 1))
            L, ab = rgb_to_lab(truth).split((1, 2))
            nothing = torch.zeros(L.shape[-2:], dtype=torch.bool)
            unknown = ColorEstimate(
                0 * ab, torch.zeros(nothing.shape)
            )  # as in a run of which nothing is known: the mean
            (found,) = run_to_end(prior.fill([FillTask(L, 0 * ab, nothing, unknown, 0)]))
            colored = compose(L, found)
            vivid = [float(colorfulness(to_uint8(x).numpy()[None])[0]) for x in (colored, truth)]
            rows.append((name, psnr(gray(truth), truth), psnr(colored, truth), vivid[0] / max(vivid[1], 1)))
            pictures.append((photo, to_uint8(colored).permute(1, 2, 0).numpy()))
    heads = {
        "photographs": "",
        "n": "",
        "gray, dB": ".2f",
        "colored, dB": ".2f",
        "gain": "+.2f",
        "colorfulness": ".2f",
    }
    table = Table("Color from nothing", heads, [])
    for name in [*COLLECTIONS, "all"]:
        chosen = np.array([row[1:] for row in rows if name in (row[0], "all")])
        plain, colored, vivid = chosen.mean(axis=0)
        table.rows.append([name, len(chosen), plain, colored, colored - plain, vivid])
    print(table)
    shown = pictures[:: max(1, len(pictures) // 40)][:40]
    tiles = [np.hstack([cv2.resize(p, (200, 150), interpolation=cv2.INTER_AREA) for p in pair]) for pair in shown]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    write_image(out, np.vstack([np.hstack(tiles[k : k + 4]) for k in range(0, len(tiles), 4)]).transpose(2, 0, 1))


def contact(prior: DiffusionPrior, out: Path) -> None:
    """Twelve fills: truth, semi-colored, Levin, hint, hint + prior."""
    chosen = list(items(frames=(10,)))[::3]

    def show(L: Tensor, ab: Tensor) -> np.ndarray:
        return to_uint8(compose(L, ab)).permute(1, 2, 0).numpy()

    rows = []
    for item in chosen:
        hint = item.hint
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
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*tables, "sheet", "photos"])
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--out", type=Path, default=Path("fills.png"), help="file of the contact sheet")
    args = parser.parse_args()
    prior = load_prior(choose(prior=args.prior))
    if args.what in ("sheet", "photos"):
        {"sheet": contact, "photos": photographs}[args.what](prior, args.out)
    else:
        tables[args.what](prior)


if __name__ == "__main__":
    main()
