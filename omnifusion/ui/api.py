"""The named endpoints for ``gradio_client`` (and, by flag, MCP)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_function_description

from omnifusion.correction.history import Correction
from omnifusion.progress import Canceled, InputError
from omnifusion.run.estimate import estimate as expect
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.settings import choose
from omnifusion.ui import zerogpu
from omnifusion.ui.guards import listening
from omnifusion.ui.jobs import Job
from omnifusion.ui.parts import HEAVY
from omnifusion.ui.service import Service
from omnifusion.video import count_frames, read, read_image

Answer = tuple[str, str, dict[str, Any]]

POLL = 0.1  # seconds between checks whether a run has ended


def offer(service: Service) -> None:
    """Add the endpoints to the page that is being built."""

    async def colorize(
        video: str,
        exemplar: str | None = None,
        exemplar_frame: int = 0,
        prior: str = "bundled",
        eta: float | None = None,
        steps: int | None = None,
        preset: str = "draft",
        frames: int | None = None,
        seed: int = 0,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> Answer:
        """Color a clip.

        Args:
            video: the clip; one in color is made gray, its first frame gives the colors, and the result is scored.
            exemplar: a colored picture of one of its frames.
            exemplar_frame: which frame that is, from 0 on.
            prior: the model that guesses what no picture shows: "bundled", "sd15" or "sd20".
            eta: how firmly diffusion keeps the original brightness; None = the preset's.
            steps: diffusion steps; None = the preset's.
            preset: "draft", "standard" or "paper".
            frames: how many frames to color, from the start; None = as many as this page takes.
            seed: the same seed gives the same result.

        Returns:
            the colored clip (MP4)
            the clip, tinted by where every color came from (MP4)
            the report; its "token" opens the result again
        """

        def job() -> Job:
            settings = choose(preset or "draft", prior=prior, eta=eta, steps=steps, seed=seed)
            zerogpu.check_prior(settings.prior)
            count, size = probe(service, video, frames)
            pictures = {int(exemplar_frame or 0): Path(exemplar)} if exemplar else {}
            run = RunRequest(Path(video).name, settings, count, tuple(pictures))
            return service.color(Path(video), size, run, pictures, request)

        return await _outcome(service, job)

    async def correct(
        token: str,
        exemplar: str,
        exemplar_frame: int = 0,
        lock: str | None = None,
        lock_frame: int = 0,
        first: int | None = None,
        last: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> Answer:
        """Correct a finished run; the result is a run of its own, with a token of its own.

        Args:
            token: of the run, "token" in its report.
            exemplar: a corrected picture of one of its frames; where it is opaque, the object changes in all frames.
            exemplar_frame: which frame that is, from 0 on.
            lock: a picture, opaque or bright where a frame has to stay as it is.
            lock_frame: which frame that is.
            first: first frame that may change; None = all.
            last: last frame that may change; None = all.

        Returns:
            the corrected clip (MP4)
            the clip, tinted by where every color came from (MP4)
            the report; "corrections" tells what has changed
        """

        def job() -> Job:
            if not exemplar:
                raise InputError("There is no picture; give one as exemplar.")
            run = service.store.open(token or "")
            patches, locks = (
                {int(frame or 0): read_image(path, service.limits.pixels, alpha=True)} if path else {}
                for path, frame in ((exemplar, exemplar_frame), (lock, lock_frame))
            )
            end = run.report["frames"] - 1 if last is None else last
            frames = None if first is None and last is None else (int(first or 0), int(end))
            return service.correct(run, Correction(patches, locks, frames), request)

        return await _outcome(service, job)

    def estimate(
        video: str, preset: str = "draft", frames: int | None = None, prior: str = "bundled", steps: int | None = None
    ) -> dict[str, Any]:
        """How long coloring a clip would take here, and the memory it would need.

        Args:
            video: the clip.
            preset: "draft", "standard" or "paper".
            frames: how many frames; None = as many as this page takes.
            prior: the model that guesses what no picture shows: "bundled", "sd15" or "sd20".
            steps: diffusion steps; None = the preset's.

        Returns:
            "frames" that would be colored, "seconds", memory in "mib", and whether a run "fits" this machine
        """
        settings = choose(preset or "draft", prior=prior, steps=steps)
        zerogpu.check_prior(settings.prior)
        count, size = probe(service, video, frames)
        expected = expect(settings, count, size)
        numbers = {"frames": count, "seconds": round(expected.seconds), "mib": round(expected.mib)}
        return {**numbers, "fits": service.fits(expected)}

    def result(token: str) -> Answer:
        """A finished run again.

        Args:
            token: what follows "run=" in the link to the run, or "token" in the report of ``/colorize``.

        Returns:
            the colored clip (MP4)
            the clip, tinted by where every color came from (MP4)
            the report
        """
        return _answer(service.store.open(token or ""))

    with gr.Row(visible=False):
        for function in (colorize, estimate, result, correct):
            _add(function, **({} if inspect.iscoroutinefunction(function) else HEAVY))


def _add(function: Callable[..., Any], **queue: Any) -> None:
    """An endpoint: components for its parameters, of their kinds and with their defaults, each with its description."""
    (_, about, returns), inputs = get_function_description(function), list[Any]()
    for name, parameter in inspect.signature(function).parameters.items():
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        if name == "video":
            inputs.append(gr.Video(label=name))
        elif name in ("exemplar", "lock"):
            inputs.append(gr.Image(label=name, type="filepath", image_mode=None))
        elif parameter.annotation.startswith("str"):
            inputs.append(gr.Textbox(default, label=name))
        elif name != "request":
            inputs.append(gr.Number(default, label=name, precision=None if "float" in parameter.annotation else 0))
    films = [gr.Video(label="colorized"), gr.Video(label="origin")] if len(returns) > 1 else []
    outputs = [*films, gr.JSON(label="report" if films else "estimate")]
    for component, words in [*((c, about[c.label]) for c in inputs), *zip(outputs, returns, strict=True)]:
        info = component.api_info() | {"description": words, "additional_description": words}
        component.api_info = lambda info=info: info
    gr.Button().click(function, inputs, outputs, api_name=function.__name__, **queue)


def probe(service: Service, video: str | None, frames: int | None = None) -> tuple[int, tuple[int, int]]:
    """How many frames of a clip a run would take, and their size (H, W); decodes one. InputError if it is no video."""
    if not video:
        raise InputError("There is no clip; give one as video.")
    if frames is not None and frames < 1:
        raise InputError(f"frames is {frames}; give at least 1.")
    path, limits = Path(video), service.limits
    size = read(path, 1, limits.pixels).size
    return count_frames(path, min(limits.frames, frames or limits.frames), limits.pixels), size


async def _outcome(service: Service, prepare: Callable[[], Job]) -> Answer:
    """The answer of a run, once it is prepared, its turn has come, and it has ended."""
    job = await asyncio.to_thread(prepare)
    service.jobs.submit(job)
    try:
        while not job.result.done():
            if listening[job.session]:
                job.look()
            await asyncio.sleep(POLL)
    except BaseException:  # the client canceled
        job.stop(keep=False)
        raise
    if isinstance(job.error, Canceled):
        raise InputError(job.why or "The run was canceled.")
    run = job.result.result()
    if job.why:
        raise InputError(f"{job.why} What is colored is kept: ask /result for the token {run.token}.")
    return _answer(run)


def _answer(run: RunFolder) -> Answer:
    return str(run.folder / "colorized.mp4"), str(run.folder / "origin.mp4"), {**run.report, "token": run.token}
