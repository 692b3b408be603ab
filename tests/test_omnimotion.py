"""The volume: bijections, compositing, gradients, and what is traced."""

import numpy as np
import pytest
import torch

from omnifusion.geometry import interpolate
from omnifusion.omnimotion.kinds import KNOTS, GridVolume, OfficialVolume, volume_of
from omnifusion.omnimotion.volume import DEPTH, Rays, composite_weights, depths, to_pixels, to_volume

T = 5
KINDS = ("grid", "mlp")


def bent(kind="grid", seed=0, amount=1.0):
    """A volume with every parameter away from its start."""
    volume = volume_of(kind, T, seed)
    g = torch.Generator().manual_seed(seed)
    if kind == "grid":
        volume.couplings.data.normal_(0, 0.5 * amount, generator=g)
        volume.maps.data += 0.05 * amount * torch.randn(volume.maps.shape, generator=g)
        for grid in volume.field:
            grid.data.normal_(0, 0.3, generator=g)
    return volume


def some_rays(pairs, count, seed=0, samples=8, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    xy = (torch.rand(pairs, count, 2, generator=g) * 2 - 1).to(dtype)
    i, j = (torch.randint(0, T, (pairs,), generator=g) for _ in range(2))
    q = xy + 0.05 * torch.randn(pairs, count, 2, generator=g)
    confidence = torch.rand(pairs, count, generator=g).to(dtype)
    return Rays(i, j, xy, q, confidence), depths((pairs, count, samples), g).to(dtype)


def test_grids_are_read_linearly_and_hold_their_border():
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    plane = torch.stack([2 * y + x, -y])[None]  # linear functions come back exactly
    a, b = torch.tensor([[-1.0, 0.2, 1.0, 3.0]]), torch.tensor([[-1.0, -0.5, 1.0, -2.0]])
    rows, columns = (a.clamp(-1, 1) + 1) * 1.5, (b.clamp(-1, 1) + 1) * 2
    assert torch.allclose(interpolate(plane, a, b)[0], torch.cat([2 * rows + columns, -rows]), atol=1e-5)
    solid = (y[..., None] - 3 * torch.arange(3.0))[None, None]
    assert torch.allclose(interpolate(solid, a, b, a)[0], rows - 3 * (a.clamp(-1, 1) + 1), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_inverse_of_forward_is_the_identity(kind):
    volume = bent(kind)
    g = torch.Generator().manual_seed(1)
    x = torch.rand(T, 100, 3, generator=g) * 2 - torch.tensor([1.0, 1.0, 0.0])
    t, pixels = torch.randperm(T, generator=g), 1e-4 / 240  # 1e-4 px where the longer side has 480
    psi = volume.condition()
    u = volume.to_canonical(x, t, psi)
    back = volume.to_local(u, t, psi)
    assert (back - x).abs().median() < pixels and (u - x).abs().max() > 1e-5
    volume, x = volume.double(), x.double()
    psi = volume.condition()
    assert (volume.to_local(volume.to_canonical(x, t, psi), t, psi) - x).abs().max() < pixels


def test_scales_stay_positive_and_bounded():
    volume, r = GridVolume(1), torch.tensor([-1e30, -3.0, 0.0, 3.0, 1e30])
    psi = torch.stack([r, 0 * r])[None, None, :, :, None].expand(1, 1, 2, 5, 2)
    s, shift = volume.scale_shift(psi, 0, [torch.linspace(-1.25, 1.25, 5)[None], torch.zeros(1, 5)], torch.tensor([0]))
    s = s[0]
    assert (s > 1 / 3 - 1e-6).all() and (s < 3 + 1e-6).all() and not shift.any()
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


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind, monkeypatch):
    monkeypatch.setattr(OfficialVolume, "LAYERS", 3)
    monkeypatch.setattr(OfficialVolume, "HIDDEN", 16)
    volume = bent(kind).double()
    rays, z = some_rays(2, 8, dtype=torch.float64)
    volume.smooth = 0.0  # it holds the weights fixed, as a finite difference cannot
    volume.loss(rays, z, scale=96.0).backward()
    for name, parameter in list(volume.named_parameters())[:: 1 if kind == "grid" else 4]:
        at = int(parameter.grad.abs().argmax())
        flat, step = parameter.data.view(-1), 1e-6
        kept, ends = float(flat[at]), []
        for sign in (1, -1):
            flat[at] = kept + sign * step
            ends.append(float(volume.loss(rays, z, scale=96.0).detach()))
        flat[at] = kept
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(parameter.grad.view(-1)[at]) == pytest.approx(slope, rel=0.02, abs=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_frames_do_not_know_of_each_other(kind):
    """The rays of several pairs give the mean of what each pair gives alone."""
    volume, (rays, z) = bent(kind), some_rays(5, 16)
    parts = [volume.loss(Rays(*(v[n : n + 1] for v in rays)), z[n : n + 1], 96.0) for n in range(5)]
    assert torch.allclose(volume.loss(rays, z, 96.0), torch.stack(parts).mean(), rtol=1e-5)


def test_smoothness_counts_what_bends_in_time_and_not_the_ends_of_the_clip():
    volume, rays = bent(amount=0.0), some_rays(1, 64)[0]
    z = depths((1, 64, 8))
    shift = torch.tensor([0.0, 0.1, 0.2, 0.9, 0.4])  # frame 3 leaves the line
    volume.maps.data[..., 2] = shift[:, None]
    for i, bends in ((0, False), (1, False), (2, True), (3, True), (4, False)):
        given, smooth = rays._replace(i=torch.tensor([i])), []
        for weight in (0.0, 1.0):
            volume.smooth = weight
            smooth.append(float(volume.loss(given, z, 96.0).detach()))
        bent_by = smooth[1] - smooth[0]
        assert bent_by > 10 if bends else bent_by < 0.5


def test_opaque_things_hide_what_is_behind_them():
    """Density in front of frame 1's point alone: it is hidden there, and seen in its own frame."""
    volume = GridVolume(2)
    coarse, fine = (g.data for g in volume.field)
    coarse[:] = -10.0
    coarse[..., -1] = 10.0  # a wall at the back
    coarse[:, 10:, 2] = 10.0  # and something near, at x > 0
    xy = torch.tensor([[-0.6, 0.0], [-0.5, 0.1]])
    volume.maps.data[1, :, 2] = torch.where(torch.arange(KNOTS) >= KNOTS // 2, -1.1, 0.0)  # frame 1: the wall has moved
    points, clear = volume.trace(xy, 0, 1)
    assert torch.allclose(points, xy + torch.tensor([1.1, 0.0]), atol=1e-3) and (clear < 0.1).all()
    assert (volume.trace(xy, 0, 0)[1] > 0.9).all() and not fine.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_does_not_depend_on_how_many_are_traced(kind, monkeypatch):
    volume = bent(kind, amount=0.5)
    xy = torch.rand(50, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    whole = volume.trace(xy, 1, 4)
    monkeypatch.setattr("omnifusion.omnimotion.volume.CHUNK", 20 * volume.samples)
    for a, b in zip(whole, volume.trace(xy, 1, 4), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert ((whole[1] >= -1e-5) & (whole[1] <= 1 + 1e-5)).all()


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

    def count(*parts):
        return sum(p.numel() for part in parts for p in part.parameters())

    assert count(volume.project, volume.conditioner, volume.per_layer) == 1_611_276
    assert count(volume.code) == 167_552
    assert volume.samples == 32 and volume.opacity / volume.samples == 1.0


def test_opacity_does_not_depend_on_the_number_of_samples():
    """Where density is the same all along a ray, half of the depth is as clear by few samples as by many."""
    for kind in KINDS:
        volume = volume_of(kind, 2)
        clear = [torch.exp(-volume.opacity / n * torch.full((n // 2,), 0.02)).prod() for n in (8, 32)]
        assert torch.allclose(*clear)


def test_maps_that_fold_between_two_knots_stay_finite():
    """A half turn from knot to knot: both maps are fine, the one half-way has no inverse."""
    volume = bent(amount=0.0)
    turned = torch.tensor([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0])
    volume.maps.data[:, ::2] = turned
    rays, _ = some_rays(4, 16)
    halfway = (torch.arange(7) + 0.5) * (DEPTH / 7)
    loss = volume.loss(rays, halfway.expand(4, 16, 7).contiguous(), 96.0)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in volume.parameters())
    points, clear = volume.trace(rays.xy[0], 1, 4)
    assert torch.isfinite(points).all() and torch.isfinite(clear).all()
