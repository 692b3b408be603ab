"""``ablate``: the paper's table 2 on one prior, or what each of our own parts earns, and where its rows differ most."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least
from omnifusion.commands.colorize import settings_of
from omnifusion.commands.evaluate import add_protocol, measured, tell


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("ablate", help="the method without some of its parts", description=__doc__)
    add_protocol(p)
    p.add_argument("--parts", action="store_true", help="switch our own parts one by one, instead of table 2")
    p.add_argument("--sheet", type=Path, metavar="PNG", help="write the regions where the rows differ most (figure 7)")
    p.add_argument("--regions", type=at_least(1), default=6, metavar="N", help="regions, one per clip (default 6)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the rows, print the table, write sheet and reports; 1 where something failed."""
    from omnifusion.evaluation import ablation
    from omnifusion.evaluation.figures import details
    from omnifusion.evaluation.tables import clip_table
    from omnifusion.video import write_image

    settings = settings_of(args)
    methods = ablation.with_and_without_parts() if args.parts else ablation.rows_of_table_2()
    with measured(args, methods) as scores:
        table = ablation.part_table(scores) if args.parts else ablation.paper_ablation(scores, settings)
        heading = f"{'Parts' if args.parts else 'Ablation'}, {settings.prior} prior: {scores.title()}"
        key = f"{'parts' if args.parts else 'ablate'} {settings.prior}"
        if args.sheet:
            write_image(args.sheet, details(scores, list(methods), args.regions).transpose(2, 0, 1))
        return tell(args, scores, key, heading, [table, clip_table(scores)])
