"""Twin of ``levin.levin``: the same equations, solved by conjugate residuals (GCR) on whole pictures.

A matrix is a 3x3 stencil per pixel, ``(H, W, 3, 3)``. Each residual is first passed through one cycle of multigrid:
blocks of 2x2 pixels are the next grid's pixels, whose stencil is 3x3 again (the sum of theirs, Galerkin). Constant
blocks make gradients twice as steep as they are, so what links them counts half; the last grid is inverted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.levin import reached

TOLERANCE, MOST = 1e-7, 300
"""Largest error left in an equation (a*, b*), and steps after which something must be wrong: twenty are usual."""

LAST = 512
"""At most so many pixels has the grid that is inverted."""

DAMPING = 0.8
"""Of Jacobi's steps before and after each coarser grid."""

SPLIT = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 1, 0]], [[0, 1, 0], [0, 1, 0], [0, 0, 1]]])
"""In one direction: the neighbour -1, 0, 1 of a block's first and second pixel is in which block, ``(2, 3, 3)``."""


def levin(
    L: Tensor,
    ab: Tensor,
    mask: Tensor,
    data_ab: Tensor | None = None,
    data_weight: Tensor | float | None = None,
    *,
    device: str,
) -> Tensor:
    """See ``levin.levin``.

    Raises:
        ArithmeticError: the equations were not solved.
    """
    w = torch.zeros(mask.shape)
    if data_ab is not None and data_weight is not None:
        w = w + data_weight
    open_ = torch.from_numpy(reached((~mask).numpy(), (mask | (w > 0)).numpy())).to(device)
    w, known = w.to(device).double(), (ab * mask).to(device).double()
    scale = open_ / (1 + w)  # to diagonals of 1
    likeness = likenesses(L.to(device).double()[0] / 100) * scale[..., None, None]
    b = times(likeness, known) + (0 if data_ab is None else scale * w * data_ab.to(device))
    A = -likeness * windows(open_.double())
    A[..., 1, 1] = open_.double()
    return torch.where(mask, ab.float(), solve(A, b).float().cpu())


def likenesses(Y: Tensor) -> Tensor:
    """How alike each pixel's neighbours are to it, ``(H, W, 3, 3)``: 0 for itself and outside, sum 1."""
    mean, square = (F.avg_pool2d(F.pad(v[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0] for v in (Y, Y * Y))
    variance = 0.6 * (square - mean**2).clamp_min(0) + 1e-3
    alike = torch.exp(-((windows(Y) - Y[..., None, None]) ** 2) / (2 * variance[..., None, None]))
    alike = alike * windows(torch.ones_like(Y))
    alike[..., 1, 1] = 0
    return alike / alike.sum((-2, -1), keepdim=True).clamp_min(1e-30)


def windows(x: Tensor) -> Tensor:
    """The 3x3 neighbours of each pixel of ``x`` ``(..., H, W)``, 0 outside: ``(..., H, W, 3, 3)``, a view."""
    return F.pad(x, (1, 1, 1, 1)).unfold(-2, 3, 1).unfold(-2, 3, 1)


def times(A: Tensor, x: Tensor) -> Tensor:
    """A x for ``x`` ``(..., H, W)``."""
    return (windows(x) * A).sum((-2, -1))


def solve(A: Tensor, b: Tensor) -> Tensor:
    """x ``(C, H, W)`` with A x = b; 0 where a pixel has no equation."""
    grids = coarser(A.float())
    x, r = torch.zeros_like(b), b
    steps: list[tuple[Tensor, Tensor]] = []
    for _ in range(MOST):
        if float(r.abs().amax()) <= TOLERANCE:
            return x
        z = cycle(grids, r.float()).double()
        q = times(A, z)
        if steps:
            old_z, old_q = (torch.stack(vectors) for vectors in zip(*steps, strict=True))
            share = (old_q * q).flatten(1).sum(1).view(-1, 1, 1, 1)
            z, q = z - (share * old_z).sum(0), q - (share * old_q).sum(0)
        length = q.norm()
        z, q = z / length, q / length
        along = (q * r).sum()
        x, r = x + along * z, r - along * q
        steps.append((z, q))
    raise ArithmeticError(f"Levin's equations are not solved after {MOST} steps")


def coarser(A: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The grids: each one's stencil and the inverse of its diagonal ``(H, W)``; of the last one its whole inverse."""
    grids = []
    while A.shape[0] * A.shape[1] > LAST:
        grids.append((A, torch.where(A[..., 1, 1] > 0, 1 / A[..., 1, 1], 0)))
        H, W = A.shape[:2]
        A = F.pad(A, (0, 0, 0, 0, 0, W % 2, 0, H % 2)).view((H + 1) // 2, 2, (W + 1) // 2, 2, 3, 3)
        split = SPLIT.to(A)
        A = torch.einsum("hywxde,ydf,xeg->hwfg", A, split, split) / 2
        A[..., 1, 1] += A.sum((-2, -1))
    H, W = A.shape[:2]
    columns = times(A, torch.eye(H * W, dtype=A.dtype, device=A.device).view(-1, H, W)).flatten(1)
    empty = (A[..., 1, 1] <= 0).flatten().to(A.dtype)
    return [*grids, (A, torch.linalg.inv(columns.T + torch.diag(empty)))]


def cycle(grids: list[tuple[Tensor, Tensor]], r: Tensor) -> Tensor:
    """About A^-1 ``r``."""
    (A, inverse), *rest = grids
    if not rest:
        return (r.flatten(1) @ inverse.T).view_as(r)
    x = DAMPING * inverse * r
    H, W = r.shape[-2:]
    left = F.pad(r - times(A, x), (0, W % 2, 0, H % 2))
    far = F.interpolate(cycle(rest, 4 * F.avg_pool2d(left, 2))[None], scale_factor=2, mode="bilinear")[0]
    x = x + far[..., :H, :W] * (inverse > 0)
    return x + DAMPING * inverse * (r - times(A, x))
