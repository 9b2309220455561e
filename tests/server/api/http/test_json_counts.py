"""Counting a JSON text in its bytes finds what parsing it would find, and names it by the same path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from chorus_server.api.http.json_body import MAX_DEPTH, parse_json
from chorus_server.api.http.json_counts import Counts, check_counts, check_texts, span_of
from chorus_server.api.schemas.inference import ClassifyBody, EnsembleBody, GenerateBody
from chorus_server.errors import InvalidInputError, TooLargeError
from chorus_server.validation import join_path

COUNTS = Counts({"": 5, "inputs": 3, "a": 2}, others=2)


class Pairs(list[tuple[str, Any]]):
    """An object as it was written: its fields in order, also those that come twice."""


def containers(value: Any, path: str = "", name: str = "") -> Iterator[tuple[str, int, int]]:
    """Path, limit and size of each list and object, in the order in which they begin."""
    yield path or "body", COUNTS.by_name.get(name, COUNTS.others), len(value)
    for key, inner in value if isinstance(value, Pairs) else enumerate(value):
        if isinstance(inner, list):
            plain = join_path("", key)
            own = plain if isinstance(value, Pairs) and plain != "?" else "?"
            yield from containers(inner, join_path(path, key), own)


NAMES = st.sampled_from(["inputs", "a", "b", "", "in puts", '"', "\\\\", "\u00e9", "]", ","])
LONG = "\n" * 3000 + ',]{"\\'
LEAVES = (
    st.just(LONG)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.lists(st.tuples(NAMES, inner), max_size=6).map(Pairs),
    max_leaves=25,
)


def written(value: Any, space: str) -> str:
    if isinstance(value, Pairs):
        fields = (f"{json.dumps(key)}{space}:{space}{written(inner, space)}" for key, inner in value)
        return "{" + space + f"{space},".join(fields) + space + "}"
    if isinstance(value, list):
        return "[" + space + f",{space}".join(written(inner, space) for inner in value) + space + "]"
    return json.dumps(value)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(value=TREES, space=st.sampled_from(["", " ", "\n\t "]))
def test_what_is_counted_is_what_parsing_finds(value: Any, space: str) -> None:
    text = written(value, space).encode()
    found = containers(value) if isinstance(value, list) else ()
    too_large = {path for path, most, size in found if size > most}
    try:
        check_counts(text, COUNTS)
    except InvalidInputError as error:
        assert error.field in too_large
    else:
        assert not too_large
    assert json.loads(text, object_pairs_hook=Pairs) == value


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.text('[]{},:"\\ua1 ', max_size=60).map(str.encode))
def test_what_is_not_json_is_left_to_the_parser(text: bytes) -> None:
    for counts in (COUNTS, Counts()):
        try:
            check_counts(text, counts)
        except InvalidInputError as error:
            assert error.code in ("invalid_input", "invalid_json")


@pytest.mark.parametrize("long", [b" " * 2_000_000, b'"' + b"a" * 1_200_000 + b'"', b"9" * 2_000_000])
def test_what_takes_many_steps_hides_nothing(long: bytes) -> None:
    few, many = (b'{"inputs":[' + long + b",[]" * size + b"]}" for size in (63, 1024))
    check_counts(few, Counts({"inputs": 1024}))
    with pytest.raises(InvalidInputError) as caught:
        check_counts(many, Counts({"inputs": 1024}))
    assert caught.value.field == "inputs"


@pytest.mark.parametrize("size", [64, 65])
def test_a_name_written_otherwise_has_no_more_than_others(size: int) -> None:
    text = b'{"\\u0069nputs":[' + b",".join([b"0"] * size) + b"]}"
    counts = Counts({"inputs": 1024})
    if size <= counts.others:
        check_counts(text, counts)
    else:
        with pytest.raises(InvalidInputError, match=r"^There are more than 64 items here"):
            check_counts(text, counts)


def test_the_whole_text_has_a_limit_too() -> None:
    row = b"[" + b",".join([b"0"] * 64) + b"]"
    rows = b'{"inputs":[' + b",".join([b"[" + b",".join([row] * 64) + b"]"] * 40) + b"]}"
    with pytest.raises(InvalidInputError, match="more than 131072 values") as caught:
        check_counts(rows, Counts({"inputs": 1024}))
    assert caught.value.field == "body"


@pytest.mark.parametrize("fill", [b"[]", b'{"a":0}', b'[{"a":[0]}]'])
def test_nesting_is_bounded_as_after_parsing(fill: bytes) -> None:
    for depth in range(MAX_DEPTH - 5, MAX_DEPTH + 3):
        text = b"[" * depth + fill + b"]" * depth
        inner = len(re.findall(rb"[\[{]", fill))
        if depth + inner <= MAX_DEPTH:
            check_counts(text, Counts())
            parse_json(text)
        else:
            with pytest.raises(InvalidInputError, match="nested deeper"):
                check_counts(text, Counts())


@pytest.mark.parametrize("end", ["", '"', "\\", '\\"'])
def test_texts_without_an_end_take_one_pass(end: str) -> None:
    text = b"[" + b"[]," * 20 + b'"' + b'a\\"' * 300_000 + end.encode()
    check_counts(text, Counts())  # a pass for each of its quotes would take hours
    check_texts(text, len(text))


def test_texts_that_take_more_memory_than_the_body() -> None:
    limit = 10_000
    for text in ("a" * 9_000, "\u0100" * 4_500, "\U0001f600" * 2_400):
        check_texts(json.dumps([text], ensure_ascii=False).encode(), limit)
    for mixed in ("a" * 9_000 + "\U0001f600", "\U0001f600" + "\u00e9" * 7_000):
        for ascii in (False, True):
            with pytest.raises(TooLargeError, match="beyond U"):
                check_texts(json.dumps([mixed], ensure_ascii=ascii).encode(), limit)
    check_texts(json.dumps(["a" * 6_000 + "\U0001f600"], ensure_ascii=False).encode(), limit)


@pytest.mark.parametrize("model", [GenerateBody, ClassifyBody, EnsembleBody])
@pytest.mark.parametrize("name", ["inputs", "requests", "labels", "tasks", "weights"])
def test_a_list_is_told_its_first_bad_item_alone(model: Any, name: str) -> None:
    if name not in model.model_fields:
        return
    with pytest.raises(ValidationError) as caught:
        model.model_validate({name: [[]] * 1000})
    own = [error for error in caught.value.errors() if error["loc"][0] == name]
    assert [error["loc"][:2] for error in own] == [(name, 0)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": 1, "body": {"x": [1, {}]}, "b": {}}', b'{"x": [1, {}]}'),
        (b'{"a": {"body": {}}, "body" : ["}"]}', b'["}"]'),
        (b'{"body": {"body": {}}}', b'{"body": {}}'),
        (b'{"body": "{}", "a": {}}', None),
        (b'[{"body": {}}]', None),
        (b'{"body": {"a": [}', None),
        (b"", None),
    ],
)
def test_where_a_field_stands(text: bytes, value: bytes | None) -> None:
    span = span_of(text, "body")
    assert (None if span is None else text[slice(*span)]) == value
