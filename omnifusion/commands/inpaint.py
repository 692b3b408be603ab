"""``inpaint``: one picture whose masked pixels lose and regain their colour; luminance is kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omnifusion.commands import at_least

if TYPE_CHECKING:
    import torch


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("inpaint", help="fill the colour of one picture", description=__doc__)
    p.add_argument("image", metavar="IMAGE", type=Path, help="the picture; its luminance is kept")
    p.add_argument("--mask", metavar="MASK", type=Path, required=True, help="picture: white = colour unknown")
    p.add_argument("--out", metavar="OUT.png", type=Path, required=True, help="file for the result")
    p.add_argument("--exemplar", metavar="OTHER", type=Path, help="a coloured picture to look colours up in")
    p.add_argument("--preset", default="standard", help="draft, standard (default) or paper")
    p.add_argument("--prior", help="bundled (default), sd15, sd20, a folder in diffusers layout, or a hub id")
    p.add_argument("--eta", type=float, help="learning rate of the greyscale loss, eq. (4); the paper's is 0.02")
    p.add_argument("--steps", type=int, help="denoising steps; the paper's are 50")
    p.add_argument("--optimizations", type=int, metavar="N", help="gradient steps per denoising step; the paper's is 1")
    p.add_argument("--max-side", type=int, metavar="PX", help="longest side at which colour is worked on")
    p.add_argument("--samples", type=at_least(1), default=1, metavar="N", help="save N fills as OUT-1.png, ...")
    p.add_argument("--average", action="store_true", help="save the mean of the N fills instead")
    p.add_argument("--prompt", help="what the picture shows, for priors that read text")
    p.add_argument("--negative-prompt", help="what it does not show")
    p.add_argument("--seed", type=int, default=0, help="fixes the result (default 0)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fill, write, and name the files written."""
    from dataclasses import replace

    import torch

    from omnifusion.color import compose, to_uint8
    from omnifusion.geometry import fit_size, resize
    from omnifusion.hint import Reference, make_hint
    from omnifusion.prior.diffusion import load, sampling_of
    from omnifusion.settings import choose
    from omnifusion.state import InputError, drain
    from omnifusion.video import write_image

    names = ("prior", "eta", "steps", "optimizations", "max_side", "prompt", "negative_prompt", "seed")
    settings = choose(args.preset, **{name: getattr(args, name) for name in names})
    if not 1 <= args.samples <= 100:
        raise InputError(f"samples is {args.samples}; choose between 1 and 100 fills.")
    lab, mask = _lab(args.image), _mask(args.mask)
    if mask.shape != lab.shape[1:]:
        raise InputError(f"{args.mask} and {args.image} differ in size; paint the mask on the picture itself.")
    size = fit_size(tuple(mask.shape), settings.max_side)
    small = resize(lab[None], size)[0]
    known = resize(mask.float()[None, None], size)[0, 0] > 0.999
    references = []
    if args.exemplar is not None:
        other = _lab(args.exemplar)
        other = resize(other[None], fit_size(tuple(other.shape[1:]), settings.max_side))[0]
        references = [Reference(other[:1], other[1:], torch.ones(other.shape[1:], dtype=torch.bool))]
    hint = None
    if settings.start is not None:
        hint = make_hint(small[:1], small[1:] * known, known, references)
    sampling = replace(sampling_of(settings), samples=args.samples if args.average else 1)
    prior = load(settings.prior, "cuda" if torch.cuda.is_available() else "cpu", sampling)
    for n in range(1 if args.average else args.samples):
        generator = torch.Generator().manual_seed(settings.seed + n)
        ab = drain(prior.inpaint(small[:1], small[1:] * known, known, hint, generator))
        ab = torch.where(mask, lab[1:], resize(ab[None], tuple(mask.shape))[0])
        out = args.out if args.samples == 1 or args.average else args.out.with_stem(f"{args.out.stem}-{n + 1}")
        write_image(out, to_uint8(compose(lab[:1], ab)).numpy())
        print(out)
    return 0


def _lab(path: Path) -> torch.Tensor:
    """A picture file as CIELAB ``(3, H, W)``."""

    from omnifusion.color import from_uint8, rgb_to_lab
    from omnifusion.video import read_image

    return rgb_to_lab(from_uint8(read_image(path)))


def _mask(path: Path) -> torch.Tensor:
    """A mask file as ``(H, W)`` bool, true where the colour is known (black)."""
    import torch

    from omnifusion.video import read_image

    return torch.from_numpy(read_image(path).max(axis=0)) < 128
