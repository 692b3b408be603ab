"""The scores of a measurement: a JSON file, and beside it the frames that every method made of every clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from omnifusion.evaluation.methods import Outcome
from omnifusion.progress import InputError
from omnifusion.settings import Settings


@dataclass(frozen=True)
class Protocol:
    """What is measured and how; results under different protocols are not mixed.

    Attributes:
        dataset: name of the set.
        frames: the first so many of each clip; None = whole clips.
        scale: frames are resized by this with area averaging, before anything else.
        settings: OmniFusion's choices.
        lpips: file with the backbone's weights; None = torchvision's own.
        degrade: how clips are aged first ("film"), or None.
    """

    dataset: str
    frames: int | None
    scale: float
    settings: Settings
    lpips: str | None = None
    degrade: str | None = None


@dataclass
class Scoreboard:
    """Scores in the JSON file ``path``, pictures in ``NAME.frames/CLIP/METHOD.npz`` beside it; resumable.

    Attributes:
        protocol: the fields of a ``Protocol``.
        clips: clip -> {"frames", "size", "cdc" of the truth, "methods": method -> figures as ``Scorer.score`` names
            them, or {"error"}}, or {"error", "methods"}.
        machine: what it ran on.
        lpips_missing: why there is no LPIPS, if so.
    """

    path: Path
    protocol: dict[str, Any]
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)
    machine: str = ""
    lpips_missing: str | None = None

    @classmethod
    def begin(cls, path: Path, protocol: Protocol) -> Scoreboard:
        """A new measurement, or the one in ``path`` to go on with.

        Raises:
            InputError: the file holds something else.
        """
        scores = cls.read(path) if path.exists() else cls(path, asdict(protocol))
        if scores.protocol != asdict(protocol):
            raise InputError(f"{path} holds a measurement with other choices; name another file.")
        path.parent.mkdir(parents=True, exist_ok=True)
        return scores

    @classmethod
    def read(cls, path: Path) -> Scoreboard:
        """A measurement that was kept.

        Raises:
            InputError: the file holds none.
        """
        try:
            scores = cls(path, **json.loads(path.read_text()))
            scores.title()  # fails where a part is missing
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise InputError(f"{path} is not a file that `evaluate --json` wrote.") from error
        return scores

    def save(self) -> None:
        """Write the file, whole or not at all."""
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps({k: v for k, v in vars(self).items() if k != "path"}, indent=1) + "\n")
        draft.replace(self.path)

    @property
    def prior(self) -> str:
        """The prior of OmniFusion."""
        return self.protocol["settings"]["prior"]

    @property
    def methods(self) -> list[str]:
        """The methods that have scores, in the order they were run."""
        every = dict.fromkeys(method for about in self.clips.values() for method in about["methods"])
        return [method for method in every if self.entries(method)]

    def entries(self, method: str) -> dict[str, dict[str, Any]]:
        """The figures of a method by clip, where it did not fail."""
        every = {clip: about["methods"].get(method, {}) for clip, about in self.clips.items()}
        return {clip: entry for clip, entry in every.items() if "psnr" in entry}

    def failures(self) -> list[str]:
        """One sentence for everything that failed."""
        clips = self.clips.items()
        whole = [f"{clip} could not be measured: {about['error']}" for clip, about in clips if "error" in about]
        single = [
            f"{method} failed on {clip}: {entry['error']}"
            for clip, about in clips
            for method, entry in about["methods"].items()
            if "error" in entry
        ]
        return whole + single

    def notes(self) -> list[str]:
        """What a reader of the figures has to know: what is missing, and why."""
        return [*([f"No LPIPS: {self.lpips_missing}"] if self.lpips_missing else []), *self.failures()]

    def title(self) -> str:
        """What was measured, in one line."""
        p, count = self.protocol, len(self.clips)
        frames = f"first {p['frames']} frames" if p["frames"] else "whole clips"
        clips = f"{count} clip{'' if count == 1 else 's'}"
        aged = ", aged" if p["degrade"] else ""
        return f"{p['dataset']}, {clips}, {frames}, scale {p['scale']:g}, {p['settings']['preset']} preset{aged}"

    def label(self, method: str) -> str:
        """A method's name, with the prior where it has one."""
        return f"{method}, {self.prior} prior" if method in ("omnifusion", "inpainting-only") else method

    def keep(self, clip: str, method: str, outcome: Outcome) -> None:
        """Keep what a method made of a clip."""
        file = self._file(clip, method)
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = np.zeros(0, np.int8) if outcome.kind is None else outcome.kind
        np.savez_compressed(file, frames=outcome.frames, kind=kind)

    def outcomes(self, clip: str, methods: Sequence[str]) -> dict[str, Outcome]:
        """What was kept of a clip, by method; "truth" is one.

        Raises:
            InputError: nothing of a method.
        """
        files = {method: self._file(clip, method) for method in methods}
        if missing := [method for method, file in files.items() if not file.exists()]:
            raise InputError(
                f"{self.path} has no frames of {', '.join(missing)} on {clip}; run `evaluate --json` with it first."
            )
        return {method: _read(file) for method, file in files.items()}

    def _file(self, clip: str, method: str) -> Path:
        return self.path.with_suffix(".frames") / clip / f"{method}.npz"


def _read(path: Path) -> Outcome:
    with np.load(path) as file:
        return Outcome(file["frames"], file["kind"] if file["kind"].size else None)
