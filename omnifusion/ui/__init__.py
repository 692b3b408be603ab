"""The page: a Gradio app over ``run.pipeline``, and how it is served. The only package that imports gradio."""

import os

import gradio as gr
import gradio.processing_utils

from omnifusion.ui import api, clip_tab, guards, result_tab, run_tab, settings_tab, zerogpu
from omnifusion.ui.jobs import Jobs
from omnifusion.ui.parts import ASSETS, Shared, text
from omnifusion.ui.service import Service
from omnifusion.ui.store import Limits, Store, Visit

PAPER = "https://openaccess.thecvf.com/ACCV2024"


def make_service(limits: Limits | None = None) -> Service:
    """The service that all visitors share."""
    limits = limits or Limits.from_environment()
    zerogpu.preload()
    return Service(limits, Store(limits.results, limits.days), Jobs(limits))


def header() -> str:
    """The head of the page: what it does, and where to read more."""
    space = os.environ.get("SPACE_ID")
    code = os.environ.get("OMNIFUSION_CODE") or (f"https://huggingface.co/spaces/{space}/tree/main" if space else "")
    links = [(PAPER, "Paper (ACCV 2024)")] + [(code, "Code")] * bool(code)
    anchors = "".join(f'<a href="{url}" target="_blank" rel="noopener">{name}</a>' for url, name in links)
    return text("intro.html").format(links=anchors)


def build(service: Service) -> gr.Blocks:
    """The whole page."""
    limits = service.limits
    gradio.processing_utils.async_transport = guards.BoundedDownloads(limits.megabytes)
    with guards.Page(title="OmniFusion", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        s = Shared(service=service, page=page)
        s.visit = gr.State(Visit(), time_to_live=86400, delete_callback=Visit.exchange)
        s.mark, s.running, s.display, s.runs, s.step = (gr.State(value) for value in ("", "", "", (), 0))
        api.offer(service)  # first, so that no handler takes an endpoint's name
        gr.HTML(header(), elem_id="intro")
        with gr.Tabs():
            with gr.Tab("Color"), gr.Row(elem_id="stage"):
                with gr.Column(elem_id="form"):
                    clip_tab.build(s)
                    with gr.Accordion("3 · Settings", open=False, elem_id="step3") as s.step3:
                        settings_tab.build(s)
                    run_tab.build_bar(s)
                with gr.Column(elem_id="show"):
                    result_tab.build_film(s)
                    run_tab.build_show(s)
                    run_tab.build_fix(s)
                with gr.Column(elem_id="closer"):
                    result_tab.build_details(s)
            with gr.Tab("Compare", id="compare"):
                result_tab.build_compare(s)
            with gr.Tab("How it works"):
                gr.Markdown(text("how.md"))
                gr.Markdown(text("privacy.md").format(**vars(limits)))
        for wire in (clip_tab.wire, settings_tab.wire, run_tab.wire, result_tab.wire, run_tab.wire_fix):
            wire(s)
    page.queue(default_concurrency_limit=None, max_size=64)
    return page


def serve(service: Service, share: bool = False, mcp: bool = False) -> None:
    """Serve the page until interrupted: nothing but uploads, results and the examples can be read."""
    limits, hues = service.limits, dict.fromkeys(("primary_hue", "secondary_hue", "neutral_hue"), "neutral")
    # neutral grays, for colors are compared beside them; no font from the network
    fonts = {"font": gr.themes.Font("system-ui"), "font_mono": gr.themes.Font("monospace")}
    build(service).launch(
        theme=gr.themes.Base(**hues, **fonts, radius_size="sm"),
        css_paths=[ASSETS / "page.css"],
        head=text("head.html"),
        allowed_paths=[str(service.store.folder), str(ASSETS / "examples")],
        max_file_size=f"{limits.megabytes}mb",
        share=share,
        mcp_server=mcp,
        ssr_mode=False,
        footer_links=["api"],
        app_kwargs=guards.app_kwargs(limits.megabytes, share),
    )
