"""``evaluate``: score OmniFusion and its peers on a set of clips, as the paper's table 1 does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from omnifusion.commands import above_zero, at_least
from omnifusion.commands.colorize import add_settings, settings_of

if TYPE_CHECKING:
    from omnifusion.evaluation.methods import Method


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("evaluate", help="score methods on a set of clips", description=__doc__)
    add_protocol(p)
    p.add_argument(
        "--methods",
        default="omnifusion,flow-warp,levin,static,grey",
        metavar="A,B",
        help="which to run (default %(default)s; also omnimotion-only and inpainting-only)",
    )
    p.set_defaults(run=run)


def add_protocol(p: argparse.ArgumentParser) -> None:
    """The options of all commands that score clips."""
    p.add_argument(
        "dataset", metavar="DATASET", type=Path, help="a folder of clips; DAVIS' and Videvo's are recognised"
    )
    p.add_argument("--clips", metavar="A,B", help="only these clips, or those that a text file lists")
    p.add_argument("--frames", type=at_least(2), metavar="N", help="only the first N frames of each clip")
    p.add_argument("--scale", type=above_zero, default=1.0, metavar="S", help="resize frames first, such as 0.5")
    p.add_argument("--lpips-weights", type=Path, metavar="PATH", help="AlexNet's state dict as torchvision has it")
    p.add_argument("--json", type=Path, metavar="OUT", help="keep the scores here, and the frames beside it; resumes")
    p.add_argument("--html", type=Path, metavar="OUT", help="write a report with curves and pictures")
    p.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables into a section of this page")
    add_settings(p)


@contextmanager
def scores_file(chosen: Path | None) -> Iterator[Path]:
    """The file for scores and, beside it, frames: the one chosen, or one that is gone afterwards."""
    if chosen is not None:
        yield chosen
        return
    with TemporaryDirectory() as folder:
        yield Path(folder) / "scores.json"


def measure(args: argparse.Namespace, methods: dict[str, Method], scores: Path) -> dict[str, Any]:
    """Run methods under the protocol that the options describe, with the scores in a file; returns its content."""
    from omnifusion.driver import InpaintHere, Stages
    from omnifusion.evaluation.dataset import discover
    from omnifusion.evaluation.evaluate import Protocol, Scorer, Store, evaluate
    from omnifusion.evaluation.peers import PEERS
    from omnifusion.progress import follow

    clips = discover(args.dataset, args.clips.split(",") if args.clips else None)
    weights = str(args.lpips_weights) if args.lpips_weights else None
    protocol = Protocol(args.dataset.resolve().name, args.frames, args.scale, settings_of(args), weights)
    store, scorer, inpaint = Store(scores, protocol), Scorer(args.lpips_weights), InpaintHere()
    if set(methods) - {*PEERS, "omnimotion-only"}:
        inpaint.load(protocol.settings)  # a prior that cannot be had must cost nobody a fit
    return follow(evaluate(clips, methods, protocol, store, scorer, Stages(inpaint=inpaint)))


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the reports; 1 where something failed."""
    from omnifusion.evaluation.report import html_report
    from omnifusion.evaluation.tables import evaluation_tables, failures, paper_table, put_section, title
    from omnifusion.progress import command_line

    with scores_file(args.json) as scores:
        data = measure(args, parse_methods(args.methods), scores)
        tables = evaluation_tables(data)
        print("\n\n".join(["", title(data), *(table.text() for table in tables)]))
        if args.html:
            args.html.write_text(html_report(data, scores, [*tables, paper_table(data)]))
    if args.markdown:
        body = "\n".join(table.markdown() for table in [*tables, paper_table(data)])
        put_section(args.markdown, f"evaluate {title(data)}", title(data), f"{body}\n{command_line()}")
    return 1 if failures(data) else 0


def parse_methods(text: str) -> dict[str, Method]:
    """Comma-separated names to methods, in the order of ``METHODS``.

    Raises:
        InputError: there is no such method.
    """
    from omnifusion.evaluation.methods import METHODS
    from omnifusion.state import InputError

    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise InputError(f"There is no method {', '.join(unknown)}; choose from {', '.join(METHODS)}.")
    return {name: method for name, method in METHODS.items() if name in names}
