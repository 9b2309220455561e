"""Responses say what chat says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chorus_server.api.schemas.openai.responses import ResponseAnswer
from tests.server.api.api_harness import ApiServer
from tests.server.api.openai.openai_harness import TEXT, asked, native, refused

LABEL = {"type": "object", "properties": {"label": {"enum": ["bad", "good"]}}, "required": ["label"]}
FORMAT = {"type": "json_schema", "name": "mood", "schema": LABEL, "strict": True}
ASKED: dict[str, Any] = {"model": "mood", "input": TEXT}


def output_of(answer: dict[str, Any]) -> dict[str, Any]:
    ResponseAnswer.model_validate(answer)
    (item,) = answer["output"]
    found: dict[str, Any] = item
    return found


def text_of(answer: dict[str, Any]) -> str:
    (part,) = output_of(answer)["content"]
    text: str = part["text"]
    return text


def test_an_answer_is_the_native_one(stocked: ApiServer) -> None:
    said = native(stocked, task="mood", input=TEXT)
    answer = asked(stocked, "responses", ASKED)
    assert text_of(answer) == said["text"]
    assert answer["usage"]["input_tokens"] == said["usage"]["input_tokens"]
    assert answer["usage"]["output_tokens"] == said["usage"]["output_tokens"]
    assert answer["status"] == output_of(answer)["status"] == "completed"


def test_one_that_ends_early_says_so(stocked: ApiServer) -> None:
    answer = asked(stocked, "responses", {**ASKED, "max_output_tokens": 1})
    assert text_of(answer) == native(stocked, task="mood", input=TEXT, max_new_tokens=1)["text"]
    assert (answer["status"], answer["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )


def test_instructions_and_messages_go_into_the_template(stocked: ApiServer) -> None:
    messages = [
        {"role": "user", "content": "rain"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
        {"role": "user", "content": [{"type": "input_text", "text": TEXT}]},
    ]
    fields = {"system": "be brief", "history": "user: rain\nassistant: yes", "text": TEXT}
    answer = asked(stocked, "responses", {"model": "told", "instructions": "be brief", "input": messages})
    assert text_of(answer) == native(stocked, task="told", input=fields)["text"]
    assert answer["instructions"] == "be brief"
    named = asked(stocked, "responses", {**ASKED, "metadata": {"row": "7"}})
    assert (named["metadata"], answer["metadata"]) == ({"row": "7"}, {})
    warned = asked(stocked, "responses", {**ASKED, "instructions": "be brief"})
    assert len(warned["warnings"]) == 1


@pytest.mark.parametrize("how", ["format", "tool"])
def test_an_enum_is_ranked(stocked: ApiServer, how: str) -> None:
    (native_one,) = stocked.post(
        "/v1/classify", {"task": "mood", "input": TEXT, "labels": ["bad", "good"]}
    ).json()["results"]
    label = {"label": native_one["label"]}
    if how == "format":
        answer = asked(stocked, "responses", {**ASKED, "text": {"format": FORMAT}})
        assert json.loads(text_of(answer)) == label
        return
    tool = {"type": "function", "name": "tell", "parameters": LABEL}
    answer = asked(stocked, "responses", {**ASKED, "tools": [tool]})
    called = output_of(answer)
    assert (called["type"], called["name"]) == ("function_call", "tell")
    assert json.loads(called["arguments"]) == label
    assert answer["usage"]["output_tokens"] == 0


def test_an_input_that_is_too_long_is_cut_where_truncation_says_so(stocked: ApiServer) -> None:
    long = {**ASKED, "input": "good " * 200}
    assert refused(stocked, "responses", long)["code"] == "input_too_long"
    assert refused(stocked, "responses", {**long, "truncation": "disabled"})["field"] == "input"
    said = native(stocked, task="mood", input=long["input"], truncate=True)
    assert text_of(asked(stocked, "responses", {**long, "truncation": "auto"})) == said["text"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"stream": True}, "stream"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.schema"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.type"),
        ({"truncation": "maybe"}, "truncation"),
        ({"n": 2}, "n"),
    ],
)
def test_what_cannot_be_followed_is_named(stocked: ApiServer, changes: dict[str, Any], param: str) -> None:
    assert refused(stocked, "responses", {**ASKED, **changes})["field"] == param


def test_noise_changes_nothing(stocked: ApiServer) -> None:
    noise = {"stream": False, "store": False, "n": 1, "include": [], "reasoning": {"effort": "low"}}
    noisy = asked(stocked, "responses", {**ASKED, **noise, "user": "u"})
    assert text_of(noisy) == text_of(asked(stocked, "responses", ASKED))
