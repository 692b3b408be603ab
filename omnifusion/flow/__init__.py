"""Optical flow between frames, what it is worth, and the tracker that answers from it."""
