"""``colorize``: a gray clip and colored frames in, a colored clip out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnifusion.commands import at_least
from omnifusion.settings import CHOICES, Choice, Settings, choose

if TYPE_CHECKING:
    from omnifusion.state import Exemplar


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("colorize", help="color a clip", description=__doc__)
    p.add_argument("input", metavar="INPUT", type=Path, help="a video file or a folder of frames")
    p.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    p.add_argument(
        "--exemplar",
        metavar="IMAGE@FRAME",
        action="append",
        default=[],
        help="a colored frame and its index, or scribbles over it (what is transparent is open); may be repeated",
    )
    p.add_argument("--frames", type=at_least(1), metavar="N", help="color only the first N frames")
    p.add_argument("--force", action="store_true", help="accept an exemplar that does not seem to show its frame")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier run in DIR")
    p.add_argument(
        "--memory",
        type=at_least(1),
        metavar="MIB",
        default=4096,
        help="memory of all processes together (default 4096)",
    )
    p.add_argument(
        "--workers",
        type=workers,
        metavar="N|ray://HOST:PORT",
        default=1,
        help="so many processes do shots side by side, or the machines of a Ray cluster (default 1)",
    )
    p.add_argument(
        "--format",
        choices=("h264", "h265", "prores", "ffv1", "png"),
        default="h264",
        help="how the film is encoded; png = its frames alone, which are written in any case (default h264)",
    )
    add_settings(p)
    p.set_defaults(run=run)


def workers(text: str) -> int | str:
    """How many workers, or the address of a cluster."""
    return text if text.startswith("ray://") else at_least(1)(text)


def add_settings(p: argparse.ArgumentParser, leave_out: Sequence[str] = ()) -> None:
    """The options that every coloring command has, one for each choice; each defaults to the preset's own value."""
    for name, known in CHOICES.items():
        if name in leave_out:
            continue
        described: dict[str, Any] = {"help": f"{known.help[0].lower()}{known.help[1:-1]} ({defaults(known)})"}
        if known.kind is bool:
            described["action"] = argparse.BooleanOptionalAction
        elif known.options:
            described["metavar"] = "|".join(known.options)
        p.add_argument(f"--{known.flag}", **described)


def defaults(choice: Choice) -> str:
    """The presets' values in words: "default 448; draft 256, paper 512"."""
    words = {True: "on", False: "off", None: "none", "": "none"}
    values = {name: words.get(value, value) for name, value in choice.presets.items()}
    others = ", ".join(f"{name} {value}" for name, value in values.items() if value != values["standard"])
    return f"default {values['standard']}" + (f"; {others}" if others else "")


def settings_of(args: argparse.Namespace) -> Settings:
    """The chosen Settings."""
    return choose(**{name: getattr(args, name, None) for name in CHOICES})


def parse_exemplar(text: str) -> Exemplar:
    """``IMAGE@FRAME`` (``IMAGE`` alone means frame 0)."""
    from omnifusion.progress import InputError
    from omnifusion.state import Exemplar
    from omnifusion.video import read_image

    image, _, frame = text.rpartition("@")
    if not image or Path(text).exists():
        image, frame = text, "0"
    if not frame.isdecimal():
        raise InputError(
            f"{text!r} does not name a frame; write IMAGE@FRAME with a frame index from 0 on, such as photo.png@0."
        )
    return Exemplar(int(frame), read_image(Path(image), alpha=True))


def run(args: argparse.Namespace) -> int:
    """Color a clip and print where the results are."""
    from omnifusion.run.folder import RunRequest
    from omnifusion.run.pipeline import Resources
    from omnifusion.terminal import color_to_folder

    exemplars = [parse_exemplar(text) for text in args.exemplar]
    given, source = tuple(exemplar.index for exemplar in exemplars), str(args.input.absolute())
    request = RunRequest(args.input.name, settings_of(args), args.frames, given, args.force, source)
    resources = Resources(args.memory, workers=args.workers, format=args.format)
    report = color_to_folder(request, exemplars, args.out, args.overwrite, resources)
    return 0 if report["complete"] else 130
