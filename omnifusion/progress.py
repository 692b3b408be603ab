"""What the measuring commands share: a progress bar on the terminal, and the command as a page may quote it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from omnifusion.state import Measured, Step, Steps, drain

R = TypeVar("R")


def follow(steps: Steps[R]) -> R:
    """Run measuring work to its end: a bar that says what is going on, and a line that stays for each result."""
    bar = tqdm(total=100, bar_format="{percentage:3.0f}% {elapsed} {postfix}")

    def show(step: Step) -> None:
        bar.n = round(100 * step.done)
        bar.set_postfix_str(step.message)
        if isinstance(step, Measured):
            bar.write(step.message)

    try:
        return drain(steps, show)
    finally:
        bar.close()


def command_line() -> str:
    """The command that is running, as anyone may repeat it: clips under $OMNIFUSION_CLIPS, outputs by name alone."""
    words = [Path(w).name if w.endswith((".json", ".html", ".md", ".png")) else w for w in sys.argv[1:]]
    line = shlex.join(["python", "-m", "omnifusion", *words])
    clips = os.environ.get("OMNIFUSION_CLIPS")
    return "`" + (line.replace(clips.rstrip("/"), "$OMNIFUSION_CLIPS") if clips else line) + "`"
