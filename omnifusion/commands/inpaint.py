"""``inpaint``: one picture whose masked pixels lose and regain their colour; luminance is kept."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least
from omnifusion.commands.colorize import add_settings, settings_of
from omnifusion.errors import InputError


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

    from omnifusion.color import compose, from_uint8, rgb_to_lab, to_uint8
    from omnifusion.geometry import fit_size, resize
    from omnifusion.hint import Reference, make_hint
    from omnifusion.prior.diffusion import load_prior
    from omnifusion.stages import device
    from omnifusion.state import Task
    from omnifusion.steps import drain
    from omnifusion.video import read_image, write_image

    settings = settings_of(args)
    if args.samples > 100:
        raise InputError(f"samples is {args.samples}; choose between 1 and 100 fills.")
    lab, known = rgb_to_lab(from_uint8(read_image(args.image))), from_uint8(read_image(args.mask)).amax(dim=0) < 0.5
    size = (known.shape[0], known.shape[1])
    if size != lab.shape[1:]:
        raise InputError(f"{args.mask} and {args.image} differ in size; paint the mask on the picture itself.")

    def small(image: torch.Tensor) -> torch.Tensor:
        return resize(image[None], fit_size((image.shape[1], image.shape[2]), settings.max_side))[0]

    L, mask = small(lab)[:1], small(known[None].float())[0] > 0.999
    ab, hint, references = small(lab)[1:] * mask, None, []
    if args.exemplar is not None:
        other = small(rgb_to_lab(from_uint8(read_image(args.exemplar))))
        references = [Reference(other[:1], other[1:], torch.ones(other.shape[1:], dtype=torch.bool))]
    if settings.start is not None:
        hint = make_hint(Reference(L, ab, mask), references)
    prior, fills = load_prior(settings, device()), []
    for n in range(args.samples):
        (fill,) = drain(prior.fill([Task(L, ab, mask, hint, (settings.seed + n) % 2**63)]))
        fills.append(torch.where(known, lab[1:], resize(fill[None], size)[0]))
    if args.average:
        fills = [torch.stack(fills).mean(0)]
    for n, fill in enumerate(fills):
        out = args.out if len(fills) == 1 else args.out.with_stem(f"{args.out.stem}-{n + 1}")
        write_image(out, to_uint8(compose(lab[:1], fill)).numpy())
        print(out)
    return 0
