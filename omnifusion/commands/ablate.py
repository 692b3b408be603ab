"""``ablate``: the paper's table 2 on one prior, and a picture of the regions where its rows differ most (figure 7)."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least
from omnifusion.commands.colorize import settings_of
from omnifusion.commands.evaluate import add_protocol, measure, scores_file


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("ablate", help="the paper's ablation on one prior", description=__doc__)
    add_protocol(p)
    p.add_argument("--sheet", type=Path, metavar="PNG", help="write the regions where the rows differ most")
    p.add_argument("--regions", type=at_least(1), default=6, metavar="N", help="regions, one per clip (default 6)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure the rows, print the table, write sheet and reports; 1 where something failed."""
    import numpy as np
    from PIL import Image

    from omnifusion.evaluation.ablation import METHODS, ROWS, table
    from omnifusion.evaluation.figures import details, most_different, outcomes
    from omnifusion.evaluation.report import html_report
    from omnifusion.evaluation.tables import clip_table, failures, put_section, title
    from omnifusion.progress import command_line

    with scores_file(args.json) as scores:
        data = measure(args, METHODS, scores)
        rows = table(data, settings_of(args))
        print("\n\n".join(["", title(data), rows.text(), *failures(data)]))
        if args.sheet:
            clips = [clip for clip, about in data["clips"].items() if set(about["methods"]) >= set(ROWS)]
            made = {clip: outcomes(scores, clip, ["truth", *ROWS]) for clip in clips}
            rivals = {clip: {m: o for m, o in made[clip].items() if m != "truth"} for clip in clips}
            found = [most_different(clip, rivals[clip], range(1, data["clips"][clip]["frames"])) for clip in clips]
            found = sorted(found, key=lambda region: -region.difference)[: args.regions]
            Image.fromarray(np.ascontiguousarray(details(found, made, next(iter(ROWS))))).save(args.sheet)
        if args.html:
            args.html.write_text(html_report(data, scores, [rows, clip_table(data)]))
    if args.markdown:
        body = f"{title(data)}.\n\n{rows.markdown()}\n{command_line()}"
        put_section(
            args.markdown, f"ablate {args.prior or 'bundled'}", f"Ablation, {args.prior or 'bundled'} prior", body
        )
    return 1 if failures(data) else 0
