"""OmniMotion: one volume that explains the motion of a whole clip."""

from omnifusion.omnimotion.fitting import PRESETS, fit
from omnifusion.omnimotion.tracker import OmniMotion

__all__ = ["PRESETS", "OmniMotion", "fit"]
