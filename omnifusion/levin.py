"""Colorization using optimization (Levin, Lischinski and Weiss 2004), solved by multigrid.

Every unknown pixel equals the mean of its 8 neighbours weighted by likeness in luminance, plus an optional pull
towards data. The system is an M-matrix but not symmetric (the weights are normalised per row), so the solver is
BiCGStab preconditioned by an aggregation multigrid cycle with Galerkin coarse grids (each coarse cell = 2 x 2 cells).
"""

from __future__ import annotations

import numba
import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

TOLERANCE = 2e-4
"""Largest correction, in units of ab, that the multigrid cycle still proposes when the solver stops."""

MAX_ITERATIONS = 60


def levin(
    L: Tensor, ab: Tensor, mask: Tensor, data_ab: Tensor | None = None, data_weight: Tensor | float | None = None
) -> Tensor:
    """Fill the colour of unknown pixels: ``(1 + w) x = sum_n a_n x_n + w d``, with a_n the likeness to neighbour n.

    Args:
        L: ``(1, H, W)`` luminance in [0, 100].
        ab: ``(2, H, W)``, read where known; mask: ``(H, W)`` bool, true where known.
        data_ab: d ``(2, H, W)``, a colour that unknown pixels are pulled to, or None.
        data_weight: w ``(H, W)`` or a number, >= 0; the weights of the neighbours sum to 1.

    Returns:
        ``(2, H, W)`` float32; known pixels are those of ``ab``, bit for bit. The solution is exact to 1e-3.
        With neither known pixels nor data there is nothing to go by and the unknown pixels are grey (0).
    """
    hole = (~mask).numpy()
    ab = ab.float()
    if not hole.any():
        return ab.clone()
    w = np.zeros(hole.shape)
    if data_ab is not None and data_weight is not None:
        w[:] = data_weight.double().numpy() if isinstance(data_weight, Tensor) else data_weight
    if hole.all() and not (w > 0).any():
        return torch.zeros_like(ab)
    A = _stencil(L[0].double().numpy() / 100.0, _window_variance(L), w, hole)
    known = np.where(hole[..., None], 0.0, ab.permute(1, 2, 0).double().numpy())
    d = known if data_ab is None else data_ab.permute(1, 2, 0).double().numpy()
    b = np.where(hole[..., None], w[..., None] * d - _apply(A, known), 0.0)
    start = np.where(hole[..., None] & (w > 0)[..., None], d, 0.0)
    x = _solve(_hierarchy(_between_unknown(A, hole)), b, start)
    filled = torch.from_numpy(x).permute(2, 0, 1).float()
    return torch.where(mask, ab, filled)


def _window_variance(L: Tensor) -> np.ndarray:
    """0.6 of the variance of L*/100 in the 3 x 3 window, plus 1e-3."""
    Y = L[0].double().numpy() / 100.0
    mean, square = (scipy.ndimage.uniform_filter(v, 3, mode="reflect") for v in (Y, Y * Y))
    return 0.6 * np.maximum(square - mean**2, 0) + 1e-3


@numba.njit(cache=True)
def _stencil(Y: np.ndarray, v: np.ndarray, data: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Rows of the system at unknown pixels, ``(H, W, 9)``: entry 3 (dy + 1) + dx + 1 belongs to neighbour (dy, dx)."""
    H, W = Y.shape
    A = np.zeros((H, W, 9))
    for y in range(H):
        for x in range(W):
            if not hole[y, x]:
                continue
            total = 0.0
            for k in range(9):
                ny, nx = y + k // 3 - 1, x + k % 3 - 1
                if k != 4 and 0 <= ny < H and 0 <= nx < W:
                    A[y, x, k] = np.exp(-((Y[ny, nx] - Y[y, x]) ** 2) / (2 * v[y, x]))
                    total += A[y, x, k]
            for k in range(9):
                A[y, x, k] /= -total
            A[y, x, 4] = 1.0 + data[y, x]
    return A


@numba.njit(cache=True)
def _between_unknown(A: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """``A`` without its columns at known pixels."""
    H, W = hole.shape
    B = A.copy()
    for y in range(H):
        for x in range(W):
            for k in range(9):
                ny, nx = y + k // 3 - 1, x + k % 3 - 1
                if 0 <= ny < H and 0 <= nx < W and not hole[ny, nx]:
                    B[y, x, k] = 0.0
    return B


@numba.njit(cache=True)
def _apply(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A x, for x ``(H, W, 2)``."""
    H, W = A.shape[:2]
    result = np.zeros_like(x)
    for i in range(H):
        for j in range(W):
            if A[i, j, 4] == 0.0:
                continue
            p, q = 0.0, 0.0
            for k in range(9):
                ni, nj = i + k // 3 - 1, j + k % 3 - 1
                if 0 <= ni < H and 0 <= nj < W:
                    p += A[i, j, k] * x[ni, nj, 0]
                    q += A[i, j, k] * x[ni, nj, 1]
            result[i, j, 0], result[i, j, 1] = p, q
    return result


@numba.njit(cache=True)
def _relax(A: np.ndarray, x: np.ndarray, b: np.ndarray, backward: bool) -> None:
    """One Gauss-Seidel sweep in reading order or against it, in place."""
    H, W = A.shape[:2]
    for n in range(H):
        i = H - 1 - n if backward else n
        for m in range(W):
            j = W - 1 - m if backward else m
            if A[i, j, 4] == 0.0:
                continue
            p, q = b[i, j, 0], b[i, j, 1]
            for k in range(9):
                ni, nj = i + k // 3 - 1, j + k % 3 - 1
                if k != 4 and 0 <= ni < H and 0 <= nj < W:
                    p -= A[i, j, k] * x[ni, nj, 0]
                    q -= A[i, j, k] * x[ni, nj, 1]
            x[i, j, 0], x[i, j, 1] = p / A[i, j, 4], q / A[i, j, 4]


@numba.njit(cache=True)
def _coarser(A: np.ndarray) -> np.ndarray:
    """Galerkin product with piecewise constant interpolation: entries between two 2 x 2 blocks are summed."""
    H, W = A.shape[:2]
    C = np.zeros(((H + 1) // 2, (W + 1) // 2, 9))
    for i in range(H):
        for j in range(W):
            for k in range(9):
                dy, dx = (i + k // 3 - 1) // 2 - i // 2, (j + k % 3 - 1) // 2 - j // 2
                C[i // 2, j // 2, 3 * (dy + 1) + dx + 1] += A[i, j, k]
    return C


@numba.njit(cache=True)
def _block_sums(r: np.ndarray) -> np.ndarray:
    """Sums of r ``(H, W, 2)`` over 2 x 2 blocks."""
    H, W = r.shape[:2]
    s = np.zeros(((H + 1) // 2, (W + 1) // 2, 2))
    for i in range(H):
        for j in range(W):
            s[i // 2, j // 2, 0] += r[i, j, 0]
            s[i // 2, j // 2, 1] += r[i, j, 1]
    return s


@numba.njit(cache=True)
def _add_blocks(A: np.ndarray, x: np.ndarray, e: np.ndarray, scale: float) -> None:
    """x += scale * the block's e, at unknown pixels, in place."""
    H, W = A.shape[:2]
    for i in range(H):
        for j in range(W):
            if A[i, j, 4] != 0.0:
                x[i, j, 0] += scale * e[i // 2, j // 2, 0]
                x[i, j, 1] += scale * e[i // 2, j // 2, 1]


def _hierarchy(A: np.ndarray) -> list[np.ndarray]:
    """The system at ever coarser grids, finest first."""
    levels = [A]
    while max(levels[-1].shape[:2]) > 4:
        levels.append(_coarser(levels[-1]))
    return levels


def _cycle(levels: list[np.ndarray], b: np.ndarray) -> np.ndarray:
    """An approximate solution of A x = b by one multigrid cycle (V at the finest grid, W below)."""
    A = levels[0]
    x = np.zeros_like(b)
    if len(levels) == 1:
        for n in range(8):
            _relax(A, x, b, n % 2 == 1)
        return x
    _relax(A, x, b, False)
    for _ in range(1 if A.shape[0] > 64 else 2):
        # Piecewise constant interpolation makes coarse corrections too small: over-correct.
        _add_blocks(A, x, _cycle(levels[1:], _block_sums(b - _apply(A, x))), 1.5)
        _relax(A, x, b, True)
    return x


def _solve(levels: list[np.ndarray], b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """BiCGStab (van der Vorst 1992), right preconditioned by ``_cycle``, for both channels at once."""

    def dot(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.einsum("ijc,ijc->c", u, v)

    def ratio(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.divide(u, v, out=np.zeros_like(u), where=np.abs(v) > 1e-30)

    A = levels[0]
    r = b - _apply(A, x)
    shadow, p, rho = r, r, dot(r, r)
    for _ in range(MAX_ITERATIONS):
        y = _cycle(levels, p)
        if np.abs(y).max() < TOLERANCE:
            break
        v = _apply(A, y)
        alpha = ratio(rho, dot(shadow, v))
        s = r - alpha * v
        z = _cycle(levels, s)
        t = _apply(A, z)
        omega = ratio(dot(t, s), dot(t, t))
        x = x + alpha * y + omega * z
        r = s - omega * t
        before, rho = rho, dot(shadow, r)
        p = r + ratio(rho, before) * ratio(alpha, omega) * (p - omega * v)
    return x
