"""``demo``: color the built-in sample clip and print how it went beside simpler ways."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnifusion.commands import at_least
from omnifusion.commands.colorize import add_settings, settings_of


def add(subparsers: argparse._SubParsersAction) -> None:
    """Declare the command."""
    p = subparsers.add_parser("demo", help="color the built-in sample clip", description=__doc__)
    p.add_argument("--out", metavar="DIR", type=Path, default=Path("out/demo"), help="folder for the results")
    p.add_argument("--scene", default="demo", help="which sample clip: demo (default), two-layers, ...")
    p.add_argument("--frames", type=at_least(2), metavar="N", default=24, help="length of the clip (default 24)")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier run in DIR")
    add_settings(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the clip, color it, and print a table."""
    from omnifusion import metrics, synthetic
    from omnifusion.clip.prepare import prepare
    from omnifusion.evaluation import baselines
    from omnifusion.progress import InputError
    from omnifusion.run.folder import Request
    from omnifusion.terminal import color_to_folder

    if args.scene not in synthetic.SCENES:
        raise InputError(f"There is no scene {args.scene!r}; choose one of {', '.join(synthetic.SCENES)}.")
    request = Request(args.scene, settings_of(args), args.frames)
    video = synthetic.make(args.scene, frames=args.frames, size=(216, 384)).video
    report = color_to_folder(prepare(video, [], request.settings.max_side), request, [], args.out, args.overwrite)
    if not report["complete"]:
        return 130
    L, ab = baselines.split(video.frames)
    print("\nPSNR against the truth, dB")
    print(f"  {'OmniFusion':28}{report['scores']['psnr']:6.2f}")
    for name, title in (("levin", "classical baseline (flow + Levin)"), ("static", "static copy"), ("gray", "gray")):
        frames = baselines.join(L, baselines.BASELINES[name](L, ab[0]))
        print(f"  {title:30}{metrics.psnr(frames[1:], video.frames[1:]).mean():4.2f}")
    print(f"\nLook at {args.out}/colorized.mp4 and {args.out}/origin.mp4; then type: make app")
    return 0
