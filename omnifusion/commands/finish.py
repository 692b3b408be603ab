"""``finish``: a finished run with more or less saturation, or its chroma alone, for grading elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import above_zero


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("finish", help="saturation, and chroma alone", description=__doc__)
    p.add_argument("folder", metavar="RUN", type=Path, help="the folder of a finished run")
    p.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder; or, for chroma, a film, X.mkv")
    p.add_argument("--saturation", type=above_zero, default=1.0, help="times the run's own (default 1)")
    p.add_argument(
        "--chroma", action="store_true", help="write a*, b* at 16 bits (0 = 32768, 256 a unit): PNG, or FFV1 in X.mkv"
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write what is asked for."""
    from omnifusion.correction.finishing import export_chroma, finish
    from omnifusion.run.folder import open_run
    from omnifusion.terminal import follow

    stored = open_run(args.folder)
    if args.chroma:
        follow(export_chroma(stored, args.out, args.saturation))
    else:
        follow(finish(stored, args.out, args.saturation))
    print(f"Results: {args.out}")
    return 0
