"""Twin of ``hint.lookup``: all distances in features at once, and the nearest of them, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnifusion import hint as h
from omnifusion.geometry import pixel_grid
from omnifusion.gpu.filters import blur, filtered
from omnifusion.state import Hint

AT_ONCE = 1 << 26
"""Distances that are held at once: 256 MB."""


def lookup(frame: h.Reference, asked: Tensor, references: Sequence[h.Reference], *, device: str) -> Hint:
    """See ``hint.lookup``."""
    result = Hint(torch.zeros(2, *asked.shape), torch.zeros(asked.shape), torch.full(asked.shape, -1))
    chosen = [(r, torch.from_numpy(h.subset(r.mask.numpy(), h.MOST))) for r in references]
    chosen = [(r, where) for r, where in chosen if bool(where.any())]
    if not chosen or not bool(asked.any()):
        return result
    keys = torch.cat([features(r.L.to(device))[where.to(device)] for r, where in chosen])
    colors = torch.cat([r.ab[:, where].T for r, where in chosen]).to(device)
    names = torch.cat([r.names[where] for r, where in chosen])
    found = [
        _nearest(part, keys, colors)
        for part in features(frame.L.to(device))[asked.to(device)].split(max(1, AT_ONCE // len(keys)))
    ]
    mean, sure, first = (torch.cat(values).cpu() for values in zip(*found, strict=True))
    result.ab[:, asked], result.confidence[asked], result.source[asked] = mean.T, sure, names[first]  # type: ignore[index]
    return result


def _nearest(queries: Tensor, keys: Tensor, colors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of queries ``(Q, F)`` among keys ``(N, F)`` of known colours ``(N, 2)``: the colour ``(Q, 2)``, the probability
    that it is right, and which is nearest ``(Q,)``."""
    index = torch.cdist(queries, keys).topk(min(h.NEIGHBORS, len(keys)), largest=False).indices
    distance = (queries[:, None] - keys[index]).norm(dim=-1)
    weights = 1 / (distance**2 + 1e-4)
    weights = (weights / weights.sum(1, keepdim=True))[..., None]
    mean = (weights * colors[index]).sum(1)
    spread = (weights * (colors[index] - mean[:, None]) ** 2).sum(1).mean(1).sqrt()
    logit = h.LOOKUP_BIAS + h.LOOKUP_WEIGHTS[0] * distance.mean(1) + h.LOOKUP_WEIGHTS[1] * spread
    return mean, torch.sigmoid(logit), index[:, 0]


def features(L: Tensor) -> Tensor:
    """See ``hint.features``."""
    Y, (H, W) = L[0] / 100, L.shape[-2:]
    layers = []
    for scale in h.SCALES:
        sigma = scale * max(H, W)
        mean, square = blur(torch.stack([Y, Y * Y]), sigma)
        layers += [mean, (square - mean**2).clamp_min(0).sqrt()]
        layers += [sigma / 8 * filtered(mean, (1, 2, 1), (-1, 0, 1)), sigma / 8 * filtered(mean, (-1, 0, 1), (1, 2, 1))]
    x, y = (pixel_grid(H, W, L.device) / max(H, W)).unbind(-1)
    return torch.stack([*layers, h.POSITION_WEIGHT[0] * x, h.POSITION_WEIGHT[1] * y], -1)
