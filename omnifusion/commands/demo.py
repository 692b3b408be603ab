"""``demo``: color a shipped example and print how it went beside the classical baselines."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least
from omnifusion.commands.colorize import add_settings, settings_of

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "street.mp4"


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("demo", help="color a shipped example", description=__doc__)
    p.add_argument("--out", metavar="DIR", type=Path, default=Path("out/demo"), help="folder for the results")
    p.add_argument("--frames", type=at_least(2), metavar="N", default=24, help="length of the clip (default 24)")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier run in DIR")
    add_settings(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Color the example, and print a table."""
    from omnifusion import metrics
    from omnifusion.evaluation import baselines
    from omnifusion.run.folder import RunRequest
    from omnifusion.terminal import color_to_folder
    from omnifusion.video import read

    request = RunRequest(EXAMPLE.name, settings_of(args), args.frames, source=str(EXAMPLE))
    video = read(EXAMPLE, max_frames=args.frames)
    report = color_to_folder(request, [], args.out, args.overwrite)
    if not report["complete"]:
        return 130
    L, ab = baselines.split(video.frames)
    print("\nPSNR against the ground truth, dB")
    print(f"  {'OmniFusion':34}{report['scores']['psnr']:5.2f}")
    for name, title in (("levin", "classical baseline (flow + Levin)"), ("static", "static copy"), ("gray", "gray")):
        frames = baselines.join(L, baselines.BASELINES[name](L, ab[0]))
        print(f"  {title:34}{metrics.psnr(frames[1:], video.frames[1:]).mean():5.2f}")
    print(f"\nLook at {args.out}/colorized.mp4 and {args.out}/origin.mp4; then type: make app")
    return 0
