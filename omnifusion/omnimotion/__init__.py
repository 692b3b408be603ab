"""OmniMotion: one volume that explains the motion of a whole clip (Wang et al., ICCV 2023).

Symbols of the OmniMotion paper and where they are:

| paper | here |
|---|---|
| psi_i, latent code of frame i | ``Volume.condition`` |
| M_theta( . ; psi_i) = T_i, local to canonical volume; T_i^-1 | ``Volume.to_canonical``; ``Volume.to_local`` |
| x_i, u, x_j: local point, canonical point, its image | ``x``, ``u``, ``p`` in ``Volume.map`` |
| F_theta: u to (c, sigma) | ``Volume.density``: sigma alone |
| p_i + k-th depth sample, K samples | ``xy``, ``z`` ``(P, R, K)`` |
| alpha_k, T_k | ``composite_weights`` |
| p-hat_j, the composited image of p_i | ``Volume.trace`` |
| L_flo with its weights; L_reg, the official networks' alone | ``Volume.loss``, ``confidence``; ``smooth`` |

Departures beyond those of docs/method.md; those marked * are the grid volume's (draft and standard) alone.

- * Couplings read scale and shift from bilinear grids (made from psi_i by a linear map, psi_i is a cosine basis of
  time) instead of MLPs: under 1/100 of the time per sample. Scales are rational within (1/3, 3): they cannot overflow.
- * Density is two trilinear grids instead of a GaborNet.
- * The volume, checked forward and backward, and direct flow both answer; the more probable answer is used.
- The last sample is opaque, so that weights sum to 1. A trace answers with the strongest sample and those that agree
  with it (the official ``use_max_loc``): a mean over all can lie between two layers.
- Supervision is DIS (RAFT for the paper's volume on a GPU), started by shorter intervals and by the dominant affine
  motion; beyond 40 frames the pairs number O(n log n). Pairs are drawn by their trusted flow, not by hard mining.
- x and y are isotropic, not squeezed to a square.
- A step whose loss or gradients are not finite is skipped; scales and the maps' determinants are bounded from below.
"""

from omnifusion.omnimotion.tracker import PRESETS, OmniMotion, find_flows, fit

__all__ = ["PRESETS", "OmniMotion", "find_flows", "fit"]
