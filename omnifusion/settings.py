"""What people may choose, and three sensible sets of choices."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from omnifusion.state import InputError

PresetName = Literal["draft", "standard", "paper"]
PriorName = Literal["bundled", "sd15", "sd20"]
Order = Literal["next", "keyframes", "greyest"]


@dataclass(frozen=True)
class Settings:
    """All choices of a run.

    Attributes:
        preset: the set of choices that the others started from.
        prior: an entry of ``prior.PRIORS``, a folder in diffusers layout, or a hub id.
        max_side: longest side of the working size in pixels.
        fit: the tracker's own preset.
        steps: denoising steps (paper: 50).
        eta: learning rate of eq. (4) (paper: 0.02).
        optimizations: gradient steps of eq. (4) per denoising step (paper: 1).
        start: fraction of the noise schedule at which the noised hint starts; None = pure noise, no hint (paper).
        order: the frame inpainted next: "next" in time (paper); "keyframes", about five frames ahead and then those
            between, so that new regions are filled when more of them has come into view; or the "greyest" (fewest
            diffusion runs).
        color_condition: eq. (2); off for the ablation.
        grey_constraint: eq. (3)-(4); off for the ablation.
        through_denoiser: whether eq. (4)'s gradient passes the denoiser (paper) or stops at the decoder (cheaper).
        prompt, negative_prompt: for priors that read text.
        seed: fixes the result.
    """

    preset: str = "standard"
    prior: str = "bundled"
    max_side: int = 448
    fit: str = "standard"
    steps: int = 6
    eta: float = 0.02
    optimizations: int = 1
    start: float | None = 0.3
    order: Order = "keyframes"
    color_condition: bool = True
    grey_constraint: bool = True
    through_denoiser: bool = True
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise InputError(f"steps is {self.steps}; choose between 1 and 1000 denoising steps.")
        if not 0 <= self.eta <= 10:
            raise InputError(f"eta is {self.eta}; choose a learning rate between 0 and 10 (the paper's is 0.02).")
        if not 0 <= self.optimizations <= 20:
            raise InputError(f"optimizations is {self.optimizations}; choose between 0 and 20 per denoising step.")
        if self.max_side < 64:
            raise InputError(f"max-side is {self.max_side}; the working size needs at least 64 pixels.")
        if self.order not in get_args(Order):
            raise InputError(f"order is {self.order!r}; choose one of {', '.join(get_args(Order))}.")


PRESETS: dict[str, Settings] = {
    "draft": Settings(preset="draft", max_side=256, fit="draft", steps=4),
    "standard": Settings(),
    "paper": Settings(preset="paper", max_side=512, fit="paper", steps=50, start=None, order="next"),
}


def choose(preset: str = "standard", **changes: Any) -> Settings:
    """A preset with some choices changed; those given as None keep the preset's value.

    Raises:
        InputError: unknown preset, or a value outside its range.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    known = {f.name for f in fields(Settings)}
    unknown = set(changes) - known
    if unknown:
        raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
    return replace(PRESETS[preset], **{k: v for k, v in changes.items() if v is not None})
