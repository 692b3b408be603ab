"""Finished runs as pictures and tables: the result browser and the comparison."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from omnifusion.color import from_uint8, to_uint8
from omnifusion.color import gray as gray_of
from omnifusion.evaluation import baselines
from omnifusion.metrics import ciede2000, psnr, ssim
from omnifusion.run.folder import RunFolder, open_run
from omnifusion.run.pipeline import Resources, prepared
from omnifusion.state import ColorState, Origin
from omnifusion.ui.limits import Limits
from omnifusion.ui.live import legend, seconds
from omnifusion.video import Writer, read
from omnifusion.visualize import overlay, stretch

CHROMA = "chroma.mkv"
FILES = ("colorized.mp4", "origin.mp4", "report.json", "frames.zip", CHROMA, "tracker.pt")
"""What a visitor may download."""

HEADERS = [
    "run",
    "prior",
    "preset",
    "eta",
    "steps",
    "without",
    "time",
    "propagated",
    "inpainted",
    "PSNR",
    "SSIM",
    "ΔE00",
]

DOUBT = (213, 94, 0)
"""Vermilion of Okabe and Ito's palette: where nothing is sure."""

TRUTH, GRAY, CLASSICAL = "truth", "gray", "classical"
"""What a run can be compared with beside other runs."""


@lru_cache(maxsize=4)
def _origin(folder: Path) -> np.ndarray:
    """How every pixel of a run came by its color, ``(T, h, w)``."""
    return open_run(folder).origin()


def gray(picture: np.ndarray) -> np.ndarray:
    """A picture ``(H, W, 3)`` uint8 without its color, its L* kept."""
    rgb = from_uint8(picture.transpose(2, 0, 1))
    return to_uint8(gray_of(rgb)).permute(1, 2, 0).numpy()


def pair(run: RunFolder, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame gray and colored."""
    picture = run.frame(frame)
    return gray(picture), picture


def at_iteration(run: RunFolder, frame: int, iteration: int) -> tuple[np.ndarray, np.ndarray, str]:
    """A frame as it was at the end of an iteration, where its colors came from, and the shares as HTML."""
    origin = _origin(run.folder)[frame]
    kind = np.where((origin >= 0) & (origin // 3 <= iteration), origin % 3, -1)
    without, picture = pair(run, frame)
    parts = tuple(float((kind == int(how)).mean()) for how in Origin)
    then = np.where(stretch(kind >= 0, picture.shape[:2])[..., None], picture, without)
    return then, overlay(without, kind, 0.65), legend((parts[0], parts[1], parts[2]))


def doubt(run: RunFolder, frame: int) -> np.ndarray | None:
    """A frame in gray, the redder the less sure its colors are; None where that is not kept."""
    if not run.can_correct:
        return None
    sure = run.colors(frame)["confidence"].numpy()
    without = pair(run, frame)[0].astype(np.float32)
    share = 0.8 * (1 - stretch(sure.astype(np.float32), without.shape[:2]))[..., None]
    return (without + share * (np.array(DOUBT, np.float32) - without)).round().astype(np.uint8)


def film(run: RunFolder) -> str:
    """The film as HTML, to the left of the pointer without its colors."""
    address = quote(str(run.folder / "colorized.mp4"))
    return (
        '<figure class="of-film" onpointermove="this.style.setProperty(\'--at\', '
        "100 * event.offsetX / this.clientWidth + '%')\">"
        f'<video src="gradio_api/file={address}" autoplay loop muted playsinline controls></video><i></i>'
        f"<figcaption><b>gray</b><span>{escape(run.request.name)}</span><b>color</b></figcaption></figure>"
    )


def heading(run: RunFolder) -> str:
    """A run in two lines, and what went otherwise than wished."""
    report, settings = run.report, run.request.settings
    total = sum(stage["seconds"] for stage in report["stages"])
    state = "" if report["complete"] else " — **stopped early**, the rest is gray"
    time = f", {seconds(total)}" if total else ""
    return (
        f"### {run.request.name}{state}\n{report['frames']} frames, prior {settings.prior}, preset {settings.preset}, "
        f"seed {settings.seed}{time}, {len(report['iterations'])} iterations; {_share(report)}."
        + "".join(f"\n\n{escape(note)}" for note in report.get("notes", ()))
    )


def _share(report: dict[str, Any]) -> str:
    total = max(1, report["frames"] * report["working_size"][0] * report["working_size"][1])
    return ", ".join(f"{100 * count / total:.1f} % {name}" for name, count in report["origin"].items())


def scores(report: dict[str, Any]) -> str:
    """The scores in a line, where the truth is known."""
    if not report["scores"]:
        return ""
    found = " · ".join(f"{name.upper()} {value:.2f}" for name, value in report["scores"].items())
    return f"Against the clip's own colors: **{found}** (PSNR and SSIM: higher is closer; CIEDE2000: lower is closer)."


def files(run: RunFolder) -> list[str]:
    """The downloads; the frames are packed when first asked for."""
    packed = run.folder / "frames.zip"
    frames = sorted((run.folder / "frames").glob("*.png"))
    if frames and not packed.is_file():
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for path in frames:
                archive.write(path, path.name)
    return [str(run.folder / name) for name in FILES if (run.folder / name).is_file()]


def label(run: RunFolder, number: int) -> str:
    """A run's name in lists."""
    settings = run.request.settings
    without = _without(run)
    return f"{number}: {settings.prior}, {settings.preset}, eta {settings.eta:g}, seed {settings.seed}" + (
        f", without {without}" if without else ""
    )


def choices(runs: Sequence[RunFolder]) -> list[tuple[str, str]]:
    """What can be compared: (label, name), a name being "TOKEN" or "TOKEN/truth", "TOKEN/gray", "TOKEN/classical"."""
    found = [(label(run, k + 1), run.token) for k, run in enumerate(runs)]
    for k, run in enumerate(runs):
        found.append((f"{k + 1}: gray", f"{run.token}/{GRAY}"))
        if run.report["scores"]:
            found.append((f"{k + 1}: the truth", f"{run.token}/{TRUTH}"))
        if 0 in run.report["exemplars"]:
            found.append((f"{k + 1}: classical, flow and Levin", f"{run.token}/{CLASSICAL}"))
    return found


def compared(run: RunFolder, what: str, frame: int, limits: Limits) -> np.ndarray:
    """A frame of a run or of what it is compared with, ``(H, W, 3)`` uint8."""
    frame = min(frame, run.report["frames"] - 1)
    if what == TRUTH:
        return np.ascontiguousarray(np.asarray(read(run.clip, frame + 1).frames[frame]).transpose(1, 2, 0))
    if what == CLASSICAL:
        return np.ascontiguousarray(_film(classical(run, limits))[frame].transpose(1, 2, 0))
    picture = run.frame(frame)
    return gray(picture) if what == GRAY else picture


@lru_cache(maxsize=4)
def _film(path: Path) -> np.ndarray:
    return read(path).frames


def is_made(run: RunFolder, what: str) -> bool:
    """Whether what a run is compared with is there already."""
    return what != CLASSICAL or (run.folder / "classical.mp4").is_file()


def classical(run: RunFolder, limits: Limits) -> Path:
    """The same clip and exemplar by the strongest classical baseline; made when first asked for and kept."""
    film = run.folder / "classical.mp4"
    if not film.is_file():
        clip = prepared(run, Resources(max_frames=limits.frames, max_pixels=limits.pixels))
        ab = baselines.BASELINES["levin"](clip.L, clip.exemplar_ab()[0])
        state = replace(ColorState.gray(clip.L), ab=ab)
        with Writer(film, clip.video) as writer:
            for t in range(len(ab)):
                writer.add(clip.full_size(state, t))
    return film


def table(runs: Sequence[RunFolder]) -> list[list[object]]:
    """One row for each run, and for each classical result that has been made; columns are ``HEADERS``."""
    rows: list[list[object]] = []
    for k, run in enumerate(runs):
        report, settings = run.report, run.request.settings
        total = max(1, sum(report["origin"].values()))
        share = [f"{100 * report['origin'][name] / total:.1f} %" for name in ("propagated", "inpainted")]
        time = seconds(sum(stage["seconds"] for stage in report["stages"]))
        found = [f"{value:.2f}" for value in report["scores"].values()] or ["", "", ""]
        numbers = [f"{settings.eta:g}", str(settings.steps), _without(run), time]
        rows.append([f"{k + 1}: {run.request.name}", settings.prior, settings.preset, *numbers, *share, *found])
        if (run.folder / "classical.mp4").is_file() and report["scores"]:
            found = [f"{value:.2f}" for value in _classical_scores(run)]
            rows.append([f"{k + 1}: classical", "Levin", "", "", "", "", "", "", "", *found])
    return rows


def _classical_scores(run: RunFolder) -> list[float]:
    pairs = zip(_film(run.folder / "classical.mp4"), read(run.clip, run.report["frames"]).frames, strict=True)
    next(pairs)
    rows = [
        [float(metric(found[None], truth[None])[0]) for metric in (psnr, ssim, ciede2000)] for found, truth in pairs
    ]
    return [float(mean) for mean in np.mean(rows, axis=0)] if rows else [math.nan] * 3


def _without(run: RunFolder) -> str:
    settings = run.request.settings
    off = [("color condition", settings.color_condition), ("grayscale constraint", settings.gray_constraint)]
    return ", ".join(name for name, on in off if not on)
