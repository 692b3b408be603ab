"""Colour priors: diffusion models that complete one frame, their guidance (eq. 2-4), the training of the bundled one."""
