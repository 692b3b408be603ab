"""A prior at work: it completes the color of frames by the paper's conditional denoising (``guidance``).

One implementation for all: the bundled prior, Stable Diffusion v1.5 and v2.0, any local folder or hub id in that
layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.color import into_gamut, luminance, rgb_to_lab
from omnifusion.geometry import pad_to_multiple, resize
from omnifusion.prior.components import Canvas, Components, embed, load_components
from omnifusion.prior.guidance import (
    ColorCondition,
    GrayConstraint,
    NoiseSchedule,
    conditional_denoising,
    gaussian_like,
    noise,
)
from omnifusion.prior.source import source_of
from omnifusion.progress import Note, Step, Steps
from omnifusion.settings import Settings
from omnifusion.state import ColorEstimate, FillTask

TINT = 3.0  # standard deviation of a*, b* by which variants of a frame are warmer or cooler
TAPER, SHARE = 6.0, 0.5
"""Distance in pixels from known color over which the prior's correction of an estimate fades in (no seams), and the
share of it that is taken where the estimate's confidence is 0."""


def load_prior(settings: Settings, device: str = "cpu") -> DiffusionPrior:
    """Load the prior of ``settings``: a name of ``PRIORS``, a folder in diffusers layout, or a hub id.

    Raises:
        InputError: weights that are missing, partial, gated or of a kind that cannot be used.
    """
    source = source_of(settings.prior)
    text = embed(source, settings.prompt, settings.negative_prompt)
    return DiffusionPrior(load_components(source, device), settings, text)


class DiffusionPrior:
    """A latent diffusion model that completes frames; ``text``: the embeddings of its prompt, see ``embed``."""

    def __init__(self, components: Components, settings: Settings, text: Tensor | None = None) -> None:
        self.components, self.settings = components if text is None else replace(components, text=text), settings

    @property
    def shares(self) -> bool:
        """See ``GrayConstraint.share``: a start at an estimate affords it."""
        return self.settings.strength is not None and self.settings.optimizations == 1

    def fill(self, tasks: Sequence[FillTask]) -> Steps[list[Tensor]]:
        """Each task's ``ab`` ``(2, H, W)`` with the pixels outside its mask colored and those inside it unchanged.

        Tasks are of one size and do not depend on each other; yields a Step per denoising step.

        With an estimate, the result is the estimate, corrected by what the prior changed in it where it is uncertain. A
        chroma prior predicts the mean of all likely colors in one step, and without an estimate the seed varies its
        vividness and tint; only from pure noise (the paper) does it draw samples.
        """
        filled = [task.ab.clone() for task in tasks]
        kinds: dict[tuple[bool, bool, int], list[int]] = {}
        for n, task in enumerate(tasks):
            estimated = task.estimate is not None and bool((task.estimate.confidence > 0).any())
            mean = self.components.chromatic and (task.estimate is not None or self.settings.strength is not None)
            if not task.mask.all():
                kinds.setdefault((estimated, mean, len(task.references)), []).append(n)
        for (estimated, mean, _), chosen in kinds.items():
            colors = yield from self._fill([tasks[n] for n in chosen], estimated, mean)
            for n, ab in zip(chosen, colors, strict=True):
                filled[n] = ab
        return filled

    def _fill(self, tasks: Sequence[FillTask], estimated: bool, mean: bool) -> Steps[list[Tensor]]:
        """Fill frames that all start at an estimate, or all at noise; non-finite colors become the estimate."""
        filled = []
        colors = yield from self.colors(tasks, estimated, mean)
        for task, ab in zip(tasks, colors, strict=True):
            if mean and task.estimate is None:
                ab = _variant(ab, task)
            if not ab.isfinite().all():
                yield Note("inpaint", "The prior's colors of a frame were no numbers: it keeps the estimated colors.")
                ab = torch.zeros_like(ab)
            if estimated and task.estimate is not None:
                ab = task.estimate.ab + _share(task.estimate.confidence, task.mask) * ab
            filled.append(torch.where(task.mask, task.ab, ab))
        return filled

    def colors(self, tasks: Sequence[FillTask], estimated: bool, mean: bool) -> Steps[Tensor]:
        """The prior's ab ``(B, 2, H, W)``: its change of an estimate, or its own colors; ``mean``: in one step."""
        s, c, size = self.settings, self.components, (tasks[0].L.shape[-2], tasks[0].L.shape[-1])
        inner = self.working_size(size)
        rows = [self.canvas(task, task.estimate if estimated else None, inner) for task in tasks]
        canvas = Canvas(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
        bound = c.bind(canvas, s.color_condition, self.references(tasks, (inner[0] // 2, inner[1] // 2)))
        condition = constraint = None
        if s.color_condition:  # a latent cell mixes all its pixels: known only where all are
            condition = ColorCondition(bound.z_known, 1 - F.max_pool2d(canvas.unknown, c.factor))
        if s.gray_constraint and s.optimizations > 0:
            constraint = GrayConstraint(
                F=lambda z_0: luminance(bound.decode(z_0).clamp(1e-3, 1)) / 100,
                x=canvas.L / 100,
                unknown=canvas.unknown,
                eta=s.eta,
                optimizations=s.optimizations,
                through_denoiser=s.through_denoiser,
                share=self.shares,
            )
        strength = s.strength if estimated and not mean else None
        schedule = self.schedule(strength, 1 if mean else s.steps)
        generators = [torch.Generator().manual_seed(task.seed) for task in tasks]
        z = gaussian_like(bound.z_known, generators) * (not mean)
        z = z if strength is None else noise(bound.z_known, schedule.alphas[0], z)
        steps = conditional_denoising(bound.network, schedule, z, generators, c.prediction_type, condition, constraint)
        for n, latents in enumerate(steps, 1):
            z = latents
            yield Step("inpaint", f"denoising {n}/{len(schedule.times)}", n / len(schedule.times))
        if constraint is not None and (lost := len(constraint.lost)):
            yield Note("inpaint", f"Eq. (4) was left out of {lost} denoising steps, its gradient was no number.")
        with torch.no_grad():
            colors = rgb_to_lab(bound.decode(z).clamp(0, 1))[:, 1:]
        colors = colors - bound.known_ab if estimated else colors
        return resize(colors[..., : inner[0], : inner[1]], size).cpu()

    def canvas(self, task: FillTask, estimate: ColorEstimate | None, size: tuple[int, int]) -> Canvas:
        """Scale so that the short side suits the prior, and pad by reflection; never squash."""
        c, mask = self.components, task.mask
        ab, confidence = (task.ab * mask, mask.float()) if estimate is None else (estimate.ab, estimate.confidence)
        unknown = F.interpolate((~mask).float()[None, None], size, mode="area" if size[0] <= len(mask) else "nearest")
        unknown = pad_to_multiple((unknown > 0).float(), c.multiple)[0].to(c.device)
        L = self.fit(task.L, size).clamp(0, 100)
        return Canvas(L, into_gamut(L, self.fit(ab, size)), unknown, (1 - self.fit(confidence[None], size)).clamp(0, 1))

    def references(self, tasks: Sequence[FillTask], size: tuple[int, int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The tasks' reference frames, as many for each, see ``components.References``."""

        def rows(n: int, part: int) -> Tensor:
            values = [task.references[n][part].float() for task in tasks]
            return torch.cat([self.fit(x.view(-1, *x.shape[-2:]), size) for x in values])

        return [(rows(n, 0), rows(n, 1), rows(n, 2)) for n in range(len(tasks[0].references))]

    def fit(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """``(C, h, w)`` at the size of the work, padded, on the prior's device: ``(1, C, H, W)``."""
        return pad_to_multiple(resize(x[None].to(self.components.device), size), self.components.multiple)[0]

    def working_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (H, W) at which a frame is worked on, before padding, same aspect ratio."""
        least, short = self.components.training_size, min(size)
        scale = min(max(short, least), self.components.largest * least) / short
        return round(size[0] * scale), round(size[1] * scale)

    def schedule(self, strength: float | None, steps: int) -> NoiseSchedule:
        """The times of the denoising steps: the prior's own from pure noise, or evenly down from the strength."""
        levels = self.components.levels
        if strength is None:
            times, final = self.components.times(steps)
        else:
            total = len(levels)
            times, final = [max(0, round(strength * total * (steps - k) / steps) - 1) for k in range(steps)], 1.0
        return NoiseSchedule(tuple(times), (*(float(levels[t]) for t in times), final))


def _variant(ab: Tensor, task: FillTask) -> Tensor:
    """A variant of the mean by the seed: chroma times 0.8 to 1.6, and a slight tint in the mid-tones."""
    generator = torch.Generator().manual_seed(task.seed)
    vivid, tint = 0.8 * 2 ** torch.rand(1, generator=generator), TINT * torch.randn(2, 1, 1, generator=generator)
    return ab * vivid + tint * (task.L / 50 * (2 - task.L / 50))


def _share(confidence: Tensor, mask: Tensor) -> Tensor:
    """How much of the prior's correction each pixel takes, ``(H, W)``: more where the estimate is uncertain."""
    hole = (~mask).numpy().astype("uint8")
    distance = torch.from_numpy(cv2.distanceTransform(hole, cv2.DIST_L2, 3))
    return SHARE * (1 - confidence) * (distance / TAPER).clamp(0, 1)
