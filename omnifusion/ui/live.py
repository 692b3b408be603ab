"""A run as the page shows it while it goes on: progress, before / mask / after, tracks and the coverage curve."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape

import numpy as np
import torch

from omnifusion.color import compose, to_uint8
from omnifusion.correction.history import FrameCorrected
from omnifusion.flow.dis import to_bytes
from omnifusion.progress import Colored, Fitted, Fitting, Step
from omnifusion.state import ColorState, Origin, Tracker
from omnifusion.visualize import TINTS, overlay, recent_tracks

STAGES = {"flow": "Flow", "fit": "Track", "color": "Color", "finish": "Film"}
"""What a run goes through, and the word on its bar; propagation and inpainting take turns in "color"."""

PAUSE = 0.4
"""Seconds between two updates that bring no new color."""


@dataclass
class Live:
    """Follows a run; ``show`` says what changed on the page."""

    done: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, float, float]] = field(default_factory=list)
    before: ColorState | None = None
    stage: str = ""
    last: float = 0.0
    began: tuple[float, int] | None = None

    def show(self, step: Step) -> dict[str, object] | None:
        """What to put where, by name: progress, coverage (HTML), tracks, before, mask, after (``(H, W, 3)`` uint8).

        None where there is nothing worth sending yet.
        """
        stage = "color" if step.stage in ("propagate", "inpaint", "correct") else step.stage
        state = step.state if isinstance(step, Colored) else None
        drawn = step.picture if isinstance(step, Fitting | Fitted) else None
        if isinstance(step, FrameCorrected):
            told = progress(self.done, stage, step)
            return {"progress": told, "after": step.picture.transpose(1, 2, 0), "caption": f"frame {step.frame}"}
        if stage != "color" or state is not None:
            self.done[stage] = step.done
        now = time.monotonic()
        if state is None and drawn is None and stage == self.stage and now - self.last < PAUSE:
            return None
        self.last, self.stage = now, stage
        if stage == "color":
            step = replace(step, seconds_left=self._left(now, state or self.before))
        shown: dict[str, object] = {"progress": progress(self.done, stage, step)}
        if isinstance(step, Colored):
            self.curve.append(shares(step.state))
            shown |= {"coverage": coverage(self.curve)} | self._compare(step)
            self.before = step.state
        elif drawn is not None:
            shown["tracks"] = drawn
        return shown

    def _left(self, now: float, state: ColorState | None) -> float | None:
        """Seconds until all frames are complete, at the pace so far."""
        if state is None or "fit" not in self.done:
            return None
        gray = int((~state.mask).flatten(1).any(1).sum())
        self.began = self.began or (now, gray)
        began, first = self.began
        return None if gray >= first - 1 else (now - began) / (first - gray) * gray

    def _compare(self, step: Colored) -> dict[str, object]:
        state = step.state
        before = self.before or ColorState.gray(state.L)
        fresh = state.mask & ~before.mask
        frame = step.frame or 0
        if step.stage == "propagate" and bool(fresh.any()):
            frame = int(fresh.flatten(1).sum(1).argmax())
        elif not bool(fresh.any()):
            return {}
        return {
            "before": picture(before, frame),
            "mask": mask_picture(state, frame, fresh[frame].numpy()),
            "after": picture(state, frame),
            "caption": f"frame {frame}, iteration {step.iteration}",
        }


def picture(state: ColorState, frame: int) -> np.ndarray:
    """A frame at the working size with the colors known so far, ``(h, w, 3)`` uint8."""
    return to_uint8(compose(state.L[frame], state.ab[frame])).permute(1, 2, 0).numpy()


def mask_picture(state: ColorState, frame: int, fresh: np.ndarray | None = None) -> np.ndarray:
    """Where a frame's colors came from, tinted over its gray picture; with ``fresh`` ``(h, w)`` only those."""
    gray = to_uint8(compose(state.L[frame], torch.zeros_like(state.ab[frame]))).permute(1, 2, 0).numpy()
    kind = state.kind[frame].numpy()
    return overlay(gray, kind if fresh is None else np.where(fresh, kind, -1), 0.65)


def shares(state: ColorState, frame: int | None = None) -> tuple[float, float, float]:
    """The share of pixels by origin (exemplar, propagated, inpainted), of one frame or of the whole clip."""
    kind = state.kind if frame is None else state.kind[frame]
    exemplar, propagated, inpainted = (float((kind == int(origin)).float().mean()) for origin in Origin)
    return exemplar, propagated, inpainted


def progress(done: dict[str, float], stage: str, step: Step) -> str:
    """One bar per stage (flow and track only where a volume is fitted), and one line that says what is going on."""
    bars = []
    shown = [name for name in STAGES if name in done or name in ("color", "finish")]
    reached = shown.index(stage) if stage in shown else -1
    for k, name in enumerate(shown):
        word, part = STAGES[name], 1.0 if k < reached else done.get(name, 0.0)
        now = round(100 * min(1.0, max(0.0, part)))
        bars.append(
            f'<div class="of-stage"><span>{word}</span><div class="of-bar" role="progressbar" aria-label="{word}" '
            f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{now}"><i style="width:{now}%"></i></div></div>'
        )
    left = "" if step.seconds_left is None else f" · about {seconds(step.seconds_left)} left"
    line = f'<p aria-live="polite">{escape(step.message)}{left}</p>'
    return f'<div class="of-progress"><div class="of-stages">{"".join(bars)}</div>{line}</div>'


def message(text: str) -> str:
    """A line in the place of the progress."""
    return f'<div class="of-progress"><p role="status">{escape(text)}</p></div>'


def seconds(value: float) -> str:
    """A time that people can read."""
    return f"{value:.0f} s" if value < 90 else f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.0f} h"


def coverage(curve: Sequence[tuple[float, float, float]], size: tuple[int, int] = (640, 150)) -> str:
    """How the share of colored pixels grew, stacked by origin, as an inline SVG; ``curve`` holds ``shares``."""
    width, height = size
    left, top, bottom = 34, 6, 22
    values = np.cumsum(np.array([curve[0], *curve]), axis=1)
    x = np.linspace(left, width - 4, len(values))

    def y(share: np.ndarray) -> np.ndarray:
        return top + (1 - share) * (height - top - bottom)

    areas, lower = [], np.zeros(len(values))
    for k, origin in enumerate(Origin):
        upper = values[:, k]
        outline = [*zip(x, y(upper), strict=True), *zip(x[::-1], y(lower)[::-1], strict=True)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in outline)
        areas.append(f'<polygon points="{points}" fill="{css_color(origin)}"/>')
        lower = upper
    grid = "".join(
        f'<line x1="{left}" x2="{width - 4}" y1="{y(np.float64(s)):.1f}" y2="{y(np.float64(s)):.1f}"/>'
        f'<text x="{left - 4}" y="{y(np.float64(s)) + 4:.1f}" text-anchor="end">{100 * s:.0f}%</text>'
        for s in (0.0, 0.5, 1.0)
    )
    total = 100 * float(values[-1, 2])
    return (
        f'<figure class="of-coverage"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{total:.0f} percent of all pixels have color"><g class="of-grid">{grid}</g>{"".join(areas)}'
        f'<text x="{left}" y="{height - 5}">steps of the run</text></svg>{legend(curve[-1])}</figure>'
    )


def legend(parts: tuple[float, float, float]) -> str:
    """The three origins with their tints and shares."""
    items = (
        f'<li><b style="background:{css_color(o)}"></b>{o.name.lower()} {100 * part:.1f} %</li>'
        for o, part in zip(Origin, parts, strict=True)
    )
    return f'<ul class="of-legend">{"".join(items)}</ul>'


def css_color(origin: Origin) -> str:
    """The tint of an origin as CSS."""
    return "#{:02x}{:02x}{:02x}".format(*TINTS[origin])


def tracks(tracker: Tracker, L: torch.Tensor) -> np.ndarray:
    """The middle frame of a shot with the tracks that lead there, ``(h, w, 3)`` uint8.

    Args:
        tracker: of the shot whose luminance is ``L`` ``(T, 1, h, w)``.
    """
    middle = len(L) // 2

    def follow(points: np.ndarray, t: int) -> np.ndarray:
        return tracker.correspond(torch.from_numpy(points), middle, t)[0].numpy()

    return recent_tracks(to_bytes(L[middle, 0]), middle, follow)
