"""A run while it goes on: what its steps tell is noted at once, pictures are made only for who looks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import torch
from torch import Tensor

from omnifusion.color import compose, to_uint8
from omnifusion.correction.history import FrameCorrected
from omnifusion.progress import Colored, Fitted, Fitting, Step
from omnifusion.state import ColorState, Origin
from omnifusion.visualize import TINTS, overlay

STAGES = {"flow": "Flow", "fit": "Fit", "color": "Color", "finish": "Film"}
"""What a run goes through, and the word on its bar; propagation and inpainting take turns in "color"."""

WORDS = {Origin.EXEMPLAR: "from your frame", Origin.PROPAGATED: "tracked", Origin.INPAINTED: "filled in"}
"""How a color came to its pixel."""

Pictures = dict[str, np.ndarray]


@dataclass
class Live:
    """What a run has told so far.

    Attributes:
        number: how many steps.
        done: share that is done of each stage seen.
        shares: the share of pixels by origin: exemplar, propagated, inpainted.
    """

    number: int = 0
    done: dict[str, float] = field(default_factory=dict)
    shares: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    _step: Step | None = None
    _stage: str = ""
    _state: ColorState | None = None
    _before: ColorState | None = None
    _frame: tuple[int, str] = (0, "")  # which frame of the state to show, and what it is called
    _drawn: Pictures = field(default_factory=dict)
    _began: tuple[float, float] = (0.0, 0.0)  # when there was color first, and how much

    def note(self, step: Step) -> None:
        """Note a step; costs nothing to speak of, however long the clip."""
        stage = "color" if step.stage in ("propagate", "inpaint", "correct") else step.stage
        if stage != "color" or isinstance(step, Colored | FrameCorrected):
            self.done[stage] = step.done
        if isinstance(step, Colored):
            self._note_colors(step)
        elif isinstance(step, FrameCorrected):
            self._drawn = {"after": step.picture.transpose(1, 2, 0)}
            self._frame = 0, f"frame {step.frame}"
        elif isinstance(step, Fitting | Fitted) and step.picture is not None:
            self._drawn = {"tracks": step.picture}
        self._step, self._stage, self.number = step, stage, self.number + 1

    def _note_colors(self, step: Colored) -> None:
        how = Origin.PROPAGATED if step.stage == "propagate" else Origin.INPAINTED
        how = Origin.EXEMPLAR if step.frame is None else how
        self.shares[how] += max(0.0, step.done - sum(self.shares))
        if not self._began[0]:
            self._began = time.monotonic(), step.done
        state, before = step.state, self._state
        if before is None or len(before) != len(state):
            before = None
        changed = [] if before is None else [j for j in range(len(state)) if state.origin[j] is not before.origin[j]]
        frame = changed[len(changed) // 2] if changed else step.frame or 0
        named = step.frames[frame] if step.frames else frame
        self._state, self._before, self._drawn = state, before, {}
        self._frame = frame, f"frame {named}, iteration {step.iteration}"

    def forget(self) -> None:
        """Let go of all pictures."""
        self._state, self._before, self._drawn = None, None, {}

    @property
    def caption(self) -> str:
        """What the pictures show."""
        return self._frame[1]

    def pictures(self) -> Pictures:
        """What there is to see: "before", "mask" and "after" of a frame, or "tracks", each ``(h, w, 3)`` uint8."""
        state, before, frame = self._state, self._before, self._frame[0]
        if not self._drawn and state is not None:
            L, kind = state.L[frame], _kind(state.origin[frame])
            old = torch.zeros_like(state.ab[frame]) if before is None else before.ab[frame]
            fresh = kind if before is None else torch.where(before.origin[frame] < 0, kind, -1)
            self._drawn = {
                "before": _picture(L, old),
                "mask": overlay(_picture(L, torch.zeros_like(old)), fresh.numpy(), 0.65),
                "after": _picture(L, state.ab[frame]),
            }
        return self._drawn

    def html(self, about: str = "") -> str:
        """One bar per stage, and one line that says what is going on, after the words ``about``."""
        step, bars = self._step, []
        if step is None:
            return ""
        shown = [name for name in STAGES if name in self.done or name in ("color", "finish")]
        reached = shown.index(self._stage) if self._stage in shown else -1
        for k, name in enumerate(shown):
            word, part = STAGES[name], 1.0 if k < reached else self.done.get(name, 0.0)
            now = round(100 * min(1.0, max(0.0, part)))
            bars.append(
                f'<div class="of-stage"><span>{word}</span><div class="of-bar" role="progressbar" aria-label="{word}" '
                f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{now}"><i style="width:{now}%"></i></div></div>'
            )
        left = self._seconds_left(step)
        line = escape(about + step.message) + (f" · about {seconds(left)} left" if left is not None else "")
        return f'<div class="of-stages">{"".join(bars)}</div>{message(line, escaped=True)}'

    def _seconds_left(self, step: Step) -> float | None:
        """Until all pixels have color, at the pace so far."""
        if self._stage != "color" or not self._began[0]:
            return step.seconds_left
        (began, first), done = self._began, sum(self.shares)
        passed = time.monotonic() - began
        return passed * (1 - done) / (done - first) if done > first + 0.1 and passed > 2 else None


def _kind(origin: Tensor) -> Tensor:
    return torch.where(origin < 0, origin, origin % 3)


def _picture(L: Tensor, ab: Tensor) -> np.ndarray:
    return to_uint8(compose(L, ab)).permute(1, 2, 0).numpy()


def message(text: str, kind: str = "status", escaped: bool = False) -> str:
    """What the page says now: a ``kind`` "status" or "alert"."""
    return f'<p role="{kind}" class="of-message">{text if escaped else escape(text)}</p>' if text else ""


def seconds(value: float) -> str:
    """A time that people can read."""
    return f"{value:.0f} s" if value < 90 else f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.0f} h"


def legend(parts: Sequence[float]) -> str:
    """The share of pixels of each origin, as a bar and in words."""
    shown = [(f"background:{css_color(o)}", WORDS[o], 100 * part) for o, part in zip(Origin, parts, strict=True)]
    bar = "".join(f'<i style="{tint};width:{part:.2f}%"></i>' for tint, _, part in shown)
    items = "".join(f'<li><b style="{tint}"></b>{word} {part:.1f} %</li>' for tint, word, part in shown)
    return f'<div class="of-shares" aria-hidden="true">{bar}</div><ul class="of-legend">{items}</ul>'


def css_color(origin: Origin) -> str:
    """The tint of an origin as CSS."""
    return "#{:02x}{:02x}{:02x}".format(*TINTS[origin])
