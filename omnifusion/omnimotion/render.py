"""Alpha compositing along a pixel's ray, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def composite_weights(sigma: Tensor, thickness: float) -> Tensor:
    """Weights w_k = T_k alpha_k ``(R, K)`` of densities ``(R, K)``: alpha_k = 1 - exp(-thickness sigma_k), the last
    opaque.

    T_k = prod_{l<k} (1 - alpha_l) is the transmittance in front of sample k; each row sums to 1.
    """
    clear = torch.exp(-thickness * sigma)
    in_front = torch.cumprod(torch.cat([torch.ones_like(clear[:, :1]), clear[:, :-1]], dim=1), dim=1)
    alpha = torch.cat([1 - clear[:, :-1], torch.ones_like(clear[:, :1])], dim=1)
    return in_front * alpha
