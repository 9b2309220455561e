"""Two servers on one store: what one changes, the other goes by after its next reading of the change feed.

No time passes for what the other remembers, so that it asks for nothing again by itself: the control of each
change is that it is not seen before the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.tenants.limits import KeyLimits, TenantLimits
from tests.server.api.api_harness import ApiServer, error_of, stop_time

OPERATOR = "an-operator-of-tests-0123456789"


@dataclass
class Pair:
    """One server that changes things, and another that must see it."""

    one: ApiServer
    other: ApiServer

    def change(self, method: str, path: str, body: Any = None, key: str = OPERATOR) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {key}"}
        answer = self.one.http.request(method, path, json=body, headers=headers)
        assert answer.status_code in (200, 201, 204), answer.text
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def read(self) -> None:
        """The other reads the feed once."""
        assert self.other.loop is not None
        reading = asyncio.run_coroutine_threadsafe(self.other.services.changes.read(), self.other.loop)
        assert reading.result(300)

    def ask(self, key: str, task: str | None = None) -> tuple[int, Any]:
        """What the other answers: the version that was used, or the error."""
        body = {"task": task, "input": "good film", "max_new_tokens": 2}
        answer = self.other.http.post("/v1/generate", json=body, headers={"authorization": f"Bearer {key}"})
        if answer.status_code == 200:
            return 200, answer.json()["results"][0]["version"]
        return answer.status_code, error_of(answer)["code"]

    def vote(self, key: str) -> tuple[int, Any]:
        body = {"ensemble": "e", "input": "good film", "labels": ["good", "bad"]}
        answer = self.other.http.post("/v1/ensemble", json=body, headers={"authorization": f"Bearer {key}"})
        return answer.status_code, len(answer.json()["results"][0]["members"])


@pytest.fixture
def pair(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[Pair]:
    rings = [
        KeyRing({OPERATOR: Principal("default", "operator")}, Principal("default", "anonymous"))
        for _ in range(2)
    ]
    with (
        ApiServer(tmp_path, vocabulary, keys=rings[0]) as one,
        ApiServer(tmp_path, vocabulary, keys=rings[1], follows=False) as other,
    ):
        stop_time(other)
        pair = Pair(one, other)
        pair.change("POST", "/v1/tenants", {"name": "acme"})
        pair.read()
        yield pair


def make_key(pair: Pair, **body: Any) -> tuple[str, str]:
    """A key's id and the key."""
    sent = {"name": "k", "scopes": ["infer", "prompts:read", "prompts:write"]} | body
    made = pair.change("POST", "/v1/keys?tenant=acme", sent)
    return made["id"], made["key"]


def test_a_revoked_key_is_refused(pair: Pair) -> None:
    key_id, key = make_key(pair)
    assert pair.ask(key) == (200, None)
    pair.change("DELETE", f"/v1/keys/{key_id}?tenant=acme")
    assert pair.ask(key) == (200, None)  # control
    pair.read()
    assert pair.ask(key) == (401, "unauthenticated")


def test_a_suspended_tenant_is_refused_until_it_is_resumed(pair: Pair) -> None:
    _, key = make_key(pair)
    assert pair.ask(key) == (200, None)
    for step, before, after in (
        ("suspend", (200, None), (403, "tenant_suspended")),
        ("resume", (403, "tenant_suspended"), (200, None)),
    ):
        pair.change("POST", f"/v1/tenants/acme/{step}")
        assert pair.ask(key) == before  # control
        pair.read()
        assert pair.ask(key) == after


def test_a_grant_and_its_end_are_seen(pair: Pair) -> None:
    _, key = make_key(pair)
    pair.one.http.headers["authorization"] = f"Bearer {OPERATOR}"
    pair.one.push("shared")
    pair.change("PUT", "/v1/tasks/shared/grants/acme", {"rights": ["infer"]})
    assert pair.ask(key, "default/shared") == (200, 1)
    pair.change("DELETE", "/v1/tasks/shared/grants/acme")
    assert pair.ask(key, "default/shared") == (200, 1)  # control
    pair.read()
    assert pair.ask(key, "default/shared") == (404, "unknown_task")
    pair.change("PUT", "/v1/tasks/shared/grants/*", {"rights": ["infer"]})
    assert pair.ask(key, "default/shared") == (200, 1)  # what was refused is not remembered
    pair.change("PUT", "/v1/tasks/shared/grants/*", {"rights": ["read"]})
    pair.read()
    assert pair.ask(key, "default/shared") == (404, "unknown_task")


def test_what_a_suspended_tenant_shares_is_answered_to_nobody(pair: Pair) -> None:
    _, owner = make_key(pair, scopes=["admin", "infer", "prompts:write"])
    pair.one.http.headers["authorization"] = f"Bearer {owner}"
    pair.one.push("shared")
    pair.change("PUT", "/v1/tasks/shared/grants/*", {"rights": ["infer"]}, owner)
    assert pair.ask(OPERATOR, "acme/shared") == (200, 1)
    pair.change("POST", "/v1/tenants/acme/suspend")
    assert pair.ask(OPERATOR, "acme/shared") == (200, 1)  # control
    pair.read()
    assert pair.ask(OPERATOR, "acme/shared") == (404, "unknown_task")


def test_a_deleted_tenants_keys_are_as_unknown(pair: Pair) -> None:
    _, key = make_key(pair)
    assert pair.ask(key) == (200, None)
    deleted = pair.change("DELETE", "/v1/tenants/acme")
    assert deleted["status"] == "deleted" and deleted["purge_after"] > deleted["deleted_at"]
    assert pair.ask(key) == (200, None)  # control
    pair.read()
    assert pair.ask(key) == (401, "unauthenticated")


def test_an_expiry_needs_no_reading(pair: Pair) -> None:
    _, key = make_key(pair, expires_at="2100-01-01T00:00:00Z")
    assert pair.ask(key) == (200, None)
    callers = pair.other.services.callers
    now = callers._now
    callers._now = lambda: now() + timedelta(days=40_000)
    assert pair.ask(key) == (401, "unauthenticated")


def test_a_changed_limit_counts(pair: Pair) -> None:
    key_id, key = make_key(pair)
    store, free = pair.one.store, TenantLimits()
    none = {"per_minute": {"requests": 0}}
    assert pair.ask(key) == (200, None)
    for change in (
        lambda limits: store.update_tenant("acme", limits=limits),
        lambda limits: store.update_key("acme", key_id, limits=KeyLimits.model_validate(limits.document())),
    ):
        change(TenantLimits.model_validate(none))
        assert pair.ask(key) == (200, None)  # control
        pair.read()
        assert pair.ask(key) == (429, "limit_exceeded")
        change(free)
        pair.read()
        assert pair.ask(key) == (200, None)


def test_a_changed_weight_reaches_the_fair_queue(pair: Pair) -> None:
    _, key = make_key(pair)
    weights: list[float] = []
    submit_all = pair.other.engine.submit_all

    def watched(requests: Any) -> Any:
        weights.extend(request.origin.weight for request in requests)
        return submit_all(requests)

    pair.other.engine.submit_all = watched  # type: ignore[method-assign]
    pair.ask(key)
    pair.change("PATCH", "/v1/tenants/acme", {"weight": 3.0})
    pair.ask(key)
    pair.read()
    pair.ask(key)
    assert weights == [1.0, 1.0, 3.0]


CHANGED: dict[str, tuple[tuple[str, str, Any], tuple[int, Any]]] = {
    "moved": (("PUT", "/v1/tasks/t/aliases/live", {"version": 2}), (200, 2)),
    "deleted": (("DELETE", "/v1/tasks/t", None), (404, "unknown_task")),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_reference_means_what_it_means_now(pair: Pair, change: str) -> None:
    _, key = make_key(pair)
    pair.one.http.headers["authorization"] = f"Bearer {key}"
    for seed in (1, 2):
        pair.one.push("t", seed=seed)
    made, after = CHANGED[change]
    assert pair.ask(key, "t") == (200, 1)
    pair.change(*made, key)
    assert pair.ask(key, "t") == (200, 1)  # control
    pair.read()
    assert pair.ask(key, "t") == after


def test_an_ensemble_means_what_it_means_now(pair: Pair) -> None:
    _, key = make_key(pair)
    pair.one.http.headers["authorization"] = f"Bearer {key}"
    for task in ("a", "b"):
        pair.one.push(task, labels=["good", "bad"])
    for members in (["a"], ["a", "b"]):
        before = None if members == ["a"] else pair.vote(key)
        pair.change("POST", "/v1/ensembles/e/versions", {"tasks": members}, key)
        assert before is None or pair.vote(key) == before == (200, 1)
        pair.read()
    made = pair.one.http.get("/v1/ensembles/e").json()
    assert pair.vote(key) == (200, 2 if made["aliases"].get("live") == 2 else 1)


def test_an_open_server_closes_when_another_makes_the_first_key(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    with (
        ApiServer(tmp_path, vocabulary) as one,
        ApiServer(tmp_path, vocabulary, follows=False) as other,
    ):
        stop_time(other)
        pair = Pair(one, other)
        assert other.http.get("/v1/tasks").status_code == 200
        made = one.http.post("/v1/keys", json={"name": "k", "scopes": ["prompts:read"]})
        assert made.status_code == 201 and one.http.get("/v1/tasks").status_code == 401
        assert other.http.get("/v1/tasks").status_code == 200  # control
        pair.read()
        assert other.http.get("/v1/tasks").status_code == 401
        callers = other.services.callers
        assert callers.known(f"Bearer {made.json()['key']}", Scope.READ) is None  # it has to be asked for
