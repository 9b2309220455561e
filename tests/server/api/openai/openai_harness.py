"""What these tests ask, and how they read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.server.api.api_harness import ApiServer, error_of

TEXT = "a good film"


def asked(api: ApiServer, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, with a 200."""
    answer = api.post(f"/openai/v1/{path}", dict(body))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(api: ApiServer, path: str, body: Mapping[str, Any], status: int = 400) -> dict[str, Any]:
    """The error, which has `param`."""
    answer = api.post(f"/openai/v1/{path}", dict(body))
    assert answer.status_code == status, answer.text
    return error_of(answer)


def streamed(api: ApiServer, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chunks, of a stream that ends as it should."""
    answer = api.post(f"/v1/{path}", {**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, end, rest = answer.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: ") for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def native(api: ApiServer, **body: Any) -> dict[str, Any]:
    """The native answer to one input."""
    (result,) = api.post("/v1/generate", body).json()["results"]
    found: dict[str, Any] = result
    return found
