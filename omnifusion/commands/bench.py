"""``bench``: seconds and memory of every stage, as ratios to references measured in the same run."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands.colorize import add_settings, settings_of


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("bench", help="seconds and memory of every stage", description=__doc__)
    p.add_argument("--frames", default="12,24,48,80", metavar="I,J", help="lengths of the clips (default %(default)s)")
    p.add_argument("--json", type=Path, metavar="OUT", help="write the figures")
    p.add_argument("--markdown", type=Path, metavar="OUT", help="write the table into a section of this page")
    add_settings(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, print the table, write it."""
    import json
    from dataclasses import asdict

    from omnifusion.evaluation.bench import bench, table
    from omnifusion.evaluation.tables import put_section, write_text
    from omnifusion.meter import machine
    from omnifusion.state import InputError
    from omnifusion.terminal import follow

    lengths = args.frames.split(",")
    if not all(n.isdecimal() and int(n) >= 2 for n in lengths):
        raise InputError(f"--frames {args.frames} is not a list of lengths from 2 on, such as 12,24.")
    settings = settings_of(args)
    rows = follow(bench(settings, [int(n) for n in lengths]))
    result = table(rows, settings, machine())
    print(result)
    if args.json:
        figures = [asdict(row) | {"ratio": row.ratio} for row in rows]
        write_text(args.json, json.dumps({"machine": machine(), "rows": figures}, indent=1) + "\n")
    if args.markdown:
        put_section(args.markdown, "bench", "Cost", str(result))
