"""Long texts of a body are kept as UTF-8: what is read is what was sent, in at most four times its memory."""

from __future__ import annotations

import http.client
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.api.door.routing import BodyType, ChorusRoute
from chorus_server.api.http import json_texts
from chorus_server.api.http.json_body import parse_json, parse_long
from chorus_server.api.http.json_counts import Counts
from chorus_server.api.http.json_texts import LONGEST
from chorus_server.api.schemas.decisions import DecisionsBody, SystemOneBody
from chorus_server.api.schemas.documents.batch import BatchDocument
from chorus_server.api.schemas.documents.calibration import CalibrationDocument
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument
from chorus_server.api.schemas.openai.lenient import LenientBody
from chorus_server.errors import InvalidInputError
from chorus_server.model.utf8 import characters, first_characters
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tuning.document.job import JobDocument
from tests.server.api.api_harness import ApiServer

KEPT = ("input",)
MOST_TIMES = 4
COUNTS = Counts(others=1 << 10)
EMOJI = "\U0001f600"

LETTERS = st.sampled_from(
    ["a", " ", '"', "\\", "\n", "\u00e9", "\u0100", "\ufdfa", EMOJI, "\U0010ffff", "\\u"]
)
LONG = st.tuples(LETTERS, st.sampled_from([1, 40, 1023, 1100, 5000]), st.lists(LETTERS, max_size=20)).map(
    lambda parts: parts[0] * parts[1] + "".join(parts[2])
)
TREES = st.recursive(
    LONG | st.text(max_size=40) | st.integers() | st.none() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["input", "b", "c", EMOJI * 20, "k" * 40 + "\u00e9"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def plain(value: Any, kept: bool = False) -> Any:
    """A tree with every text as a string, cut as it may be where it is not kept."""
    if isinstance(value, dict):
        return {name: plain(item, kept or name in KEPT) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, kept) for item in value]
    text = value.decode() if isinstance(value, bytes) else value
    return text if kept or not isinstance(text, str) else text[: LONGEST + 1]


def told(parse: Any) -> Any:
    try:
        return plain(parse())
    except InvalidInputError as error:
        return error.code, error.field, error.message


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    value=TREES,
    ascii=st.booleans(),
    damage=st.none() | st.tuples(st.integers(0, 1 << 16), st.binary(max_size=3)),
)
def test_what_is_read_is_what_was_sent(value: Any, ascii: bool, damage: tuple[int, bytes] | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii).encode()
    if damage is not None:
        at = damage[0] % len(body)
        body = body[:at] + damage[1] + body[at + 1 :]
    assert told(lambda: parse_long(bytearray(body), COUNTS, KEPT)) == told(
        lambda: parse_json(body, counts=COUNTS)
    )


@pytest.mark.parametrize(
    "text",
    [
        rb"\ud83d\ude00" * 100,
        rb"\ud83d" * 100,
        rb"\ude00\ud83d" * 100,
        rb"\ud83d\ud83d\ude00" * 100,
        rb"\ud83d\u0061" * 100,
        b"a" * 9000 + rb"\ud83d",
        "\u00e9".encode() * 5000 + rb"\x",
        "\u00e9".encode() * 5000 + b"\n",
        "\u00e9".encode() * 5000 + b"\xff",
        b"\x80" + "\u00e9".encode() * 5000,
        b"\xed\xa0\xbd" * 5000,
        "\u00e9".encode() * 5000 + rb"\u0000",
        "\u00e9".encode() * 5000 + b"\\\\u0000",
        EMOJI.encode() * 5000 + b'",1e999,"',
        EMOJI.encode() * 5000 + b'",NaN,"',
    ],
)
@pytest.mark.parametrize("name", [b"input", b"b"])
def test_what_is_wrong_is_told_as_ever(text: bytes, name: bytes) -> None:
    body = b'{"c":1,"%b":["%b"],"d":[2]}' % (name, text)
    assert told(lambda: parse_long(bytearray(body), COUNTS, KEPT)) == told(
        lambda: parse_json(body, counts=COUNTS)
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(max_size=50), count=st.integers(0, 60))
def test_utf8_is_counted_and_cut_as_a_string(text: str, count: int) -> None:
    assert characters(text.encode()) == len(text)
    assert first_characters(text.encode(), count) == text[:count].encode()


def bounds(schema: Any, schemas: dict[str, Any], name: str = "") -> Iterator[tuple[str, int | None]]:
    """Name and most characters of every text in a schema."""
    if "$ref" in schema:
        yield from bounds(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas, name)
    if schema.get("type") == "string" and not {"enum", "const"} & schema.keys():
        yield name, schema.get("maxLength")
    for inner in (*schema.get("anyOf", ()), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from bounds(inner, schemas, name)
    for inner_name, inner in schema.get("properties", {}).items():
        yield from bounds(inner, schemas, inner_name)


def test_no_field_takes_a_text_that_was_cut(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        found = (route.body_field for route in api.app.routes if isinstance(route, ChorusRoute))
        models = {BodyType(field.field_info.annotation).model for field in found if field is not None}
    assert len(models) == 24
    whole = {CalibrationDocument, JobDocument, EvaluationDocument, DecisionsBody, SystemOneBody}
    whole |= {BatchDocument, *(model for model in models if issubclass(model, LenientBody))}
    for model in models - whole:  # their texts come whole
        schema = model.model_json_schema()
        longest = dict(bounds(schema, schema.get("$defs", {})))
        assert longest.pop("stop", None) is None  # its own check takes 64
        for name in model.long_texts or ():
            longest.pop(name, None)
        assert all(most is not None and most <= LONGEST for most in longest.values()), (model, longest)


def bodies(size: int) -> Iterator[tuple[str, str, bytes]]:
    """Name, path and body of about `size` bytes, whose strings would take four times as much or more."""
    words = b"good film " * (size // 10)
    emoji = EMOJI.encode()
    texts = {
        "ASCII and one emoji": words + emoji,
        "emoji first": emoji + words,
        "wider and wider": "\u00e9\u0100".encode() + words + emoji,
        "emoji": emoji * (size // 4),
        "blank": b"a" + b" " * size + emoji,
        "escaped": words + rb"\ud83d\ude00",
        "all escaped": rb"\ud83d\ude00" * (size // 12),
        "lone": emoji + words + rb"\ud83d",
        "NUL": emoji + words + rb"\u0000",
    }
    for name, text in texts.items():
        value = b'"' + text + b'"'
        generate = b'{"task":null,"truncate":true,"max_new_tokens":1,"input":' + value + b"}"
        yield f"generate: {name}", "/v1/generate", generate
        yield f"template: {name}", "/v1/generate", generate.replace(b"null", b'"t"', 1)
        yield f"refused: {name}", "/v1/generate", b'{"task":null,"input":' + value + b"}"
        yield (
            f"classify: {name}",
            "/v1/classify",
            b'{"task":null,"labels":["good","bad"],"input":' + value + b"}",
        )
        yield f"ensemble: {name}", "/v1/ensemble", b'{"tasks":["t","t"],"input":' + value + b"}"
        yield f"task: {name}", "/v1/generate", b'{"input":"a","task":' + value + b"}"
        yield f"label: {name}", "/v1/classify", b'{"task":null,"input":"a","labels":[' + value + b"]}"
        yield f"unknown: {name}", "/v1/generate", b'{"x":' + value + b"}"
        yield f"alias: {name}", "/v1/tasks/t/rollback", b'{"alias":' + value + b"}"
    four = b",".join([b'"' + words[: size // 4] + emoji + b'"'] * 4)
    yield "four", "/v1/generate", b'{"task":null,"truncate":true,"max_new_tokens":1,"inputs":[' + four + b"]}"
    names = b",".join(b'"%d%b":""' % (n, words[: size // 64] + emoji) for n in range(64))
    yield "names", "/v1/generate", b'{"task":null,"input":{' + names + b"}}"


def send(api: ApiServer, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=300)
    connection.request("POST", path, body, {"content-type": "application/json"})  # the body is not copied
    answer = connection.getresponse()
    assert answer.status < 500, answer.read()
    answer.read()
    connection.close()


def peak(api: ApiServer, path: str, body: bytes) -> float:
    """How many times its bytes of Python's memory a body takes; the caller's own are not among them. The
    first of three that is no more than `MOST_TIMES`, or else the last: threads that look for jobs and changes
    take some now and then."""
    for _ in range(3):
        tracemalloc.start()
        try:
            send(api, path, body)
            times = tracemalloc.get_traced_memory()[1] / len(body)
        finally:
            tracemalloc.stop()
        if times <= MOST_TIMES:
            break
    return times


@pytest.mark.parametrize("size", [64 << 10, 256 << 10, 1 << 20])
def test_a_body_takes_four_times_its_bytes_at_most(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        api.push("t", template="Say: {text} !")
        for _, path, body in bodies(20_000):  # what is made once
            send(api, path, body)
        peaks = {name: peak(api, path, body) for name, path, body in bodies(size)}
        assert {name: times for name, times in peaks.items() if times > MOST_TIMES} == {}
        monkeypatch.setattr(json_texts.LongTexts, "__init__", lambda self, *_: setattr(self, "_texts", []))
        control = {name: peak(api, path, body) for name, path, body in bodies(size)}
        assert sum(times > MOST_TIMES for times in control.values()) > len(control) // 2
