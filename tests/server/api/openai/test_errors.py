"""What OpenAI's clients read of an error, and whether they send the request again."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from chorus_server.api.openai.errors import openai_error
from chorus_server.errors import (
    ChorusError,
    ConflictError,
    EngineDeadError,
    InternalError,
    NotFoundError,
    OverloadedError,
    QuotaExceededError,
)
from prompts_store.errors import InvalidError, StoreError
from tests.server.api.api_harness import ApiServer, error_of


def test_the_body_has_the_four_fields() -> None:
    error = NotFoundError("There is no such task.", field="model", code="unknown_task")
    answer = openai_error(error, "req_1")
    assert json.loads(bytes(answer.body)) == {
        "error": {
            "message": "There is no such task.",
            "type": "not_found_error",
            "param": "model",
            "code": "unknown_task",
        }
    }


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (ConflictError("busy"), {"x-should-retry": "false"}),
        (InvalidError("busy", code="job_over"), {"x-should-retry": "false"}),
        (
            EngineDeadError("dead"),
            {"x-should-retry": "false", "retry-after": "1", "retry-after-ms": "1000"},
        ),
        (OverloadedError("full", retry_after_seconds=0.02), {"retry-after": "1", "retry-after-ms": "20"}),
        (
            QuotaExceededError("minute", retry_after_seconds=59),
            {"retry-after": "59", "retry-after-ms": "59000"},
        ),
        (
            QuotaExceededError("month", retry_after_seconds=86400),
            {"x-should-retry": "false", "retry-after": "86400", "retry-after-ms": "86400000"},
        ),
        (QuotaExceededError("more than all", retry_after_seconds=math.inf), {"x-should-retry": "false"}),
        (NotFoundError("no"), {}),
        (InternalError("defect"), {}),
    ],
)
def test_headers_say_whether_to_try_again(error: ChorusError | StoreError, headers: dict[str, str]) -> None:
    answer = openai_error(error, "req_1")
    said = ("x-should-retry", "retry-after", "retry-after-ms")
    assert {name: answer.headers[name] for name in said if name in answer.headers} == headers


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
def test_a_route_answers_at_both_prefixes(api: ApiServer, prefix: str) -> None:
    api.push("both", labels=["good", "bad"])
    body: dict[str, Any] = {
        "model": "both",
        "input": "x",
        "questions": [{"type": "predicate", "instructions": "?"}],
    }
    headers = {"OpenAI-Organization": "org-1", "OpenAI-Project": "proj-1"}
    answer = api.http.post(f"{prefix}/decisions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert api.http.get(f"{prefix}/models", headers=headers).status_code == 200
    body["model"] = "nobody"
    assert error_of(api.post(f"{prefix}/decisions", body))["code"] == "unknown_task"
    assert api.http.put(f"{prefix}/decisions").headers["allow"] == "POST"


def test_where_there_is_no_route_the_shape_is_openais(api: ApiServer) -> None:
    for path, param in (
        ("/openai/v1/images/generations", {"message", "type", "param", "code"}),
        ("/v1/images/generations", {"message", "code", "field", "request_id"}),
    ):
        answer = api.post(path, {})
        assert (answer.status_code, set(answer.json()["error"])) == (404, param)
    assert api.http.put("/openai/v1/completions").json()["error"]["type"] == "invalid_request_error"


def test_a_native_route_has_one_prefix(api: ApiServer) -> None:
    assert api.http.get("/v1/model").status_code == 200
    assert api.http.get("/openai/v1/model").status_code == 404
