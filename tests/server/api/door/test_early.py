"""What a full queue would refuse is refused before its body is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import (
    ApiServer,
    Gate,
    error_of,
    eventually,
    gated_server,
    send,
    stop_time,
)

MOST = 4


@pytest.fixture
def api(tmp_path: Path, vocabulary: Vocabulary, gate: Gate) -> Iterator[ApiServer]:
    """A server whose engine stands still while the gate is closed, and whose queue takes few requests."""
    config = {"max_queued_requests": MOST, "max_queued_per_tenant": None}
    with gated_server(tmp_path, vocabulary, gate, config=config) as server:
        stop_time(server)  # who asks stays known, however busy the machine is
        yield server


def test_a_full_queue_refuses_what_it_has_not_read(api: ApiServer, gate: Gate) -> None:
    no_json = {"content": b"{", "headers": {"content-type": "application/json"}}
    control = api.http.post("/v1/generate", **no_json)
    assert control.status_code == 400 and error_of(control)["code"] == "invalid_json"
    gate.close()
    waiting = [send(api, "/v1/generate", {"task": None, "inputs": ["good"] * MOST})]
    assert gate.waiting.wait(300)
    waiting.append(send(api, "/v1/generate", {"task": None, "inputs": ["good"] * MOST}))
    eventually(lambda: api.engine.crowded)
    for path in ("/v1/generate", "/v1/classify", "/v1/ensemble"):
        refused = api.http.post(path, **no_json)
        assert refused.status_code == 503 and error_of(refused)["code"] == "overloaded", path
        assert int(refused.headers["retry-after"]) >= 1
    upload = api.http.post("/v1/tasks/t/versions", **no_json)
    assert upload.status_code == 400, "other routes have no queue to wait in"
    gate.open.set()
    for client in waiting:
        client.close()
