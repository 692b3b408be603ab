"""``python -m training train`` and ``python -m training evaluate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omnifusion.pool import cores
from omnifusion.prior.source import BUNDLED
from omnifusion.progress import InputError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 2 = its input cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train and evaluate the bundled prior.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "evaluate"):
        p = commands.add_parser(name)
        p.add_argument("photos", nargs="+", type=Path, metavar="PHOTOS.tar", help="tar files of JPEG photographs")
        p.add_argument("--videos", type=Path, metavar="VIDEOS.tar", help="tar file of CLIP/FRAME.jpg and clips.txt")
        p.add_argument("--device", help="cuda or cpu; default: a GPU where there is one")
    to_train, to_evaluate = commands.choices["train"], commands.choices["evaluate"]
    to_train.add_argument("--out", type=Path, required=True, help="folder for the prior and its checkpoint")
    how_long = to_train.add_mutually_exclusive_group(required=True)
    how_long.add_argument("--minutes", type=float, help="of training in all; interrupted, the same command goes on")
    how_long.add_argument("--steps", type=int, help="instead, a number of steps, which makes the result reproducible")
    to_train.add_argument("--from", dest="start", type=Path, default=BUNDLED, help="a trained prior to start from")
    to_train.add_argument("--fresh", action="store_true", help="take nothing but its encoder")
    to_train.add_argument("--frozen", action="store_true", help="leave the encoder as it is: half the cost")
    to_train.add_argument("--batch", type=int, default=96)
    to_train.add_argument("--side", type=int, default=160, help="of the training pictures in pixels, a multiple of 32")
    to_train.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    to_train.add_argument("--tasks", type=int, default=2000, help="fills to record of runs on the videos")
    to_train.add_argument("--seed", type=int, default=0)
    to_evaluate.add_argument("--prior", type=Path, default=BUNDLED, help="folder of the prior")
    to_evaluate.add_argument("--most", type=int, default=1000, help="held-out photographs of each collection")
    to_evaluate.add_argument("--tasks", type=int, default=100, help="fills to record of runs on held-out videos")
    to_evaluate.add_argument("--sheet", type=Path, help="picture of forty photographs, true and colored")
    args = vars(parser.parse_args(arguments))
    import torch  # after omnifusion, with which its idle threads do not spin

    try:
        if args.pop("command") == "train":
            from training.train import train

            torch.set_num_threads(cores())
            train(**args)
        else:
            from training.evaluate import evaluate

            evaluate(**args)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
