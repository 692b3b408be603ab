"""The Levin solver against a direct solve and its laws; the color estimate against scenes whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from omnifusion import inpaint
from omnifusion.flow import match
from omnifusion.inpaint import ColorCandidates, ReferenceFrame, estimate_color
from omnifusion.levin import levin
from omnifusion.propagate import SourceFrame
from omnifusion.state import ColorEstimate, ColorState
from omnifusion.transfer import Transferrer, gray_features


def picture(H: int, W: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth luminance ``(1, H, W)`` with edges and noise, and a color that follows it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W]
    L = 50 + 20 * np.sin(x / 7) * np.cos(y / 9) + 25 * ((x - W / 2) ** 2 + (y - H / 2) ** 2 < (H / 4) ** 2)
    L = torch.from_numpy(np.clip(L + rng.normal(size=L.shape), 0, 100)).float()[None]
    return L, torch.cat([L - 50, 40 - L])


def holes(H: int, W: int, share: float, seed: int = 1) -> Tensor:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 1, H // 6 + 1, W // 6 + 1)) > share).float()
    return torch.nn.functional.interpolate(coarse, (H, W))[0, 0] > 0.5


def direct(L: Tensor, ab: Tensor, mask: Tensor, data: Tensor, weight: Tensor) -> np.ndarray:
    """The same equations, one pixel after the other, by a direct sparse solve."""
    Y = L[0].double().numpy() / 100
    H, W = Y.shape
    P = np.pad(Y, 1, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(P, (3, 3)).reshape(H, W, 9)
    v = 0.6 * windows.var(-1) + 1e-3
    A, b = scipy.sparse.lil_array((H * W, H * W)), np.zeros((H * W, 2))
    for y in range(H):
        for x in range(W):
            p = y * W + x
            A[p, p] = 1.0
            if mask[y, x]:
                b[p] = ab[:, y, x]
                continue
            around = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
            around = [(i, j) for i, j in around if 0 <= i < H and 0 <= j < W]
            w = np.array([np.exp(-((Y[n] - Y[y, x]) ** 2) / (2 * v[y, x])) for n in around])
            for (i, j), share in zip(around, w / w.sum(), strict=True):
                A[p, i * W + j] = -share
            A[p, p] += float(weight[y, x])
            b[p] = float(weight[y, x]) * data[:, y, x]
    return scipy.sparse.linalg.spsolve(A.tocsc(), b).T.reshape(2, H, W)


@pytest.mark.parametrize(("size", "share"), [((24, 31), 0.3), ((33, 20), 0.95)])
@pytest.mark.parametrize("pull", [0.0, 0.05])
def test_levin_equals_a_direct_solve(size: tuple[int, int], share: float, pull: float) -> None:
    L, ab = picture(*size)
    mask = holes(*size, share)
    mask[0, 0] = True
    weight = pull * torch.rand(size, generator=torch.Generator().manual_seed(0))
    data = torch.randn(2, *size, generator=torch.Generator().manual_seed(1)) * 20
    ours = levin(L, ab * mask, mask, data, weight)
    assert np.abs(ours.numpy() - direct(L, ab, mask, data, weight)).max() < 1e-3


def test_levin_at_working_size_has_no_residual() -> None:
    L, _ = picture(144, 256)
    mask = torch.zeros(144, 256, dtype=torch.bool)
    mask[:, :3] = True
    constant = torch.tensor([12.0, -7.0]).view(2, 1, 1).expand(2, 144, 256)
    assert torch.allclose(levin(L, constant * mask, mask), constant, atol=2e-3)  # a constant solves the equations


def test_levin_keeps_known_pixels_and_colors_between_them() -> None:
    L, ab = picture(40, 50)
    mask = holes(40, 50, 0.6)
    filled = levin(L, ab, mask)
    assert torch.equal(filled[:, mask], ab[:, mask])
    for channel in (0, 1):  # maximum principle
        assert ab[channel][mask].min() - 1e-3 <= filled[channel].min()
        assert filled[channel].max() <= ab[channel][mask].max() + 1e-3


def test_levin_stops_at_edges_of_luminance() -> None:
    L = torch.full((1, 20, 40), 20.0)
    L[:, :, 20:] = 80
    mask = torch.zeros(20, 40, dtype=torch.bool)
    mask[:, 0] = mask[:, -1] = True
    ab = torch.zeros(2, 20, 40)
    ab[:, :, -1] = 30
    filled = levin(L, ab, mask)
    assert filled[0, :, :18].mean() < 6 and filled[0, :, 22:].mean() > 24


def test_levin_with_nothing_to_go_by_stays_gray() -> None:
    L, ab = picture(16, 16)
    assert not levin(L, ab, torch.zeros(16, 16, dtype=torch.bool)).any()
    assert torch.equal(levin(L, ab, torch.ones(16, 16, dtype=torch.bool)), ab)


def test_transfer_from_the_same_picture_finds_its_colors() -> None:
    L, ab = picture(48, 64)
    frame = ReferenceFrame(L, ab, torch.ones(48, 64, dtype=torch.bool))
    found = Transferrer([frame.candidates()])(gray_features(L[0].numpy()).reshape(48 * 64, -1))
    assert np.abs(found.ab - ab.numpy().reshape(2, -1).T).mean() < 2.0
    assert found.confidence.min() >= 0 and found.confidence.max() <= 1


def test_transfer_takes_no_unknown_color() -> None:
    L, ab = picture(48, 64)
    mask = holes(48, 64, 0.5)
    known = ReferenceFrame(L, torch.where(mask, ab, torch.nan), mask)
    found = Transferrer([known.candidates()])(gray_features(L[0].numpy())[~mask.numpy()])
    assert np.isfinite(found.ab).all() and found.confidence.all()
    nothing = Transferrer([])(gray_features(L[0].numpy())[~mask.numpy()])
    assert not nothing.confidence.any() and (nothing.names == -1).all()


def test_queries_are_answered_the_same_alone_and_together() -> None:
    L, ab = picture(96, 128)
    transfer = Transferrer([ReferenceFrame(L, ab, holes(96, 128, 0.5)).candidates()])
    queries = gray_features(L[0].roll(3, -1).numpy()).reshape(96 * 128, -1)
    together, alone = transfer(queries), transfer(queries[5000:5001])
    assert np.array_equal(together.ab[5000:5001], alone.ab) and together.names[5000] == alone.names[0]


def test_few_given_colors_outvote_references_that_they_contradict() -> None:
    """A violet square that the reference shows in its old colors, one pixel in fifty given."""
    L, ab = picture(64, 96)
    everywhere = torch.ones(64, 96, dtype=torch.bool)
    square = torch.zeros(64, 96, dtype=torch.bool)
    square[16:48, 24:72] = True
    truth = torch.where(square, torch.tensor([35.0, -45.0]).view(2, 1, 1), ab)
    given = torch.rand(64, 96, generator=torch.Generator().manual_seed(0)) < 0.02
    mask = ~square | given
    estimate = estimate_color(ReferenceFrame(L, truth * mask, mask), [ReferenceFrame(L, ab, everywhere)])

    def error(filled: torch.Tensor) -> float:
        return float((filled - truth)[:, ~mask].norm(dim=0).mean())

    assert error(estimate.ab) < 0.7 * error(ab)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_estimate_beats_levin_where_an_exemplar_knows_better(share: float) -> None:
    L, ab = picture(64, 96)
    mask = holes(64, 96, share)
    everywhere = torch.ones(64, 96, dtype=torch.bool)
    estimate = estimate_color(
        ReferenceFrame(L, ab * mask, mask), [ReferenceFrame(L.roll(2, -1), ab.roll(2, -1), everywhere)]
    )
    assert torch.equal(estimate.ab[:, mask], ab[:, mask])
    assert torch.equal(estimate.confidence[mask], torch.ones(int(mask.sum())))
    error = (estimate.ab - ab)[:, ~mask].square().mean()
    assert error < 0.5 * (levin(L, ab * mask, mask) - ab)[:, ~mask].square().mean()


def test_a_guess_is_heard_where_nothing_else_speaks() -> None:
    L, ab = picture(32, 32)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    assert not estimate_color(ReferenceFrame(L, ab, mask), []).confidence.any()
    guess = ColorEstimate(torch.full((2, 32, 32), 9.0), torch.full((32, 32), 0.4))
    estimate = estimate_color(ReferenceFrame(L, torch.zeros(2, 32, 32), mask), [], [guess])
    assert torch.allclose(estimate.ab, guess.ab, atol=1e-2)
    assert 0 < estimate.confidence.min() < 1


def test_references_may_have_another_size() -> None:
    L, ab = picture(32, 48)
    other_L, other_ab = picture(50, 40)
    mask = holes(32, 48, 0.5)
    estimate = estimate_color(
        ReferenceFrame(L, ab * mask, mask), [ReferenceFrame(other_L, other_ab, torch.ones(50, 40, dtype=torch.bool))]
    )
    assert estimate.ab.shape == (2, 32, 48) and torch.isfinite(estimate.ab).all()


class Shift:
    """A tracker for a picture that moves 2 px to the right per frame; it sees nothing of frame 2 from elsewhere."""

    def matches(self, pixels: np.ndarray, i: int, j: int) -> list[tuple[np.ndarray, np.ndarray]]:
        moved = match.points_of(pixels, 48) + np.array([2.0 * (j - i), 0.0], np.float32)
        return [(moved, np.full(len(pixels), np.float32(np.inf if j == 2 else 0)))]


def moving(frames: int, colored: tuple[int, ...]) -> tuple[ColorState, Tensor]:
    """A clip of a picture that moves 2 px per frame, some of its frames colored, and its true ab."""
    L, ab = picture(32, 48)
    Ls, truth = (torch.stack([x.roll(2 * t, -1) for t in range(frames)]) for x in (L, ab))
    return ColorState.of_exemplars(Ls, {t: truth[t] for t in colored}), truth


@pytest.mark.parametrize(
    ("frame", "exemplars", "sources"),
    [
        (3, (1,), [4, 1]),  # the nearest two are complete, one of them is the exemplar
        (5, (1,), [4, 6, 1]),
        (7, (1, 9), [6, 4, 9]),  # the reference frame of another shot has its say like an exemplar
        (6, (6, 1), [4, 1]),  # never the frame itself
    ],
)
def test_the_nearest_colored_frames_are_candidates(
    monkeypatch: pytest.MonkeyPatch, frame: int, exemplars: tuple[int, ...], sources: list[int]
) -> None:
    state, _ = moving(10, (1, 4, 6, 9))
    warped: list[int] = []
    transferred: list[int] = []
    nothing = ColorEstimate(torch.zeros(2, 32, 48), torch.zeros(32, 48))

    def record(frame: ReferenceFrame, references: list[Any], *rest: Any) -> ColorEstimate:
        transferred.extend(int(r.names[0]) // (32 * 48) for r in references)
        return nothing

    def follow(tracker: Shift, state: ColorState, source: SourceFrame, i: int, j: int, trust: bool) -> Any:
        warped.append(j)
        return nothing, torch.zeros(32, 48, dtype=torch.bool)

    monkeypatch.setattr(inpaint, "estimate_color", record)
    monkeypatch.setattr(inpaint, "warp", follow)
    ColorCandidates(exemplars).estimates(state, [frame], Shift(), range(8))
    assert sorted(warped) == sorted(sources) and transferred == sources
