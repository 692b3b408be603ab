"""What people may choose: each choice is declared once, in ``Settings``, and everything else is made from that.

To add a choice, declare it in ``Settings``: validation, command line, page, endpoints, links and reports follow. To add
a preset, name it in ``PRESET_NAMES`` and give its values beside the choices where it differs from the standard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from omnifusion.progress import InputError

PRESET_NAMES = ("draft", "standard", "paper")


@dataclass(frozen=True)
class Choice:
    """What is known of one choice.

    Attributes:
        name: the field of ``Settings``.
        kind: int, float, bool or str.
        optional: whether None is a value, too ("none" in text).
        label, help: for people: a word or two, and one line.
        presets: its value in each preset.
        least, most: the range of a number; None = no limit (``most`` alone is not one).
        options: the values of a text; empty = any text.
        slider: least, most and step of the useful part of the range, where a page offers a slider.
    """

    name: str
    kind: type
    optional: bool
    label: str
    help: str
    presets: Mapping[str, Any]
    least: float | None = None
    most: float | None = None
    options: tuple[str, ...] = ()
    slider: tuple[float, float, float] | None = None

    @property
    def flag(self) -> str:
        """The option of the command line without its dashes: "max-side"."""
        return self.name.replace("_", "-")

    @property
    def defaults(self) -> str:
        """The presets' values in words: "default 448; draft 256, paper 512"."""
        standard = self.presets["standard"]
        others = [f"{name} {_word(value)}" for name, value in self.presets.items() if value != standard]
        return "; ".join([f"default {_word(standard)}", *([", ".join(others)] if others else [])])

    @property
    def domain(self) -> str:
        """What may be chosen, in words: "a whole number from 1 to 1000"."""
        if self.options:
            return f"one of {', '.join(self.options)}"
        limits = "" if self.least is None else f" from {self.least} {'on' if self.most is None else f'to {self.most}'}"
        return _KINDS[self.kind] + limits + (" or none" if self.optional else "")

    def read(self, value: Any) -> Any:
        """``value``, which may come as text, as a value of this choice.

        Raises:
            InputError: it is none.
        """
        if self.optional and value in (None, "none"):
            return None
        try:
            found = _READERS[self.kind](value)
        except (TypeError, ValueError, OverflowError, KeyError):
            found = None
        if found is None or not self._holds(found):
            shown = repr(value) if isinstance(value, str) else value
            problem = f"There is no {self.flag} {shown}" if self.options else f"{self.flag} is {shown}"
            raise InputError(f"{problem}; choose {self.domain}.")
        return found

    def _holds(self, value: Any) -> bool:
        if self.options:
            return value in self.options
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else str(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _switch(value: Any) -> bool:
    return {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}[str(value).lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_READERS: dict[type, Callable[[Any], Any]] = {int: _whole, float: float, bool: _switch, str: _text}
_KINDS = {int: "a whole number", float: "a number", bool: "on or off", str: "a text"}


def choice(standard: Any, label: str, help: str, presets: Mapping[str, Any] | None = None, **known: Any) -> Any:
    """A field of ``Settings``: its standard value, what people read, the presets that differ, what else it knows."""
    values = dict.fromkeys(PRESET_NAMES, standard) | dict(presets or {})
    return field(default=standard, metadata={"label": label, "help": help, "presets": values, **known})


# fmt: off
@dataclass(frozen=True)
class Settings:
    """All choices of a run; numbers and switches may be given as text.

    Raises:
        InputError: a value that is not of its kind, or outside its range.
    """

    preset: str = choice(
        "standard", "Preset", "Draft is quick, standard is better, paper uses the paper's own numbers.",
        {name: name for name in PRESET_NAMES}, options=PRESET_NAMES)
    prior: str = choice(
        "bundled", "Prior", "The image model that invents colors where none can be propagated.")
    max_side: int = choice(
        448, "Working size",
        "Longest side in pixels at which color is worked out; brightness keeps the clip's own size.",
        {"draft": 256, "paper": 512}, least=64, slider=(64, 768, 16))
    fit: str = choice(
        "none", "Fitted volume",
        "How thoroughly OmniMotion's volume is fitted; none = optical flow alone answers; paper = the volume alone.",
        {"paper": "paper"}, options=("none", "draft", "standard", "paper"))
    literal: bool = choice(
        False, "Believe the tracker", "Take every color that the tracker brings, unjudged, as the paper does.",
        {"paper": True})
    diffusion: str = choice(
        "auto", "Diffusion",
        "Where the prior inpaints: always; auto = the bundled one only where no color is known at all.",
        {"paper": "always"}, options=("auto", "always"))
    steps: int = choice(
        6, "Denoising steps", "Denoising steps per inpainted frame; more are slower (paper: 50).",
        {"draft": 4, "paper": 50}, least=1, most=1000, slider=(1, 100, 1))
    eta: float = choice(
        0.02, "Eta", "Strength of the grayscale constraint: the learning rate of the paper's equation 4 (paper: 0.02).",
        least=0, most=10)
    optimizations: int = choice(
        1, "Optimizations per step", "Gradient steps of equation 4 per denoising step (paper: 1).",
        least=0, most=20, slider=(0, 10, 1))
    start: float | None = choice(
        0.3, "ColorEstimate start", "Share of the noise schedule that looked-up colors go through; none = from noise (paper).",
        {"paper": None}, least=0, most=1)
    order: str = choice(
        "keyframes", "Order", "The frame inpainted next: next in time (paper), keyframes ahead first, or the grayest.",
        {"paper": "next"}, options=("next", "keyframes", "grayest"))
    color_condition: bool = choice(
        True, "Color condition", "Keep the known colors while denoising (equation 2); off is the paper's ablation.")
    gray_constraint: bool = choice(
        True, "Grayscale constraint",
        "Keep the brightness while denoising (equations 3 and 4); off is the paper's ablation.")
    through_denoiser: bool = choice(
        True, "Whole gradient", "The gradient of equation 4 passes the denoiser (paper); off is cheaper.")
    prompt: str = choice("", "Prompt", "What the clip shows, in words; read by Stable Diffusion only.")
    negative_prompt: str = choice("", "Negative prompt", "What the clip does not show; read by Stable Diffusion only.")
    seed: int = choice(0, "Seed", "The same seed gives the same result.", least=0, most=2**63 - 1)
    # fmt: on

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            object.__setattr__(self, name, known.read(getattr(self, name)))

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Settings:
        """What a link, a form or a stored run gives by name: its preset with its other values; other names are ignored.

        Raises:
            InputError: a value that is not of its kind, or outside its range.
        """
        preset = CHOICES["preset"].read(given.get("preset", "standard"))
        return cls(**{name: given.get(name, known.presets[preset]) for name, known in CHOICES.items()})


def _choices() -> dict[str, Choice]:
    found = {}
    for f in fields(Settings):
        hint = get_type_hints(Settings)[f.name]
        kind, *none = getattr(hint, "__args__", (hint,))
        found[f.name] = Choice(f.name, kind, bool(none), **f.metadata)
    return found


CHOICES: dict[str, Choice] = _choices()
"""All choices by name."""

PRESETS: dict[str, Settings] = {name: Settings.from_mapping({"preset": name}) for name in PRESET_NAMES}


def choose(preset: str | None = None, **changes: Any) -> Settings:
    """A preset (None = standard) with some choices changed; those given as None keep the preset's value.

    Raises:
        InputError: unknown preset, or a value that is not of its kind or outside its range.
    """
    if unknown := set(changes) - set(CHOICES):
        raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
    return Settings.from_mapping({k: v for k, v in {"preset": preset, **changes}.items() if v is not None})
