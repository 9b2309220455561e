"""Every code of the store and every class of error has a status, and says so in one shape."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prompts_store
from chorus_server.api.http.errors import (
    STORE_STATUS,
    clean,
    error_body,
    error_response,
    status_of,
)
from chorus_server.errors import ChorusError
from prompts_store.artifacts import REASONS
from prompts_store.errors import (
    ArtifactError,
    ConflictError,
    CorruptError,
    InvalidError,
    LeaseLostError,
    LimitError,
    NotFoundError,
    StoreError,
)

FOLDER = Path(prompts_store.__file__).parent
KINDS = {
    kind.__name__: kind
    for kind in (
        StoreError,
        InvalidError,
        NotFoundError,
        ConflictError,
        LeaseLostError,
        LimitError,
        CorruptError,
    )
}


def raised() -> set[tuple[str, str]]:
    """Every (class, code) that the store's source makes."""
    found = {(kind.__name__, kind.default_code) for kind in KINDS.values()}
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        found.add((node.func.id, str(keyword.value.value)))
    return found


EXPECTED = {
    "StoreError": 503,
    "InvalidError": 400,
    "NotFoundError": 404,
    "ConflictError": 409,
    "LeaseLostError": 409,
    "LimitError": 429,
    "CorruptError": 500,
}


@pytest.mark.parametrize(("kind", "code"), sorted(raised()))
def test_every_code_of_the_store_has_a_status(kind: str, code: str) -> None:
    expected = 422 if code == "idempotency_key_reused" else EXPECTED[kind]
    assert status_of(KINDS[kind]("x", code=code)) == expected
    assert kind == "InvalidError" or code in STORE_STATUS


def test_the_scan_finds_the_codes() -> None:
    codes = {code for _, code in raised()}
    assert {
        "unknown_task",
        "unknown_version",
        "unknown_alias",
        "unknown_calibration",
        "unknown_ensemble",
        "invalid_template",
    } <= codes


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_of_an_artifact_is_a_400(reason: str) -> None:
    assert status_of(ArtifactError("x", code=str(reason))) == 400


def subclasses(kind: type[ChorusError]) -> list[type[ChorusError]]:
    return [kind, *(inner for child in kind.__subclasses__() for inner in subclasses(child))]


@pytest.mark.parametrize("kind", subclasses(ChorusError))
def test_every_error_answers_in_the_one_shape(kind: type[ChorusError]) -> None:
    if kind.__module__ != "chorus_server.errors":
        return
    error = kind("what to do", field="a.b")
    response = error_response(error, "req_1")
    assert response.status_code == error.status
    assert set(error_body(error, "req_1")) == {"code", "message", "field", "request_id"}
    assert ("retry-after" in response.headers) == (error.status in (429, 503))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(), max_size=900))
def test_messages_are_printable_and_bounded(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= 603
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", shown)
