"""What a prior is worth: colors from nothing on held-out photographs, and fills of runs on held-out videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from omnifusion.color import compose, from_uint8, gray, rgb_to_lab, to_uint8
from omnifusion.prior.diffusion import load_prior
from omnifusion.progress import run_to_end
from omnifusion.settings import choose
from omnifusion.state import ColorEstimate, FillTask
from training import data


def evaluate(
    photos: list[Path],
    videos: Path | None,
    prior: Path,
    most: int = 1000,
    tasks: int = 100,
    sheet: Path | None = None,
    device: str | None = None,
) -> dict[str, list[float]]:
    """Print one table and return its rows; see ``python -m training evaluate -h``.

    Rows of photographs: how many, PSNR of the gray ones and gain of the colored ones in dB, colorfulness by the true
    one's. The row of fills: how many, ab RMSE in the hole of the estimate and with the prior, and their ratio.
    """
    model = load_prior(choose(prior=str(prior)), device or "cpu")
    rows: dict[str, list[float]] = {}
    pictures = []
    for path in photos:
        held, values = data.photographs(path, held_out=True), []
        for photo in held[:: max(1, -(-len(held) // most))]:
            truth = from_uint8(photo.transpose(2, 0, 1))
            L, ab = rgb_to_lab(truth).split((1, 2))
            unknown = torch.zeros(L.shape[-2:], dtype=torch.bool)
            estimate = ColorEstimate(0 * ab, torch.zeros(unknown.shape))  # as in a run of which nothing is known
            (found,) = run_to_end(model.fill([FillTask(L, 0 * ab, unknown, estimate, 0)]))
            colored = compose(L, found)
            plain = _psnr(gray(truth), truth)
            vivid = colorfulness(colored) / max(colorfulness(truth), 0.004)
            values.append((plain, _psnr(colored, truth) - plain, vivid))
            pictures.append((photo, to_uint8(colored).permute(1, 2, 0).numpy()))
        rows[path.stem] = [len(values), *np.mean(values, axis=0).tolist()]
    print("| photographs | n | gray, dB | gain, dB | colorfulness |\n|---|---|---|---|---|")
    for name, row in rows.items():
        print("| {} | {} | {:.2f} | {:+.2f} | {:.2f} |".format(name, *row))
    if videos is not None and tasks:
        rows["fills"] = _fills(videos, model, tasks)
        count, before, after, ratio = rows["fills"]
        print(f"\nFills of {count} tasks, ab RMSE: estimate {before:.2f}, prior {after:.2f} ({ratio - 1:+.1%})")
    if sheet is not None:
        chosen = pictures[:: max(1, len(pictures) // 40)][:40]
        tiles = [np.hstack([cv2.resize(p, (200, 150), interpolation=cv2.INTER_AREA) for p in pair]) for pair in chosen]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
        rows_of_four = [np.hstack(tiles[k : k + 4]) for k in range(0, len(tiles), 4)]
        cv2.imwrite(str(sheet), np.vstack(rows_of_four)[..., ::-1])
    return rows


def _fills(path: Path, model: object, count: int) -> list[float]:
    squares, pixels, total = np.zeros(2), 0, 0
    for task, lab in data.record(data.videos(path, held_out=True), count):
        assert task.estimate is not None
        (filled,) = run_to_end(model.fill([task]))  # type: ignore[attr-defined]
        for n, ab in enumerate((task.estimate.ab, filled)):
            squares[n] += float((ab - lab[1:])[:, ~task.mask].square().sum())
        pixels, total = pixels + 2 * int((~task.mask).sum()), total + 1
    before, after = np.sqrt(squares / max(pixels, 1)).tolist()
    return [total, before, after, after / before]


def colorfulness(rgb: Tensor) -> float:
    """Of sRGB ``(3, H, W)`` in [0, 1] (Hasler and Suesstrunk 2003)."""
    r, g, b = rgb.unbind(0)
    opponents = torch.stack([r - g, (r + g) / 2 - b])
    return float(opponents.var((1, 2)).sum().sqrt() + 0.3 * opponents.mean((1, 2)).norm())


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))
