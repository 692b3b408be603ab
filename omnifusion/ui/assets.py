"""What the page shows that lies in ``assets/``: its words, and the clips that a visitor can try with one click."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from omnifusion.run.folder import RunFolder, open_run

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FOLDER = ASSETS / "examples"


@cache
def text(name: str) -> str:
    """The page's words, ``assets/NAME.md``."""
    return (ASSETS / f"{name}.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Example:
    """A clip made by this project (``assets/examples/make``), its colors known."""

    name: str
    title: str

    @property
    def clip(self) -> Path:
        """The clip, in color."""
        return FOLDER / f"{self.name}.mp4"

    @property
    def result(self) -> RunFolder | None:
        """The finished run that ships with the example, if it does."""
        folder = FOLDER / "results" / self.name
        return replace(open_run(folder), source=self.clip) if (folder / "request.json").is_file() else None


EXAMPLES = (
    Example("train", "A toy train on a table"),
    Example("street", "A street of painted houses"),
    Example("balloons", "Balloons over fields"),
)


def thumbnails() -> list[tuple[str, str]]:
    """Picture and title of every example."""
    return [(str(FOLDER / f"{example.name}.jpg"), example.title) for example in EXAMPLES]
