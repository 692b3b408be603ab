"""A run at work: its steps are recorded at once, pictures are rendered only when requested."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from omnifusion.color import compose, to_uint8
from omnifusion.correction.history import FrameCorrected
from omnifusion.progress import Colored, Step
from omnifusion.state import ColorState, Origin
from omnifusion.ui.parts import inline, message, seconds
from omnifusion.visualize import TINTS, overlay

STAGES = {"flow": "Flow", "fit": "Fit", "color": "Color", "finish": "Film"}
"""What a run goes through, and the word on its bar; propagation and inpainting take turns in "color"."""

WORDS = {Origin.EXEMPLAR: "from your frame", Origin.PROPAGATED: "tracked", Origin.INPAINTED: "filled in"}
"""How a pixel got its color, in words."""

Pictures = dict[str, np.ndarray]


@dataclass
class Live:
    """The progress of a run so far.

    Attributes:
        number: how many steps.
        done: share that is done of each stage that has begun.
        shares: the share of pixels by origin: exemplar, propagated, inpainted.
        caption: what the pictures show.
    """

    number: int = 0
    done: dict[str, float] = field(default_factory=dict)
    shares: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    caption: str = ""
    _step: Step | None = None
    _stage: str = ""
    _state: ColorState | None = None
    _before: ColorState | None = None
    _frame: int = 0  # the one of the state that is shown
    _drawn: Pictures = field(default_factory=dict)
    _first: tuple[float, float] = (0.0, 0.0)  # when there was color first, and how much

    def note(self, step: Step) -> None:
        """Record a step; cheap, however long the clip."""
        stage = "color" if step.stage in ("propagate", "inpaint", "correct") else step.stage
        if stage != "color" or isinstance(step, Colored | FrameCorrected):
            self.done[stage] = step.done
        if isinstance(step, Colored):
            self._note_colors(step)
        elif isinstance(step, FrameCorrected):
            self._drawn, self.caption = {"after": step.picture.transpose(1, 2, 0)}, f"frame {step.frame}"
        self._step, self._stage, self.number = step, stage, self.number + 1

    def _note_colors(self, step: Colored) -> None:
        origin = Origin.PROPAGATED if step.stage == "propagate" else Origin.INPAINTED
        origin = Origin.EXEMPLAR if step.frame is None else origin
        self.shares[origin] += max(0.0, step.done - sum(self.shares))
        if not self._first[0]:
            self._first = time.monotonic(), step.done
        state, before = step.state, self._state
        before = before if before is not None and len(before) == len(state) else None
        changed = [] if before is None else [j for j in range(len(state)) if state.origin[j] is not before.origin[j]]
        self._frame = changed[len(changed) // 2] if changed else step.frame or 0
        self._state, self._before, self._drawn = state, before, {}
        number = step.frames[self._frame] if step.frames else self._frame
        self.caption = f"frame {number}, iteration {step.iteration}"

    def pictures(self) -> Pictures:
        """The pictures to show of a frame: "after", "before" and "mask" (new colors), each ``(h, w, 3)`` uint8."""
        state, before, frame = self._state, self._before, self._frame
        if not self._drawn and state is not None:
            L, origin = state.L[frame], state.origin[frame]
            kind = torch.where(origin < 0, origin, origin % 3)
            gray = torch.zeros_like(state.ab[frame])
            fresh = kind if before is None else torch.where(before.origin[frame] < 0, kind, -1)
            self._drawn = {
                "after": _picture(L, state.ab[frame]),
                "before": _picture(L, gray if before is None else before.ab[frame]),
                "mask": overlay(_picture(L, gray), fresh.numpy(), 0.65),
            }
        return self._drawn

    def figures(self) -> str:
        """The pictures and the shares of the origins as HTML; "" before there are any."""
        names = {"after": f"After this step: {self.caption}", "before": "Before", "mask": "New colors"}
        figures = [
            f'<figure id="{kind}"><img src="{inline(picture)}" alt="{names[kind]}">'
            f"<figcaption>{names[kind]}</figcaption></figure>"
            for kind, picture in self.pictures().items()
        ]
        return f'<div class="of-live">{"".join(figures)}</div>{legend(self.shares)}' if figures else ""

    def progress(self, name: str = "") -> str:
        """One bar per stage, and one line that says what is going on, after the ``name`` of the run."""
        step, bars = self._step, []
        if step is None:
            return ""
        stages = [stage for stage in STAGES if stage in self.done or stage in ("color", "finish")]
        reached = stages.index(self._stage) if self._stage in stages else -1
        for k, stage in enumerate(stages):
            word, part = STAGES[stage], 1.0 if k < reached else self.done.get(stage, 0.0)
            now = round(100 * min(1.0, max(0.0, part)))
            bars.append(
                f'<div class="of-stage"><span>{word}</span><div class="of-bar" role="progressbar" aria-label="{word}" '
                f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{now}"><i style="width:{now}%"></i></div></div>'
            )
        rest = self._seconds_left(step)
        line = name + step.message + (f" · about {seconds(rest)} left" if rest is not None else "")
        return f'<div class="of-stages">{"".join(bars)}</div>{message(line)}'

    def _seconds_left(self, step: Step) -> float | None:
        """Until all pixels have color, at the pace so far."""
        if self._stage != "color" or not self._first[0]:
            return step.seconds_left
        (began, first), done = self._first, sum(self.shares)
        passed = time.monotonic() - began
        return passed * (1 - done) / (done - first) if done > first + 0.1 and passed > 2 else None


def _picture(L: Tensor, ab: Tensor) -> np.ndarray:
    return to_uint8(compose(L, ab)).permute(1, 2, 0).numpy()


def legend(parts: Sequence[float]) -> str:
    """The share of pixels of each origin, as a bar and in words."""
    bar, items = "", ""
    for (red, green, blue), word, part in zip(TINTS.values(), WORDS.values(), parts, strict=True):
        tint = f"background:rgb({red},{green},{blue})"
        bar += f'<i style="{tint};width:{100 * part:.2f}%"></i>'
        items += f'<li><b style="{tint}"></b>{word} {100 * part:.1f} %</li>'
    return f'<div class="of-shares" aria-hidden="true">{bar}</div><ul class="of-legend">{items}</ul>'
