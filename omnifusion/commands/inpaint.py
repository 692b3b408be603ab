"""``inpaint``: one picture whose masked pixels lose and regain their colour; luminance is kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omnifusion.commands import at_least
from omnifusion.commands.colorize import add_settings, settings_of

if TYPE_CHECKING:
    import torch


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("inpaint", help="fill the colour of one picture", description=__doc__)
    p.add_argument("image", metavar="IMAGE", type=Path, help="the picture; its luminance is kept")
    p.add_argument("--mask", metavar="MASK", type=Path, required=True, help="picture: white = colour unknown")
    p.add_argument("--out", metavar="OUT.png", type=Path, required=True, help="file for the result")
    p.add_argument("--exemplar", metavar="OTHER", type=Path, help="a coloured picture to look colours up in")
    p.add_argument("--samples", type=at_least(1), default=1, metavar="N", help="save N fills as OUT-1.png, ...")
    p.add_argument("--average", action="store_true", help="save the mean of the N fills instead")
    add_settings(p, leave_out=("fit", "order"))
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fill, write, and name the files written."""
    import torch

    from omnifusion.color import compose, to_uint8
    from omnifusion.geometry import fit_size, resize
    from omnifusion.hint import Reference, make_hint
    from omnifusion.prior.diffusion import load_prior
    from omnifusion.state import InputError, drain
    from omnifusion.video import write_image

    settings = settings_of(args)
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
    prior = load_prior(settings, "cuda" if torch.cuda.is_available() else "cpu")
    fills = []
    for n in range(args.samples):
        generator = torch.Generator().manual_seed(settings.seed + n)
        ab = drain(prior.inpaint(small[:1], small[1:] * known, known, hint, generator))
        fills.append(torch.where(mask, lab[1:], resize(ab[None], tuple(mask.shape))[0]))
    if args.average:
        fills = [torch.stack(fills).mean(0)]
    for n, ab in enumerate(fills):
        out = args.out if len(fills) == 1 else args.out.with_stem(f"{args.out.stem}-{n + 1}")
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
