"""Preparation of a clip: shots, registered exemplars, luminance."""
