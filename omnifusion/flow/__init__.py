"""Optical flow between frames, the confidence of its matches, and the tracker that uses it."""
