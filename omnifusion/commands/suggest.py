"""``suggest``: which frames of a finished run are worth coloring next, and where in them."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("suggest", help="the frames worth coloring next", description=__doc__)
    p.add_argument("folder", metavar="RUN", type=Path, help="the folder of a finished run")
    p.add_argument("--most", type=at_least(1), default=3, metavar="N", help="so many frames at most (default 3)")
    p.add_argument(
        "--out", metavar="DIR", type=Path, help="a new folder for the frames' doubts and regions as pictures"
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each frame."""
    from omnifusion.correction.history import clip_of, state_of
    from omnifusion.correction.suggest import doubt, drawn, suggest
    from omnifusion.progress import InputError
    from omnifusion.run.folder import open_run, writing
    from omnifusion.video import write_image

    if args.out is not None and args.out.exists():
        raise InputError(f"{args.out} exists; name a new folder.")
    stored = open_run(args.folder)
    state = state_of(stored, clip_of(stored))
    for found in suggest(state, args.most):
        rows, columns = (found.region.any(1 - axis).nonzero()[:, 0].tolist() for axis in (0, 1))
        h, w = found.region.shape
        where = f"x {100 * columns[0] / w:.0f} to {100 * (columns[-1] + 1) / w:.0f} %"
        where += f", y {100 * rows[0] / h:.0f} to {100 * (rows[-1] + 1) / h:.0f} %"
        print(f"frame {found.frame}: settles {100 * found.share:.0f} % of all doubt, most of it at {where}")
        if args.out is not None:
            with writing(args.out):
                args.out.mkdir(parents=True, exist_ok=True)
                picture = stored.frame(found.frame).transpose(2, 0, 1)
                write_image(
                    args.out / f"{found.frame:05d}.png", drawn(picture, doubt(state)[found.frame], found.region)
                )
    return 0
