"""Mending a finished run: strokes, what descends from what, doubt, and finishing."""
