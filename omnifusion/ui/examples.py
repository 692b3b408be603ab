"""The clips that a visitor can try with one click, and their finished results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from omnifusion.ui.archive import Stored, load
from omnifusion.ui.texts import ASSETS

FOLDER = ASSETS / "examples"


@dataclass(frozen=True)
class Example:
    """A clip made by this project (``assets/examples/make``), its colours known."""

    name: str
    title: str

    @property
    def clip(self) -> Path:
        """The clip, in colour."""
        return FOLDER / f"{self.name}.mp4"

    @property
    def result(self) -> Stored | None:
        """The finished run that ships with the example, if it does."""
        folder = FOLDER / "results" / self.name
        return replace(load(folder), source=self.clip) if (folder / "request.json").is_file() else None


EXAMPLES = (
    Example("train", "A toy train on a table"),
    Example("street", "A street of painted houses"),
    Example("balloons", "Balloons over fields"),
)


def thumbnails() -> list[tuple[str, str]]:
    """Picture and title of every example."""
    return [(str(FOLDER / f"{example.name}.jpg"), example.title) for example in EXAMPLES]
