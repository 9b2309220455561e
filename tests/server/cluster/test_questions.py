"""Questions to rows: what is refused at once, what is refused in its row, and the columns of answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic_core import to_json

from chorus_server.api.batch.answering import AnsweredLine, BatchLine
from chorus_server.cluster.questions import RowQuestion
from chorus_server.errors import ChorusError, InvalidInputError
from chorus_server.settings import Settings

SETTINGS = Settings(max_body_bytes=65_536)
CLASSIFY = RowQuestion("/v1/classify", {"task": "sentiment", "labels": ["no", "yes"]}, "text")


@pytest.mark.parametrize(
    ("endpoint", "body", "input", "field"),
    [
        ("/v1/chat/completions", {"task": "a"}, "text", "endpoint"),
        ("/v1/classify", {"task": "a"}, "", "input"),
        ("/v1/classify", {"task": "a"}, {}, "input"),
        ("/v1/classify", {"labels": ["no", "yes"]}, "text", "body.task"),
        ("/v1/classify", {"task": "a", "inputs": ["b"]}, "text", "body.inputs"),
        ("/v1/generate", {"task": "a", "requests": []}, "text", "body.requests"),
        ("/v1/generate", {"task": "a", "max_new_tokens": 0}, "text", "body.max_new_tokens"),
        ("/v1/generate", {"task": "a", "temprature": 1}, "text", "body.temprature"),
        ("/v1/generate", {"task": "a", "stream": True}, "text", "body.stream"),
        ("/v1/generate", {"task": "a", "deadline_seconds": 3}, "text", "body.deadline_seconds"),
    ],
)
def test_a_question_that_no_row_could_answer_is_refused_at_once(
    endpoint: Any, body: dict[str, Any], input: Any, field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RowQuestion(endpoint, body, input)
    assert caught.value.field == field


def test_rows_become_bodies_and_bad_ones_errors_of_their_own() -> None:
    rows = pa.table({"text": ["good", None, "x" * 70_000, "fine \u2603"]})
    good, null, long, snow = CLASSIFY.bodies(rows, SETTINGS)
    assert (good.task, good.input, good.labels) == ("sentiment", b"good", ["no", "yes"])
    assert snow.input == "fine \u2603".encode()
    assert isinstance(null, ChorusError) and null.field == "input" and "'text' is null" in null.message
    assert isinstance(long, ChorusError) and "65536" in long.message.replace(",", "")


def test_fields_of_a_template_come_from_columns_of_other_names() -> None:
    question = RowQuestion("/v1/generate", {"task": None}, {"first": "a", "second": "b"})
    rows = pa.table({"b": ["2", None], "a": ["1", "3"]})
    good, null = question.bodies(rows, SETTINGS)
    assert good.input == {"first": b"1", "second": b"2"}
    assert isinstance(null, ChorusError) and "'b' is null" in null.message


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_row_that_is_no_text_is_an_error_of_its_own(kind: pa.DataType) -> None:
    offsets, content = pa.py_buffer(np.array([0, 4, 6, 6], np.int32)), pa.py_buffer(b"good\xff\xfe")
    broken = pa.Array.from_buffers(pa.string(), 3, [None, offsets, content])
    column = broken.dictionary_encode() if pa.types.is_dictionary(kind) else broken.cast(kind)
    rows = pa.table({"text": column})
    CLASSIFY.schema(rows.schema)
    good, bad, empty = CLASSIFY.bodies(rows, SETTINGS)
    assert good.input == b"good" and empty.input == b""
    assert isinstance(bad, InvalidInputError) and bad.field == "input" and "UTF-8" in bad.message


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.binary(), pa.timestamp("us"), pa.decimal128(9, 2), pa.list_(pa.string())]
)
def test_a_column_of_another_type_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(InvalidInputError, match="must be text") as caught:
        CLASSIFY.schema(pa.schema([("text", kind)]))
    assert caught.value.field == "input"


@pytest.mark.parametrize(
    ("names", "field"),
    [(["texts"], "input"), (["text", "text"], "input"), (["text", "answer_label"], "answer_label")],
)
def test_columns_that_do_not_fit_are_named(names: list[str], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        CLASSIFY.schema(pa.schema([(name, pa.string()) for name in names]))
    assert caught.value.field == field


def test_answers_become_columns_beside_the_rows() -> None:
    result = {
        "task": "default/sentiment", "version": 3, "digest": "d", "label": "yes", "truncated": False,
        "probabilities": {"no": 0.25, "yes": 0.75}, "log_probabilities": {"no": -2.5, "yes": -1.5},
        "usage": {"input_tokens": 9, "prompt_tokens": 4, "output_tokens": 0},
    }  # fmt: skip
    error = {"code": "input_too_long", "message": "shorten it", "param": "input"}
    line = BatchLine("", "r", None)
    lines = [
        AnsweredLine(line, 200, to_json({"id": "r", "results": [result]})),
        AnsweredLine(line, 400, to_json({"error": error})),
    ]
    rows = pa.table({"text": ["a", "b"], "n": [1, 2]})
    first, second = CLASSIFY.answered(rows, lines).to_pylist()
    assert (first["text"], first["n"], first["answer_label"], first["answer_version"]) == ("a", 1, "yes", 3)
    assert first["answer_log_probabilities"] == [("no", -2.5), ("yes", -1.5)]
    assert (first["answer_input_tokens"], first["answer_output_tokens"]) == (9, 0)
    assert first["answer_error"] is None
    assert (second["n"], second["answer_error"]) == (2, "input_too_long")
    assert second["answer_error_message"] == "shorten it"
    assert second["answer_label"] is second["answer_version"] is second["answer_probabilities"] is None
