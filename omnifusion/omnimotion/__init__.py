"""OmniMotion: one volume that explains the motion of a whole clip (Wang et al., ICCV 2023), fitted in a minute.

Symbols of the OmniMotion paper and where they are:

| paper | here |
|---|---|
| psi_i, latent code of frame i | ``GridNVP.code``, ``MlpNVP.code`` |
| M_theta( . ; psi_i) = T_i, local to canonical volume | ``kernels._up``, ``MlpNVP.forward`` |
| T_i^-1 | ``kernels._down``, ``MlpNVP.inverse`` |
| x_i, u, x_j: local point, canonical point, its image | ``x``, ``u``, ``p`` in ``Volume.map`` |
| F_theta: u to (c, sigma) | ``kernels._density``, ``GaborField``: sigma alone |
| p_i + k-th depth sample, K samples | ``xy``, ``z`` ``(R, K)`` |
| alpha_k, T_k | ``composite_weights`` |
| p-hat_j, the composited image of p_i | ``Volume.trace`` |
| L_flo, confidence weights | ``Volume.loss``, ``confidence`` |
| L_reg, temporal smoothness | ``Volume.loss``, ``smooth``: the official networks' alone |

Departures, and why. Those marked * hold for the grid volume (presets draft and standard) alone; the paper preset has
the official networks, sizes, sample counts and schedule, and goes through the same code.

- No color and no L_pho: only correspondence is used, and color is what the clip does not have.
- * Couplings read scale and shift from bilinear grids (made from psi_i by a linear map) instead of MLPs: under 1/100
  of the time per sample (docs/experiments.md), and the composition of five such shears bends enough.
- * Scales are a rational function within (1/3, 3) instead of an exponential: it cannot overflow, and needs no exp.
- * Density is two trilinear grids instead of a GaborNet, for the same reason.
- * K = 8 samples; in both, the last one opaque, so that weights sum to 1.
- L_flo is robust, and three quarters of it are taken per sample and weighted afterwards: with the composited point
  alone, density can hide behind averages of two layers, which measured far worse.
- The maps start as one affine motion per frame and layer (RANSAC over trusted flow: the dominant motion far, what moves
  apart from it near), where the official code starts at the identity: it decides whether the layers part.
- Supervision is DIS (RAFT for the paper's volume on a GPU), started by shorter intervals and by the dominant affine
  motion; beyond 40 frames the pairs number O(n log n).
- Transmittance at the mapped point decides visibility, as in the paper, unless direct flow is more probable.
- A diverging step is undone (``optimize.py``), and what can overflow or vanish is bounded: scales, determinants of the
  affine maps, and no transmittance is divided by.
"""

from omnifusion.omnimotion.fitting import PRESETS, find_flows, fit
from omnifusion.omnimotion.flows import Flows
from omnifusion.omnimotion.tracker import OmniMotion

__all__ = ["PRESETS", "Flows", "OmniMotion", "find_flows", "fit"]
