"""Color priors: latent diffusion models in diffusers layout that complete the color of one frame.

One loader for all: the bundled prior, Stable Diffusion v1.5 and v2.0, any local folder or hub id in that layout, with
4-channel denoisers or 9-channel inpainting ones. Nothing else in the package imports diffusers, but for training.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.color import compose, lab_to_rgb, luminance, rgb_to_lab
from omnifusion.geometry import pad_to_multiple, resize
from omnifusion.prior.components import Components, embed, load_components
from omnifusion.prior.guidance import (
    ColorCondition,
    GrayConstraint,
    NoiseSchedule,
    conditional_denoising,
    gaussian_like,
    noise,
)
from omnifusion.prior.source import source_of
from omnifusion.progress import Note, Step, Steps, map_steps
from omnifusion.settings import Settings
from omnifusion.state import ColorEstimate, FillTask

CALM = 0.8
"""Share of the mean of all likely colors that a frame takes of which nothing is known."""

TINT = 3.0
"""Standard deviation of a*, b* by which versions of a frame are warmer or cooler."""

LARGEST, LARGEST_CHROMA = 1.5, 2.0
"""Frames whose short side exceeds this multiple of the prior's training size are shrunk to it."""

TAPER = 6.0
"""Distance in pixels from known color over which the prior's correction of a hint fades in: no seams."""

STRENGTH = 0.5
"""Share of the prior's correction that is taken where the hint's confidence is 0."""


def load_prior(settings: Settings, device: str = "cpu") -> DiffusionPrior:
    """Load the prior of ``settings``: a name of ``PRIORS``, a folder in diffusers layout, or a hub id.

    Raises:
        InputError: weights that are missing, partial, gated or of a kind that cannot be used.
    """
    source = source_of(settings.prior)
    return with_text(
        load_components(source, device), embed(source, settings.prompt, settings.negative_prompt), settings
    )


def with_text(components: Components, text: Tensor | None, settings: Settings) -> DiffusionPrior:
    """A prior of loaded components and the embeddings of its prompt."""
    return DiffusionPrior(replace(components, text=text), settings)


class _Canvas(NamedTuple):
    """Frames at the prior's working size, one a row.

    Attributes:
        L: ``(B, 1, H, W)``.
        known: ``(B, 3, H, W)`` sRGB, the picture with the colors that are known or hinted.
        unknown: ``(B, 1, H, W)``, 1 where the color is unknown.
        doubt: ``(B, 1, H, W)``, 1 - the hint's confidence.
    """

    L: Tensor
    known: Tensor
    unknown: Tensor
    doubt: Tensor


class DiffusionPrior:
    """A latent diffusion model as a ``steps.Prior``."""

    def __init__(self, components: Components, settings: Settings) -> None:
        self.components, self.settings = components, settings

    @property
    def shares(self) -> bool:
        """See ``GrayConstraint.share``: a start at a hint affords it."""
        return self.settings.strength is not None and self.settings.optimizations == 1

    def fill(self, tasks: Sequence[FillTask]) -> Steps[list[Tensor]]:
        """See ``steps.Prior``; yields a Step per denoising step.

        With a hint that knows something, the result is the hint, corrected by what the prior changed in it where the
        hint is unsure. A prior of chroma gives the mean of all likely colors in one step, and where there is no hint a
        seed makes it more vivid and warmer or cooler; only without a hint start (the paper) does it draw samples.
        """
        filled: dict[int, Tensor] = {}
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for n, task in enumerate(tasks):
            if bool(task.mask.all()):
                filled[n] = task.ab.clone()
            else:
                hinted = task.estimate is not None and bool((task.estimate.confidence > 0).any())
                calm = self.components.chromatic and (task.estimate is not None or self.settings.strength is not None)
                kinds.setdefault((hinted, calm), []).append(n)
        for (hinted, calm), chosen in kinds.items():
            found = yield from self._fill([tasks[n] for n in chosen], hinted, calm)
            filled |= dict(zip(chosen, found, strict=True))
        return [filled[n] for n in range(len(tasks))]

    def _fill(self, tasks: Sequence[FillTask], hinted: bool, calm: bool) -> Steps[list[Tensor]]:
        """Frames that all start at a hint, or all at noise; those whose colors are no numbers keep their hint."""
        size = (tasks[0].L.shape[-2], tasks[0].L.shape[-1])
        inner = self.working_size(size)
        rows = [self.canvas(task, task.estimate if hinted else None, inner) for task in tasks]
        canvas = _Canvas(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
        done, total = count(1), 1 if calm else self.settings.steps

        def step(z: Tensor) -> Step:
            n = next(done)
            return Step("inpaint", f"denoising {n}/{total}", n / total)

        lost: list[int] = []
        c = self.bound(canvas)
        generators = [torch.Generator().manual_seed(task.seed) for task in tasks]
        z_0 = yield from map_steps(self.latents(c, canvas, hinted, generators, lost, calm), step)
        found = _decode_ab(c, z_0) * (CALM if calm and not hinted else 1)
        if hinted:
            found = found - (_ab(canvas.known) if c.chromatic else _decode_ab(c, _encode(c, canvas.known)))
        found = resize(found[..., : inner[0], : inner[1]], size).cpu()
        if lost:
            yield Note("inpaint", f"Eq. (4) was left out of {len(lost)} denoising steps, its gradient was no number.")
        results = []
        for task, ab in zip(tasks, found, strict=True):
            if calm and task.estimate is None:
                ab = _version(ab, task)
            if not bool(ab.isfinite().all()):
                yield Note("inpaint", "The prior's colors of a frame were no numbers: it keeps the colors looked up.")
                ab = torch.zeros_like(ab)
            if hinted and task.estimate is not None:
                ab = task.estimate.ab + _share(task.estimate.confidence, task.mask) * ab
            results.append(torch.where(task.mask, task.ab, ab))
        return results

    def canvas(self, task: FillTask, hint: ColorEstimate | None, size: tuple[int, int]) -> _Canvas:
        """Scale so that the short side suits the prior, and pad by reflection; never squash."""
        mask = task.mask
        ab, confidence = (task.ab * mask, mask.float()) if hint is None else (hint.ab, hint.confidence)

        def fit(x: Tensor) -> Tensor:
            x = resize(x[None].to(self.components.device), size)
            return pad_to_multiple(x, self.components.multiple)[0]

        unknown = resize((~mask).float()[None, None], size)
        if size[0] > mask.shape[0]:  # bicubic enlargement
            unknown = F.interpolate((~mask).float()[None, None], size)
        unknown = pad_to_multiple((unknown > 0).float(), self.components.multiple)[0].to(self.components.device)
        L_fit = fit(task.L).clamp(0, 100)
        return _Canvas(L_fit, compose(L_fit, fit(ab)), unknown, (1 - fit(confidence[None])).clamp(0, 1))

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (H, W) at which a frame is worked on, before padding, same aspect ratio."""
        least = self.components.training_size
        short = min(size)
        scale = min(max(short, least), (LARGEST_CHROMA if self.components.chromatic else LARGEST) * least) / short
        return round(size[0] * scale), round(size[1] * scale)

    def bound(self, canvas: _Canvas) -> Components:
        """The parts, for these frames."""
        return self.components.at(canvas.L, _ab(canvas.known), canvas.doubt)

    def latents(
        self,
        c: Components,
        canvas: _Canvas,
        hinted: bool,
        generators: Sequence[torch.Generator],
        lost: list[int],
        calm: bool = False,
    ) -> Generator[Tensor, None, Tensor]:
        """The latents z_0 of a fill; yields those after every denoising step. ``lost``: see ``GrayConstraint``;
        ``calm``: one step from no noise at all, the mean."""
        s = self.settings
        from_hint = s.strength is not None and hinted and not calm
        schedule = self.schedule(s.strength if from_hint else None, 1 if calm else s.steps)
        z_known = _encode(c, canvas.known)
        epsilon = gaussian_like(z_known, generators)
        z = noise(z_known, schedule.alphas[0], epsilon) if from_hint else epsilon * (not calm)
        m = 1 - F.max_pool2d(canvas.unknown, c.factor)  # a latent cell mixes all its pixels: known only where all are
        condition = ColorCondition(z_known, m) if s.color_condition else None
        constraint = None
        if s.gray_constraint and s.optimizations > 0:
            constraint = GrayConstraint(
                F=lambda z_0: luminance(c.decode(z_0).clamp(1e-3, 1)) / 100,
                x=canvas.L / 100,
                unknown=canvas.unknown,
                eta=s.eta,
                optimizations=s.optimizations,
                through_denoiser=s.through_denoiser,
                share=self.shares,
                lost=lost,
            )
        network = c.network(self._extra(c, canvas, z_known, m))
        return conditional_denoising(network, schedule, z, generators, c.prediction_type, condition, constraint)

    def _extra(self, c: Components, canvas: _Canvas, z_known: Tensor, m: Tensor) -> Tensor | None:
        """The extra input channels of an inpainting denoiser: 1 = to be filled, and the latents of the rest; a prior of
        chroma reads the doubt about the hint, the hint's latents, and what the frame shows."""
        if c.frames is not None:
            doubt = F.avg_pool2d(canvas.doubt, c.factor)
            told = (
                (doubt, z_known) if self.settings.color_condition else (torch.ones_like(m), torch.zeros_like(z_known))
            )
            return torch.cat([*told, c.frames[0][0].float()], dim=1)
        if c.input_channels == z_known.shape[1]:
            return None
        if self.settings.color_condition:
            return torch.cat([1 - m, z_known], dim=1)
        gray = _encode(c, lab_to_rgb(torch.cat([canvas.L, torch.zeros_like(canvas.known[:, :2])], dim=1)))
        return torch.cat([torch.ones_like(m), gray], dim=1)

    def schedule(self, start: float | None, steps: int) -> NoiseSchedule:
        """The times of the denoising steps: the scheduler's own from pure noise, or evenly down from the start."""
        scheduler = self.components.scheduler
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


@torch.no_grad()
def _encode(c: Components, rgb: Tensor) -> Tensor:
    return c.encode(rgb)


@torch.no_grad()
def _decode_ab(c: Components, z_0: Tensor) -> Tensor:
    return _ab(c.decode(z_0).clamp(0, 1))


def _ab(rgb: Tensor) -> Tensor:
    return rgb_to_lab(rgb)[:, 1:]


def _version(ab: Tensor, task: FillTask) -> Tensor:
    """The mean, as vivid to twice as vivid, and tinted a little where it is neither black nor white, by the seed."""
    generator = torch.Generator().manual_seed(task.seed)
    vivid, tint = 2 ** torch.rand(1, generator=generator), TINT * torch.randn(2, 1, 1, generator=generator)
    return ab * vivid + tint * (task.L / 50 * (2 - task.L / 50))


def _share(confidence: Tensor, mask: Tensor) -> Tensor:
    """How much of the prior's correction each pixel takes, ``(H, W)``: more where the hint is unsure, none if known."""
    hole = (~mask).numpy().astype("uint8")
    distance = torch.from_numpy(cv2.distanceTransform(hole, cv2.DIST_L2, 3))
    return STRENGTH * (1 - confidence) * (distance / TAPER).clamp(0, 1)
