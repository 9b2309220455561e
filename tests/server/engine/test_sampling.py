"""Sampling settings: what their declarations promise to those that go through them."""

from __future__ import annotations

import numpy as np
import pytest

from server.engine.plan_codec import decode_plan, encode_plan
from server.engine.plans import Admission, PrefillPlan
from server.engine.sampling import DEVICE_DTYPES, SETTINGS, Sampling


@pytest.mark.parametrize("name", DEVICE_DTYPES)
def test_an_executors_array_holds_the_default(name: str) -> None:
    default = SETTINGS[name].default
    assert np.asarray(default).astype(DEVICE_DTYPES[name]).item() == pytest.approx(default)


def test_a_plan_carries_what_the_device_reads_and_nothing_of_the_host() -> None:
    asked = Sampling(9, temperature=0.5, seed=7, n=3, stop=("secret",))
    plan = PrefillPlan(0, (1, 8), ((5, 1),), (Admission(0, 0, (0, 1, 2), asked.on_device()),))
    line = encode_plan(plan)
    assert "secret" not in line
    assert decode_plan(line) == plan
    (admission,) = plan.admissions
    assert {name: getattr(admission.sampling, name) for name in DEVICE_DTYPES} == {
        name: getattr(asked, name) for name in DEVICE_DTYPES
    }


def test_values_of_their_json_forms_become_those_of_the_settings() -> None:
    sampling = Sampling.of({"temperature": 1, "stop": ["a", "b"], "n": 2})
    assert sampling == Sampling(temperature=1.0, stop=("a", "b"), n=2)
    assert isinstance(sampling.temperature, float)
