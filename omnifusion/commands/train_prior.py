"""``python -m omnifusion train-prior``: train the bundled prior."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least


def add(subparsers: argparse._SubParsersAction) -> None:
    """Describe the command."""
    p = subparsers.add_parser(
        "train-prior",
        help="train the bundled colour prior on tar files of photos",
        description="Train the bundled colour prior. Interrupted trainings go on where they stopped.",
    )
    p.add_argument("photos", nargs="+", type=Path, metavar="PHOTOS.tar", help="tar files of JPEG photos")
    p.add_argument("--out", type=Path, required=True, help="folder for the prior (diffusers layout) and its checkpoint")
    p.add_argument("--steps", type=at_least(1), help="training steps of the denoiser")
    p.add_argument("--autoencoder-steps", type=at_least(1), help="training steps of the autoencoder")
    p.add_argument("--seed", type=int, default=0, help="fixes the result")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, with a bar of progress."""
    from omnifusion.prior.train import Plan, train
    from omnifusion.state import InputError
    from omnifusion.terminal import follow

    given = {"denoiser_steps": args.steps, "autoencoder_steps": args.autoencoder_steps}
    if any(v is not None and v < 1 for v in given.values()):
        raise InputError("Training needs at least one step; give a positive number.")
    plan = Plan(seed=args.seed, **{k: v for k, v in given.items() if v is not None})
    out = follow(train(args.photos, args.out, plan))
    print(f"The prior is in {out}; use it with --prior {out}")
    return 0
