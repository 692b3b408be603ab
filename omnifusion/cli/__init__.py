"""The command line: ``python -m omnifusion COMMAND``. Bad input ends with one sentence and exit status 2.

Heavy modules are imported only when a command begins its work.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Annotated, Any, Literal, TypeVar

import typer

from omnifusion import __version__
from omnifusion.cli import options as opt
from omnifusion.cli.options import argument, option, takes_settings
from omnifusion.progress import Canceled, InputError, Measured, Step, Steps, count, is_canceled, run_to_end
from omnifusion.settings import Settings

T = TypeVar("T")

EXAMPLE = Path(__file__).parents[2] / "assets" / "examples" / "street.mp4"
STAGES = {"propagate": "color", "inpaint": "color"}
USAGE_ERROR: Any = typer.BadParameter.__base__  # the only name by which every version of typer exports it

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 after a failed measurement, 2 for bad input, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that a console cannot encode
    try:
        return app(argv, prog_name="omnifusion", standalone_mode=False) or 0
    except (InputError, OSError, USAGE_ERROR) as error:
        sentence = error.format_message() if isinstance(error, USAGE_ERROR) else str(error)
        print("omnifusion:", " ".join(sentence.replace("Value error, ", "").split()), file=sys.stderr)
        return 2
    except (Canceled, KeyboardInterrupt, typer.Abort):
        return 130


@app.callback(invoke_without_command=True)
def _start(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="print it")] = False) -> int:
    """Color a black-and-white clip from one colored frame."""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())
    return 0


def follow(steps: Steps[T]) -> T:
    """Run long work to its end with a progress bar."""
    from tqdm import tqdm

    layout, pause = "{desc:9} {percentage:3.0f}% |{bar:30}| {elapsed}{postfix}", 0.1 if sys.stderr.isatty() else 10.0
    bar: tqdm | None = None

    def show(step: Step) -> None:
        nonlocal bar
        if step.stage == "load":  # soon over, or it ends with an error
            if step.done == 1.0:
                tqdm.write(step.message)
            return
        stage = STAGES.get(step.stage, step.stage)
        bar = bar or tqdm(desc=stage, total=100, bar_format=layout, mininterval=pause, miniters=0)
        bar.set_description_str(stage, refresh=False)
        rest = "" if step.seconds_left is None else f", {step.seconds_left:.0f} s left"
        bar.set_postfix_str(step.message + rest, refresh=False)
        bar.update(round(100 * step.done) - bar.n)
        if isinstance(step, Measured):
            bar.write(step.message)

    try:
        return run_to_end(steps, show)
    finally:
        if bar:
            bar.close()


@contextmanager
def canceled_by_ctrl_c() -> Iterator[None]:
    """Let a first Ctrl-C cancel the work inside, so that it keeps what is done, and another one end it."""
    pressed = Event()

    def press(*_: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before, token = signal.signal(signal.SIGINT, press), is_canceled.set(pressed.is_set)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        is_canceled.reset(token)


# -- a run


def _color(
    input: Path, out: Path, settings: Settings, pictures: dict[int, Any], frames: int | None, overwrite: bool,
    force: bool = False, **resources: Any,
) -> dict[str, Any]:  # fmt: skip
    """Color a clip, printing its results; returns the report."""
    from omnifusion.run.folder import RunRequest
    from omnifusion.run.pipeline import Resources, begin, color

    request = RunRequest(input.name, settings, frames, tuple(pictures), force, str(input.absolute()))
    run = begin(out, request, pictures, overwrite=overwrite)
    with canceled_by_ctrl_c():
        report = follow(color(run, Resources(**resources))).report
    (height, width), (h, w), origin = report["size"], report["working_size"], report["origin"]
    shares = ", ".join(f"{name} {100 * n / (report['frames'] * h * w):.1f} %" for name, n in origin.items())
    for warning in report["warnings"]:
        print(warning)
    print(f"{count(report['frames'], 'frame')}, {width}x{height}, colored at {w}x{h}")
    print(f"{count(len(report['iterations']), 'iteration')}; {shares}")
    print("seconds:", ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in report["stages"]))
    if report["scores"]:
        print("against the ground truth:", ", ".join(f"{k} {v:.2f}" for k, v in report["scores"].items()))
    print(f"Results: {out}")
    return report


@app.command()
@takes_settings
def colorize(
    input: Annotated[Path, argument("INPUT", "a video file or a folder of frames")],
    out: opt.Out,
    settings: Settings,
    exemplar: opt.Pictures = None,
    frames: opt.FirstFrames = None,
    force: Annotated[bool, option(None, "accept exemplars that seem wrong, and interlaced clips", "--force")] = False,
    overwrite: opt.Overwrite = False,
    memory: Annotated[int, option("MIB", "memory of all processes together", min=1)] = 4096,
    workers: Annotated[Any, option("N|ray://HOST:PORT",
        "how many processes color shots side by side, or the machines of a Ray cluster", parser=opt.workers)] = "1",
    threads: opt.Threads = 0,
    format: Annotated[Literal["h264", "h265", "prores", "ffv1", "png"], option(None,
        "how the film is encoded; png = no film, only frames and origin.mp4")] = "h264",
) -> int:  # fmt: skip
    """Color a clip from colored frames of it.

    The same command resumes an interrupted run; Ctrl-C keeps what is colored.
    """
    means = {"mib": memory, "threads": threads, "workers": workers, "format": format}
    report = _color(input, out, settings, opt.read_pictures(exemplar), frames, overwrite, force, **means)
    return 0 if report["complete"] else 130


@app.command()
@takes_settings
def demo(
    settings: Settings,
    out: opt.Out = Path("out/demo"),
    frames: Annotated[int, option("N", "only the first N frames", min=2)] = 24,  # the first gives the colors
    overwrite: opt.Overwrite = False,
    threads: opt.Threads = 0,
) -> int:
    """Color a shipped example from its first frame, and compare it with simpler methods."""
    from omnifusion import metrics
    from omnifusion.evaluation.methods import METHODS, Sample
    from omnifusion.video import read

    report = _color(EXAMPLE, out, settings, {}, frames, overwrite, threads=threads)
    if not report["complete"]:
        return 130
    truth = read(EXAMPLE, max_frames=frames).frames
    print(f"\nPSNR against the ground truth, dB\n  {'OmniFusion':34}{report['scores']['psnr']:5.2f}")
    for name, title in (("levin", "classical baseline (flow + Levin)"), ("static", "static copy"), ("gray", "gray")):
        guess, _ = run_to_end(METHODS[name](Sample(truth, settings)))
        print(f"  {title:34}{metrics.psnr(guess[1:], truth[1:]).mean():5.2f}")
    print(f"\nLook at {out}/colorized.mp4 and {out}/origin.mp4; then type: make app")
    return 0


# -- a finished run


@app.command()
def correct(
    folder: opt.Run,
    out: Annotated[Path, option("DIR", "a new folder for the corrected run; RUN stays as it is")],
    exemplar: opt.Pictures = None,
    lock: Annotated[list[str] | None, option("MASK@FRAME",
        "what is opaque or white in it stays as it is; may be repeated")] = None,
    frames: Annotated[Any, option("A:B", "change frames A to B only, both included", parser=opt.frame_range)] = None,
) -> None:  # fmt: skip
    """Correct a finished run: painted colors follow their objects; all other pixels stay unchanged."""
    from omnifusion.correction.history import Correction, correct_run
    from omnifusion.run.folder import open_run

    if not exemplar:
        raise InputError("Say what to correct: --exemplar IMAGE@FRAME.")
    correction = Correction(opt.read_pictures(exemplar), opt.read_pictures(lock), frames)
    run = follow(correct_run(open_run(folder), correction, out))
    last = run.report["corrections"][-1]
    print(f"Corrected {count(last['changed_pixels'], 'pixel')} in {count(len(last['changed_frames']), 'frame')}.")
    print(f"Results: {out}")


@app.command()
def suggest(
    folder: opt.Run,
    most: Annotated[int, option("N", "how many frames at most", min=1)] = 3,
    out: Annotated[Path | None, option("DIR", "a new folder for pictures of the frames' uncertainty")] = None,
) -> None:
    """Name the frames of a finished run that are worth coloring next, and where in them."""
    from omnifusion.correction import suggest as suggestions
    from omnifusion.run.export import new_folder
    from omnifusion.run.folder import open_run
    from omnifusion.video import write_image

    run = open_run(folder)
    with nullcontext() if out is None else new_folder(out):
        state = run.state()
        for suggestion in suggestions.suggest(state, most):
            frame, region = suggestion.frame, suggestion.region
            print(f"frame {frame}: covers {100 * suggestion.share:.0f} % of the uncertainty, most of it at "
                  f"x {_extent(region.any(0))}, y {_extent(region.any(1))}")  # fmt: skip
            if out is not None:
                picture, unsure = run.frame(frame).transpose(2, 0, 1), suggestions.uncertainty(state)[frame]
                write_image(out / f"{frame:05d}.png", suggestions.drawn(picture, unsure, region))


def _extent(mask: Any) -> str:
    """The first and the last position of a mask's true values, in percent."""
    places = mask.nonzero()
    return f"{100 * int(places.min()) / len(mask):.0f} to {100 * (int(places.max()) + 1) / len(mask):.0f} %"


@app.command()
@app.command("finish", hidden=True)
def export(
    folder: opt.Run,
    out: Annotated[Path, option("DIR", "a new folder; or, for chroma, X.mkv, a new film (FFV1)")],
    saturation: Annotated[float, option("X", "times the run's own", min=0.01, max=10)] = 1.0,
    chroma: Annotated[bool, option(None, "write a*, b* at 16 bits: 32768 + 256 times their value", "--chroma")] = False,
) -> None:
    """Write a finished run with more or less saturation, or its chroma alone, for grading."""
    from omnifusion.run.export import export_chroma, export_saturated
    from omnifusion.run.folder import open_run

    follow((export_chroma if chroma else export_saturated)(open_run(folder), out, saturation))
    print(f"Results: {out}")


# -- measurements


@app.command("ablate", help="Score the method without some of its parts, as the paper's table 2 does.")
@app.command("evaluate", help="Score OmniFusion and its baselines on a set of clips, as the paper's table 1 does.")
@takes_settings
def _measure(
    context: typer.Context,
    dataset: Annotated[Path, argument("DATASET", "a folder of clips; those of DAVIS and Videvo are recognized")],
    settings: Settings,
    methods: Annotated[str | None, option("A,B", "only these methods, or rows of the table")] = None,
    clips: Annotated[str | None, option("A,B", "only these clips, or those that a text file lists")] = None,
    frames: opt.FirstFrames = None,
    scale: Annotated[float, option("S", "resize frames first, such as 0.5", min=0.01, max=10)] = 1.0,
    json: Annotated[Path | None, option("OUT", "keep the scores here; the same command resumes")] = None,
    markdown: Annotated[Path | None, option("OUT", "write the tables here, too")] = None,
    threads: opt.Threads = 0,
) -> int:
    from omnifusion.evaluation import tables
    from omnifusion.evaluation.evaluate import Protocol, discover, evaluate
    from omnifusion.evaluation.methods import METHODS, TABLE_2_METHODS
    from omnifusion.stages import Stages

    every, table = METHODS, tables.evaluation
    if context.info_name == "ablate":
        every, table = TABLE_2_METHODS, tables.table_2
    names = methods.split(",") if methods else list(every)
    if unknown := [name for name in names if name not in every]:
        raise InputError(f"There is no method {', '.join(unknown)}; choose from {', '.join(every)}.")
    chosen = {name: every[name] for name in every if name in names}
    protocol = Protocol(dataset.resolve().name, settings, frames, scale)
    paths = discover(dataset, clips.split(",") if clips else None)
    with TemporaryDirectory() as folder:
        out = json or Path(folder, "scores.json")
        rows = follow(evaluate(paths, chosen, protocol, out, Stages(threads=threads)))
    print(text := table(rows))
    if markdown:
        markdown.write_text(text, encoding="utf-8")
    return 1 if tables.failures(rows) else 0
