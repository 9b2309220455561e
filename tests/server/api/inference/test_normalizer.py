"""A version's normaliser rewrites what callers send, as it rewrote the rows that it was tuned on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chorus_server.engine.plans import PrefillPlan, ScorePlan
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, error_of

TEMPLATE = "good: {question} film: {context}"
FIELDS = {"question": "is it warm?", "context": "(so warm), it is..."}
PADDED = "good: is it warm ? film: ( so warm ) , it is . . . "


def inputs(api: ApiServer) -> tuple[int, ...]:
    """What the engine read last."""
    plan = [each for each in api.executor.plans if isinstance(each, PrefillPlan | ScorePlan)][-1]
    return plan.inputs[-1]


def push(api: ApiServer, task: str, template: str = TEMPLATE, **settings: Any) -> str:
    answer = api.push(task, rows=2, template=template, settings=json.dumps(settings))
    digest: str = answer["digest"]
    return digest


@pytest.mark.parametrize("route", ["generate", "classify"])
def test_what_is_asked_is_padded(api: ApiServer, vocabulary: Vocabulary, route: str) -> None:
    padded, plain = f"padded-{route}", f"plain-{route}"
    digest, other = push(api, padded, normalizer="t5_punctuation"), push(api, plain)
    more = {"max_new_tokens": 2} if route == "generate" else {"labels": ["yes", "no"]}
    for task, text in ((padded, PADDED), (plain, TEMPLATE.format(**FIELDS))):  # the second is the control
        answer = api.post(f"/v1/{route}", {"task": task, "input": FIELDS, **more})
        assert answer.status_code == 200, answer.text
        assert inputs(api)[2:] == (*vocabulary.encode(text), vocabulary.eos_id)
    assert vocabulary.encode(PADDED) != vocabulary.encode(TEMPLATE.format(**FIELDS))
    assert digest == other, "the values are the same"
    versions = [api.http.get(f"/v1/tasks/{task}/versions/1").json() for task in (padded, plain)]
    assert versions[0]["settings"] == {"normalizer": "t5_punctuation"} and versions[1]["settings"] == {}


def test_a_plain_text_fills_the_only_field(api: ApiServer, vocabulary: Vocabulary) -> None:
    push(api, "one-field", "{text}", normalizer="t5_punctuation")
    api.post("/v1/generate", {"task": "one-field", "input": "warm,warm", "max_new_tokens": 2})
    assert inputs(api)[2:] == (*vocabulary.encode("warm , warm"), vocabulary.eos_id)


def test_a_field_is_cut_in_the_form_that_it_gets(api: ApiServer, vocabulary: Vocabulary) -> None:
    settings = {"normalizer": "t5_punctuation", "truncation": {"field": "context", "side": "right"}}
    push(api, "cut", "film: {context} good: {question}", **settings)
    fields = {"context": "warm,rain." * 60, "question": "is it warm?"}
    asked = {"task": "cut", "input": fields, "max_new_tokens": 2}
    assert error_of(api.post("/v1/generate", asked))["code"] == "input_too_long"
    assert api.post("/v1/generate", {**asked, "truncate": True}).status_code == 200
    start, end = vocabulary.encode("film: warm , rain . warm"), vocabulary.encode("good: is it warm ?")
    found = list(inputs(api)[2:-1])
    assert found[: len(start)] == start and found[-len(end) :] == end and len(found) == 64 - 2 - 1


def test_errors_of_fields_are_as_they_were(api: ApiServer) -> None:
    push(api, "strict", normalizer="t5_punctuation")
    for wrong, field in (
        ({"question": "a"}, "input.context"),
        ({**FIELDS, "x": "a"}, "input.x"),
        ("a", "input"),
    ):
        answer = api.post("/v1/generate", {"task": "strict", "input": wrong})
        assert (answer.status_code, error_of(answer)["field"]) == (400, field)
