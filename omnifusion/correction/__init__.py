"""Correcting a finished run: scribbles, provenance of colors, uncertainty, and the history of corrections."""
