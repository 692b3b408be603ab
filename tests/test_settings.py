"""Choices: declared once, read from text, and one sentence where they cannot be used."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import asdict, replace
from typing import Any

import pytest

from omnifusion import omnimotion
from omnifusion.progress import InputError
from omnifusion.settings import CHOICES, PRESETS, Settings, choose

BAD = [
    ("eta", "abc"), ("eta", "nan"), ("eta", -0.1), ("eta", 11), ("steps", 0), ("steps", 1001), ("steps", "2.5"),
    ("steps", True), ("seed", 2**64), ("seed", 10.5), ("seed", -1), ("max_side", 63), ("max_side", "wide"),
    ("order", "backwards"), ("strength", 1.5), ("strength", "half"), ("preset", "fast"), ("omnimotion", "fast"),
    ("color_condition", "perhaps"), ("prompt", 3), ("optimizations", "inf"), ("steps", float("inf")),
    ("prompt", None), ("eta", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_cannot_be_used_costs_one_sentence(name: str, value: Any) -> None:
    sentence = f"^(There is no )?{CHOICES[name].flag} .*; choose .*[^.]\\.$"
    for way in (Settings, lambda **bad: Settings.from_mapping(bad), lambda **bad: replace(PRESETS["draft"], **bad)):
        with pytest.raises(InputError) as refusal:
            way(**{name: value})
        assert re.match(sentence, str(refusal.value))


def test_the_sentence_names_what_was_asked_and_what_may_be() -> None:
    for changes, sentence in (
        ({"eta": -1}, "eta is -1; choose a number from 0 to 10."),
        ({"preset": "x"}, "There is no preset 'x'; choose one of draft, standard, paper."),
        ({"strength": "half"}, "strength is 'half'; choose a number from 0 to 1 or none."),
        ({"prompt": 7}, "prompt is 7; choose a text."),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
            choose(**changes)
    with pytest.raises(InputError) as refusal:
        choose(eta="9" * 10_000)
    assert len(str(refusal.value)) < 120
    with pytest.raises(TypeError, match="unknown settings: speed"):
        choose(speed=3)


def test_text_is_read_as_what_it_means() -> None:
    given = {"preset": "draft", "eta": "0.3", "steps": "9", "strength": "None", "gray_constraint": "off", "seed": "12"}
    read = Settings.from_mapping({**given, "run": "a token"})
    assert read == choose("draft", eta=0.3, steps=9, strength="none", gray_constraint=False, seed=12)
    assert read.strength is None and read.gray_constraint is False and read.max_side == PRESETS["draft"].max_side


def test_names_of_the_version_before_are_still_read() -> None:
    old = {"literal": True, "start": "none", "fit": "none", "grey_constraint": False, "order": "greyest"}
    new = {"trust_tracker": True, "strength": None, "omnimotion": "off", "gray_constraint": False, "order": "grayest"}
    assert Settings.from_mapping(old) == replace(Settings(), **new) == choose(**old)


def test_choices_left_open_are_the_presets() -> None:
    for name, preset in PRESETS.items():
        assert choose(name) == choose(name, eta=None, steps=None) == preset and preset.preset == name
    assert choose() == Settings() == PRESETS["standard"] and tuple(PRESETS) == CHOICES["preset"].options


@pytest.mark.parametrize("settings", PRESETS.values())
def test_what_is_written_is_read_back(settings: Settings) -> None:
    assert Settings.from_mapping(json.loads(json.dumps(asdict(settings)))) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings and hash(settings) == hash(replace(settings))


def test_every_choice_is_explained_and_a_slider_lies_in_its_range() -> None:
    for name, choice in CHOICES.items():
        assert choice.label and choice.help.endswith(".") and set(choice.presets) == set(PRESETS)
        for value in choice.slider[:2] if choice.slider else ():
            assert getattr(choose(**{name: value}), name) == value


def test_an_error_tells_each_side_what_it_can_do() -> None:
    error = InputError("It does not match", {"": "check it", "force": "use it anyway", "memory": "allow more"})
    assert str(error) == "It does not match; check it, use it anyway with --force, or allow more with --memory."
    assert error.sentence({"force": "the box"}.get) == "It does not match; check it, or use it anyway with the box."
    assert InputError("It is full", {"memory": "allow more"}).sentence({}.get) == "It is full."
    assert str(pickle.loads(pickle.dumps(error))) == str(error) and str(InputError("A sentence.")) == "A sentence."


def test_the_paper_preset_has_the_papers_numbers() -> None:
    s = PRESETS["paper"]
    assert (s.steps, s.eta, s.optimizations, s.strength, s.order) == (50, 0.02, 1, None, "next")
    assert s.color_condition and s.gray_constraint and s.through_denoiser


def test_a_fit_can_be_chosen_exactly_where_the_tracker_has_it() -> None:
    assert set(CHOICES["omnimotion"].options) == {"off", *omnimotion.PRESETS}
