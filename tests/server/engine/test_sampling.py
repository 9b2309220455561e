"""Sampling settings: what their declarations promise to those that go through them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chorus_server.engine.plan_codec import decode_plan, encode_plan
from chorus_server.engine.plans import Admission, PrefillPlan
from chorus_server.engine.sampling import (
    DEVICE_DTYPES,
    DEVICE_SETTINGS,
    SETTINGS,
    Sampling,
    UnfitSettingsError,
    check_together,
    over_defaults,
)


@pytest.mark.parametrize("name", DEVICE_DTYPES)
def test_an_executors_array_holds_the_default(name: str) -> None:
    default = SETTINGS[name].number(SETTINGS[name].default)
    assert np.asarray(default).astype(DEVICE_DTYPES[name]).item() == pytest.approx(default)


def test_a_plan_carries_what_the_device_reads_and_nothing_of_the_host() -> None:
    asked = Sampling(
        9,
        temperature=0.5,
        seed=7,
        n=3,
        stop=("secret",),
        length_penalty_rule="huggingface",
        logit_bias=((5, 1.5), (9, -2.0)),
    )
    plan = PrefillPlan(0, (1, 8), ((5, 1),), (Admission(0, 0, (0, 1, 2), asked.on_device()),))
    line = encode_plan(plan)
    assert "secret" not in line
    assert decode_plan(line) == plan
    (admission,) = plan.admissions
    assert {name: getattr(admission.sampling, name) for name in DEVICE_SETTINGS} == {
        name: getattr(asked, name) for name in DEVICE_SETTINGS
    }


def test_values_of_their_json_forms_become_those_of_the_settings() -> None:
    sampling = Sampling.of({"temperature": 1, "stop": ["a", "b"], "n": 2})
    assert sampling == Sampling(temperature=1.0, stop=("a", "b"), n=2)
    assert isinstance(sampling.temperature, float)


def test_an_object_of_biases_becomes_pairs_in_order_of_ids() -> None:
    assert Sampling.of({"logit_bias": {"10": 1, "9": -0.5}}).logit_bias == ((9, -0.5), (10, 1.0))


def test_one_stop_text_alone_is_one_text_and_not_its_letters() -> None:
    assert Sampling.of({"stop": "ab"}).stop == ("ab",)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"num_beams": 4, "temperature": 0.5, "n": 9, "stop": ["a"]}, ("temperature", "num_beams")),
        ({"num_beams": 4, "n": 9, "stop": ["a"]}, ("n", "num_beams")),
        ({"num_beams": 4, "stop": ["a"]}, ("stop", "num_beams")),
        ({"n": 2}, ("n", "temperature", "num_beams")),
        ({"length_penalty": -1.0}, ("length_penalty", "length_penalty_rule")),
        (
            {"length_penalty": -1.0, "length_penalty_rule": "t5x", "num_beams": 3},
            ("length_penalty", "length_penalty_rule"),
        ),
    ],
)
def test_values_that_do_not_go_together_name_the_first_to_blame(
    settings: dict[str, Any], names: tuple[str, ...]
) -> None:
    with pytest.raises(UnfitSettingsError) as unfit:
        check_together(settings)
    assert unfit.value.names == names


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n": 2, "temperature": 0.1},
        {"num_beams": 4, "n": 4, "temperature": 0, "stop": []},
        {"stop": ["a"]},
        {"length_penalty": -1.0, "length_penalty_rule": "huggingface", "num_beams": 10},
    ],
)
def test_values_that_go_together(settings: dict[str, Any]) -> None:
    check_together(settings)


@pytest.mark.parametrize(
    ("asked", "defaults", "together"),
    [
        ({"top_k": 3}, {"top_k": 5, "n": None, "other": 1}, {"top_k": 3}),
        ({"num_beams": 4}, {"temperature": 0.7}, {"num_beams": 4}),
        ({"num_beams": 1}, {"temperature": 0.7}, {"num_beams": 1, "temperature": 0.7}),
        ({"temperature": 0.5}, {"num_beams": 4}, {"temperature": 0.5}),
        ({"temperature": 0}, {"num_beams": 4}, {"temperature": 0, "num_beams": 4}),
        ({"temperature": 0.5, "num_beams": 4}, {"n": 2}, {"temperature": 0.5, "num_beams": 4, "n": 2}),
    ],
)
def test_what_is_asked_goes_before_a_versions_defaults(
    asked: dict[str, Any], defaults: dict[str, Any], together: dict[str, Any]
) -> None:
    assert over_defaults(asked, defaults) == together
