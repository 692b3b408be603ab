"""The settings of a run: each is declared once, in ``Settings``, and everything else follows from that.

To add one, declare it in ``Settings``: validation, command line, page and reports follow. Its value in each preset is
in ``PRESETS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from omnifusion.progress import InputError

RENAMED = {"fit": "omnimotion", "literal": "trust_tracker", "start": "strength", "grey_constraint": "gray_constraint"}
RENAMED_VALUES = {("omnimotion", "none"): "off", ("order", "greyest"): "grayest"}
"""Names and values of version 0.1 that scripts and stored runs may still hold."""


def about(standard: Any, label: str, help: str, slider: tuple[float, float, float] | None = None, **limits: Any) -> Any:
    """A setting: its standard value, label and help text, the useful part of its range, its limits."""
    return Field(standard, title=label, description=help, json_schema_extra={"slider": slider}, **limits)  # type: ignore[dict-item]


# fmt: off
@dataclass(frozen=True, config={"allow_inf_nan": False})
class Settings:
    """All settings of a run; numbers and switches may be text. InputError for a value of another kind or range."""

    preset: Literal["draft", "standard", "paper"] = about("standard", "Preset",
        "Draft is quick, standard is better, paper uses the paper's own numbers.")
    prior: str = about("bundled", "Prior",
        "The model that guesses what no exemplar shows: bundled, sd15, sd20, a folder, or owner/name on the hub.")
    max_side: int = about(448, "Working size",
        "Longest side in pixels at which colors are computed; brightness keeps the clip's own size.",
        (64, 768, 16), ge=64)
    omnimotion: Literal["off", "draft", "standard", "paper"] = about("off", "OmniMotion fit",
        "How thoroughly OmniMotion's volume is fitted; off = optical flow only; paper = the volume only.")
    trust_tracker: bool = about(False, "Trust the tracker",
        "Accept every tracked color unchecked, as in the paper.")
    diffusion: Literal["auto", "always"] = about("auto", "Diffusion",
        "Where the model inpaints: always; auto = the built-in one only where no color is known at all.")
    steps: int = about(6, "Diffusion steps",
        "Denoising steps (paper: 50); the bundled prior takes 1 unless strength is none.", (1, 100, 1), ge=1, le=1000)
    eta: float = about(0.004, "Eta",
        "How firmly diffusion keeps the original brightness (guidance rate of equation 4; paper: 0.02).", ge=0, le=10)
    optimizations: int = about(1, "Guidance steps",
        "Gradient steps of equation 4 per denoising step (paper: 1).", (0, 10, 1), ge=0, le=20)
    strength: float | None = about(0.3, "Strength",
        "How much noise is added to the estimated colors before denoising; none = pure noise (paper).", ge=0, le=1)
    order: Literal["next", "keyframes", "grayest"] = about("keyframes", "Order",
        "The frame to inpaint next: next in time (paper), keyframes first, or the one with most gray left.")
    color_condition: bool = about(True, "Color condition",
        "Keep the known colors while denoising (equation 2); off is the paper's ablation.")
    gray_constraint: bool = about(True, "Grayscale constraint",
        "Keep the brightness while denoising (equations 3 and 4); off is the paper's ablation.")
    through_denoiser: bool = about(True, "Full gradient",
        "Back-propagate equation 4 through the denoiser (paper); off is cheaper.")
    prompt: str = about("", "Prompt", "What the clip shows, in words; used by Stable Diffusion only.")
    negative_prompt: str = about("", "Negative prompt",
        "What the clip does not show; used by Stable Diffusion only.")
    seed: int = about(0, "Seed", "The same seed gives the same result.", ge=0, le=2**63 - 1)
    # fmt: on

    @field_validator("*", mode="wrap")
    @classmethod
    def _read(cls, value: Any, parse: Callable[[Any], Any], field: Any) -> Any:
        choice = CHOICES[field.field_name]
        value = RENAMED_VALUES.get((choice.name, value), value) if isinstance(value, str) else value
        try:
            if isinstance(value, bool) and choice.kind is not bool:
                raise TypeError
            return parse(None if choice.optional and str(value).lower() in ("none", "") else value)
        except (ValidationError, TypeError):
            flag, text = choice.flag, f"{value!r:.60}"
            problem = f"There is no {flag} {text}" if choice.options else f"{flag} is {text}"
            raise InputError(f"{problem}; choose {choice.domain}.") from None

    @property
    def prior_everywhere(self) -> bool:
        """Whether the prior inpaints every frame, not only in shots without any color."""
        return self.diffusion == "always" or self.prior != "bundled" or self.strength is None

    @property
    def mean_alone(self) -> bool:
        """Whether the prior gives the mean of all likely colors in one step (``DiffusionPrior.fill``)."""
        return self.prior == "bundled" and self.strength is not None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from a form or a stored run: its preset with its other values; unknown names are ignored."""
        values = {RENAMED.get(name, name): value for name, value in values.items()}
        preset = PRESETS[cls(preset=values.get("preset", "standard")).preset]
        return replace(preset, **{name: value for name, value in values.items() if name in CHOICES})


class Choice:
    """The description of one setting, the field ``name`` of ``Settings``; ``flag`` is its option of the command line
    without dashes ("max-side"), ``label`` and ``help`` are for people, ``domain`` is what may be chosen, in words: "a
    whole number from 1 to 1000"."""

    def __init__(self, name: str, field: FieldInfo) -> None:
        self.name, self.flag, self.label, self.help = name, name.replace("_", "-"), field.title, str(field.description)
        parts, extra = get_args(field.annotation), field.json_schema_extra
        self.optional = type(None) in parts  # "none" in text
        self.options: tuple[str, ...] = () if self.optional else parts  # the values of a text; empty = any text
        self.kind: Any = str if self.options else parts[0] if self.optional else field.annotation
        self.slider: Any = extra["slider"] if isinstance(extra, dict) else None  # least, most and step, or None
        limits = {key: getattr(m, key) for m in field.metadata for key in ("ge", "le") if hasattr(m, key)}
        ends = f" from {limits['ge']} {'to ' + str(limits['le']) if 'le' in limits else 'on'}" if limits else ""
        kinds: dict[Any, str] = {int: "a whole number", float: "a number", bool: "on or off", str: "a text"}
        words = f"one of {', '.join(self.options)}" if self.options else kinds[self.kind] + ends
        self.domain = words + (" or none" if self.optional else "")

    @property
    def presets(self) -> dict[str, Any]:
        """The value in each preset."""
        return {name: getattr(preset, self.name) for name, preset in PRESETS.items()}


CHOICES = {name: Choice(name, field) for name, field in Settings.__pydantic_fields__.items()}  # type: ignore[attr-defined]
"""All settings by name."""

PRESETS: dict[str, Settings] = {
    "draft": Settings(preset="draft", max_side=256, steps=4),
    "standard": Settings(),
    "paper": Settings(preset="paper", max_side=512, omnimotion="paper", trust_tracker=True, diffusion="always",
                      steps=50, eta=0.02, strength=None, order="next"),
}  # fmt: skip


def choose(preset: str | None = None, **changes: Any) -> Settings:
    """A preset (None = standard) with some settings changed; those that are None keep the preset's value."""
    if unknown := set(changes) - set(CHOICES) - set(RENAMED):
        raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
    return Settings.from_mapping({k: v for k, v in {"preset": preset, **changes}.items() if v is not None})
