"""OmniFusion: exemplar-based video colorization with OmniMotion and diffusion priors (ACCV 2024)."""

import os

__version__ = "0.3.0"

# Idle threads sleep instead of spinning (read when torch is loaded): on busy cores a fill took 2.7 s, not 8.7 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
