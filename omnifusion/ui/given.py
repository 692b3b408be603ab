"""What visitors give, checked as soon as it is given: clips, exemplars, links."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from omnifusion.clip.register import register
from omnifusion.clip.shots import find_shots
from omnifusion.state import InputError
from omnifusion.ui.archive import Stored, exemplar_name
from omnifusion.ui.limits import Limits
from omnifusion.ui.results import grey
from omnifusion.ui.visit import Visit, receive
from omnifusion.ui.work import open_clip
from omnifusion.video import is_grey, read, read_image, write_image

WORDS = {
    "with --force": 'with "Accept any exemplar" under Advanced',
    "colour fewer frames with --frames": "colour fewer frames",
    "use --prior bundled": "choose the bundled prior",
    "point to a complete copy": "have the owner of this machine point to a complete copy",
}
"""What the command line calls its options, and what the page calls them."""


def for_page(sentence: str) -> str:
    """A sentence that speaks of the page's controls instead of the command line's options."""
    for option, words in WORDS.items():
        sentence = sentence.replace(option, words)
    return sentence


@contextmanager
def named(path: Path, name: str) -> Iterator[None]:
    """Let messages speak of a file by the visitor's name for it."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from error


def receive_file(visit: Visit, path: Path, limits: Limits, home: Path, title: str = "") -> tuple[Visit, list[str]]:
    """Take in a clip; returns the visit and what its owner should know at once.

    Raises:
        InputError: not a video, or too large.
    """
    name = title or path.name
    with named(path, name):
        video = open_clip(path, limits)
    color = not is_grey(video)
    h, w = video.size
    notes = [f"**{name}**: {len(video)} frames, {w} x {h}, {float(video.fps):g} per second."]
    if len(video) == limits.frames:
        notes.append(f"Longer clips are cut: this page takes the first {limits.frames} frames.")
    if color:
        notes.append("The clip is in colour: it is made grey, its first frame is the exemplar unless you give others, "
                     "and the result is scored.")  # fmt: skip
    else:
        notes.append("Add a coloured picture of one of its frames below; without one the prior invents the colours.")
    if len(shots := find_shots(video)) > 1:
        cuts = ", ".join(str(shot.start) for shot in shots[1:])
        notes.append(f"**There are cuts** at frame {cuts}: each part is best with an exemplar of its own.")
    return receive(visit, path, name, video, color, home), notes


def receive_run(visit: Visit, run: Stored, limits: Limits, home: Path) -> tuple[Visit, list[str]]:
    """Take in the clip and exemplars of a finished run."""
    visit, notes = receive_file(visit, run.clip, limits, home, run.request.name)
    assert visit.folder is not None
    pictures = {}
    for frame in run.request.exemplars:
        pictures[frame] = visit.folder / exemplar_name(frame)
        shutil.copyfile(run.exemplar(frame), pictures[frame])
    return replace(visit, pictures=pictures).with_run(run.token), notes


def tie(visit: Visit, frame: int, path: Path, limits: Limits, force: bool) -> tuple[Visit, str]:
    """Tie a coloured picture to a frame, and say how well the two agree.

    Raises:
        InputError: no clip yet, not a picture, or it does not seem to show this frame.
    """
    clip = visit.require_clip()
    assert visit.folder is not None
    with named(path, path.name):
        image = read_image(path)
    shown = np.ascontiguousarray(grey(np.asarray(read(clip, 1, frame).frames[0]).transpose(1, 2, 0)).transpose(2, 0, 1))
    found = register(image, shown, force=force)
    target = visit.folder / exemplar_name(frame)
    target.unlink(missing_ok=True)
    write_image(target, image)
    h, w = image.shape[1:]
    note = (
        f"Frame {frame} has its exemplar, {w} x {h}: its brightness correlates with the frame's by {found.before:.2f}, "
        f"in its place by {found.after:.2f}."
    )
    return replace(visit, pictures={**visit.pictures, frame: target}), f"{note} {found.warning or ''}"


def tie_own(visit: Visit, frame: int, limits: Limits) -> tuple[Visit, str]:
    """Tie the clip's own colours of a frame to it.

    Raises:
        InputError: no clip yet.
    """
    clip = visit.require_clip()
    assert visit.folder is not None
    target = visit.folder / exemplar_name(frame)
    target.unlink(missing_ok=True)
    write_image(target, np.asarray(read(clip, 1, frame).frames[0]))
    note = f"Frame {frame} is an exemplar with the clip's own colours."
    return replace(visit, pictures={**visit.pictures, frame: target}), note


def settings_of(query: Mapping[str, str]) -> dict[str, Any]:
    """The choices that a link carries beside its run; whatever does not read as one is left out."""
    kinds: dict[str, type] = {"preset": str, "prior": str, "eta": float, "steps": int, "seed": int}
    found = {}
    for name, kind in kinds.items():
        try:
            found[name] = kind(query[name])
        except (KeyError, ValueError):
            continue
    return found
