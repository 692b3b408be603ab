"""Colorization using optimization (Levin, Lischinski and Weiss 2004), solved exactly."""

import numpy as np
import scipy.ndimage
import scipy.sparse
import torch
from scipy.sparse.linalg import splu
from torch import Tensor

NEIGHBORS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def levin(
    L: Tensor, ab: Tensor, mask: Tensor, data_ab: Tensor | None = None, data_weight: Tensor | float | None = None
) -> Tensor:
    """Fill the color of unknown pixels: ``(1 + w) x = sum_n a_n x_n + w d``, with a_n the likeness to neighbor n.

    Every unknown pixel is the mean of its 8 neighbors weighted by likeness in luminance, with a pull toward data.

    Args:
        L: ``(1, H, W)`` luminance in [0, 100].
        ab: ``(2, H, W)``, read where known; mask: ``(H, W)`` bool, true where known.
        data_ab: d ``(2, H, W)``, a color that unknown pixels are pulled to, or None.
        data_weight: w ``(H, W)`` or a number, >= 0; the weights of the neighbors sum to 1.

    Returns:
        ``(2, H, W)`` float32; known pixels are those of ``ab``, bit for bit. Unknown pixels that neither known ones nor
        data can reach are gray (0).
    """
    known_mask = mask.numpy()
    result = ab.float().clone()
    if known_mask.all():
        return result
    hole = ~known_mask
    w = np.zeros(hole.shape)
    if data_ab is not None and data_weight is not None:
        w[:] = data_weight.double().numpy() if isinstance(data_weight, Tensor) else data_weight
    solvable = reached(hole, known_mask | (w > 0))
    y, x = np.nonzero(solvable)
    number = np.full(hole.shape, -1)
    number[y, x] = np.arange(len(y))
    near, likeness = _neighbors(L, y, x)
    colors = ab.permute(1, 2, 0).double().numpy()
    inner = number[near[0], near[1]]  # (8, N): the equation of each neighbor, -1 where it is known
    b = w[y, x, None] * (0 if data_ab is None else data_ab.permute(1, 2, 0).double().numpy()[y, x])
    b = b + (np.where(inner < 0, likeness, 0)[..., None] * colors[near[0], near[1]]).sum(0)
    linked = inner >= 0
    rows = np.broadcast_to(np.arange(len(y)), inner.shape)[linked]
    links = scipy.sparse.csc_matrix((likeness[linked], (rows, inner[linked])), shape=(len(y), len(y)))
    A = (scipy.sparse.diags(1 + w[y, x]) - links).tocsc()
    # An M-matrix: no pivoting, and an ordering for its symmetric pattern (half of the default's time).
    solver = splu(A, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    filled = np.zeros((*hole.shape, len(ab)))
    filled[y, x] = solver.solve(b)
    return torch.where(mask, result, torch.from_numpy(filled).permute(2, 0, 1).float())


def reached(hole: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """The unknown pixels whose component of the ``hole`` ``(H, W)`` contains or touches ``sources``."""
    parts, count = scipy.ndimage.label(hole, np.ones((3, 3)))
    touched = scipy.ndimage.maximum(scipy.ndimage.binary_dilation(sources, np.ones((3, 3))), parts, range(1, count + 1))
    return np.concatenate([[False], np.asarray(touched, bool)])[parts]


def _neighbors(L: Tensor, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8 neighbors of pixels ``(N,)``: positions ``(2, 8, N)`` and likenesses ``(8, N)``, 0 outside, sum 1."""
    Y = L[0].double().numpy() / 100.0
    mean, square = (scipy.ndimage.uniform_filter(v, 3, mode="reflect") for v in (Y, Y * Y))
    variance = (0.6 * np.maximum(square - mean**2, 0) + 1e-3)[y, x]
    at = np.stack([(y + dy, x + dx) for dy, dx in NEIGHBORS], axis=1)
    size = np.array(Y.shape)[:, None, None]
    inside = ((at >= 0) & (at < size)).all(0)
    at = np.clip(at, 0, size - 1)
    likeness = np.exp(-((Y[at[0], at[1]] - Y[y, x]) ** 2) / (2 * variance)) * inside
    return at, likeness / likeness.sum(0)
