"""``track``: where every pixel of one frame goes in all frames of a clip, and whether it is seen there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omnifusion.commands import above_zero, at_least

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from omnifusion.omnimotion import OmniMotion


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("track", help="where every pixel of a frame goes", description=__doc__)
    p.add_argument("input", metavar="INPUT", type=Path, help="a video file or a folder of frames")
    p.add_argument("--out", metavar="NPZ", type=Path, required=True, help="file for points, visible and size")
    p.add_argument(
        "--query-frame", type=int, default=0, metavar="I", help="the frame whose pixels are followed (default 0)"
    )
    p.add_argument("--preset", default="standard", help="draft, standard (default) or paper")
    p.add_argument(
        "--budget", type=above_zero, metavar="SECONDS", help="time for the fit, instead of the preset's iterations"
    )
    p.add_argument("--frames", type=at_least(2), metavar="N", help="use only the first N frames")
    p.add_argument(
        "--max-side", type=int, default=448, metavar="PX", help="longest side of the working size (default 448)"
    )
    p.add_argument("--seed", type=int, default=0, help="fixes the result (default 0)")
    p.add_argument("--picture", metavar="PNG", type=Path, help="draw tracks over frames")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fit, follow, write."""
    import numpy as np

    from omnifusion import omnimotion
    from omnifusion.clip.prepare import working_luminance
    from omnifusion.geometry import fit_size
    from omnifusion.settings import choose
    from omnifusion.stages import device
    from omnifusion.state import InputError
    from omnifusion.terminal import follow
    from omnifusion.video import read

    if args.out.suffix != ".npz":
        raise InputError(f"{args.out} does not end in .npz; name the output like tracks.npz.")
    settings = choose(args.preset, max_side=args.max_side, seed=args.seed)
    video = read(args.input, max_frames=args.frames)
    if not 0 <= args.query_frame < len(video):
        raise InputError(f"The clip has frames 0 to {len(video) - 1}; there is no frame {args.query_frame} to follow.")
    size = fit_size(video.size, settings.max_side)
    L = working_luminance(video.frames, size)
    fit = args.preset if args.preset in omnimotion.PRESETS else "standard"
    tracker = follow(omnimotion.fit(L, fit, seed=settings.seed, budget=args.budget, device=device()))
    points, visible = tracks(tracker, L, args.query_frame)
    try:
        np.savez_compressed(args.out, points=points, visible=visible, size=np.array(size))
        if args.picture:
            sheet(args.picture, tracker.images, points, visible)
    except OSError as error:
        raise InputError(f"Cannot write {args.out}: {error.strerror}; check the folder and run again.") from error
    print(f"{args.out}: points {points.shape}, seen on average {visible.mean():.0%}")


def tracks(tracker: OmniMotion, L: Tensor, query: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel of frame ``query`` in all frames: points ``(T, H, W, 2)`` float32 px, visible ``(T, H, W)`` bool."""
    import torch

    from omnifusion.geometry import pixel_grid

    T, _, H, W = L.shape
    grid = pixel_grid(H, W).reshape(-1, 2)
    points, visible = zip(*(tracker.correspond(grid, query, j) for j in range(T)), strict=True)
    return torch.stack(points).view(T, H, W, 2).numpy(), torch.stack(visible).view(T, H, W).numpy()


def sheet(path: Path, images: np.ndarray, points: np.ndarray, visible: np.ndarray) -> None:
    """A contact sheet of six frames with the tracks that lead to them; hollow ends are hidden points."""
    import numpy as np

    from omnifusion.picture import draw_tracks
    from omnifusion.video import write_image

    T, H, W = visible.shape
    step = max(8, max(H, W) // 16)
    some = (slice(step // 2, None, step), slice(step // 2, None, step))
    pictures = []
    for t in np.linspace(0, T - 1, 6).astype(int):
        path_so_far = points[: t + 1, some[0], some[1]].reshape(t + 1, -1, 2).transpose(1, 0, 2)
        pictures.append(draw_tracks(images[t], path_so_far[:, -9:], visible[t][some].ravel()))
    rows = [np.concatenate(pictures[:3], axis=1), np.concatenate(pictures[3:], axis=1)]
    write_image(path, np.concatenate(rows).transpose(2, 0, 1))
