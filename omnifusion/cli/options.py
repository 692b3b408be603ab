"""Options of the command line: one for each field of ``Settings``, those that commands share, pictures of frames."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnifusion.progress import InputError
from omnifusion.settings import CHOICES, RENAMED, Choice, choose

if TYPE_CHECKING:
    import numpy as np

Command = Callable[..., Any]


def argument(metavar: str, help: str) -> Any:
    """A required argument of the command line."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def option(metavar: str | None, help: str, *flags: str, **limits: Any) -> Any:
    """An option; ``flags`` only where they do not follow from the parameter's name."""
    return typer.Option(*flags, metavar=metavar, help=help, **limits)


# fmt: off
Run = Annotated[Path, argument("RUN", "the folder of a finished run")]
Out = Annotated[Path, option("DIR", "folder for the results")]
Pictures = Annotated[list[str] | None, option("IMAGE@FRAME",
    "colors of a frame, the first is 0; what is transparent stays open; may be repeated")]
FirstFrames = Annotated[int | None, option("N", "only the first N frames", min=1)]
Overwrite = Annotated[bool, option(None, "replace an earlier run in DIR", "--overwrite")]
Threads = Annotated[int, option("N", "threads at work; 0 = as many as the process may use", min=0)]
# fmt: on


def takes_settings(command: Command) -> Command:
    """Give a command an option for each field of ``Settings``, instead of its parameter ``settings``."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
    options = [_option(choice, name) for name, choice in CHOICES.items()]
    options += [_option(CHOICES[new], old, hidden=True) for old, new in RENAMED.items()]

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        chosen = {option.name: values.pop(option.name) for option in options}
        for old in [name for name in RENAMED if chosen[name] is not None]:
            flag, new = old.replace("_", "-"), CHOICES[RENAMED[old]].flag
            print(f"--{flag} is now --{new}; the old name goes with the next version.", file=sys.stderr)
        return command(**values, settings=choose(**chosen))

    every = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *options)]
    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    return run


def _option(choice: Choice, name: str, hidden: bool = False) -> inspect.Parameter:
    """A choice as an option; None = the preset's own value."""
    words = {"True": "on", "False": "off", "None": "none", "": "none"}
    values = {preset: words.get(str(value), value) for preset, value in choice.presets.items()}
    defaults = [f"default {values['standard']}", *(f"{n} {v}" for n, v in values.items() if v != values["standard"])]
    help = f"{choice.help[0].lower()}{choice.help[1:-1]} ({', '.join(defaults[: 1 if name == 'preset' else 3])})"
    flag, kind = name.replace("_", "-"), bool if choice.kind is bool else str
    flags = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    metavar = "|".join(choice.options) or {int: "N", float: "X", str: "TEXT"}.get(choice.kind)
    annotation = Annotated[kind | None, option(metavar, help, flags, hidden=hidden, show_default=False)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def workers(text: str) -> int | str:
    """A number of processes, or the address of a Ray cluster."""
    if not re.fullmatch("ray://.+|[1-9][0-9]{0,3}", text):
        raise typer.BadParameter(f"{text!r} is neither a whole number of at least 1 nor an address ray://HOST:PORT.")
    return text if text.startswith("ray://") else int(text)


def frame_range(text: str) -> tuple[int, int]:
    """``A:B``: the first and the last frame."""
    if not (match := re.fullmatch("([0-9]{1,9}):([0-9]{1,9})", text)):
        raise typer.BadParameter(f"{text!r} names no frames; write the first and the last one, such as 4:20.")
    return int(match[1]), int(match[2])


def read_pictures(texts: Sequence[str] | None) -> "dict[int, np.ndarray]":
    """Pictures by frame, each given as ``IMAGE@FRAME`` (a name may contain an @), or as ``IMAGE`` for frame 0."""
    from omnifusion.video import read_image

    paths: dict[int, str] = {}
    for text in texts or ():
        path, frame, match = text, 0, re.fullmatch("(.+)@([0-9]{1,9})", text, re.DOTALL)
        if match and (exists(match[1]) or not exists(text)):
            path, frame = match[1], int(match[2])
        elif exists(text):
            print(f"{text} names no frame (IMAGE@FRAME) and is taken for frame 0.", file=sys.stderr)
        else:
            raise InputError(f"{text:.80} names no frame; write IMAGE@FRAME, counted from 0, such as photo.png@0.")
        if frame in paths:
            raise InputError(f"Frame {frame} has two pictures, {paths[frame]} and {path}; give one.")
        paths[frame] = path
    return {frame: read_image(Path(path), alpha=True) for frame, path in paths.items()}
