"""Color priors: diffusion models that complete one frame, guided by eq. (2)-(4)."""
