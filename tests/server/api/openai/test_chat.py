"""Chat says what `/v1/generate` and `/v1/classify` say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus_server.api.schemas.openai.chat import ChatAnswer
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer
from tests.server.api.openai.openai_harness import TEXT, asked, native, refused, streamed

USER = {"role": "user", "content": TEXT}
SYSTEM = {"role": "system", "content": "be brief"}
ASKED: dict[str, Any] = {"model": "mood", "messages": [USER]}
LABEL = {"type": "object", "properties": {"label": {"enum": ["bad", "good"]}}, "required": ["label"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "mood", "schema": LABEL, "strict": True}}
TOOL = {"type": "function", "function": {"name": "tell", "parameters": LABEL}}


def label_of(api: ApiServer, task: str = "mood") -> str:
    answer = api.post("/v1/classify", {"task": task, "input": TEXT, "labels": ["bad", "good"]})
    label: str = answer.json()["results"][0]["label"]
    return label


def content_of(answer: dict[str, Any]) -> Any:
    ChatAnswer.model_validate(answer)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] in ("stop", "length")
    return choice["message"]["content"]


def test_an_answer_is_the_native_one(stocked: ApiServer) -> None:
    said = native(stocked, task="mood", input=TEXT)
    answer = asked(stocked, "chat/completions", ASKED)
    ChatAnswer.model_validate(answer)
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": said["text"], "refusal": None},
            "logprobs": None,
            "finish_reason": said["finish_reason"],
        }
    ]
    assert (answer["model"], answer["object"]) == ("mood@1", "chat.completion")
    assert answer["usage"]["total_tokens"] == sum(
        said["usage"][name] for name in ("input_tokens", "output_tokens")
    )
    assert "warnings" not in answer


def test_what_the_template_has_fields_for_goes_in(stocked: ApiServer) -> None:
    messages = [
        SYSTEM,
        {"role": "user", "content": "rain"},
        {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "good"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "text", "text": TEXT}]},
    ]
    fields = {"system": "be brief\nbe good", "history": "user: rain\nassistant: yes", "text": TEXT}
    answer = asked(stocked, "chat/completions", {"model": "told", "messages": messages})
    assert content_of(answer) == native(stocked, task="told", input=fields)["text"]
    assert "warnings" not in answer
    bare = asked(stocked, "chat/completions", {"model": "told", "messages": [USER]})
    nothing = {"system": "", "history": "", "text": TEXT}
    assert content_of(bare) == native(stocked, task="told", input=nothing)["text"]


@pytest.mark.parametrize(("model", "task"), [("mood", "mood"), ("base", None)])
def test_what_it_has_no_field_for_is_ignored_with_a_warning(
    stocked: ApiServer, model: str, task: str | None
) -> None:
    messages = [SYSTEM, USER, {"role": "assistant", "content": "yes"}, USER]
    answer = asked(stocked, "chat/completions", {"model": model, "messages": messages})
    assert content_of(answer) == native(stocked, task=task, input=TEXT)["text"]
    system, history = answer["warnings"]
    assert system.startswith("The system message was ignored") and history.startswith("The earlier messages")
    chunks = streamed(stocked, "chat/completions", {"model": model, "messages": messages})
    assert chunks[0]["warnings"] == answer["warnings"]


def test_a_setting_refuses_it_instead(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary, strict_messages=True) as api:
        api.push("mood")
        assert refused(api, "chat/completions", {**ASKED, "messages": [SYSTEM, USER]})["field"] == "messages"
        assert "warnings" not in asked(api, "chat/completions", ASKED)


def test_fields_come_as_the_text_of_an_object(stocked: ApiServer) -> None:
    fields = {"premise": "rain falls", "hypothesis": "warm"}
    user = {"role": "user", "content": json.dumps(fields)}
    answer = asked(stocked, "chat/completions", {"model": "pair", "messages": [user]})
    assert content_of(answer) == native(stocked, task="pair", input=fields)["text"]
    ruled = asked(stocked, "chat/completions", {"model": "ruled", "messages": [SYSTEM, user]})
    assert content_of(ruled) == native(stocked, task="ruled", input={"system": "be brief", **fields})["text"]


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}])
def test_a_stream_joined_is_the_answer(stocked: ApiServer, more: dict[str, Any]) -> None:
    body = {**ASKED, "temperature": 1, "seed": 3, "max_completion_tokens": 6, **more}
    whole = asked(stocked, "chat/completions", body)
    chunks = streamed(stocked, "chat/completions", {**body, "stream_options": {"include_usage": True}})
    for chunk in chunks:
        ChatAnswer.model_validate(chunk)
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])
    for choice in whole["choices"]:
        mine = [each for chunk in chunks for each in chunk["choices"] if each["index"] == choice["index"]]
        assert mine[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert "".join(each["delta"].get("content", "") for each in mine) == choice["message"]["content"]
        assert (mine[-1]["delta"], mine[-1]["finish_reason"]) == ({}, choice["finish_reason"])
        assert mine[-1]["logprobs"] == choice["logprobs"]


def test_log_probabilities(stocked: ApiServer) -> None:
    (choice,) = asked(stocked, "chat/completions", {**ASKED, "logprobs": True, "top_logprobs": 2})["choices"]
    said = native(stocked, task="mood", input=TEXT, top_logprobs=2)["choices"][0]["logprobs"]
    assert [each["logprob"] for each in choice["logprobs"]["content"]] == said["token_logprobs"]
    for each, tops in zip(choice["logprobs"]["content"], said["top_logprobs"], strict=True):
        assert bytes(each["bytes"]).decode() == each["token"]
        assert [top["logprob"] for top in each["top_logprobs"]] == [top["logprob"] for top in tops]


@pytest.mark.parametrize("more", [{"response_format": FORMAT}, {"response_format": FORMAT, "temperature": 1}])
def test_an_enum_is_ranked(stocked: ApiServer, more: dict[str, Any]) -> None:
    answer = asked(stocked, "chat/completions", {**ASKED, **more})
    assert json.loads(content_of(answer)) == {"label": label_of(stocked)}
    assert answer["usage"]["completion_tokens"] == 0
    (first, end, usage) = streamed(
        stocked, "chat/completions", {**ASKED, **more, "stream_options": {"include_usage": True}}
    )
    assert first["choices"][0]["delta"] == answer["choices"][0]["message"]
    assert (end["choices"][0]["finish_reason"], usage["usage"]) == ("stop", answer["usage"])


@pytest.mark.parametrize(
    "choice", [None, "auto", "required", {"type": "function", "function": {"name": "tell"}}]
)
def test_a_tool_is_called_with_the_best_value(stocked: ApiServer, choice: Any) -> None:
    body = {**ASKED, "tools": [TOOL], "tool_choice": choice}
    answer = asked(stocked, "chat/completions", body)
    ChatAnswer.model_validate(answer)
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"] == {"name": "tell", "arguments": f'{{"label":"{label_of(stocked)}"}}'}
    first, end = streamed(stocked, "chat/completions", body)
    assert first["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert first["choices"][0]["delta"]["tool_calls"][0]["function"] == call["function"]
    assert end["choices"][0]["finish_reason"] == "tool_calls"


def test_no_tool_is_called_where_none_may_be(stocked: ApiServer) -> None:
    answer = asked(stocked, "chat/completions", {**ASKED, "tools": [TOOL], "tool_choice": "none"})
    assert content_of(answer) == native(stocked, task="mood", input=TEXT)["text"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [SYSTEM]}, "messages.0.role"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "messages.1.role"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"messages": ["hello"]}, "messages.0"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"n": 2}, "n"),
        ({"n": 2, "response_format": FORMAT}, "n"),
        ({"logprobs": True, "response_format": FORMAT}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"functions": [TOOL["function"]]}, "functions"),
        ({"store": True}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [{"type": "custom"}]}, "tools.0"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ],
)
def test_what_cannot_be_followed_is_named(stocked: ApiServer, changes: dict[str, Any], param: str) -> None:
    assert refused(stocked, "chat/completions", {**ASKED, **changes})["field"] == param


def test_one_answer_is_made_whatever_the_versions_own_number(stocked: ApiServer) -> None:
    settings = {"n": 3, "temperature": 1.5, "seed": 7, "max_new_tokens": 6}
    stocked.push("many", labels=["good", "bad"], settings=json.dumps(settings))
    said = native(stocked, task="many", input=TEXT)["choices"]
    assert len(said) == 3  # the control: natively the version's own number
    one = native(stocked, task="many", input=TEXT, n=1)["text"]
    assert content_of(asked(stocked, "chat/completions", {**ASKED, "model": "many"})) == one
    (item,) = asked(stocked, "responses", {"model": "many", "input": TEXT})["output"]
    assert item["content"][0]["text"] == one
    prompts = {"model": "many", "prompt": [TEXT, TEXT], "echo": True}
    assert [each["text"] for each in asked(stocked, "completions", prompts)["choices"]] == [TEXT + one] * 2
    two = asked(stocked, "chat/completions", {**ASKED, "model": "many", "n": 2})["choices"]
    assert len(two) == 2


def test_a_value_that_cannot_be_ranked_is_named(stocked: ApiServer) -> None:
    schema = {**LABEL, "properties": {"label": {"enum": ["good", " good"]}}}
    format = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    said = refused(stocked, "chat/completions", {**ASKED, "response_format": format})
    assert said["field"] == "response_format.json_schema.schema.1"
