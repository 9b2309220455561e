"""`<extra_id_N>` is a sentinel where it is asked for, else text; and a version says which field is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chorus_server.engine.plans import PrefillPlan, ScorePlan
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, artifact, error_of

TEXT = "good <extra_id_0> film <extra_id_1>"
ASKED = json.dumps({"special_tokens": True})


def _inputs(api: ApiServer) -> tuple[int, ...]:
    """What the engine read last."""
    plan = [each for each in api.executor.plans if isinstance(each, PrefillPlan | ScorePlan)][-1]
    return plan.inputs[-1]


def _generate(api: ApiServer, **body: Any) -> dict[str, Any]:
    answer = api.post("/v1/generate", {"max_new_tokens": 2, **body})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["results"][0]
    return result


def _with_sentinels(vocabulary: Vocabulary) -> list[int]:
    good, film = vocabulary.encode("good"), vocabulary.encode("film")
    return [*good, vocabulary.sentinel(0), *film, vocabulary.sentinel(1)]


def test_a_request_asks_for_sentinels(api: ApiServer, vocabulary: Vocabulary) -> None:
    _generate(api, task=None, input=TEXT, special_tokens=True)
    assert _inputs(api) == (*_with_sentinels(vocabulary), vocabulary.eos_id)
    _generate(api, task=None, input=TEXT)
    assert _inputs(api) == (*vocabulary.encode(TEXT), vocabulary.eos_id)
    assert vocabulary.sentinel(0) not in _inputs(api)


def test_a_version_asks_for_sentinels_in_its_template_and_a_request_may_decline(
    api: ApiServer, vocabulary: Vocabulary
) -> None:
    api.push("spans", rows=1, template="{text} <extra_id_0> film <extra_id_1>", settings=ASKED)
    _generate(api, task="spans", input="good")
    assert _inputs(api)[1:] == (*_with_sentinels(vocabulary), vocabulary.eos_id)
    _generate(api, task="spans", input="good", special_tokens=False)
    assert _inputs(api)[1:] == (*vocabulary.encode(TEXT), vocabulary.eos_id)


def test_labels_may_hold_sentinels(api: ApiServer, vocabulary: Vocabulary) -> None:
    body = {"task": None, "input": "good", "labels": ["<extra_id_0> yes", "no"]}
    assert api.post("/v1/classify", {**body, "special_tokens": True}).status_code == 200
    plan = [each for each in api.executor.plans if isinstance(each, ScorePlan)][-1]
    assert plan.targets[0][0] == (vocabulary.sentinel(0), *vocabulary.encode("yes"), vocabulary.eos_id)
    spelled = api.post("/v1/classify", body)  # the control: more tokens than a label may have
    assert (spelled.status_code, error_of(spelled)["field"]) == (400, "labels.0")


def _push(api: ApiServer, settings: dict[str, Any], template: str = "{text}") -> Any:
    metadata = {"template": template, "settings": settings}
    form = {"files": {"file": ("p", artifact())}, "data": {"metadata": json.dumps(metadata)}}
    return api.http.post("/v1/tasks/cutting/versions", **form)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_version_names_the_field_that_is_cut_and_the_side(
    api: ApiServer, vocabulary: Vocabulary, side: str
) -> None:
    template = "film: {document} good: {question}"
    settings = {"truncation": {"field": "document", "side": side}}
    task = f"cut-{side}"
    api.push(task, rows=2, template=template, settings=json.dumps(settings))
    document = " ".join(["great", "moving", "warm", "rain"] * 30)
    fields = {"document": document, "question": "is it warm"}
    refused = api.post("/v1/generate", {"task": task, "input": fields})
    assert refused.status_code == 400 and error_of(refused)["code"] == "input_too_long"
    result = _generate(api, task=task, input=fields, truncate=True)
    assert result["truncated"] and result["usage"]["input_tokens"] == 64
    whole = vocabulary.encode(template.format(**fields))
    start, end = vocabulary.encode("film:"), vocabulary.encode("good: is it warm")
    room = 64 - 2 - 1
    kept = room - len(start) - len(end)
    cut = whole[len(start) : -len(end)]
    kept_ids = cut[:kept] if side == "right" else cut[-kept:]
    assert list(_inputs(api)[2:-1]) == [*start, *kept_ids, *end]


def test_a_text_that_is_too_long_without_the_field_is_refused(api: ApiServer) -> None:
    settings = {"truncation": {"field": "document", "side": "left"}}
    api.push("cut-all", template="{document} {question}", settings=json.dumps(settings))
    fields = {"document": "good", "question": "great moving film " * 40}
    answer = api.post("/v1/generate", {"task": "cut-all", "input": fields, "truncate": True})
    assert answer.status_code == 400 and error_of(answer)["field"] == "input"
    assert "document" in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"special_tokens": "yes"}, "special_tokens"),
        ({"truncation": "left"}, "truncation"),
        ({"truncation": {"field": "text"}}, "truncation"),
        ({"truncation": {"field": 1, "side": "left"}}, "truncation.field"),
        ({"truncation": {"field": "text", "side": "middle"}}, "truncation.side"),
    ],
)
def test_settings_that_are_none_are_named(api: ApiServer, settings: dict[str, Any], field: str) -> None:
    answer = _push(api, settings)
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["field"] == f"metadata.settings.{field}"
