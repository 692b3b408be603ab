"""OmniFusion: exemplar-based video colorization with OmniMotion and diffusion priors (ACCV 2024)."""

__version__ = "0.1.0"
