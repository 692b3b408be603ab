"""Run methods over a set of clips and score them as the paper does (section 4)."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from omnifusion import metrics, video
from omnifusion.evaluation.methods import Method, Sample
from omnifusion.evaluation.tables import COLUMNS, GROUND_TRUTH
from omnifusion.geometry import stretch
from omnifusion.pool import cores
from omnifusion.prior.source import check_source
from omnifusion.progress import Canceled, Costs, InputError, Measured, Step, StepIterator, Steps, inside
from omnifusion.run.files import write_text
from omnifusion.settings import Settings
from omnifusion.stages import Stages
from omnifusion.state import Origin

VIDEOS = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"}
# Where the clips are below a set's folder: DAVIS as distributed, the test sets of Lai et al. 2018, any folder
LAYOUTS = ("JPEGImages/480p", "JPEGImages/Full-Resolution", "JPEGImages", "input/DAVIS", "input/videvo", "videvo", "")


@dataclass(frozen=True)
class Protocol:
    """What is measured: the first ``frames`` (None = all) of each clip of a set, resized by ``scale`` with area
    averaging, colored under ``settings``."""

    dataset: str
    settings: Settings
    frames: int | None = None
    scale: float = 1.0


def discover(dataset: Path, clips: Sequence[str] | None = None) -> dict[str, Path]:
    """Find the clips of a set by name: folders of frames and video files, of ``dataset`` or of a layout below it.

    ``clips``: which to take; a text file (such as DAVIS' ``ImageSets/2016/val.txt``) stands for the names in it.
    InputError if there is no such folder, no clips in it, or a clip is not there.
    """
    if not dataset.is_dir():
        raise InputError(f"{dataset} is not a folder; name one that holds clips.")
    folders = (sorted(filter(_is_clip, (dataset / layout).glob("*"))) for layout in LAYOUTS)
    paths = {clip.stem if clip.is_file() else clip.name: clip for clip in next(filter(None, folders), [])}
    if not paths:
        raise InputError(f"{dataset} holds no clips; it needs folders of frames, or video files.")
    lists = (Path(clip).read_text().split() if Path(clip).is_file() else [clip] for clip in clips or paths)
    wanted = [name for names in lists for name in names]
    if missing := [name for name in wanted if name not in paths]:
        raise InputError(f"{dataset} has no clip {', '.join(missing)}; it has {', '.join(paths)}.")
    return {name: paths[name] for name in wanted}


def _is_clip(path: Path) -> bool:
    files, endings = (path.iterdir(), video.IMAGES) if path.is_dir() else ([path], VIDEOS)
    return any(file.suffix.lower() in endings for file in files)


def read_clip(path: Path, frames: int | None = None, scale: float = 1.0) -> np.ndarray:
    """Read the first ``frames`` frames of a clip, ``(T, 3, H, W)`` uint8, resized by ``scale`` with area averaging.

    InputError if it is unreadable, or has fewer than two frames.
    """
    clip = np.asarray(video.read(path, max_frames=frames).frames)
    if len(clip) < 2:
        raise InputError(f"{path} has a single frame; a clip needs two.")
    if scale == 1.0:
        return clip
    height, width = (max(1, round(side * scale)) for side in clip.shape[2:])
    small = [cv2.resize(f.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_AREA) for f in clip]
    return np.stack(small).transpose(0, 3, 1, 2)


def evaluate(
    clips: Mapping[str, Path], methods: Mapping[str, Method], protocol: Protocol, out: Path,
    stages: Stages | None = None,
) -> Steps[pd.DataFrame]:  # fmt: skip
    """Run every method on every clip and score what it made; returns the rows, see ``read``.

    The methods of a clip run together, as they share its trackers and are all scored on what the first one inpainted.
    Scores are means over the frames after the first, which is the exemplar. ``out`` is a JSON file, written after every
    clip; clips that it holds without an error are not run again. InputError if it holds something else, or the prior
    cannot be read; OSError if it cannot be written.
    """
    check_source(protocol.settings)  # a missing prior is reported before any work
    stages = stages or Stages()
    content: dict[str, Any] = {"protocol": asdict(protocol) | {"methods": list(methods)}, "no_lpips": "", "rows": []}
    content["machine"] = f"{platform.machine()}, {stages.threads or cores()} threads"
    if out.exists():
        earlier = read(out)
        if earlier.attrs["protocol"] != content["protocol"]:
            raise InputError(f"{out} holds an evaluation with other choices; name another file.")
        whole = ~earlier["clip"].isin(earlier.loc[earlier["error"].notna(), "clip"])
        content["rows"] = [row.dropna().to_dict() for _, row in earlier[whole].iterrows()]
    scores = metrics.COMPARISONS | {"psnr_uint8": metrics.psnr_uint8}
    try:
        scores["lpips"] = metrics.load_lpips()
    except InputError as error:
        content["no_lpips"] = str(error)
    done = {row["clip"] for row in content["rows"]}
    out.parent.mkdir(parents=True, exist_ok=True)
    for n, clip in enumerate(clips):
        if clip not in done:
            for step in _measure(clips[clip], methods, protocol, stages, scores):
                if isinstance(step, Measured):
                    content["rows"].append({"clip": clip} | step.row)
                yield replace(step, message=f"{clip}: {step.message}", done=n / len(clips))
        write_text(out, json.dumps(content, indent=1) + "\n")
    return read(out)


def read(path: Path) -> pd.DataFrame:
    """Read an evaluation: a row for each clip and method with the scores of ``COLUMNS``, or an "error"; a clip that
    could not be read has one row. ``attrs`` say how it was made: "protocol", "machine", "no_lpips". InputError if the
    file does not hold one.
    """
    try:
        content = json.loads(path.read_text())
        rows = pd.DataFrame(content["rows"], columns=["clip", "method", *COLUMNS, "error"])
        rows.attrs = {key: content[key] for key in ("protocol", "machine", "no_lpips")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} does not hold an evaluation; name another file.") from error
    return rows


def _measure(
    path: Path, methods: Mapping[str, Method], protocol: Protocol, stages: Stages, scores: Mapping[str, metrics.Score]
) -> Steps[None]:
    """Run methods on one clip; whatever goes wrong with one, the others are still measured."""
    try:
        ground_truth = read_clip(path, protocol.frames, protocol.scale)
    except Exception as error:
        yield _failure("reading", error)
        return
    row = {"method": GROUND_TRUTH, "cdc": metrics.cdc(ground_truth)}
    yield Measured("evaluate", f"{len(ground_truth)} frames", row=row)
    sample, inpainted = Sample(ground_truth, protocol.settings, stages), None
    for name, method in methods.items():
        costs, row = Costs(), {"method": name}
        work = StepIterator(inside(partial(costs.during, name), method(sample)))
        try:
            for step in work:
                yield Step("evaluate", f"{name}: {step.message}")
            frames, kind = work.result
            row |= {key: float(score(frames[1:], ground_truth[1:]).mean()) for key, score in scores.items()}
        except Canceled:
            raise
        except Exception as error:
            yield _failure(name, error)
            continue
        if kind is not None:
            row["propagated"] = float((kind[1:] == Origin.PROPAGATED).mean())
            row["inpainted"] = float((kind[1:] == Origin.INPAINTED).mean())
            if inpainted is None:
                inpainted = stretch(kind, ground_truth.shape[2:]) == Origin.INPAINTED
        if inpainted is not None and inpainted.any():
            squares = ((frames.astype(np.float32) - ground_truth) ** 2).mean(1)
            row["inpainted_psnr"] = float(10 * np.log10(255**2 / squares[inpainted].mean()))
        row |= {key: getattr(costs, key)[name] for key in ("seconds", "cpu_seconds", "peak_mib")}
        row["cdc"] = metrics.cdc(frames)
        yield Measured("evaluate", f"{name}: {row['psnr']:.2f} dB in {row['seconds']:.0f} s", row=row)


def _failure(name: str, error: Exception) -> Measured:
    sentence = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return Measured("evaluate", f"{name} failed: {sentence}", row={"method": name, "error": sentence})
