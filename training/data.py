"""What the prior learns from: photographs, and fills recorded of runs on videos; all on the training's device."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omnifusion.algorithm import colorize
from omnifusion.color import from_uint8, rgb_to_lab
from omnifusion.flow.confidence import RIGHT
from omnifusion.pool import cores
from omnifusion.progress import InputError, Steps, run_to_end
from omnifusion.settings import Settings, choose
from omnifusion.stages import Stages
from omnifusion.state import FillTask

HELD_OUT = 8  # every eighth photograph of each collection and source of the videos is never trained on
AT_MOST, SHORT = 600, 192
"""A larger collection is drawn from as often as one of this size; side of the squares that photographs are kept as."""
NEAR, TOGETHER = 4, 5  # frames of a video, one in six, that a recorded run goes over; runs side by side per core


class Examples(NamedTuple):
    """A batch to learn from, ``(B, C, s, s)``.

    Attributes:
        L, ab: the ground truth; its L* may carry an old film's blur and grain.
        estimate, uncertainty: the color estimate; hole: 1 where the color is unknown.
        references: L, ab, and 1 where it is known, of another view, or none.
    """

    L: Tensor
    ab: Tensor
    estimate: Tensor
    uncertainty: Tensor
    hole: Tensor
    references: list[tuple[Tensor, Tensor, Tensor]]


def read_tar(path: Path) -> dict[str, bytes]:
    """The files of a tar by name, in order.

    Raises:
        InputError: it cannot be read, or holds no JPEG pictures.
    """
    try:
        with tarfile.open(path) as tar:
            members = sorted((m for m in tar.getmembers() if m.isfile()), key=lambda m: m.name)
            files = {m.name: file.read() for m in members if (file := tar.extractfile(m)) is not None}
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} cannot be read as a tar file of JPEG photos: {error}.") from error
    if not any(name.endswith((".jpg", ".jpeg")) for name in files):
        raise InputError(f"{path} holds no JPEG photos.")
    return files


def decoded(jpeg: bytes) -> np.ndarray:
    """``(H, W, 3)`` uint8 sRGB."""
    image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
    return np.ascontiguousarray(image[..., ::-1])


def photographs(path: Path, held_out: bool = False) -> list[np.ndarray]:
    """The photographs of a tar file, without grayish ones and cut-outs on white.

    Raises:
        InputError: see ``read_tar``; or fewer than two are in color.
    """
    chosen = [data for n, data in enumerate(read_tar(path).values()) if (n % HELD_OUT == 0) == held_out]
    with ThreadPoolExecutor(cores()) as pool:
        pictures = [picture for picture in pool.map(decoded, chosen) if _natural(picture)]
    if not pictures:
        raise InputError(f"{path} must hold at least two photos in color.")
    return pictures


def _natural(picture: np.ndarray) -> bool:
    small = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return bool(chroma.mean() > 4 and ((lab[..., 0] > 96) & (chroma < 4)).mean() < 0.25)


class Photos:
    """Photographs of several tar files as squares on a device."""

    def __init__(self, paths: Sequence[Path], device: str) -> None:
        collections = [photographs(path) for path in paths]
        squares = np.stack([_square(picture) for pictures in collections for picture in pictures])
        self.squares = torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous().to(device)
        shares = [np.full(len(c), min(len(c), AT_MOST) / len(c)) for c in collections]
        self.weights = torch.from_numpy(np.concatenate(shares)).float().to(device)

    def draw(self, count: int, g: torch.Generator) -> Tensor:
        """Lab ``(count, 3, SHORT, SHORT)``."""
        return rgb_to_lab(from_uint8(self.squares[torch.multinomial(self.weights, count, True, generator=g)]))


def _square(picture: np.ndarray) -> np.ndarray:
    h, w = picture.shape[:2]
    side = min(h, w)
    y, x = (h - side) // 2, (w - side) // 2
    how = cv2.INTER_AREA if side > SHORT else cv2.INTER_CUBIC
    return cv2.resize(picture[y : y + side, x : x + side], (SHORT, SHORT), interpolation=how)


def videos(path: Path, held_out: bool = False) -> list[np.ndarray]:
    """Clips ``(T, H, W, 3)`` uint8 of one size, split by source: ``clips.txt`` names each clip's file, ACTION/SOURCE_
    and the action again; without it every clip is its own source."""
    files = read_tar(path)
    names = files.pop("clips.txt", b"").decode().split("\n")
    clips: dict[str, list[bytes]] = {}
    for name, data in files.items():
        clips.setdefault(name.split("/")[0], []).append(data)
    sources = [_source(names[n]) if n < len(names) - 1 else clip for n, clip in enumerate(clips)]
    order = {source: n for n, source in enumerate(dict.fromkeys(sources))}
    chosen = [c for c, s in zip(clips.values(), sources, strict=True) if (order[s] % HELD_OUT == 0) == held_out]
    return [np.stack([decoded(data) for data in frames]) for frames in chosen if len(frames) > 1]


def _source(name: str) -> str:
    action, _, file = name.partition("/")
    return file.partition(f"_{action}_")[0]


def record(clips: Sequence[np.ndarray], count: int, seed: int = 0) -> Iterator[tuple[FillTask, Tensor]]:
    """Fills as runs of the method ask for them, ``draft`` from a clip's first colored frame on: the task, whose
    reference that frame is, and the true Lab ``(3, H, W)``."""
    order = np.random.default_rng(seed).permutation(len(clips))
    settings = choose("draft", diffusion="always")

    def run(n: int) -> list[tuple[FillTask, Tensor]]:
        lab = rgb_to_lab(from_uint8(clips[n][:NEAR].transpose(0, 3, 1, 2)))
        tasks: list[FillTask] = []

        def inpaint(asked: Sequence[FillTask], _: Settings) -> Steps[list[Tensor]]:
            tasks.extend(asked)
            yield from ()
            return [task.estimate.ab for task in asked if task.estimate is not None]

        run_to_end(colorize(lab[:, :1], {0: lab[0, 1:]}, settings, stages=Stages(inpaint=inpaint, threads=1)))
        return [(task, lab[task.seed]) for task in tasks]  # a task's seed is its frame, where the run's is 0

    found = 0
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(order), TOGETHER * cores()):
            for tasks in pool.map(run, order[start : start + TOGETHER * cores()]):
                yield from tasks
                found += len(tasks)
            if found >= count:
                return


class Tasks:
    """Recorded fills on a device, as small as they can be."""

    def __init__(self, path: Path, count: int, device: str, seed: int) -> None:
        rows = []
        for task, lab in record(videos(path), count, seed):
            assert task.estimate is not None
            parts = [lab, task.estimate.ab, 100 * task.estimate.confidence[None], 100.0 * ~task.mask[None]]
            rows.append(torch.cat([*parts, *task.references[0][:2]]).clamp(-127, 127).round().to(torch.int8))
        self.rows = torch.stack(rows).to(device)  # L*, ab; estimate; its confidence; hole; the reference's L*, ab

    def draw(self, count: int, side: int, g: torch.Generator) -> Examples:
        """Windows of fills, and of their colored frames."""
        rows = self.rows[torch.randint(len(self.rows), (count,), generator=g, device=self.rows.device)]
        chance = torch.rand(3, generator=g, device=self.rows.device).tolist()
        y, x = (int(c * max(0, n - side + 1)) for c, n in zip(chance, rows.shape[-2:], strict=False))
        window = rows[..., y : y + side, x : x + side].float()
        window = window.flip(-1) if chance[2] < 0.5 else window
        L, ab, estimate, confidence, hole, *other = window.split((1, 2, 2, 1, 1, 1, 2), dim=1)
        hole = hole / 100
        known = torch.ones_like(hole)
        return Examples(L, ab, estimate, 1 - (confidence / 100).maximum(1 - hole), hole, [(other[0], other[1], known)])


def draw_photos(photos: Photos, count: int, side: int, g: torch.Generator, bare: bool) -> Examples:
    """Photographs at random places and scales. ``bare``: nothing is known of them; else there is another view of the
    same photograph, and of most parts are known, and an estimate that errs by a few pixels."""
    lab = photos.draw(count, g)
    device = lab.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=g, device=device)

    def smooth(channels: int, cells: int) -> Tensor:
        coarse = torch.randn(count, channels, cells, cells, generator=g, device=device)
        return F.interpolate(coarse, (side, side), mode="bicubic")

    def view(scale: Tensor, waves: float) -> tuple[Tensor, Tensor]:
        """L and ab of a square of the photographs, ``scale`` of their side large, in another light."""
        theta = torch.zeros(count, 2, 3, device=device)
        turn = uniform(-0.1, 0.1)
        for row, (a, b) in enumerate(((turn.cos() * flip, -turn.sin()), (turn.sin() * flip, turn.cos()))):
            theta[:, row] = torch.cat([a * scale, b * scale, uniform(-1, 1) * (1 - scale)], dim=-1)[:, 0, 0]
        grid = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
        if waves:
            grid = grid + waves * smooth(2, 5).permute(0, 2, 3, 1)
        L, ab = F.grid_sample(lab, grid, padding_mode="reflection", align_corners=False).split((1, 2), dim=1)
        return _aged(100 * (L.clamp(0.1, 100) / 100) ** torch.exp(uniform(-0.4, 0.4)), uniform, g), ab

    flip, scale = uniform(0, 1).sub(0.5).sign(), uniform(0.5, 1)
    lab = torch.cat([lab[:, :1], lab[:, 1:] * uniform(0.65, 1.05)], dim=1)
    L, ab = view(scale, 0)
    if bare:
        return Examples(L, ab, torch.zeros_like(ab), torch.ones_like(L), torch.ones_like(L), [])
    other_L, other_ab = view((scale * uniform(0.7, 1.3)).clamp(0.4, 1), 0.02)
    kind = uniform(0, 1)  # below 0.3 the other view alone is known, above 0.85 it is not
    known = (smooth(1, 12) > uniform(-1.5, 1.0)).float() * (kind > 0.3)
    still = torch.eye(2, 3, device=device).expand(count, 2, 3)
    shift = (smooth(2, 6) * uniform(0, 16) * 2 / side).permute(0, 2, 3, 1)
    shift = shift + F.affine_grid(still, [count, 3, side, side], align_corners=False)
    moved = F.grid_sample(ab, shift, padding_mode="border", align_corners=False)
    right = ((moved - ab).norm(dim=1, keepdim=True) < RIGHT).float() * 2 - 1
    confidence = torch.sigmoid(right * uniform(0.5, 1.5) + 0.8 * smooth(1, 10) - 0.5) * (kind > 0.3)
    estimate = torch.where(known > 0, ab, moved) * (kind > 0.3)
    seen = (kind < 0.85).float().expand_as(other_L).contiguous()
    return Examples(L, ab, estimate, (1 - known) * (1 - confidence), 1 - known, [(other_L, other_ab, seen)])


def _aged(L: Tensor, uniform: Callable[[float, float], Tensor], g: torch.Generator) -> Tensor:
    """L*, three in ten blurred, three in ten grainy, as old film is."""
    soft = F.avg_pool2d(F.pad(L, (2, 2, 2, 2), mode="reflect"), 5, 1)
    grain = torch.randn(L.shape, generator=g, device=L.device) * uniform(0.5, 4)
    L = torch.where(uniform(0, 1) < 0.3, soft, L)
    return torch.where(uniform(0, 1) < 0.3, L + grain, L).clamp(0, 100)
