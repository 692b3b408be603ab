"""Eq. (2)-(4): levels, gradients against finite differences, counts of evaluations, and DDIM against diffusers'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from omnifusion.prior.guidance import (
    ColorCondition,
    GrayConstraint,
    NoiseSchedule,
    PredictionType,
    blend,
    conditional_denoising,
    denoise,
    gray_loss,
    noise,
    optimize,
    predict,
)
from omnifusion.progress import run_to_end

KINDS: list[PredictionType] = ["epsilon", "v_prediction", "sample"]
SCHEDULE = NoiseSchedule((700, 400, 100), (0.2, 0.5, 0.9, 1.0))


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Net:
    """A small nonlinear denoiser that counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.weight = gaussian(4, 4, seed=9) / 4

    def __call__(self, z: Tensor, t: int) -> Tensor:
        self.calls += 1
        return torch.tanh(torch.einsum("ij,bjhw->bihw", self.weight.to(z), z)) * (1 + t / 1000)


def constraint(**changes: Any) -> GrayConstraint:
    """F is a fixed nonlinear decoder of 3 x 3 latents to 6 x 6 gray pixels."""
    mix = gaussian(1, 4, 1, 1, seed=5)

    def F(z_0: Tensor) -> Tensor:
        return torch.sigmoid(z_0 * mix.to(z_0)).sum(1, keepdim=True).repeat_interleave(2, -1).repeat_interleave(2, -2)

    unknown = (gaussian(1, 1, 6, 6, seed=6) > 0).double()
    values = {"F": F, "x": gaussian(1, 1, 6, 6, seed=7), "unknown": unknown, "eta": 0.02}
    return GrayConstraint(**(values | changes))


def run(net: Net, **options: Any) -> Tensor:
    return run_to_end(
        conditional_denoising(net, SCHEDULE, gaussian(1, 4, 3, 3), [torch.Generator().manual_seed(1)], **options)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_recover_z_0_and_epsilon(kind: PredictionType) -> None:
    z_0, epsilon, alpha = gaussian(1, 4, 3, 3), gaussian(1, 4, 3, 3, seed=1), 0.3
    output = {
        "epsilon": epsilon,
        "v_prediction": alpha**0.5 * epsilon - (1 - alpha) ** 0.5 * z_0,
        "sample": z_0,
    }[kind]
    z_t = noise(z_0, alpha, epsilon)
    for got, wanted in zip(predict(output, z_t, alpha, kind), (z_0, epsilon), strict=True):
        assert torch.allclose(got, wanted)
    assert torch.allclose(denoise(output, z_t, alpha, 0.7, kind), noise(z_0, 0.7, epsilon))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_unconditional_sampling_is_ddim_of_diffusers(kind: PredictionType, spacing: str) -> None:
    scheduler = DDIMScheduler(
        prediction_type=kind, clip_sample=False, steps_offset=1, set_alpha_to_one=False, timestep_spacing=spacing
    )
    scheduler.set_timesteps(10)
    net, z = Net(), gaussian(1, 4, 3, 3)
    times = [int(t) for t in scheduler.timesteps]
    levels = scheduler.alphas_cumprod
    end = times[-1] - 100
    final = levels[end] if end >= 0 else scheduler.final_alpha_cumprod
    schedule = NoiseSchedule(tuple(times), (*(float(levels[t]) for t in times), float(final)))
    ours = run_to_end(conditional_denoising(net, schedule, z, [torch.Generator()], kind))
    for t in scheduler.timesteps:
        z = scheduler.step(net(z, int(t)), t, z).prev_sample
    assert torch.allclose(ours, z, atol=1e-5)


def test_known_cells_are_noised_to_the_level_of_their_surroundings() -> None:
    z_0, epsilon = gaussian(1, 4, 64, 64), gaussian(1, 4, 64, 64, seed=1)
    m = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    m[..., :32] = 1
    alpha, alpha_next = 0.3, 0.6
    denoised = denoise(z_0, noise(z_0, alpha, epsilon), alpha, alpha_next, "sample")
    mixed = blend(ColorCondition(z_0, m), denoised, alpha_next, gaussian(1, 4, 64, 64, seed=2))
    spread = (mixed - alpha_next**0.5 * z_0).std(dim=(0, 1, 2))
    assert torch.allclose(spread[:32].mean(), spread[32:].mean(), rtol=0.05)
    assert torch.equal(mixed[..., 32:], denoised[..., 32:])


def test_known_latents_come_out_as_they_went_in() -> None:
    z_0, m = gaussian(1, 4, 3, 3, seed=3), torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    m[..., 0] = 1
    condition = ColorCondition(z_0, m)
    assert torch.allclose(run(Net(), condition=condition)[..., 0], z_0[..., 0])
    assert not torch.allclose(run(Net())[..., 0], z_0[..., 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through", [True, False])
def test_the_gradient_of_eq_4_is_that_of_finite_differences(kind: PredictionType, through: bool) -> None:
    net, z, alpha, t = Net(), gaussian(1, 4, 3, 3), 0.4, 300
    c = constraint(through_denoiser=through, eta=1.0)
    step = z - optimize(z, net, t, alpha, kind, c)[0]
    z_0, _ = predict(net(z, t), z, alpha, kind)

    def loss(moved: Tensor) -> Tensor:
        return gray_loss(predict(net(moved, t), moved, alpha, kind)[0] if through else z_0 + moved - z, c)

    h = 1e-6
    numeric = torch.zeros_like(z)
    for i in range(z.numel()):
        delta = torch.zeros(z.numel(), dtype=z.dtype)
        delta[i] = h
        numeric.view(-1)[i] = (loss(z + delta.view_as(z)) - loss(z - delta.view_as(z))) / (2 * h)
    assert torch.allclose(step, numeric, atol=1e-6)
    assert step.abs().max() > 1e-3


def test_known_pixels_do_not_count_in_the_gray_loss() -> None:
    c, z = constraint(), gaussian(1, 4, 3, 3)
    moved = GrayConstraint(c.F, c.x + 5 * (1 - c.unknown), c.unknown, c.eta)
    assert torch.equal(gray_loss(z, c), gray_loss(z, moved))
    assert gray_loss(z, c) > 0


def test_small_steps_of_eq_4_lower_the_loss() -> None:
    net, z, c = Net(), gaussian(1, 4, 3, 3), constraint(eta=1e-3)
    losses = []
    for _ in range(5):
        losses.append(float(gray_loss(predict(net(z, 300), z, 0.4, "sample")[0], c)))
        z, _ = optimize(z, net, 300, 0.4, "sample", c)
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]


@pytest.mark.parametrize("N", [1, 3])
def test_guidance_as_printed_asks_the_denoiser_n_plus_one_times_a_step(N: int) -> None:
    net = Net()
    run(net, constraint=constraint(optimizations=N))
    assert net.calls == 3 * (N + 1) - N  # after the last step z is z_0 and needs no prediction


def test_sharing_asks_once_a_step_and_is_near_the_exact_result() -> None:
    exact, shared, bare = Net(), Net(), Net()
    wanted = run(exact, constraint=constraint())
    got = run(shared, constraint=constraint(share=True))
    assert shared.calls == 3 and exact.calls == 5
    assert (got - wanted).abs().max() < 0.5 * (run(bare) - wanted).abs().max()


def test_conditions_can_be_switched_off_one_by_one() -> None:
    condition = ColorCondition(gaussian(1, 4, 3, 3, seed=3), torch.ones(1, 1, 3, 3, dtype=torch.float64).tril())
    options: list[dict[str, Any]] = [
        {},
        {"condition": condition},
        {"constraint": constraint()},
        {"condition": condition, "constraint": constraint()},
    ]
    results = [run(Net(), **o) for o in options]
    assert all(not torch.allclose(a, b) for i, a in enumerate(results) for b in results[:i])
    assert torch.equal(results[0], run(Net(), constraint=constraint(eta=0.0)))
