"""The paper's conditional denoising, section 3.2: eq. (2) keeps known color, eq. (3)-(4) keep the luminance.

Letters as in the paper: z_t the latent at noise level t, z_0 the clean one, m the mask M at latent size (1 = known),
x the frame's gray picture, F the way from latents to gray pixels, eta the learning rate. ``alpha`` is the cumulative
signal power, alpha-bar_t of Ho et al. 2020: z_t = sqrt(alpha) z_0 + sqrt(1 - alpha) epsilon. Independent of diffusion
libraries: a denoiser is any function of a latent and a time.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from omnifusion.progress import check_canceled

Network = Callable[[Tensor, int], Tensor]
"""A denoiser: latents ``(B, C, h, w)`` and a time to its raw output, ``(B, C, h, w)``."""

PredictionType = Literal["epsilon", "v_prediction", "sample"]

SCALED_DOWN = 2.0**-10  # factor on the loss of eq. (3) if its gradient overflows


class NoiseSchedule(NamedTuple):
    """The times at which the denoiser is evaluated, from noise to picture."""

    times: tuple[int, ...]  # decreasing
    alphas: tuple[float, ...]  # alpha-bar at each of the times, then the one at which the last step ends


class ColorCondition(NamedTuple):
    """Eq. (2): ``z_0`` ``(B, C, h, w)``, of the semi-colored frame, is kept where ``m`` ``(1, 1, h, w)`` is 1."""

    z_0: Tensor
    m: Tensor


@dataclass(frozen=True)
class GrayConstraint:
    """Eq. (3)-(4).

    With ``share``, the gradient's evaluation of the denoiser serves as the next step's too, although eq. (4) has moved
    z since: one evaluation a step less, and an approximation.
    """

    F: Callable[[Tensor], Tensor]  # latents z_0 (B, C, h, w) to the gray picture (B, 1, H, W)
    x: Tensor  # the frame's own gray picture (1, 1, H, W)
    unknown: Tensor  # 1 - M, (1, 1, H, W) float
    eta: float  # learning rate
    optimizations: int = 1  # N, gradient steps per denoising step
    through_denoiser: bool = True  # whether the gradient passes the prediction of z_0 (the paper); or dz_0/dz_t = 1
    share: bool = False
    lost: list[int] = field(default_factory=list)  # times at which the gradient was not finite, and the step skipped


def noise(z_0: Tensor, alpha: float, epsilon: Tensor) -> Tensor:
    """Noise(z_0, t): sqrt(alpha) z_0 + sqrt(1 - alpha) epsilon."""
    return alpha**0.5 * z_0 + (1 - alpha) ** 0.5 * epsilon


def predict(output: Tensor, z_t: Tensor, alpha: float, kind: PredictionType) -> tuple[Tensor, Tensor]:
    """z_0 and epsilon from a denoiser's ``output`` at ``z_t``, for the three things a denoiser may predict."""
    a, s = alpha**0.5, (1 - alpha) ** 0.5
    if kind == "epsilon":
        return (z_t - s * output) / a, output
    if kind == "v_prediction":  # Salimans and Ho 2022
        return a * z_t - s * output, a * output + s * z_t
    return output, (z_t - a * output) / s


def denoise(output: Tensor, z_t: Tensor, alpha: float, alpha_next: float, kind: PredictionType) -> Tensor:
    """Denoise(z_t, t): the deterministic step of DDIM (Song et al. 2021, eq. 12) from ``alpha`` to ``alpha_next``."""
    z_0, epsilon = predict(output, z_t, alpha, kind)
    return noise(z_0, alpha_next, epsilon)


def blend(condition: ColorCondition, denoised: Tensor, alpha: float, epsilon: Tensor) -> Tensor:
    """Eq. (2): m Noise(z_0, .) + (1 - m) Denoise(z_t, t), with ``alpha`` that of the denoised latent, t - 1.

    The paper prints Noise(z_0, t) beside Denoise(z_t, t), which is at t - 1: known regions would carry more noise
    than their surroundings at every step, and be left noisy at the end. As in RePaint, both sides are at t - 1 here.
    """
    return condition.m * noise(condition.z_0, alpha, epsilon) + (1 - condition.m) * denoised


def gray_loss(z_0: Tensor, constraint: GrayConstraint) -> Tensor:
    """Eq. (3) on a prediction of z_0: || (F(z) - x) (1 - M) ||_1, summed over the uncolored pixels of the batch."""
    return ((constraint.F(z_0) - constraint.x) * constraint.unknown).abs().sum()


def optimize(
    z: Tensor, network: Network | None, t: int, alpha: float, kind: PredictionType, constraint: GrayConstraint
) -> tuple[Tensor, Tensor | None]:
    """Eq. (4), once: z - eta dL_gray/dz for z at time ``t``; ``network`` is None where z is already z_0 (at the end).

    A gradient that is not finite is computed again from the loss scaled down, as half precision overflows at 65504;
    rows that are still not finite stay where they are. Returns the new z, and the denoiser's output for the old one.
    """

    @torch.enable_grad()
    def gradient(scale: float) -> tuple[Tensor, Tensor | None]:
        """dL_gray/dz, through the loss times ``scale``; and the denoiser's output."""
        z_0 = variable = z.detach().requires_grad_()
        output = None
        if network is not None:
            with torch.set_grad_enabled(constraint.through_denoiser):
                output = network(variable, t)
                z_0 = predict(output, variable, alpha, kind)[0]
            output = output.detach()
        if not z_0.requires_grad:  # dz_0/dz = 1
            variable = z_0.requires_grad_()
        (slope,) = torch.autograd.grad(gray_loss(z_0, constraint) * scale, variable)
        return slope / scale, output

    for scale in (1.0, SCALED_DOWN):
        slope, output = gradient(scale)
        finite = slope.isfinite().flatten(1).all(1)
        if finite.all():
            break
    else:
        constraint.lost.append(t)
        slope = torch.where(finite.view(-1, 1, 1, 1), slope, 0.0)
    return z.detach() - constraint.eta * slope, output


def conditional_denoising(
    network: Network, schedule: NoiseSchedule, z: Tensor, generators: Sequence[torch.Generator],
    kind: PredictionType = "epsilon", condition: ColorCondition | None = None, constraint: GrayConstraint | None = None,
) -> Generator[Tensor, None, Tensor]:  # fmt: skip
    """Denoise ``z`` ``(B, C, h, w)``, which is at the first time's noise level; yields after every step, returns z_0.

    One step from t to t - 1 is Denoise, then eq. (2), then N times eq. (3)-(4) on the blended latent: 1 + N evaluations
    of the denoiser, 1 at the last step, whose result needs no prediction of z_0; with ``share``, one less.

    Args:
        generators: each latent's own source of noise, so that it comes out the same alone and beside others.
    """
    output: Tensor | None = None
    for k, (t, (alpha, alpha_next)) in enumerate(zip(schedule.times, pairwise(schedule.alphas), strict=True), 1):
        following, guide = (t, None) if k == len(schedule.times) else (schedule.times[k], network)
        with torch.no_grad():
            output = network(z, t) if output is None else output
            z = denoise(output, z, alpha, alpha_next, kind)
            if condition is not None:
                z = blend(condition, z, alpha_next, gaussian_like(z, generators))
        output = None
        if constraint is not None and constraint.eta > 0:
            for _ in range(constraint.optimizations):
                check_canceled()
                z, output = optimize(z, guide, following, alpha_next, kind, constraint)
            output = output if constraint.share else None
        yield z
    return z


def gaussian_like(z: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Gaussian noise of z's shape ``(B, ...)``, drawn on the CPU so that every device sees the same."""
    return torch.cat([torch.randn((1, *z.shape[1:]), generator=generator) for generator in generators]).to(z)
