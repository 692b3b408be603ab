"""``correct``: mend a finished run where it is wrong; what does not descend from the mended things stays as it is."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("correct", help="correct a finished run", description=__doc__)
    p.add_argument("folder", metavar="RUN", type=Path, help="the folder of a finished run")
    p.add_argument("--out", metavar="DIR", type=Path, help="leave RUN as it is and correct a copy of it in DIR")
    p.add_argument(
        "--exemplar",
        metavar="IMAGE@FRAME",
        action="append",
        default=[],
        help="colors painted over a frame of the run; what is transparent is open; may be repeated",
    )
    p.add_argument(
        "--lock",
        metavar="MASK@FRAME",
        action="append",
        default=[],
        help="what is opaque or white in it stays as it is; may be repeated",
    )
    p.add_argument("--frames", metavar="A:B", help="change frames A to B only, both included")
    p.add_argument("--undo", action="store_true", help="take the last correction back, exactly")
    p.add_argument("--replay", metavar="OTHER", type=Path, help="do the corrections of another run of the clip again")
    p.set_defaults(run=run)


def parse_frames(text: str) -> tuple[int, int]:
    """``A:B``: first and last frame."""
    from omnifusion.progress import InputError

    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal()):
        raise InputError(f"--frames {text} names no frames; write the first and the last one, such as 4:20.")
    return int(first), int(last)


def run(args: argparse.Namespace) -> int:
    """Correct a run, or undo that, and print what has changed."""
    from omnifusion.commands.colorize import parse_exemplar
    from omnifusion.correction.history import Correction, correct_run, history, recover, undo
    from omnifusion.progress import InputError
    from omnifusion.run.folder import copy_run, open_run
    from omnifusion.terminal import follow

    if (bool(args.exemplar) + args.undo + (args.replay is not None)) != 1:
        raise InputError("Say what to do: --exemplar IMAGE@FRAME, --replay OTHER or --undo.")
    stored = recover(args.folder)
    asked = [] if args.replay is None else history(open_run(args.replay))
    if args.exemplar:
        given = ([parse_exemplar(text) for text in texts] for texts in (args.exemplar, args.lock))
        patches, locks = ({picture.index: picture.image for picture in pictures} for pictures in given)
        asked = [Correction(patches, locks, parse_frames(args.frames) if args.frames else None)]
    if args.out is not None:
        if args.out.exists():
            raise InputError(f"{args.out} exists; name a new folder for the corrected copy.")
        stored = copy_run(stored, args.out)
    if args.undo:
        stored = undo(stored)
    for correction in asked:
        stored = follow(correct_run(stored, correction))
        told = stored.report["corrections"][-1]
        print(f"{told['changed_pixels']} pixels of {len(told['changed_frames'])} frames are corrected.")
    print(f"{len(stored.report.get('corrections', []))} corrections in {stored.folder}")
    return 0
