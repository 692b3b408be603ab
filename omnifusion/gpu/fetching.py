"""Twin of ``propagate.fetched``: the flow's forward-backward check, the judge, and colours gathered along the flow."""

from __future__ import annotations

import torch
from torch import Tensor

from omnifusion import propagate as p
from omnifusion.flow import judge
from omnifusion.flow.direct import Correspondence
from omnifusion.geometry import inside, pixel_grid, sample
from omnifusion.gpu.filters import blur
from omnifusion.state import ColorState, Hint, Tracker, pixel_numbers

PART = 1 << 18
"""Pixels that are gathered at once: 49 neighbours each, 50 MB a tensor."""


def fetched(
    tracker: Tracker, state: ColorState, i: int, j: int, near: bool = False, literal: bool = False, *, device: str
) -> tuple[Hint, Tensor]:
    """See ``propagate.fetched``."""
    size = (state.L.shape[2], state.L.shape[3])
    grey, ab, target = (x.to(device) for x in (state.L[j, 0], state.ab[j], state.L[i, 0]))
    known, sure = state.colored(j).to(device).float(), state.confidence[j].to(device).float()
    there = torch.stack([grey, chroma_spread(ab), known, sure])
    found = []
    for answer in p.correspondences(tracker, i, j, size, near):
        flow, cycle = torch.from_numpy(answer.flow).to(device), cycle_of(answer, device)
        points = pixel_grid(*size, device) + flow
        seen = sample(there, points)
        residual = blur((seen[0] - target).abs(), judge.RESIDUAL_SIGMA)
        right = cycle.isfinite().float() if literal else probability(residual, cycle, seen[1])
        found.append((right, torch.cat([points.permute(2, 0, 1), flow.permute(2, 0, 1), seen])))
    right, chosen = torch.stack([r for r, _ in found]), torch.stack([c for _, c in found])
    best = (len(found) - 1) - right.flip(0).argmax(0)  # of equals the last, as the CPU has it
    right, chosen = right.amax(0), chosen.gather(0, best.expand(1, *chosen.shape[1:]))[0]
    points, (_, spread, known, sure) = chosen[:2].permute(1, 2, 0), chosen[4:]
    asks = (~state.colored(i)).to(device)
    sigma = fetch_sigma(chosen[2:4], spread)
    out = torch.zeros_like(ab)
    parts = zip(*(x[asks].split(PART) for x in (points, sigma, target)), strict=True)
    out[:, asks] = torch.cat([gather(ab, grey, *part) for part in parts], 1)
    right = right * (known > 0.99)
    sure = right * sure
    x, y = (points[..., k].round().clamp(0, size[1 - k] - 1).long() for k in (0, 1))
    source = pixel_numbers(j, size)[0, 0] + (y * size[1] + x).cpu()
    return Hint(out.cpu(), sure.cpu(), source), (right > p.BELIEVED).cpu()


def cycle_of(answer: Correspondence, device: str) -> Tensor:
    """The forward-backward error of an answer, ``(H, W)`` px, inf where it leaves the frame."""
    if answer.back is None:
        return torch.from_numpy(answer.cycle).to(device)
    there, back = (torch.from_numpy(flow).to(device) for flow in (answer.flow, answer.back))
    H, W, _ = there.shape
    landed = pixel_grid(H, W, device) + there
    error = (there + sample(back.permute(2, 0, 1), landed).permute(1, 2, 0)).norm(dim=-1)
    return torch.where(inside(landed, H, W), error, torch.inf)


def probability(residual: Tensor, cycle: Tensor, spread: Tensor) -> Tensor:
    """See ``judge.probability``."""
    figures = zip(judge.WEIGHTS, (residual, cycle.clamp_max(1e6), spread), strict=True)
    logit = judge.BIAS + sum(w * (x + judge.FLOOR).log() for w, x in figures)
    return torch.where(cycle.isfinite(), torch.sigmoid(logit), 0.0)


def chroma_spread(ab: Tensor) -> Tensor:
    """See ``judge.chroma_spread``; ``ab`` is ``(2, H, W)``."""
    mean, square = blur(torch.stack([ab, ab**2]), judge.SPREAD_SIGMA)
    return (square - mean**2).sum(0).clamp_min(0).sqrt()


def fetch_sigma(flow: Tensor, spread: Tensor) -> Tensor:
    """See ``propagate.fetch_sigma``; ``flow`` is ``(2, H, W)``."""
    moving = (p.MOVING_SIGMA * (spread + 0.2) ** -0.3).clamp_max(p.WIDEST)
    motion = ((flow.norm(dim=0) - p.STILL) / (p.MOVING - p.STILL)).clamp(0, 1)
    return p.STILL_SIGMA + (moving - p.STILL_SIGMA) * motion


def gather(ab: Tensor, L: Tensor, points: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """The joint bilateral mean of ``propagate.fetch`` around points.

    Args:
        ab: ``(2, H, W)``, L: ``(H, W)`` of the frame that is coloured.
        points: ``(N, 2)`` px in it, sigma: ``(N,)`` px, target: ``(N,)`` luminance of those that ask.

    Returns:
        ``(2, N)``.
    """
    H, W = L.shape
    at = torch.stack([points[:, 0].clamp(-1, W), points[:, 1].clamp(-1, H)], 1)
    n = torch.arange(-p.REACH, p.REACH + 1, device=L.device)
    on = at.round()[..., None] + n  # (N, 2, 7): columns and rows
    radius = (1.7 * sigma).round().clamp(1, p.REACH)
    close = torch.exp((on - at[..., None]) ** 2 * (-0.5 / sigma**2)[:, None, None]) * (n.abs() <= radius[:, None, None])
    x, y = on[:, 0].clamp(0, W - 1).long(), on[:, 1].clamp(0, H - 1).long()
    index = y[:, :, None] * W + x[:, None, :]
    alike = torch.exp(-0.5 * ((L.flatten()[index] - target[:, None, None]) / p.LUMINANCE_SIGMA) ** 2) + 1e-3
    weight = close[:, 1, :, None] * close[:, 0, None, :] * alike
    return (weight * ab.flatten(1)[:, index]).sum((-2, -1)) / weight.sum((-2, -1))
