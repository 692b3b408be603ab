"""The named endpoints for ``gradio_client`` (and, by flag, MCP)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from omnifusion.correction.history import Correction, correct_run
from omnifusion.progress import InputError
from omnifusion.run.folder import RunFolder, RunRequest
from omnifusion.settings import Settings, choose
from omnifusion.ui import gpu, work
from omnifusion.ui.estimate import fits
from omnifusion.ui.runs import Run
from omnifusion.ui.service import Service, listening
from omnifusion.video import read_image

HEAVY: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "heavy"}
"""Of all that reads clips and pictures outside a run, so many at once."""

Answer = tuple[str, str, dict[str, Any]]


def offer(service: Service) -> None:
    """Add the endpoints to the page that is being built."""
    with gr.Row(visible=False):
        video, exemplar = gr.Video(label="video"), gr.Image(label="exemplar", type="filepath", image_mode=None)
        exemplar_frame = gr.Number(0, label="exemplar_frame", precision=0)
        prior, preset = gr.Textbox("bundled", label="prior"), gr.Textbox("draft", label="preset")
        eta, steps = gr.Number(None, label="eta"), gr.Number(None, label="steps", precision=0)
        frames, seed = gr.Number(None, label="frames", precision=0), gr.Number(0, label="seed", precision=0)
        token = gr.Textbox(label="token")
        answer = [gr.Video(label="colorized"), gr.Video(label="origin"), gr.JSON(label="report")]
        to_run = [video, exemplar, exemplar_frame, prior, eta, steps, preset, frames, seed]
        to_estimate = [video, preset, frames, prior, steps]
        gr.Button().click(colorize(service), to_run, answer, api_name="colorize", concurrency_limit=None)
        gr.Button().click(estimate(service), to_estimate, gr.JSON(), api_name="estimate", **HEAVY)
        gr.Button().click(result(service), token, answer, api_name="result", **HEAVY)
        lock = gr.Image(label="lock", type="filepath", image_mode=None)
        default = {"lock_frame": 0, "first": None, "last": None}
        numbers = [gr.Number(value, label=name, precision=0) for name, value in default.items()]
        to_correct = [token, exemplar, exemplar_frame, lock, *numbers]
        gr.Button().click(correct(service), to_correct, answer, api_name="correct", concurrency_limit=None)


def colorize(service: Service) -> Callable[..., Coroutine[Any, Any, Answer]]:
    """The endpoint ``/colorize``."""

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
            video: the clip; one in color is made gray, its first frame is the exemplar, and the result is scored.
            exemplar: a colored picture of one of its frames.
            exemplar_frame: which frame that is, from 0 on.
            prior: "bundled", "sd15" or "sd20".
            eta: learning rate of the grayscale constraint; None = the preset's.
            steps: denoising steps; None = the preset's.
            preset: "draft", "standard" or "paper".
            frames: how many frames to color, from the start; None = as many as this page takes.
            seed: fixes the result.

        Returns:
            The colored clip (mp4), the clip tinted by the origin of every color (mp4), and the report.
        """
        settings = _settings(preset, prior, steps, eta=eta, seed=seed)
        count, size = await asyncio.to_thread(work.probe, _given(video), service.limits, frames)
        pictures = {int(exemplar_frame or 0): Path(exemplar)} if exemplar else {}
        job = work.Job(Path(video), RunRequest(Path(video).name, settings, count, tuple(pictures)), pictures)
        return await _ended(service, service.run(job, service.bound(settings, count, size), request))

    return colorize


def correct(service: Service) -> Callable[..., Coroutine[Any, Any, Answer]]:
    """The endpoint ``/correct``."""

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
        """Correct a finished run; what comes of it is a run of its own, with a token of its own.

        Args:
            token: of the run, "token" in its report.
            exemplar: a picture of one of its frames, right where it is opaque; it and all that shows the same changes.
            exemplar_frame: which frame that is, from 0 on.
            lock: a picture, opaque or bright where a frame has to stay as it is.
            lock_frame: which frame that is.
            first: first frame that may change; None = all.
            last: last frame that may change.

        Returns:
            As /colorize; "corrections" in the report tells what has changed.
        """
        if not exemplar:
            raise InputError("There is no picture; give one as exemplar.")
        run, most = service.archive.open(token or ""), service.limits.pixels

        def pictures(path: str | None, frame: int) -> dict[int, np.ndarray]:
            return {int(frame or 0): read_image(Path(path), most, alpha=True)} if path else {}

        patches = await asyncio.to_thread(pictures, exemplar, exemplar_frame)
        locks = await asyncio.to_thread(pictures, lock, lock_frame)
        end = run.report["frames"] - 1
        frames = None if first is None and last is None else (int(first or 0), int(end if last is None else last))
        asked = Correction(patches, locks, frames)
        return await _ended(service, service.mending(run, partial(correct_run, correction=asked), request))

    return correct


def estimate(service: Service) -> Callable[..., dict[str, Any]]:
    """The endpoint ``/estimate``."""

    def estimate(
        video: str,
        preset: str = "draft",
        frames: int | None = None,
        prior: str = "bundled",
        steps: int | None = None,
    ) -> dict[str, Any]:
        """How long coloring a clip would take here, in seconds, and the memory it would need, in MiB.

        Args:
            video: the clip.
            preset: "draft", "standard" or "paper".
            frames: how many frames; None = as many as this page takes.
            prior: "bundled", "sd15" or "sd20".
            steps: denoising steps; None = the preset's.
        """
        settings = _settings(preset, prior, steps)
        count, size = work.probe(_given(video), service.limits, frames)
        found = service.rates.estimate(settings, count, size)
        fitting = fits(found, service.limits)
        return {"frames": count, "seconds": round(found.seconds), "mib": round(found.mib), "fits": fitting}

    return estimate


def result(service: Service) -> Callable[..., Answer]:
    """The endpoint ``/result``."""

    def result(token: str) -> Answer:
        """A finished run again.

        Args:
            token: what follows "run=" in the link to the run, or "token" in the report of ``/colorize``.
        """
        return _answer(service.archive.open(token or ""))

    return result


async def _ended(service: Service, run: Run) -> Answer:
    """What a run ends with, once its turn has come."""
    service.runs.submit(run)
    async for _ in run.follow(listening()):
        pass
    if run.result is None:
        raise InputError(run.why or "The run was canceled.")
    if run.why:
        raise InputError(f"{run.why} What is colored is kept: ask /result for the token {run.result.token}.")
    return _answer(run.result)


def _given(video: str | None) -> Path:
    if not video:
        raise InputError("There is no clip; give one as video.")
    return Path(video)


def _settings(preset: str | None, prior: str | None, steps: int | None, **others: Any) -> Settings:
    prior = prior or "bundled"
    gpu.check_prior(prior)
    return choose(preset or "draft", prior=prior, steps=steps, **others)


def _answer(run: RunFolder) -> Answer:
    return str(run.folder / "colorized.mp4"), str(run.folder / "origin.mp4"), {**run.report, "token": run.token}
