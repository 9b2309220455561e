"""Rows as chats, and as prompts with completions: what is read, and what is refused with row and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.readers import read_rows
from chorus_server.tuning.data.splits import Split, load_split
from chorus_server.tuning.document.prompt import PromptDocument

USER = {"role": "user", "content": "Where is my card?"}
ANSWER = {"role": "assistant", "content": "card"}
SYSTEM = {"role": "system", "content": "Be brief."}


def _load(path: Path, rows: list[Any], template: str = "{text}", **fields: Any) -> Split:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_split("train", path, PromptDocument(template=template, **fields))


def _refusal(tmp_path: Path, messages: Any, **row: Any) -> str:
    with pytest.raises(InvalidInputError) as refused:
        _load(tmp_path / "a.jsonl", [{"messages": [USER, ANSWER]}, {"messages": messages, **row}])
    assert (refused.value.field, refused.value.code) == ("data.train", "invalid_data")
    start, _, rest = refused.value.message.partition(": ")
    assert start == "a.jsonl, row 2"
    return rest


def test_the_last_messages_are_text_and_target(tmp_path: Path) -> None:
    split = _load(tmp_path / "a.jsonl", [{"messages": [USER, ANSWER]}, {"messages": [SYSTEM, USER, ANSWER]}])
    assert [(row.row, row.text, row.answers) for row in split.rows] == [
        (1, USER["content"], ("card",)),
        (2, USER["content"], ("card",)),
    ]
    assert "1 rows of the train split have a system that the template does not use" in split.warnings[0]


def test_a_template_takes_system_and_history(tmp_path: Path) -> None:
    earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi", "weight": 0}]
    rows = [
        {"messages": [SYSTEM, *earlier, USER, ANSWER]},
        {"messages": [{"role": "developer", "content": "Go."}, USER, {**ANSWER, "weight": 1}]},
    ]
    split = _load(tmp_path / "a.jsonl", rows, "[{system}][{history}][{text}]")
    assert [row.text for row in split.rows] == [
        "[Be brief.][user: Hello\nassistant: Hi][Where is my card?]",
        "[Go.][][Where is my card?]",
    ]
    assert not any("assistant" in warning or "template" in warning for warning in split.warnings)


def test_earlier_answers_without_a_weight_of_0_are_warned_of(tmp_path: Path) -> None:
    rows = [{"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER, USER, ANSWER]}]
    warnings = _load(tmp_path / "a.jsonl", rows, "{history}{text}").warnings
    assert "1 rows have several messages of the assistant (the first is row 2)" in warnings[0]


def test_parts_of_text_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "it?"}]
    rows = [{"messages": [{"role": "user", "content": parts, "name": "eve"}, ANSWER], "tools": []}]
    assert _load(tmp_path / "a.jsonl", rows).rows[0].text == "Where is it?"


def test_prompt_and_completion(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    split = _load(path, [{"prompt": "Is it good?", "completion": " yes\n"}])
    assert (split.rows[0].text, split.rows[0].answers) == ("Is it good?", ("yes",))
    own = [{"prompt": "a", "completion": "b", "text": "c", "label": "d"}]
    assert (_load(path, own).rows[0].text, _load(path, own).rows[0].answers) == ("c", ("d",))
    named = _load(path, [{"prompt": "a", "completion": "b"}], "{prompt}", target="completion")
    assert (named.rows[0].text, named.rows[0].answers) == ("a", ("b",))


def test_a_column_of_texts_called_messages_is_a_column(tmp_path: Path) -> None:
    split = _load(tmp_path / "a.jsonl", [{"text": "a", "messages": ["b", "c"]}], target="messages")
    assert split.rows[0].answers == ("b", "c")


@pytest.mark.parametrize(
    "messages, said",
    [
        ([], "messages: a row ends with the assistant's message"),
        ([USER], "messages.0: a row ends with the assistant's message"),
        ([USER, ANSWER, SYSTEM], "messages.2: a row ends with the assistant's message"),
        ([ANSWER], "messages.0: before the assistant's last message there must be a user's"),
        ([USER, ANSWER, ANSWER], "messages.2: before the assistant's last message"),
        ([USER, {**ANSWER, "weight": 0}], "messages.1.weight: is 0"),
        ([{**USER, "weight": 1}, ANSWER], "messages.0.weight: must be 0 or 1, and stand on an assistant's"),
        ([USER, {**ANSWER, "weight": 0.5}], "messages.1.weight: must be 0 or 1"),
        ([{"role": "tool", "content": "x"}, ANSWER], "messages.0.role: must be one of system, developer"),
        ([{"content": "x"}, ANSWER], "messages.0.role: must be one of"),
        (["x", ANSWER], "messages.0: must be an object"),
        ([USER, {"role": "assistant", "content": None}], "messages.1.content: must be a text"),
        ([USER, {"role": "assistant", "tool_calls": [{}]}], "messages.1.tool_calls: only text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER],
            "messages.0.content.0: must be a part such as",
        ),
    ],
)
def test_messages_that_cannot_be_learned(tmp_path: Path, messages: list[Any], said: str) -> None:
    assert _refusal(tmp_path, messages).startswith(said)


def test_tools_are_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path, [USER, ANSWER], tools=[{"type": "function"}]).startswith("tools: ")


def test_an_empty_text_is_refused_as_in_any_row(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="row 1: the column 'text' is empty"):
        _load(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": " "}, ANSWER]}])
    path = tmp_path / "b.jsonl"
    path.write_text('{"text": "a", "system": "", "label": "b"}\n')
    with pytest.raises(InvalidInputError, match="the column 'system' is empty"):
        load_split("train", path, PromptDocument(template="{system}{text}"))
    assert list(read_rows(path)) == [(1, {"text": "a", "system": "", "label": "b"})]
