"""Laws of corrections: what descends changes, nothing else does, and each correction can be undone and done again."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from omnifusion import synthetic
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.driver import colorize
from omnifusion.settings import choose
from omnifusion.state import ColorState, drain

GREEN = torch.tensor([-40.0, 30.0])


@pytest.fixture(scope="module")
def clip() -> tuple[ColorState, Tensor]:
    """A coloured clip and where its foreground is, ``(T, h, w)`` bool."""
    made = synthetic.make("two-layers", frames=8, size=(48, 80), seed=1)
    lab = rgb_to_lab(from_uint8(made.video.frames))
    state = drain(colorize(lab[:, :1], {0: lab[0, 1:]}, choose("draft"))).state
    return state, torch.stack([torch.from_numpy(made.layer_at(t) != 0) for t in range(8)])


def patch(where: Tensor) -> Tensor:
    return torch.where(where, GREEN[:, None, None], torch.nan)


def changed(a: ColorState, b: ColorState) -> Tensor:
    """Where two states differ in anything but luminance."""
    found = [getattr(a, f.name) != getattr(b, f.name) for f in fields(ColorState)]
    return torch.stack([x.any(1) if x.ndim == 4 else x for x in found]).any(0)
