"""The named endpoints for ``gradio_client`` (and, by flag, MCP)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from omnifusion.settings import PRESETS, choose
from omnifusion.state import InputError, drain
from omnifusion.ui import given, gpu, work
from omnifusion.ui.archive import Request, Stored
from omnifusion.ui.service import Service, toast

Answer = tuple[str, str, dict[str, Any]]


def offer(service: Service) -> None:
    """Add the endpoints to the page that is being built."""
    with gr.Row(visible=False):
        video, exemplar = gr.Video(label="video"), gr.Image(label="exemplar", type="filepath")
        exemplar_frame = gr.Number(0, precision=0, label="exemplar_frame")
        prior, preset = gr.Textbox("bundled", label="prior"), gr.Textbox("draft", label="preset")
        eta, steps = gr.Number(None, label="eta"), gr.Number(None, precision=0, label="steps")
        frames, seed = gr.Number(None, precision=0, label="frames"), gr.Number(0, precision=0, label="seed")
        token = gr.Textbox(label="token")
        answer = [gr.Video(label="colorized"), gr.Video(label="origin"), gr.JSON(label="report")]
        given_to_run = [video, exemplar, exemplar_frame, prior, eta, steps, preset, frames, seed]
        gr.Button("colorize").click(
            toast(colorize(service)), given_to_run, answer, api_name="colorize",
            concurrency_limit=service.limits.runs, concurrency_id="run",
        )  # fmt: skip
        gr.Button("estimate").click(toast(estimate(service)), [video, preset, frames], gr.JSON(), api_name="estimate")
        gr.Button("result").click(toast(result(service)), token, answer, api_name="result")


def colorize(service: Service) -> Callable[..., Answer]:
    """The endpoint ``/colorize``."""

    def colorize(
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
        """Colour a clip.

        Args:
            video: the clip; one in colour is made grey, its first frame is the exemplar, and the result is scored.
            exemplar: a coloured picture of one of its frames.
            exemplar_frame: which frame that is, from 0 on.
            prior: "bundled", "sd15" or "sd20".
            eta: learning rate of the greyscale constraint; None = the preset's.
            steps: denoising steps; None = the preset's.
            preset: "draft", "standard" or "paper".
            frames: how many frames to colour, from the start; None = as many as this page takes.
            seed: fixes the result.

        Returns:
            The coloured clip (mp4), the clip tinted by the origin of every colour (mp4), and the report.
        """
        if not video:
            raise InputError("There is no clip; give one as video.")
        gpu.check_prior(prior)
        settings = choose(preset, prior=prior, eta=eta, steps=steps, seed=seed)
        pictures = {exemplar_frame: Path(exemplar)} if exemplar else {}
        asked = Request(Path(video).name, settings, frames, tuple(pictures))
        session = f"api-{request.session_hash}-{id(asked)}"
        service.turns.announce(session)
        service.turns.begin(session)
        try:
            with given.named(Path(video), Path(video).name):
                steps_left = work.run(work.Job(Path(video), asked, pictures), service.archive, service.limits,
                                      lambda: bool(service.turns.stopping(session)), service.stages())  # fmt: skip
                run = drain(steps_left)
        finally:
            service.turns.end(session)
        service.rates.learn(run.report, settings)
        return _answer(run)

    return colorize


def estimate(service: Service) -> Callable[..., dict[str, Any]]:
    """The endpoint ``/estimate``."""

    def estimate(video: str, preset: str = "draft", frames: int | None = None) -> dict[str, Any]:
        """How long colouring a clip would take here, in seconds, and the memory it would need, in MiB.

        Args:
            video: the clip.
            preset: "draft", "standard" or "paper".
            frames: how many frames; None = as many as this page takes.
        """
        if preset not in PRESETS:
            choose(preset)
        clip = work.open_clip(Path(video), service.limits, frames)
        found = service.rates.estimate(PRESETS[preset], len(clip), clip.size)
        return {"frames": len(clip), "seconds": round(found.seconds), "mib": round(found.mib), "fits": found.fits}

    return estimate


def result(service: Service) -> Callable[..., Answer]:
    """The endpoint ``/result``."""

    def result(token: str) -> Answer:
        """A finished run again.

        Args:
            token: what follows "run=" in the link to the run, or "token" in the report of ``/colorize``.
        """
        return _answer(service.archive.open(token))

    return result


def _answer(run: Stored) -> Answer:
    return str(run.folder / "colorized.mp4"), str(run.folder / "origin.mp4"), {**run.report, "token": run.token}
