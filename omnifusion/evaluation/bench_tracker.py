"""The tracker measured: against exact truth on made scenes, and by the colour it carries on real clips.

Peers: chained DIS (gap-1 flows composed, seen where its cycle closes to ``CHAIN_CYCLE`` px), and started DIS (DIS that
begins at the chain, trusted where its cycle closes to 1 px).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnifusion import flow as of
from omnifusion import omnimotion, synthetic
from omnifusion.clip.prepare import working_luminance
from omnifusion.color import compose, from_uint8, rgb_to_lab, to_uint8
from omnifusion.evaluation.dataset import load
from omnifusion.evaluation.tables import Table
from omnifusion.geometry import fit_size, inside, pixel_grid
from omnifusion.geometry import sample as read_at
from omnifusion.levin import levin
from omnifusion.meter import Meter
from omnifusion.metrics import psnr
from omnifusion.omnimotion import OmniMotion, supervision
from omnifusion.omnimotion.optimise import Optimiser
from omnifusion.omnimotion.volume import Volume
from omnifusion.settings import choose
from omnifusion.state import InputError, Step, Steps

CHAIN_CYCLE = 4.0
HEIGHT = 240
CARRIED_TO = 8
"""So many frames, evenly spread over the clip, are coloured from frame 0."""

Answer = Callable[[int], tuple[Tensor, Tensor]]


class Chains:
    """Gap-1 DIS between frame 0 and every other, composed."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        there, back = of.raw_dis(images[0], images[1]), of.raw_dis(images[1], images[0])
        self.there, self.back = [there], [back]
        for j in range(2, len(images)):
            there = of.compose(there, of.raw_dis(images[j - 1], images[j]))
            back = of.compose(of.raw_dis(images[j], images[j - 1]), back)
            self.there.append(there)
            self.back.append(back)

    def forward(self, j: int) -> tuple[Tensor, Tensor]:
        """Flow ``(H, W, 2)`` from frame 0 to ``j``, and where it is seen."""
        seen = of.cycle_error(self.there[j - 1], self.back[j - 1]) < CHAIN_CYCLE
        return torch.from_numpy(self.there[j - 1]), torch.from_numpy(seen)

    def started(self, j: int) -> tuple[Tensor, Tensor]:
        """Started DIS ``(H, W, 2)`` from frame ``j`` to 0, and where it is trusted."""
        there, back = self.there[j - 1], self.back[j - 1]
        if j > 1:
            there = of.raw_dis(self.images[0], self.images[j], there)
            back = of.raw_dis(self.images[j], self.images[0], back)
        return torch.from_numpy(back), torch.from_numpy(of.cycle_error(back, there) < 1.0)


def accuracy(truth: synthetic.Sample, answer: Answer) -> tuple[float, float, float]:
    """From frame 0 to all others, pooled: % of seen pixels within 1 px, within 3 px; % of right visibility inside
    the frame."""
    T, (H, W) = len(truth.video), truth.video.size
    grid = pixel_grid(H, W).reshape(-1, 2)
    errors, right = [], []
    for j in range(1, T):
        there, seen = answer(j)
        exact, visible = truth.correspond(grid, 0, j)
        errors.append((there - exact).norm(dim=1)[visible])
        right.append((seen == visible)[inside(exact, H, W)])
    error = torch.cat(errors)
    near, close, sight = (100 * float(v.float().mean()) for v in (error < 1, error < 3, torch.cat(right)))
    return near, close, sight


def made(scenes: Sequence[str], seeds: int, frames: int, preset: str) -> Steps[Table]:
    """Accuracy, visibility and seconds on made scenes of 192x108: medians over seeds."""
    rows: list[list[str]] = []
    pooled: list[tuple[float, ...]] = []
    for n, scene in enumerate(scenes):
        results: list[tuple[float, ...]] = []
        for seed in range(seeds):
            yield Step("bench", f"{scene}, seed {seed}", (n + seed / seeds) / len(scenes))
            truth = synthetic.make(scene, frames, seed=seed)
            L = rgb_to_lab(from_uint8(truth.video.frames))[:, :1]
            with Meter() as meter:
                tracker = yield from omnimotion.fit(L, preset, seed=seed)
            grid = pixel_grid(*truth.video.size).reshape(-1, 2)
            chains = Chains(of.to_bytes(L[:, 0]))
            ours = accuracy(truth, partial(_ask, tracker, grid))
            peer = accuracy(truth, partial(_flat, chains, grid))
            results.append((*ours, *peer, meter.seconds, meter.peak_mib))
        pooled += results
        rows.append([scene, *_medians(results)])
        yield Step("bench", "  ".join(rows[-1]), (n + 1) / len(scenes), data={"result": rows[-1]})
    rows.append(["median", *_medians(pooled)])
    head = ["scene", "< 1 px", "< 3 px", "visibility", "chain < 1", "chain < 3", "chain vis.", "fit s", "peak MiB"]
    return Table(f"Made scenes, {frames} frames of 192x108, {seeds} seeds, {preset}", head, rows)


def _medians(results: Sequence[tuple[float, ...]]) -> list[str]:
    return [f"{median(column):.{0 if k == 7 else 1}f}" for k, column in enumerate(zip(*results, strict=True))]


def _ask(tracker: OmniMotion, grid: Tensor, j: int) -> tuple[Tensor, Tensor]:
    return tracker.correspond(grid, 0, j)


def _flat(chains: Chains, grid: Tensor, j: int) -> tuple[Tensor, Tensor]:
    flow, seen = chains.forward(j)
    return grid + flow.reshape(-1, 2), seen.reshape(-1)


def carried(clips: Sequence[Path], frames: int, preset: str) -> Steps[Table]:
    """PSNR of frames that fetch their colour from frame 0 (their own luminance kept), ours and started DIS."""
    rows: list[list[Any]] = []
    for n, path in enumerate(clips):
        yield Step("bench", path.name, n / len(clips))
        height = load(path, 2).shape[2]
        video = load(path, frames, HEIGHT / height)
        lab = rgb_to_lab(from_uint8(video))
        L, ab = lab[:, :1].contiguous(), lab[:, 1:].contiguous()
        with Meter() as meter:
            tracker = yield from omnimotion.fit(L, preset)
        rows.append([meter.seconds, meter.peak_mib, *compare(tracker, Chains(of.to_bytes(L[:, 0])), video, L, ab)])
        rows[-1] = [path.name, *rows[-1]]
        yield Step("bench", _line(rows[-1]), (n + 1) / len(clips), data={"result": rows[-1]})
    mean = ["mean", *np.mean([row[1:] for row in rows], axis=0)]
    head = [
        "clip",
        "fit s",
        "peak MiB",
        "trusted %",
        "DIS there",
        "ours there",
        "seen %",
        "DIS filled",
        "ours filled",
        "ours all",
    ]
    return Table(
        f"Colour carried from frame 0, {frames} frames of {HEIGHT} px, {preset}",
        head,
        [_cells(r) for r in (*rows, mean)],
    )


def _cells(row: list) -> list[str]:
    return [row[0], *(f"{v:.{0 if k == 1 else 2 if k in (3, 4, 6, 7, 8) else 1}f}" for k, v in enumerate(row[1:]))]


def _line(row: list) -> str:
    return "  ".join(_cells(row))


def compare(tracker: OmniMotion, chains: Chains, video: np.ndarray, L: Tensor, ab: Tensor) -> list[float]:
    """Means over ``CARRIED_TO`` frames: trusted %, PSNR of DIS and of ours there, seen %, PSNR after Levin's fill,
    ours without."""
    T, (H, W) = len(video), L.shape[2:]
    grid, figures = pixel_grid(H, W), []
    for j in sorted({int(j) for j in np.linspace(1, T - 1, CARRIED_TO)}):
        there, trusted = chains.started(j)
        answer, seen = tracker.correspond(grid.reshape(-1, 2), j, 0)
        seen = seen.view(H, W)
        theirs, ours = read_at(ab[0], grid + there), read_at(ab[0], answer.view(H, W, 2))

        def score(colour: Tensor, where: Tensor | None = None, j: int = j) -> float:
            picture = to_uint8(compose(L[j], colour)).numpy()[None]
            return float(psnr(picture, video[j : j + 1], None if where is None else where.numpy()[None])[0])

        filled = [score(levin(L[j], colour, known)) for colour, known in ((theirs, trusted), (ours, seen))]
        shares = [100 * float(m.float().mean()) for m in (trusted, seen)]
        figures.append([shares[0], score(theirs, trusted), score(ours, trusted), shares[1], *filled, score(ours)])
    return [float(v) for v in np.nanmean(np.array(figures), axis=0)]


def growth(clip: Path, lengths: Sequence[int], preset: str) -> Steps[Table]:
    """Seconds and memory of whole fits to more and more frames of one clip at the product's working size."""
    size = fit_size(load(clip, 2).shape[2:], choose().max_side)
    rows: list[list[str]] = []
    for n, frames in enumerate(sorted(lengths)):
        yield Step("bench", f"{frames} frames", n / len(lengths))
        L = working_luminance(_first(clip, frames), size)
        with Meter() as meter:
            yield from omnimotion.fit(L, preset)
        each = meter.seconds / frames
        rows.append([str(frames), f"{meter.seconds:.1f}", f"{each:.2f}", f"{meter.peak_mib:.0f}"])
        yield Step("bench", "  ".join(rows[-1]), (n + 1) / len(lengths), data={"result": rows[-1]})
    title = f"Whole fits to {clip.name}, {size[1]}x{size[0]}, {preset}"
    return Table(title, ["frames", "seconds", "seconds per frame", "peak MiB"], rows)


def _first(clip: Path, frames: int) -> np.ndarray:
    pictures = load(clip, frames)
    if len(pictures) < frames:
        raise InputError(f"{clip} has {len(pictures)} frames, not {frames}; ask for fewer.")
    return pictures


def pace(seconds: float, rays: int = 64) -> Steps[Table]:
    """Grid volume and official networks for the same ``seconds``: microseconds per sample, and the loss they reach.

    Both see the flows of one made scene and ``rays`` rays per iteration of the official 32 samples (a 32nd of an
    official iteration, which would not end in time), so that their losses compare.
    """
    truth = synthetic.make("two-layers", 8)
    images = of.to_bytes(rgb_to_lab(from_uint8(truth.video.frames))[:, 0])
    flows = supervision.collect(images, of.gaps(len(images)))
    rows = []
    for name in ("standard", "paper"):
        preset = omnimotion.PRESETS[name]
        schedule = replace(preset.schedule, pairs=4, rays=rays // 4, samples=32)
        volume = Volume(len(images), preset.kind)
        run = Optimiser(volume, supervision.Sampler(flows), schedule, 0)
        run.step(0.0)
        losses, started = [run.loss], time.process_time()
        while (spent := time.process_time() - started) < seconds:
            run.step(spent / seconds)
            losses.append(run.loss)
        each = 1e6 * spent / (len(losses) - 1) / (rays * 32)
        parameters = sum(p.numel() for p in volume.parameters())
        last = losses[-max(1, len(losses) // 10) :]
        rows.append(
            [name, f"{parameters:,}", f"{len(losses) - 1}", f"{each:.2f}", f"{losses[0]:.2f}", f"{np.mean(last):.2f}"]
        )
        yield Step("bench", "  ".join(rows[-1]), len(rows) / 2, data={"result": rows[-1]})
    head = ["preset", "parameters", "iterations", "CPU us per sample", "first loss px", "last loss px"]
    return Table(f"Grid volume and official networks, {seconds:.0f} CPU-seconds each", head, rows)
