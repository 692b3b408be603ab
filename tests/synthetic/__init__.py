"""Analytic clips made from the photographs inside scikit-image, with exact motion, visibility and color.

A scene is a stack of flat layers. Each is a picture with an outline that moves by a map which is inverted in closed
form, so the ground truth is known to rounding: which layer a pixel shows (that of its center), where it goes in any
other frame, and whether it is visible there. Lengths are in frame heights, the frame's center is the origin; the motion
per frame does not depend on the length of the clip, so a shorter clip is the beginning of a longer one.
"""

from synthetic.clip import MadeClip, make
from synthetic.scenes import SCENES

__all__ = ["SCENES", "MadeClip", "make"]
