"""The volume: bijections, compositing, and the compiled kernels against their PyTorch twin."""

import numpy as np
import pytest
import torch
import twin

from omnifusion.omnimotion import kernels
from omnifusion.omnimotion import volume as model
from omnifusion.omnimotion.coordinates import DEPTH, to_pixels, to_volume
from omnifusion.omnimotion.grid import GridVolume
from omnifusion.omnimotion.official import OfficialVolume
from omnifusion.omnimotion.tracker import volume_of
from omnifusion.omnimotion.volume import Rays, composite_weights, depths

T = 5


def bent(kind="grid", seed=0, amount=1.0):
    """A volume with every parameter away from its start."""
    volume = volume_of(kind, T, seed)
    g = torch.Generator().manual_seed(seed)
    if kind == "grid":
        volume.nvp.hyper.data.normal_(0, 0.5 * amount, generator=g)
        volume.nvp.affine.data += 0.05 * amount * torch.randn(volume.nvp.affine.shape, generator=g)
        volume.field.coarse.data.normal_(0, 0.3, generator=g)
        volume.field.fine.data.normal_(0, 0.3, generator=g)
    return volume


def readable(kind):
    """The same, in PyTorch."""
    return twin.TwinVolume(bent()) if kind == "grid" else bent(kind)


def some_rays(count, seed=0, samples=8):
    g = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 2, generator=g) * 2 - 1
    i, j = (torch.randint(0, T, (count,), generator=g) for _ in range(2))
    q = xy + 0.05 * torch.randn(count, 2, generator=g)
    return Rays(xy, i, j, q, torch.rand(count, generator=g)), depths(count, samples, g)


@pytest.mark.parametrize("kind", ["grid", "mlp"])
def test_inverse_of_forward_is_the_identity(kind):
    volume = readable(kind)
    g = torch.Generator().manual_seed(1)
    x = torch.rand(500, 3, generator=g) * torch.tensor([2.0, 2.0, 2.0]) - torch.tensor([1.0, 1.0, 0.0])
    t = torch.randint(0, T, (500,), generator=g)
    psi = volume.nvp.condition()
    back = volume.nvp.inverse(volume.nvp(x, t, psi), t, psi)
    pixels = 1e-4 / 240  # 1e-4 px where the longer side has 480
    volume64 = volume.double()
    psi = volume64.nvp.condition()
    exact = volume64.nvp.inverse(volume64.nvp(x.double(), t, psi), t, psi)
    assert (exact - x).abs().max() < pixels
    assert (back - x).abs().median() < pixels


@pytest.mark.parametrize("kind", ["grid", "mlp"])
def test_bijections_bend(kind):
    volume = readable(kind)
    x = torch.rand(50, 3)
    psi = volume.nvp.condition()
    u = [volume.nvp(x, torch.full((50,), t), psi) for t in (0, T - 1)]
    assert (u[0] - u[1]).abs().max() > 1e-5


def test_scales_stay_positive_and_bounded():
    s = twin.stretch(torch.tensor([-1e30, -3.0, 0.0, 3.0, 1e30]))
    assert (s > 1 / 3 - 1e-6).all() and (s < 3 + 1e-6).all()
    assert s[2] == 1 and torch.allclose(s * s.flip(0), torch.ones(5))


def test_composite_weights_against_a_loop():
    sigma = torch.rand(7, 6, generator=torch.Generator().manual_seed(0)) * 3
    w = composite_weights(sigma, 0.4)
    for r in range(7):
        light = 1.0
        for k in range(6):
            alpha = 1.0 if k == 5 else 1 - np.exp(-0.4 * float(sigma[r, k]))
            assert float(w[r, k]) == pytest.approx(light * alpha, abs=1e-6)
            light *= 1 - alpha
    assert torch.allclose(w.sum(1), torch.ones(7))


@pytest.mark.parametrize("samples", [4, 8, 13])
def test_kernel_loss_and_gradients_are_autograds(samples):
    volume, (rays, z) = bent(), some_rays(301, samples=samples)
    slow_volume = twin.TwinVolume(volume)
    slow = slow_volume.loss(rays, z, scale=96.0)
    slow.backward()
    expected = {n: p.grad.clone() for n, p in slow_volume.named_parameters()}
    quick = volume.loss(rays, z, scale=96.0)
    quick.backward()
    assert quick.item() == pytest.approx(slow.item(), rel=1e-5)
    for name, parameter in volume.named_parameters():
        off = (parameter.grad - expected[name]).norm() / expected[name].norm()
        assert off < 1e-3, (name, float(off))


def test_autograd_is_the_finite_difference():
    volume, (rays, z) = readable("grid").double(), some_rays(20)
    rays, z = Rays(*(r.double() if r.is_floating_point() else r for r in rays)), z.double()
    volume.smooth = 0.05
    loss = volume.loss(rays, z, scale=96.0)
    loss.backward()
    for name, parameter in volume.named_parameters():
        at = int(parameter.grad.abs().argmax())
        flat, step = parameter.data.view(-1), 1e-6
        kept, ends = float(flat[at]), []
        for sign in (1, -1):
            flat[at] = kept + sign * step
            ends.append(float(volume.loss(rays, z, scale=96.0)))
        flat[at] = kept
        slope = (ends[0] - ends[1]) / (2 * step)
        # the smoothness holds the weights fixed, which only densities and what moves them can tell
        tolerance = 0.05 if name.startswith("nvp") else 0.1
        assert float(parameter.grad.view(-1)[at]) == pytest.approx(slope, rel=tolerance), name


def test_kernel_trace_is_the_twins():
    volume = bent(amount=0.5)
    xy = torch.rand(400, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    points, clear = volume.trace(xy, 1, 4)
    twin_points, twin_clear = twin.TwinVolume(volume).trace(xy, 1, 4)
    assert (points - twin_points).abs().median() < 1e-5
    assert ((points - twin_points).abs().amax(1) < 1e-3).float().mean() > 0.99
    assert ((clear - twin_clear).abs() < 1e-2).float().mean() > 0.98
    assert ((clear >= -1e-5) & (clear <= 1 + 1e-5)).all()


def test_a_fresh_volume_is_the_identity():
    xy = torch.rand(50, 2) * 2 - 1
    points, clear = GridVolume(3).trace(xy, 0, 2)
    assert torch.allclose(points, xy, atol=1e-5)
    assert (clear >= 0.0).all()


def test_units_round_trip():
    points = np.array([[0.0, 0.0], [319.0, 179.0], [12.5, 7.25]], np.float32)
    assert np.allclose(to_pixels(to_volume(points, (180, 320)), (180, 320)), points, atol=1e-4)
    assert np.allclose(to_volume(np.array([[159.5, 89.5]], np.float32), (180, 320)), 0)


def test_official_sizes():
    volume = OfficialVolume(24)
    count = sum(p.numel() for p in volume.nvp.parameters()) - sum(p.numel() for p in volume.nvp.code.parameters())
    affine = sum(p.numel() for p in volume.nvp.affine.parameters())
    assert count - affine == 1_611_276
    assert sum(p.numel() for p in volume.nvp.code.parameters()) == 167_552


def test_opacity_does_not_depend_on_the_number_of_samples():
    """Where density is the same all along a ray, half of the depth is as clear by few samples as by many."""
    for kind in ("grid", "mlp"):
        volume = volume_of(kind, 2)
        clear = [torch.exp(-volume.opacity / n * torch.full((n // 2,), 0.02)).prod() for n in (8, 32)]
        assert torch.allclose(*clear)
        assert volume.opacity / 32 == (1.0 if kind == "mlp" else 0.25)


def test_both_models_agree_on_their_constants():
    assert tuple(np.float32(v) for v in (DEPTH, model.MIX, model.RHO)) == (kernels.DEPTH, kernels.MIX, kernels.RHO)


def test_maps_that_fold_between_two_knots_stay_finite():
    """A half turn from knot to knot: both maps are fine, the one half-way has no inverse."""
    volume = bent(amount=0.0)
    turned = torch.tensor([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0])
    volume.nvp.affine.data[:, ::2] = turned
    rays, _ = some_rays(64)
    halfway = (torch.arange(7) + 0.5) * (DEPTH / 7)
    loss = volume.loss(rays, halfway.expand(64, 7).contiguous(), 96.0)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in volume.parameters())
    points, clear = volume.trace(rays.xy, 1, 4)
    assert torch.isfinite(points).all() and torch.isfinite(clear).all()
