"""Colour priors: diffusion models that complete one frame, guided by eq. (2)-(4), and how the bundled one is trained."""
