"""``gallery``: the paper's figures 3 to 6 for any clips, rows of methods, columns of frames, a zoomed region."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("gallery", help="methods side by side as a picture", description=__doc__)
    p.add_argument("scores", metavar="SCORES", type=Path, help="a file that `evaluate --json` wrote")
    p.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for one picture per clip")
    p.add_argument("--clips", metavar="A,B", help="only these clips")
    p.add_argument("--methods", metavar="A,B", help="only these methods")
    p.add_argument("--frames", metavar="I,J", help="which frames (default three, evenly spread)")
    p.add_argument("--box", metavar="L,T,R,B", help="the zoomed region in pixels (default: where methods differ most)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Draw and write the pictures."""
    from omnifusion.evaluation.figures import gallery
    from omnifusion.evaluation.scores import Scoreboard
    from omnifusion.state import InputError
    from omnifusion.video import write_image

    scores = Scoreboard.read(args.scores)
    methods = args.methods.split(",") if args.methods else scores.methods
    box = _numbers(args.box, "--box", 4) if args.box else None
    args.out.mkdir(parents=True, exist_ok=True)
    for clip in args.clips.split(",") if args.clips else scores.clips:
        if "frames" not in scores.clips.get(clip, {}):
            raise InputError(f"{args.scores} has no clip {clip}; it has {', '.join(scores.clips)}.")
        last = scores.clips[clip]["frames"] - 1
        frames = _numbers(args.frames, "--frames") if args.frames else [round(last * k / 3) for k in (1, 2, 3)]
        if max(frames) > last:
            raise InputError(f"{clip} has frames 0 to {last}; there is no frame {max(frames)}.")
        path = args.out / f"{clip}.png"
        write_image(path, gallery(clip, scores.outcomes(clip, ["truth", *methods]), frames, box).transpose(2, 0, 1))
        print(path)


def _numbers(text: str, option: str, count: int | None = None) -> list[int]:
    from omnifusion.state import InputError

    words = text.split(",")
    if not all(word.isdecimal() for word in words) or (count is not None and len(words) != count):
        raise InputError(f"{option} {text} is not {count or 'a list of'} whole numbers; separate them by commas.")
    return [int(word) for word in words]
