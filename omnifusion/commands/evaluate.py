"""``evaluate``: score OmniFusion and its baselines on a set of clips, as the paper's table 1 does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from omnifusion.commands import above_zero, at_least
from omnifusion.commands.colorize import add_settings, settings_of

if TYPE_CHECKING:
    from omnifusion.evaluation.methods import Method
    from omnifusion.evaluation.scores import Scoreboard
    from omnifusion.evaluation.tables import Table


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("evaluate", help="score methods on a set of clips", description=__doc__)
    add_protocol(p)
    p.add_argument(
        "--methods",
        default="omnifusion,flow-warp,levin,static,gray",
        metavar="A,B",
        help="which to run (default %(default)s; also omnimotion-only and inpainting-only)",
    )
    p.set_defaults(run=run)


def add_protocol(p: argparse.ArgumentParser) -> None:
    """The options of all commands that score clips."""
    p.add_argument(
        "dataset", metavar="DATASET", type=Path, help="a folder of clips; DAVIS' and Videvo's are recognized"
    )
    p.add_argument("--clips", metavar="A,B", help="only these clips, or those that a text file lists")
    p.add_argument("--frames", type=at_least(2), metavar="N", help="only the first N frames of each clip")
    p.add_argument("--scale", type=above_zero, default=1.0, metavar="S", help="resize frames first, such as 0.5")
    p.add_argument("--degrade", choices=["film"], help="age the clips first: grain, flicker, weave, scratches, doubles")
    p.add_argument("--lpips-weights", type=Path, metavar="PATH", help="AlexNet's state dict as torchvision has it")
    p.add_argument("--json", type=Path, metavar="OUT", help="keep the scores here, and the frames beside it; resumes")
    p.add_argument("--html", type=Path, metavar="OUT", help="write a report with curves and pictures")
    p.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables into a section of this page")
    add_settings(p)


@contextmanager
def measured(args: argparse.Namespace, methods: dict[str, Method]) -> Iterator[Scoreboard]:
    """The scores of methods under the protocol that the options describe; unless they are to be kept, only inside."""
    from omnifusion.evaluation.baselines import BASELINES
    from omnifusion.evaluation.dataset import discover
    from omnifusion.evaluation.evaluate import Evaluation, Protocol, Scoreboard, Scorer
    from omnifusion.prior.diffusion import load_prior
    from omnifusion.stages import Stages, device
    from omnifusion.terminal import follow

    clips = discover(args.dataset, args.clips.split(",") if args.clips else None)
    weights = str(args.lpips_weights) if args.lpips_weights else None
    protocol = Protocol(args.dataset.resolve().name, args.frames, args.scale, settings_of(args), weights, args.degrade)
    if set(methods) - {*BASELINES, "omnimotion-only"}:
        load_prior(protocol.settings, device())  # a prior that cannot be had must cost nobody a fit
    with TemporaryDirectory() as folder:
        scores = Scoreboard.begin(args.json or Path(folder) / "scores.json", protocol)
        run = Evaluation(protocol, scores, Scorer(args.lpips_weights), Stages()).run(clips, methods)
        yield follow(run)


def tell(args: argparse.Namespace, scores: Scoreboard, key: str, heading: str, tables: Sequence[Table]) -> int:
    """Print tables, write the report and the section ``key`` that are asked for; 1 where something failed."""
    from omnifusion.evaluation.report import html_report
    from omnifusion.evaluation.tables import put_section, write_text

    text = "\n".join(str(table) for table in tables)
    print(f"\n{scores.title()}\n\n{text}")
    if args.html:
        write_text(args.html, html_report(scores, tables))
    if args.markdown:
        put_section(args.markdown, key, heading, text)
    return 1 if scores.failures() else 0


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the reports; 1 where something failed."""
    from omnifusion.evaluation.tables import evaluation_tables

    with measured(args, parse_methods(args.methods)) as scores:
        return tell(args, scores, f"evaluate {scores.title()}", scores.title(), evaluation_tables(scores))


def parse_methods(text: str) -> dict[str, Method]:
    """Comma-separated names to methods, in the order of ``METHODS``.

    Raises:
        InputError: there is no such method.
    """
    from omnifusion.evaluation.methods import METHODS
    from omnifusion.progress import InputError

    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise InputError(f"There is no method {', '.join(unknown)}; choose from {', '.join(METHODS)}.")
    return {name: method for name, method in METHODS.items() if name in names}
