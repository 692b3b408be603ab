"""Step 3: the settings, what they cost, and which of them a run will use."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import gradio as gr

from omnifusion.progress import InputError, count
from omnifusion.run.estimate import estimate
from omnifusion.run.folder import RunRequest
from omnifusion.settings import CHOICES, PRESETS, Settings
from omnifusion.ui import zerogpu
from omnifusion.ui.parts import LATEST, QUIET, Shared, Updates, seconds
from omnifusion.ui.store import Visit, VisitorClip

USUAL = (24, (240, 427))  # frames and size that are assumed before there is a clip

UNUSED = "Not used by this run: the colors of your frame reach everywhere without diffusion."


def build(s: Shared) -> None:
    """Build a control for every field of ``Settings``, and "frames" and "force"."""
    quality = "Quality (estimated time on this machine)"
    s.settings = {"preset": _control("preset", _presets(*USUAL), label=quality, info=None)}
    with gr.Row():
        model = {"label": "Model", "info": "Guesses colors that no colored frame shows."}
        s.settings["prior"] = _control("prior", zerogpu.priors(), gr.Dropdown, scale=3, min_width=150, **model)
        slower = "More are slower; the built-in model takes one step."
        s.settings["steps"] = _control("steps", kind=gr.Number, scale=2, min_width=130, info=slower)
        firmness = "How firmly diffusion keeps the original brightness; the built-in model always does."
        s.settings["eta"] = _control("eta", scale=2, min_width=130, info=firmness)
    with gr.Row(visible=False, elem_id="unused") as s.unused:
        gr.Markdown(UNUSED, elem_classes="of-note")
        s.everywhere = gr.Button("Use diffusion in every frame", size="sm", elem_id="everywhere", min_width=190)
    s.settings["frames"] = frames_slider(
        s.service.limits.frames, USUAL[0], step=1, elem_id="frames", label="How many frames, from the start"
    )
    with gr.Accordion("Advanced settings", open=False):
        s.settings |= {name: _control(name) for name in CHOICES if name not in s.settings}
        about = "Use a picture even if it does not seem to match its frame."
        s.settings["force"] = gr.Checkbox(False, label="Accept any picture", info=about)


def _control(name: str, options: Sequence[Any] = (), kind: Any = None, **looks: Any) -> Any:
    """The control of a choice, at its draft value."""
    choice = CHOICES[name]
    value = choice.presets["draft"]
    looks = {"label": choice.label, "info": choice.help.replace("none =", "empty ="), "elem_id": name, **looks}
    if options or choice.options:
        return (kind or gr.Radio)(list(options or choice.options), value=value, **looks)
    if choice.kind is bool:
        return gr.Checkbox(value, **looks)
    if choice.kind is str:
        return gr.Textbox(value, max_length=300, **looks)
    if choice.slider is not None and kind is None:
        least, most, step = choice.slider
        return gr.Slider(least, most, value, step=step, **looks)
    return gr.Number(value, precision=0 if choice.kind is int else None, **looks)


def frames_slider(most: int, frames: int, **looks: Any) -> gr.Slider:
    """A slider for how many frames to color of a clip that has ``most``."""
    return gr.Slider(1, max(2, most), min(frames, most), interactive=most > 1, **looks)


def _presets(frames: int, size: tuple[int, int]) -> list[tuple[str, str]]:
    """The presets with their costs here: (label, name)."""
    return [
        (f"{name.capitalize()}, about {seconds(estimate(settings, frames, size).seconds)}", name)
        for name, settings in PRESETS.items()
    ]


def restore(s: Shared, request: RunRequest) -> Updates:
    """Set the controls to those of a request, except the number of frames, which the clip bounds."""
    values = asdict(request.settings) | {"force": request.force}
    return {control: values[name] for name, control in s.settings.items() if name != "frames"}


def read(s: Shared, clip: VisitorClip, values: Sequence[Any]) -> RunRequest:
    """The visitor's request by the ``values`` of the controls; InputError if one cannot be used."""
    named = dict(zip(s.settings, values, strict=True))
    settings = Settings.from_mapping(named)
    zerogpu.check_prior(settings.prior)
    frames = max(1, min(int(named["frames"] or 1), clip.frames))
    exemplars = tuple(sorted(frame for frame in clip.exemplars if frame < frames))
    return RunRequest(clip.name, settings, frames, exemplars, bool(named["force"]))


def lacks_colors(clip: VisitorClip, request: RunRequest) -> bool:
    """Whether the prior may have to invent the colors of a shot."""
    end = request.frames or clip.frames
    colored = request.exemplars or ((0,) if clip.color else ())
    shots = pairwise([0, *(cut for cut in clip.cuts if cut < end), end])
    return any(not any(first <= frame < stop for frame in colored) for first, stop in shots)


def wire(s: Shared) -> None:
    """Connect the handlers."""
    service, limits, controls = s.service, s.service.limits, list(s.settings.values())

    def cost(visit: Visit, *values: Any) -> Updates:
        """Show what the run and each preset would cost, and which settings it would not use; change no value."""
        if (clip := visit.clip) is None:
            return {s.estimate: "", s.fit: gr.Button(visible=False), s.step3: gr.Accordion(label="3 · Settings")}
        request = read(s, clip, values)
        settings, frames = request.settings, request.frames or 1
        expected = estimate(settings, frames, clip.size)
        mib, most, fits = expected.mib / 1024, service.memory_mib / 1024, service.fits(expected)
        part = f" for {frames} of {count(clip.frames, 'frame')}" if frames < clip.frames else ""
        line = f"About **{seconds(expected.seconds)}**{part}, {mib:.1f} of {most:.1f} GiB memory"
        if not fits:
            line += f". That is over this page's limit of {seconds(limits.seconds)} per run. "
            line += "Use fewer frames or a lighter preset."
        used = settings.prior_everywhere or lacks_colors(clip, request)
        guided = used and not settings.mean_alone
        counts = {"prior": used, "steps": guided, "eta": guided}
        return {
            s.estimate: line,
            s.fit: gr.Button(visible=not fits),
            s.step3: gr.Accordion(label=f"3 · Settings: {settings.preset}, {count(frames, 'frame')}"),
            s.unused: gr.Row(visible=not used),
            s.settings["preset"]: gr.Radio(_presets(frames, clip.size)),
            **{s.settings[name]: type(s.settings[name])(interactive=yes) for name, yes in counts.items()},
        }

    def fit(visit: Visit, *values: Any) -> Updates:
        clip = visit.require()
        request = read(s, clip, values)
        if not (fitting := service.that_fits(request.settings, request.frames or 1, clip.size)):
            raise InputError("No settings make this clip fit this machine. Use a smaller clip.")
        return {s.settings[name]: value for name, value in fitting.items()}

    price = [s.estimate, s.fit, s.step3, s.unused, *(s.settings[name] for name in ("preset", "prior", "steps", "eta"))]
    s.on([s.mark.change, *(control.change for control in controls)], cost, [s.visit, *controls], price, **LATEST)
    s.taking(s.fit.click, fit, [s.visit, *controls], controls, **LATEST)
    # In the browser, at once, so that nothing newer is overwritten:
    varied = [name for name, choice in CHOICES.items() if len({*choice.presets.values()}) > 1 and name != "preset"]
    values = json.dumps({preset: [CHOICES[name].presets[preset] for name in varied] for preset in PRESETS})
    preset, presets = s.settings["preset"], [s.settings[name] for name in varied]
    preset.input(None, preset, presets, js=f"preset => ({values})[preset]", **QUIET)
    s.everywhere.click(None, None, s.settings["diffusion"], js="() => 'always'", **QUIET)
