"""The command line: ``python -m omnifusion COMMAND``. Bad input ends in one sentence and exit status 2."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

from omnifusion import __version__, commands
from omnifusion.progress import InputError


def parser() -> argparse.ArgumentParser:
    """The whole command line, one subparser per module of ``omnifusion.commands``."""
    whole = argparse.ArgumentParser("omnifusion", description="Color a black-and-white clip from one colored frame.")
    whole.add_argument("--version", action="version", version=__version__)
    subparsers = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in sorted(m.name for m in pkgutil.iter_modules(commands.__path__)):
        importlib.import_module(f"omnifusion.commands.{module}").add(subparsers)
    return whole


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    args = parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except InputError as error:
        print(f"omnifusion: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("omnifusion: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
