"""Over HTTP with keys: tenants get their shares by weight, and a tenant's classes their order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from tests.server.api.api_harness import ApiServer, Gate, error_of, eventually, gated_server

OPERATOR = "an-operator-of-tests-0123456789"
EACH = 48

BODIES: dict[str, dict[str, Any]] = {
    "/v1/generate": {"task": None, "input": "good film"},
    "/v1/classify": {"task": None, "input": "good film", "labels": ["good", "bad"]},
    "/v1/ensemble": {"tasks": ["t"], "input": "good film", "labels": ["good", "bad"]},
}


@pytest.fixture
def served(tmp_path: Path, vocabulary: Vocabulary, gate: Gate) -> Iterator[ApiServer]:
    ring = KeyRing({OPERATOR: Principal("default", "operator")}, Principal("default", "anonymous"))
    with gated_server(tmp_path, vocabulary, gate, keys=ring) as server:
        server.http.headers["authorization"] = f"Bearer {OPERATOR}"
        yield server


def key_of(api: ApiServer, tenant: str, weight: float = 1.0) -> str:
    """A new tenant's key."""
    assert api.post("/v1/tenants", {"name": tenant, "weight": weight}).status_code == 201
    made = api.post(f"/v1/keys?tenant={tenant}", {"name": "k", "scopes": ["infer"]})
    return str(made.json()["key"])


def ask_all(api: ApiServer, gate: Gate, calls: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Send these generate calls `(key, fields)` of 48 inputs each, one after the other, before any runs.

    Returns the HTTP request id of each answered item, in the order of the answers.
    """
    gate.close()
    answers: list[int] = []

    def call(key: str, body: dict[str, Any]) -> None:
        headers = {"authorization": f"Bearer {key}", "x-request-id": f"call-{body.pop('name')}"}
        full = {"task": None, "inputs": ["good film"] * EACH, "max_new_tokens": 2, **body}
        answers.append(api.http.post("/v1/generate", json=full, headers=headers).status_code)

    threads = []
    for number, (key, body) in enumerate(calls, start=1):
        threads.append(threading.Thread(target=call, args=(key, dict(body))))
        threads[-1].start()
        eventually(lambda number=number: api.engine.stats().permits == number * EACH)  # type: ignore[misc]
    gate.open.set()
    for thread in threads:
        thread.join(300)
    assert answers == [200] * len(calls)
    ended = [line["id"] for line in api.engine.journal.entries() if "outcome" in line]
    return [each.split(".")[0] for each in ended]


def answered_of_first(order: list[str], first: str, second: str) -> int:
    """How many of `first` were answered when the last of `second` was."""
    last = max(place for place, name in enumerate(order) if name == second)
    return Counter(order[:last])[first]


@pytest.mark.parametrize(("weight", "least", "most"), [(3.0, 10, 26), (1.0, 38, 48)])
def test_tenants_get_the_engine_by_their_weights(
    served: ApiServer, gate: Gate, weight: float, least: int, most: int
) -> None:
    light, heavy = key_of(served, "light"), key_of(served, "heavy", weight)
    order = ask_all(served, gate, [(light, {"name": "light"}), (heavy, {"name": "heavy"})])
    assert least <= answered_of_first(order, "call-light", "call-heavy") <= most


@pytest.mark.parametrize(("priority", "least", "most"), [("batch", 4, 20), ("interactive", 40, 48)])
def test_batch_requests_let_interactive_ones_go_first(
    served: ApiServer, gate: Gate, priority: str, least: int, most: int
) -> None:
    """The control sends both as interactive: first come, first served."""
    key = key_of(served, "acme")
    calls = [(key, {"name": "before", "priority": priority}), (key, {"name": "after"})]
    order = ask_all(served, gate, calls)
    assert least <= answered_of_first(order, "call-before", "call-after") <= most


@pytest.mark.parametrize("path", BODIES)
def test_every_inference_route_takes_a_class(
    served: ApiServer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.push("t")["version"] == 1
    seen: list[str] = []
    submit_all = served.engine.submit_all

    def watched(requests: Any) -> Any:
        seen.extend(request.origin.priority for request in requests)
        return submit_all(requests)

    monkeypatch.setattr(served.engine, "submit_all", watched)
    for sent in ({}, {"priority": "batch"}):
        assert served.post(path, BODIES[path] | sent).status_code == 200
    assert seen == ["interactive", "batch"]
    refused = served.post(path, BODIES[path] | {"priority": "urgent"})
    assert (refused.status_code, error_of(refused)["field"]) == (400, "priority")
