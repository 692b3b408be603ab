"""OmniMotion: one volume that explains the motion of a whole clip (Wang et al., ICCV 2023).

Symbols of the OmniMotion paper and where they are:

| paper | here |
|---|---|
| psi_i, latent code of frame i | ``Volume.condition`` |
| M_theta( . ; psi_i) = T_i, local to canonical volume | ``Volume.to_canonical`` |
| T_i^-1 | ``Volume.to_local`` |
| x_i, u, x_j: local point, canonical point, its image | ``x``, ``u``, ``p`` in ``Volume.map`` |
| F_theta: u to (c, sigma) | ``Volume.density``: sigma alone |
| p_i + k-th depth sample, K samples | ``xy``, ``z`` ``(P, R, K)`` |
| alpha_k, T_k | ``composite_weights`` |
| p-hat_j, the composited image of p_i | ``Volume.trace`` |
| L_flo, confidence weights | ``Volume.loss``, ``confidence`` |
| L_reg, temporal smoothness | ``Volume.loss``, ``smooth``: the official networks' alone |

Departures, and why. Those marked * hold for the grid volume (draft and standard) alone; "paper" has the official
networks, sizes, sample counts and schedule, goes through the same code, and is traced and believed as it is.

- No color and no L_pho: only correspondence is used, and color is what the clip does not have.
- * Couplings read scale and shift from bilinear grids (made from psi_i by a linear map, psi_i is a cosine basis of
  time) instead of MLPs: under 1/100 of the time per sample, and the composition of five such shears bends enough.
- * Scales are a rational function within (1/3, 3) instead of an exponential: it cannot overflow.
- * Density is two trilinear grids instead of a GaborNet, and K = 8 samples, for speed.
- * Direct optical flow answers beside the volume, which is checked there and back; the more probable answer holds.
- The last sample is opaque, so that weights sum to 1.
- L_flo is robust, and three quarters of it are taken per sample and weighted afterwards: with the composited point
  alone, density can hide behind averages of two layers, which measured far worse. So a trace answers with the
  strongest sample and those that agree with it (the official ``use_max_loc``) instead of the mean over all.
- * The maps start as one affine motion per frame and layer (the dominant motion far, what moves apart from it near),
  where the official code starts at the identity: it decides whether the layers part.
- Supervision is DIS (RAFT for the paper's volume on a GPU), started by shorter intervals and by the dominant affine
  motion; beyond 40 frames the pairs number O(n log n). Pairs are drawn by their trusted flow, not by hard mining.
- A step whose loss or gradients are no numbers is left out; scales and the maps' determinants are bounded from below.
"""

from omnifusion.omnimotion.fitting import PRESETS, find_flows, fit
from omnifusion.omnimotion.flows import Flows
from omnifusion.omnimotion.tracker import OmniMotion

__all__ = ["PRESETS", "Flows", "OmniMotion", "find_flows", "fit"]
