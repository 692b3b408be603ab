"""The page: layout and wiring."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from omnifusion.ui import api, gpu
from omnifusion.ui.archive import Archive
from omnifusion.ui.assets import ASSETS, EXAMPLES, text
from omnifusion.ui.estimate import USUAL, Rates
from omnifusion.ui.guards import BoundedBodies, bound_downloads
from omnifusion.ui.handlers import Handlers
from omnifusion.ui.limits import Limits
from omnifusion.ui.panels import (
    CHOOSE,
    choices_panel,
    clip_panel,
    compare_panel,
    fix_panel,
    outcome_panel,
    start_panel,
    watch_panel,
)
from omnifusion.ui.results import film
from omnifusion.ui.runs import Runs
from omnifusion.ui.service import Page, Service
from omnifusion.ui.visit import Visit

HOUR = 3600
SHOW_SHARED = """() => {
  if (new URLSearchParams(location.search).has("run")) document.getElementById("outcome")?.scrollIntoView();
}"""
"""Whoever opens a link sees the result first, not the form above it (on a phone, screens away)."""

SHOW_STEPS = """() => document.getElementById("step2")?.scrollIntoView({block: "center"})"""
"""A step that folded away takes the page under it along."""

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
HEAVY: dict[str, Any] = QUIET | api.HEAVY
SYSTEM_FONTS = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "sans-serif")]
MONOSPACE = [gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")]


def theme() -> gr.themes.Base:
    """Neutral grays, for colors are judged beside them; fonts of the system, for the page must work offline."""
    return gr.themes.Base(
        primary_hue="slate",
        secondary_hue="slate",
        neutral_hue="gray",
        radius_size="sm",
        font=SYSTEM_FONTS,
        font_mono=MONOSPACE,
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def make_service(limits: Limits | None = None) -> Service:
    """What all visitors share."""
    limits = limits or Limits.from_environment()
    gpu.preload()
    archive = Archive(limits.results, limits.days)
    return Service(limits, archive, Rates(limits.results / "rates.json"), Runs(limits), gpu.stages)


def build(service: Service) -> gr.Blocks:
    """The whole page."""
    limits = service.limits
    bound_downloads(limits.megabytes)
    with Page(title="OmniFusion", analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as page:
        visit = gr.State(Visit(), time_to_live=24 * HOUR, delete_callback=service.close)
        api.offer(service)  # first, so that no handler takes an endpoint's name
        gr.Markdown(text("intro"), elem_id="intro")
        with gr.Tabs():
            with gr.Tab("Color"), gr.Row(elem_id="stage"):
                with gr.Column(elem_id="form"):
                    clip = clip_panel()
                    with gr.Accordion(CHOOSE, elem_id="step3") as choose:
                        choices = choices_panel(limits, gpu.priors(), service.rates.presets(*USUAL))
                    fix = fix_panel()
                    start = start_panel()
                with gr.Column(elem_id="show"):
                    first = EXAMPLES[0].result
                    watch = watch_panel(film(first) if first is not None else "")
                with gr.Column(elem_id="closer"):
                    outcome = outcome_panel()
            with gr.Tab("Compare", id="compare"):
                compare = compare_panel()
            with gr.Tab("How it works"):
                gr.Markdown(text("how"))
                gr.Markdown(text("privacy").format(days=limits.days, megabytes=limits.megabytes, frames=limits.frames))
        handlers = Handlers(service, clip, choices, start, watch, outcome, compare, fix, choose, visit)
        _wire_clip(handlers)
        _wire_run(handlers)
        _wire_fix(handlers)
        _wire_results(handlers)
        opened = page.load(handlers.open_link, visit, _everything(handlers), **HEAVY)
        opened.then(None, js=SHOW_SHARED, **QUIET)
        opened.success(handlers.follow, visit, _outputs(handlers), concurrency_limit=None, **QUIET)
        page.unload(handlers.leave)
    page.queue(default_concurrency_limit=8, max_size=64)
    return page


def _everything(h: Handlers) -> list[Any]:
    """All components that a handler may update."""
    panels = (h.clip, h.start, h.watch, h.outcome, h.compare, h.fix)
    return [h.visit, h.choose, *h.choices.values(), *(component for panel in panels for component in panel.all())]


def _wire_clip(h: Handlers) -> None:
    clip, chosen = h.clip, list(h.choices.values())
    view = [h.visit, *clip.all(), h.choices["frames"], h.choices["preset"], *h.start.all()]
    gr.on(
        [clip.clip.upload, clip.clip.stop_recording, clip.clip.clear],
        h.upload,
        [h.visit, clip.clip, *chosen],
        view,
        **HEAVY,
    )
    clip.examples.select(h.example, [h.visit, *chosen], _everything(h), **HEAVY)
    clip.frame.change(h.seek, [h.visit, clip.frame], [clip.preview, clip.brush, clip.spread],
                      trigger_mode="always_last", **QUIET)  # fmt: skip
    tied = [h.visit, clip.exemplar, clip.notes, clip.picture, clip.pictures, clip.forget]
    at, painted = [h.visit, clip.frame], [h.visit, clip.frame, clip.brush]
    clip.brush.input(h.spread, painted, clip.spread, trigger_mode="always_last", **HEAVY)
    clip.guess.click(h.guess, [*at, *chosen], [h.visit, clip.versions],
                     **HEAVY | {"show_progress": "minimal", "show_progress_on": clip.versions})  # fmt: skip
    for ways in (
        clip.picture.upload(h.add_picture, [*at, clip.picture, h.choices["force"]], tied, **HEAVY),
        clip.own.click(h.own_picture, at, tied, **HEAVY),
        clip.take.click(h.take_scribbles, painted, tied, **HEAVY),
        clip.versions.select(h.take_version, h.visit, tied, **HEAVY),
    ):
        ways.success(None, js=SHOW_STEPS, **QUIET)
    clip.forget.click(h.forget_pictures, h.visit, tied, **QUIET)


def _wire_run(h: Handlers) -> None:
    chosen, start = list(h.choices.values()), h.start
    h.choices["preset"].input(h.preset, h.choices["preset"], chosen, **QUIET)
    priced = [start.estimate, start.fit, h.choices["preset"]]
    gr.on([c.change for c in chosen], h.estimate, [h.visit, *chosen], priced,
          trigger_mode="always_last", **QUIET)  # fmt: skip
    start.fit.click(h.fit, [h.visit, *chosen], [*chosen, *priced], **QUIET)
    start.run.click(h.run, [h.visit, *chosen], _outputs(h), concurrency_limit=None, **QUIET)
    start.cancel.click(h.cancel, h.visit, start.all(), queue=False, **QUIET)


def _wire_fix(h: Handlers) -> None:
    fix, outputs = h.fix, _outputs(h)
    at, painted = [h.visit, fix.frame], [h.visit, fix.frame, fix.brush]
    over = [fix.frame, fix.brush, fix.spread, fix.picture]
    fix.frame.input(h.seek_fix, at, [fix.brush, fix.spread, fix.picture], trigger_mode="always_last", **QUIET)
    fix.advise.click(h.advise, h.visit, [h.visit, fix.hint, fix.places, *over], **HEAVY)
    fix.places.select(h.pick, h.visit, over, **QUIET)
    fix.anew.click(h.color_anew, h.visit, outputs, concurrency_limit=None, **QUIET)
    fix.brush.input(h.preview_fix, painted, fix.spread, trigger_mode="always_last", **HEAVY)
    fix.go.click(h.fix_it, [*painted, fix.picture], outputs, concurrency_limit=None, **QUIET)
    fix.undo.click(h.unfix, h.visit, outputs, concurrency_limit=None, **QUIET)


def _outputs(h: Handlers) -> list[Any]:
    """What a run that goes on or has ended changes."""
    return [h.visit, h.choose, *h.start.all(), *h.watch.all(), *h.outcome.all(), *h.compare.all(), *h.fix.all()]


def _wire_results(h: Handlers) -> None:
    outcome, compare = h.outcome, h.compare
    shown = [outcome.slider, outcome.then, outcome.where, outcome.doubt, outcome.parts]
    seen = [h.visit, outcome.frame, outcome.iteration]
    gr.on([outcome.frame.input, outcome.iteration.input], h.browse, seen, shown,
          trigger_mode="always_last", **QUIET)  # fmt: skip
    outcome.chroma.click(h.chroma, h.visit, outcome.files, **HEAVY)
    gr.on([compare.left.change, compare.right.change, compare.frame.input], h.side_by_side,
          [h.visit, compare.left, compare.right, compare.frame], [compare.slider, compare.table],
          trigger_mode="always_last", **HEAVY)  # fmt: skip


def launch_options(service: Service, share: bool = False, mcp: bool = False) -> dict[str, Any]:
    """How the page is served: nothing but uploads, results and the examples can be read."""
    return {
        "theme": theme(),
        "css_paths": [ASSETS / "page.css"],
        "allowed_paths": [str(service.limits.results), str(ASSETS / "examples")],
        "blocked_paths": [str(service.rates.path)],
        "max_file_size": f"{service.limits.megabytes}mb",
        "share": share,
        "mcp_server": mcp,
        "ssr_mode": False,
        "footer_links": ["api"],
        "app_kwargs": {"middleware": [Middleware(BoundedBodies)]},
    }
