"""Choices: declared once, read from text, and one sentence where they cannot be used."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import pytest

from omnifusion import omnimotion
from omnifusion.commands.colorize import add_settings, settings_of
from omnifusion.progress import InputError
from omnifusion.settings import CHOICES, PRESET_NAMES, PRESETS, Settings, choose

BAD = [
    ("eta", "abc"), ("eta", "nan"), ("eta", -0.1), ("eta", 11), ("steps", 0), ("steps", 1001), ("steps", "2.5"),
    ("steps", True), ("seed", 2**64), ("seed", 10.5), ("seed", -1), ("max_side", 63), ("max_side", "wide"),
    ("order", "backwards"), ("start", 1.5), ("start", "half"), ("preset", "fast"), ("fit", "fast"),
    ("color_condition", "perhaps"), ("prompt", 3), ("optimizations", "inf"), ("steps", float("inf")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_cannot_be_used_costs_one_sentence(name: str, value: object) -> None:
    for way in (lambda: choose(**{name: value}), lambda: Settings.from_mapping({name: value})):
        with pytest.raises(InputError, match=f"^(There is no )?{CHOICES[name].flag} .*; choose .*[^.]\\.$"):
            way()


def test_text_is_read_as_what_it_means() -> None:
    given = {"preset": "draft", "eta": "0.3", "steps": "9", "start": "none", "gray_constraint": "off", "seed": "12"}
    read = Settings.from_mapping({**given, "run": "a token"})
    assert read == choose("draft", eta=0.3, steps=9, start="none", gray_constraint=False, seed=12)
    assert read.start is None and read.gray_constraint is False and read.max_side == PRESETS["draft"].max_side


def test_choices_left_open_are_the_presets() -> None:
    for name in PRESET_NAMES:
        assert choose(name) == choose(name, eta=None, steps=None) == PRESETS[name] and PRESETS[name].preset == name
    assert choose() == Settings() == PRESETS["standard"]


@pytest.mark.parametrize("settings", PRESETS.values())
def test_what_is_written_is_read_back(settings: Settings) -> None:
    assert Settings.from_mapping(json.loads(json.dumps(asdict(settings)))) == settings


def test_every_choice_is_an_option_and_explained() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    words = ["--preset", "paper", "--start", "0.5", "--no-color-condition", "--seed", "3", "--negative-prompt", "blue"]
    changes = {"start": 0.5, "color_condition": False, "seed": 3, "negative_prompt": "blue"}
    assert settings_of(parser.parse_args(words)) == choose("paper", **changes)
    assert settings_of(parser.parse_args([])) == Settings()
    shown = parser.format_help()
    assert all(f"--{known.flag}" in shown and known.help.endswith(".") for known in CHOICES.values())


def test_the_paper_preset_has_the_papers_numbers() -> None:
    s = PRESETS["paper"]
    assert (s.steps, s.eta, s.optimizations, s.start, s.order) == (50, 0.02, 1, None, "next")
    assert s.color_condition and s.gray_constraint and s.through_denoiser


def test_a_fit_can_be_chosen_exactly_where_the_tracker_has_it() -> None:
    assert set(CHOICES["fit"].options) == {"none", *omnimotion.PRESETS}
