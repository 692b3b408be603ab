"""The tracker measured: against exact truth on made scenes, and by the colour it carries on real clips.

Peers: chained DIS (gap-1 flows composed, seen where its cycle closes to ``CHAIN_CYCLE`` px), and direct flow alone
(trusted where its cycle closes to 1 px).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion import flow as of
from omnifusion import omnimotion, synthetic
from omnifusion.clip.prepare import working_luminance
from omnifusion.color import compose, from_uint8, rgb_to_lab, to_uint8
from omnifusion.evaluation.dataset import read_clip
from omnifusion.evaluation.tables import Table
from omnifusion.flow.direct import DirectFlow
from omnifusion.geometry import fit_size, inside, pixel_grid, sample
from omnifusion.levin import levin
from omnifusion.meter import Meter
from omnifusion.metrics import psnr
from omnifusion.omnimotion.flows import collect
from omnifusion.omnimotion.optimise import Optimiser
from omnifusion.omnimotion.rays import Sampler
from omnifusion.omnimotion.tracker import volume_of
from omnifusion.settings import choose
from omnifusion.state import InputError, Tracker
from omnifusion.steps import Measured, Step, Steps

CHAIN_CYCLE = 4.0
HEIGHT = 240
CARRIED_TO = 8
"""So many frames, evenly spread over the clip, are coloured from frame 0."""


def accuracy(truth: synthetic.MadeClip, answer: Callable[[int], tuple[Tensor, Tensor]]) -> list[float]:
    """From frame 0 to all others, pooled: % of seen pixels within 1 px, within 3 px; % of right visibility inside
    the frame. ``answer`` gives the places of all pixels ``(N, 2)`` in a frame, and whether they are seen there."""
    H, W = truth.video.size
    errors, right = [], []
    for j in range(1, len(truth.video)):
        there, seen = answer(j)
        exact, visible = truth.correspond(pixel_grid(H, W).reshape(-1, 2), 0, j)
        errors.append((there - exact).norm(dim=1)[visible])
        right.append((seen == visible)[inside(exact, H, W)])
    error = torch.cat(errors)
    return [100 * float(share.float().mean()) for share in (error < 1, error < 3, torch.cat(right))]


def made(scenes: Sequence[str], seeds: int, frames: int, preset: str) -> Steps[Table]:
    """Accuracy, visibility and seconds on made scenes of 192x108: medians over seeds."""
    heads = ["scene", "< 1 px", "< 3 px", "visibility", "chain < 1", "chain < 3", "chain vis.", "fit s"]
    title = f"Made scenes, {frames} frames of 192x108, {seeds} seeds, {preset}"
    table = Table(title, dict.fromkeys(heads, ".1f") | {"peak MiB": ".0f"}, [])
    figures = np.zeros((len(scenes), seeds, 8))
    for n, scene in enumerate(scenes):
        for seed in range(seeds):
            yield Step("bench", f"{scene}, seed {seed}", (n + seed / seeds) / len(scenes))
            figures[n, seed] = yield from _made_once(synthetic.make(scene, frames, seed=seed), preset, seed)
        yield _row(table, len(scenes), [scene, *np.median(figures[n], axis=0)])
    table.rows.append(["median", *np.median(figures, axis=(0, 1))])
    return table


def _made_once(truth: synthetic.MadeClip, preset: str, seed: int) -> Steps[list[float]]:
    L = rgb_to_lab(from_uint8(truth.video.frames))[:, :1]
    with Meter() as meter:
        tracker = yield from omnimotion.fit(L, preset, seed=seed)
    grid, direct = pixel_grid(*truth.video.size), DirectFlow(of.to_bytes(L[:, 0]))

    def chained(j: int) -> tuple[Tensor, Tensor]:
        (found,) = direct.pairs(0, j, near=True)
        return (grid + torch.from_numpy(found.flow)).reshape(-1, 2), torch.from_numpy(found.cycle.ravel() < CHAIN_CYCLE)

    ours = accuracy(truth, lambda j: tracker.correspond(grid.reshape(-1, 2), 0, j))
    return [*ours, *accuracy(truth, chained), meter.seconds, meter.peak_mib]


def _row(table: Table, count: int, row: Sequence[Any]) -> Step:
    """Another of ``count`` rows has been measured."""
    table.rows.append(row)
    return Measured("bench", "  ".join(table.cells()[-1]), len(table.rows) / count, row=row)


def carried(clips: Sequence[Path], frames: int, preset: str) -> Steps[Table]:
    """PSNR of frames that fetch their colour from frame 0 (their own luminance kept), ours and by direct flow alone."""
    forms = {
        "clip": "",
        "fit s": ".1f",
        "peak MiB": ".0f",
        "trusted %": ".1f",
        "direct there": ".2f",
        "ours there": ".2f",
    }
    forms |= {"seen %": ".1f", "direct filled": ".2f", "ours filled": ".2f", "ours all": ".2f"}
    table = Table(f"Colour carried from frame 0, {frames} frames of {HEIGHT} px, {preset}", forms, [])
    for n, path in enumerate(clips):
        yield Step("bench", path.name, n / len(clips))
        video = read_clip(path, frames, HEIGHT / read_clip(path, 2).shape[2])
        lab = rgb_to_lab(from_uint8(video))
        L, ab = lab[:, :1].contiguous(), lab[:, 1:].contiguous()
        with Meter() as meter:
            tracker = yield from omnimotion.fit(L, preset)
        figures = compare(tracker, DirectFlow(of.to_bytes(L[:, 0])), video, L, ab)
        yield _row(table, len(clips), [path.name, meter.seconds, meter.peak_mib, *figures])
    table.rows.append(["mean", *np.mean([row[1:] for row in table.rows], axis=0)])
    return table


def compare(tracker: Tracker, direct: DirectFlow, video: np.ndarray, L: Tensor, ab: Tensor) -> list[float]:
    """Means over ``CARRIED_TO`` frames: trusted %, PSNR of direct flow and of ours there, seen %, PSNR of both after
    Levin's fill, ours without."""
    H, W = L.shape[2:]
    grid, figures = pixel_grid(H, W), []
    for j in sorted({int(j) for j in np.linspace(1, len(video) - 1, CARRIED_TO)}):
        (found,) = direct.pairs(j, 0)
        flow, trusted = torch.from_numpy(found.flow), torch.from_numpy(found.cycle < of.CYCLE)
        places, seen = tracker.correspond(grid.reshape(-1, 2), j, 0)
        seen = seen.view(H, W)
        theirs, ours = sample(ab[0], grid + flow), sample(ab[0], places.view(H, W, 2))

        def score(color: Tensor, where: Tensor | None = None, j: int = j) -> float:
            picture = to_uint8(compose(L[j], color)).numpy()[None]
            return float(psnr(picture, video[j : j + 1], None if where is None else where.numpy()[None])[0])

        filled = [score(levin(L[j], color, known)) for color, known in ((theirs, trusted), (ours, seen))]
        shares = [100 * float(m.float().mean()) for m in (trusted, seen)]
        figures.append([shares[0], score(theirs, trusted), score(ours, trusted), shares[1], *filled, score(ours)])
    return np.nanmean(figures, axis=0).tolist()


def growth(clip: Path, lengths: Sequence[int], preset: str) -> Steps[Table]:
    """Seconds and memory of whole fits to more and more frames of one clip at the product's working size."""
    size = fit_size(read_clip(clip, 2).shape[2:], choose().max_side)
    forms = {"frames": "", "seconds": ".1f", "seconds per frame": ".2f", "peak MiB": ".0f"}
    table = Table(f"Whole fits to {clip.name}, {size[1]}x{size[0]}, {preset}", forms, [])
    for n, frames in enumerate(sorted(lengths)):
        yield Step("bench", f"{frames} frames", n / len(lengths))
        pictures = read_clip(clip, frames)
        if len(pictures) < frames:
            raise InputError(f"{clip} has {len(pictures)} frames, not {frames}; ask for fewer.")
        L = working_luminance(pictures, size)
        with Meter() as meter:
            yield from omnimotion.fit(L, preset)
        yield _row(table, len(lengths), [frames, meter.seconds, meter.seconds / frames, meter.peak_mib])
    return table


def pace(seconds: float, rays: int = 64) -> Steps[Table]:
    """Grid volume and official networks for the same ``seconds``: microseconds per sample, and the loss they reach.

    Both see the flows of one made scene and ``rays`` rays per iteration of the official 32 samples (a 32nd of an
    official iteration, which would not end in time), so that their losses compare.
    """
    images = of.to_bytes(rgb_to_lab(from_uint8(synthetic.make("two-layers", 8).video.frames))[:, 0])
    flows = collect(images, of.intervals(len(images)))
    forms = {"preset": "", "parameters": ",", "iterations": "", "CPU us per sample": ".2f"}
    forms |= {"first loss px": ".2f", "last loss px": ".2f"}
    table = Table(f"Grid volume and official networks, {seconds:.0f} CPU-seconds each", forms, [])
    for name in ("standard", "paper"):
        preset = omnimotion.PRESETS[name]
        schedule = replace(preset.schedule, pairs=4, rays=rays // 4, samples=32)
        volume = volume_of(preset.kind, len(images))
        run = Optimiser(volume, Sampler(flows), schedule, 0)
        run.step(0.0)
        losses, started = [run.loss], time.process_time()
        while (spent := time.process_time() - started) < seconds:
            run.step(spent / seconds)
            losses.append(run.loss)
        iterations, parameters = len(losses) - 1, sum(p.numel() for p in volume.parameters())
        last = float(np.mean(losses[-max(1, len(losses) // 10) :]))
        each = 1e6 * spent / (iterations * rays * 32)
        yield _row(table, 2, [name, parameters, iterations, each, losses[0], last])
    return table
