"""``bench-tracker``: the tracker against exact truth on made scenes, and in carried colour on real clips."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import above_zero, at_least

SCENES = "pan,zoom,rotation,nonrigid,two-layers,three-layers,occlusion,thin,repeated"


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("bench-tracker", help="accuracy of the tracker", description=__doc__)
    p.add_argument("--scenes", default=SCENES, metavar="A,B", help="made scenes (default: all of the tracker's)")
    p.add_argument("--seeds", type=at_least(1), default=3, metavar="N", help="seeds per scene (default 3)")
    p.add_argument(
        "--clips", type=Path, nargs="*", default=[], metavar="DIR", help="real clips: folders of frames in colour"
    )
    p.add_argument("--frames", type=at_least(2), default=24, metavar="N", help="frames per clip (default 24)")
    p.add_argument("--preset", default="standard", help="draft, standard (default) or paper")
    p.add_argument(
        "--pace", type=above_zero, metavar="SECONDS", help="grid volume and official networks for so many CPU-seconds"
    )
    p.add_argument("--growth", type=Path, metavar="CLIP", help="whole fits to --lengths frames of this clip")
    p.add_argument(
        "--lengths", type=at_least(2), nargs="*", default=[24, 80, 160], metavar="N", help="default: 24 80 160"
    )
    p.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables into sections of this page")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    from omnifusion.evaluation.bench_tracker import carried, growth, made, pace
    from omnifusion.evaluation.tables import put_section
    from omnifusion.state import InputError
    from omnifusion.synthetic import SCENES as KNOWN
    from omnifusion.terminal import follow

    scenes = [s for s in args.scenes.split(",") if s]
    if unknown := set(scenes) - set(KNOWN):
        raise InputError(f"There is no scene {', '.join(sorted(unknown))}; choose from {', '.join(KNOWN)}.")
    tables = {}
    if scenes:
        tables["made"] = follow(made(scenes, args.seeds, args.frames, args.preset))
    if args.clips:
        tables["carried"] = follow(carried(args.clips, args.frames, args.preset))
    if args.growth:
        tables["growth"] = follow(growth(args.growth, args.lengths, args.preset))
    if args.pace:
        tables["pace"] = follow(pace(args.pace))
    for name, table in tables.items():
        print(table)
        if args.markdown:
            put_section(args.markdown, name, table.title, str(table))
