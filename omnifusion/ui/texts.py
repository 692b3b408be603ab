"""The page's words, from ``assets/*.md``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@cache
def text(name: str) -> str:
    """``assets/NAME.md``."""
    return (ASSETS / f"{name}.md").read_text(encoding="utf-8")


@cache
def help_of(setting: str) -> str:
    """The line under a setting, from ``assets/settings.md``."""
    parts = (part.partition("\n") for part in text("settings").split("## ") if part.strip())
    return {name.strip(): line.strip() for name, _, line in parts}[setting]
