"""Mending a finished run: scribbles, what descends from what, doubt, and finishing."""
