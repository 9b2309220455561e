from __future__ import annotations

from typing import Any

import pytest

from chorus_server.api.schemas.messages import input_value
from chorus_server.api.schemas.questions import QuestionError, openai_questions, system_questions
from chorus_server.errors import InvalidInputError

NOUL = {"type": "noul", "instructions": "Refund?"}
CHOICE = {"type": "choice", "criteria": {"a": None, "b": "the other"}}


@pytest.mark.parametrize("name", ["refund", "with space", "q.2", "\uc9c8\ubb38", "\U0001f3af", "x" * 200])
@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ("text", ()),
        ({}, ("type",)),
        ({"type": "boolean"}, ("type",)),
        ({"type": ["noul"]}, ("type",)),
        ({"type": "noul"}, ()),
        ({**NOUL, "criteria": {"yes": "x"}}, ("criteria", "yes")),
        ({**NOUL, "criteria": {"true": 3}}, ("criteria", "true")),
        ({**NOUL, "instruction": "typo"}, ("instruction",)),
        ({"type": "choice"}, ("criteria",)),
        ({"type": "choice", "criteria": {}}, ("criteria",)),
        ({"type": "choice", "criteria": {"a": None}}, ("criteria",)),
        ({"type": "choice", "criteria": {f"o{i}": None for i in range(256)}}, ("criteria",)),
        ({"type": "choice", "criteria": ["a", "b"]}, ("criteria",)),
        ({"type": "choice", "criteria": {"": None, "b": None}}, ("criteria", "")),
        ({"type": "score", "criteria": {"0": "a", "1": "b"}}, ("criteria",)),
        ({"type": "score", "criteria": ["a"]}, ("criteria",)),
        ({"type": "score", "criteria": [str(i) for i in range(11)]}, ("criteria",)),
        ({"type": "score", "criteria": ["a", 1]}, ("criteria", 1)),
        ({"type": "score", "criteria": ["a", "a"]}, ("criteria", 1)),
    ],
)
def test_a_malformed_question_names_its_id(name: str, raw: Any, place: tuple[str | int, ...]) -> None:
    with pytest.raises(QuestionError) as caught:
        system_questions({"good": NOUL, name: raw})
    assert caught.value.place[:2] == ("questions", name)
    assert caught.value.place[2 : 2 + len(place)] == place
    assert name[:64] in caught.value.message


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"type": "noul", "instructions": "x"}, "questions.1.type"),
        ({"type": "predicate"}, "questions.1.instructions"),
        ({"type": "predicate", "instructions": [{"type": "input_image"}]}, "questions.1.instructions"),
        ({"type": "choice", "instructions": "x", "choices": [{"value": "a"}]}, "questions.1.choices"),
        (
            {"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": 1}]},
            "questions.1.choices.1.value",
        ),
        (
            {"type": "choice", "instructions": "x", "choices": [{"value": "a"}, {"value": "a"}]},
            "questions.1.choices.1",
        ),
        ({"type": "score", "instructions": "x", "levels": ["a", "b"]}, "questions.1.levels.0"),
    ],
)
def test_an_openai_question_is_named_by_its_place(raw: Any, field: str) -> None:
    with pytest.raises(QuestionError) as caught:
        openai_questions([{"type": "predicate", "instructions": "x"}, {**raw, "name": "second"}])
    assert (caught.value.field or "").startswith(field)
    assert "Question 1 ('second')" in caught.value.message


def test_texts_and_truth_values_are_different_choices() -> None:
    (question,) = openai_questions(
        [{"type": "choice", "instructions": "x", "choices": [{"value": True}, {"value": "true"}]}]
    )
    assert [option.given for option in question.options] == [True, "true"]


def test_structured_text_becomes_canonical_json() -> None:
    (question,) = system_questions(
        {"q": {"type": "score", "instructions": {"b": 1.0, "a": "\u00e9"}, "criteria": [{"x": [1]}, None]}}
    )
    assert question.instructions == '{"a":"\u00e9","b":1}'
    assert [option.text for option in question.options] == ['{"x":[1]}', "1"]


@pytest.mark.parametrize("value", [None, [], {}, "x", {f"q{i}": NOUL for i in range(401)}])
def test_the_number_of_questions(value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        system_questions(value)
    assert caught.value.field == "questions"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a text", "a text"),
        ([{"role": "user", "content": "a text"}], "a text"),
        ([{"role": "user", "content": [{"type": "input_json", "data": {"a": 1}}]}], {"a": 1}),
        (
            [
                {"role": "system", "content": "Be kind."},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
                {"type": "function_call", "call_id": "1", "name": "find", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "nothing"},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "See"},
                        {"type": "input_json", "data": {"b": 1, "a": 2}},
                    ],
                },
            ],
            'system: Be kind.\nassistant: Hello\ncall: find {}\nresult: nothing\nuser: See\n{"a":2,"b":1}',
        ),
    ],
)
def test_messages_become_a_text(given: Any, expected: Any) -> None:
    assert input_value(given) == expected


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (None, "input"),
        ([], "input"),
        (["x"], "input.0"),
        ([{"role": "robot", "content": "x"}], "input.0.role"),
        ([{"role": "user", "content": "x"}, {"role": "user"}], "input.1.content"),
        (
            [{"role": "user", "content": [{"type": "input_image"}]}],
            "input.0.content.0.type",
        ),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input.0.content.0.text"),
        ([{"type": "reasoning"}], "input.0.type"),
    ],
)
def test_what_is_no_text_is_named(given: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        input_value(given)
    assert caught.value.field == field
