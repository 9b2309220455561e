"""What is refused before any route sees it; after each refusal the server goes on answering."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.api.http.json_body import MAX_DEPTH, parse_json
from chorus_server.errors import InvalidInputError
from tests.server.api.api_harness import ApiServer, error_of

JSON = {"content-type": "application/json"}


def post_raw(api: ApiServer, body: bytes, path: str = "/v1/generate") -> Any:
    answer = api.http.post(path, content=body, headers=JSON)
    assert api.http.get("/readyz").status_code == 200
    return answer


DEEP = b'{"task": null, "input": ' + b"[" * 5000 + b"]" * 5000 + b"}"

REFUSED = {
    "empty": b"",
    "space": b"   ",
    "not json": b"task=x",
    "truncated": b'{"task": null, "input": "x"',
    "trailing": b'{"task": null, "input": "x"} x',
    "byte order mark": b'\xef\xbb\xbf{"task": null, "input": "x"}',
    "invalid utf-8": b'{"task": null, "input": "\xff\xfe"}',
    "utf-16": '{"task": null, "input": "x"}'.encode("utf-16"),
    "overlong": b'{"task": null, "input": "\xc0\xaf"}',
    "lone surrogate": b'{"task": null, "input": "\\ud800"}',
    "low surrogate": b'{"task": null, "input": "\\udc00 x"}',
    "surrogate in a key": b'{"task": null, "input": {"\\ud800": "x"}}',
    "nul": b'{"task": null, "input": "a\\u0000b"}',
    "NaN": b'{"task": null, "input": "x", "temperature": NaN}',
    "Infinity": b'{"task": null, "input": "x", "temperature": Infinity}',
    "-Infinity": b'{"task": null, "input": "x", "temperature": -Infinity}',
    "1e999": b'{"task": null, "input": "x", "temperature": 1e999}',
    "huge integer": b'{"task": null, "input": "x", "seed": ' + b"9" * 6000 + b"}",
    "deep": DEEP,
    "single quotes": b"{'task': null}",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", ["/v1/generate", "/v1/classify", "/v1/ensemble", "/v1/ensembles/x/versions"])
def test_a_body_that_is_not_strict_json_is_a_400(api: ApiServer, name: str, path: str) -> None:
    answer = post_raw(api, REFUSED[name], path)
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["code"] == "invalid_json"
    assert "\ufffd" not in answer.text and "\\ud8" not in answer.text


def test_what_overflows_is_named(api: ApiServer) -> None:
    answer = post_raw(api, b'{"requests": [{"task": null, "input": "x", "temperature": 1e999}]}')
    assert error_of(answer)["field"] == "requests.0.temperature"


def test_the_control_passes_the_same_door(api: ApiServer) -> None:
    answer = post_raw(api, '{"task": null, "input": "naïve \\ud83d\\ude00 \U0001f600"}'.encode())
    assert answer.status_code == 200


def test_ten_megabytes_of_text_is_a_400_that_names_the_field(api: ApiServer) -> None:
    body = json.dumps({"task": None, "inputs": ["x", "a" * 10_000_000]}).encode()
    answer = post_raw(api, body)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["code"], error["field"]) == ("input_too_long", "inputs.1")
    assert len(answer.content) < 2000
    assert post_raw(api, body.replace(b'"task"', b'"truncate": true, "task"')).status_code == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_a_413(api: ApiServer, chunked: bool) -> None:
    size = api.settings.max_body_bytes + 1

    def chunks() -> Any:
        sent = 0
        while sent < size:
            yield b" " * (1 << 20)
            sent += 1 << 20

    content = chunks() if chunked else b" " * size
    answer = api.http.post("/v1/generate", content=content, headers=JSON)
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "too_large"
    assert api.http.get("/readyz").status_code == 200


def test_a_lying_content_length_is_refused_before_the_body(api: ApiServer) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=300) as client:
        head = "POST /v1/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {10**17}\r\n\r\n".encode())
        assert b"413" in client.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_json_must_say_that_it_is(api: ApiServer, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = api.http.post("/v1/generate", content=b'{"task": null, "input": "x"}', headers=headers)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "unsupported_media_type"


def test_unknown_names_are_refused_without_echo(api: ApiServer) -> None:
    evil = "<script>\u202e\n" + "x" * 500
    answer = api.post("/v1/generate", {"task": None, "input": "x", evil: 1})
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["field"]) == (400, "unknown_field", "?")
    assert "script" not in answer.text and "xxx" not in answer.text
    query = api.http.get("/v1/tasks", params={"limt": 3})
    assert (query.status_code, error_of(query)["field"]) == (400, "limt")


def test_a_reference_with_control_characters_is_not_echoed_raw(api: ApiServer) -> None:
    answer = api.post("/v1/generate", {"task": "\u202eevil\u0007\x1b[31m", "input": "x"})
    assert answer.status_code == 400
    assert not any(c in error_of(answer)["message"] for c in "\u202e\x07\x1b")


def test_unknown_routes_and_methods_have_the_same_shape(api: ApiServer) -> None:
    missing = api.http.get("/v1/nothing")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
    method = api.http.put("/v1/generate")
    assert (method.status_code, error_of(method)["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "POST"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(
        ["task", "input", "inputs", "requests", "seed", "stop", "temperature", "n", "labels"]
    ),
    value=VALUES,
    path=st.sampled_from(["/v1/generate", "/v1/classify", "/v1/ensemble"]),
)
def test_any_value_in_any_field_is_answered_without_a_5xx(
    api: ApiServer, name: str, value: Any, path: str
) -> None:
    body = {"task": None, "input": "x", name: value}
    answer = api.http.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        error_of(answer)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        parse_json(data)
    except InvalidInputError as error:
        assert error.status == 400


def test_nesting_is_bounded_exactly() -> None:
    parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(InvalidInputError):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
