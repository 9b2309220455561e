"""Limits of tenants and keys over REST: how they are set, and what a tenant that is full is answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from chorus_server.api.schemas.common import ErrorAnswer
from chorus_server.api.schemas.tenants import KeyAnswer, MeAnswer, TenantAnswer
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import TENANT_SCOPES, Principal
from prompts_store.tenants.limits import TenantLimits
from tests.server.api.api_harness import ApiServer, artifact, counted, error_of

OPERATOR, MEMBER = "an-operator-of-tests-0123456789", "a-member-of-tests-0123456789"
RAW = {"content-type": "application/octet-stream"}
LIMITS: dict[str, Any] = {
    "per_minute": {"requests": 600, "tokens": 9},
    "in_flight": {"requests": 8},
    "per_month": {"tokens": {"soft": 800, "hard": 1000}, "training_steps": {"hard": 0}},
    "stored": {"prompts": 100, "file_bytes": 2**40},
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    keys = {
        OPERATOR: Principal("default", "operator"),
        MEMBER: Principal("acme", "member", frozenset(TENANT_SCOPES)),
    }
    ring = KeyRing(keys, Principal("default", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("limits"), vocabulary, keys=ring) as server:
        yield server


def send(api: ApiServer, method: str, path: str, key: str = OPERATOR, **content: Any) -> httpx2.Response:
    headers = content.pop("headers", {}) | {"authorization": f"Bearer {key}"}
    return api.http.request(method, path, headers=headers, **content)


def limit(api: ApiServer, limits: dict[str, Any]) -> None:
    answer = send(api, "PATCH", "/v1/tenants/acme", json={"limits": limits})
    assert answer.status_code == 200, answer.text


def reached(answer: httpx2.Response) -> dict[str, Any]:
    """The limit in a 429, after a look at the rest of it."""
    assert answer.status_code == 429, answer.text
    found = ErrorAnswer.model_validate(answer.json()).error
    assert found.quota is not None and int(answer.headers["retry-after"]) >= 60
    told: dict[str, Any] = answer.json()["error"]["quota"]
    return told


def test_a_tenants_limits_are_set_shown_replaced_and_removed(api: ApiServer) -> None:
    body = {"name": "birch", "limits": LIMITS, "retention": {"usage_days": 90}}
    made = send(api, "POST", "/v1/tenants", json=body)
    assert made.status_code == 201, made.text
    TenantAnswer.model_validate(made.json())
    assert made.json()["limits"] == LIMITS, "nothing that was not sent"
    assert made.json()["retention"] == {"usage_days": 90, "audit_days": None}
    last = api.store.last_change()
    renamed = send(api, "PATCH", "/v1/tenants/birch", json={"display_name": "B"}).json()
    assert (renamed["limits"], renamed["retention"]) == (LIMITS, made.json()["retention"])
    changes = {"limits": {"stored": {"prompts": 1}}, "retention": {"audit_days": 30}}
    changed = send(api, "PATCH", "/v1/tenants/birch", json=changes).json()
    assert changed["limits"] == {"stored": {"prompts": 1}}, "in place of all others"
    assert changed["retention"] == {"usage_days": None, "audit_days": 30}
    removed = send(api, "PATCH", "/v1/tenants/birch", json={"limits": {}, "retention": {}}).json()
    assert removed["limits"] == {} and set(removed["retention"].values()) == {None}
    assert send(api, "GET", "/v1/tenants/birch").json() == removed
    kinds = [change.kind for change in api.store.changes_after(last).items]
    assert kinds == ["tenant_updated"] * 3, "other processes are told"
    told = [row for row in api.store.audit_rows("birch") if row.action == "tenant.update"]
    assert told[1].before is not None and told[1].before["limits"] == LIMITS
    assert told[1].after is not None and told[1].after["limits"] == {"stored": {"prompts": 1}}


def test_a_keys_limits_are_set_shown_replaced_and_removed(api: ApiServer) -> None:
    limits = {"per_minute": {"requests": 60}, "per_month": {"requests": {"soft": 5}}}
    body = {"name": "limited", "scopes": ["infer"], "limits": limits}
    made = send(api, "POST", "/v1/keys", MEMBER, json=body).json()
    assert made["limits"] == limits
    path, secret = f"/v1/keys/{made['id']}", made["key"]
    me = send(api, "GET", "/v1/me", secret).json()
    MeAnswer.model_validate(me)
    assert me["limits"]["key"] == limits
    changed = send(api, "PATCH", path, MEMBER, json={"limits": {"queued": {"tokens": 7}}})
    KeyAnswer.model_validate(changed.json())
    assert changed.json()["limits"] == {"queued": {"tokens": 7}}
    assert send(api, "PATCH", f"{path}?tenant=acme", json={"limits": {}}).json()["limits"] == {}
    assert error_of(send(api, "PATCH", path, secret, json={"limits": {}}))["code"] == "forbidden"
    send(api, "DELETE", path, MEMBER)
    assert error_of(send(api, "PATCH", path, MEMBER, json={"limits": {}}))["code"] == "key_over"


WRONG: dict[str, tuple[Any, str, str]] = {
    "soft above hard": (
        {"per_month": {"tokens": {"soft": 2, "hard": 1}}}, "invalid_input", "per_month.tokens.soft",
    ),
    "no number": ({"per_minute": {"requests": "6"}}, "invalid_input", "per_minute.requests"),
    "a fraction": ({"stored": {"prompts": 1.5}}, "invalid_input", "stored.prompts"),
    "below 0": ({"stored": {"file_bytes": -1}}, "invalid_input", "stored.file_bytes"),
    "too much": ({"stored": {"file_bytes": 2**54}}, "invalid_input", "stored.file_bytes"),
    "a wrong window": ({"per_day": {"tokens": 1}}, "unknown_field", "per_day"),
    "a wrong amount": ({"in_flight": {"prompts": 1}}, "unknown_field", "in_flight.prompts"),
    "no object": ([], "invalid_input", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_an_error_names_the_dotted_field(api: ApiServer, what: str) -> None:
    limits, code, path = WRONG[what]
    field = f"limits.{path}".rstrip(".")
    for method, url, body in (
        ("POST", "/v1/tenants", {"name": "wrong"}),
        ("PATCH", "/v1/tenants/acme", {}),
        ("POST", "/v1/keys", {"name": "wrong", "scopes": ["infer"]}),
        ("PATCH", "/v1/keys/key-000000000000000000000000", {}),
    ):
        if "/keys" in url and path.startswith("stored"):
            code, field = "unknown_field", "limits.stored"  # a key keeps nothing
        error = error_of(answer := send(api, method, url, json={**body, "limits": limits}))
        assert (answer.status_code, error["code"], error["field"]) == (400, code, field)


@pytest.mark.parametrize(
    ("retention", "field"), [({"usage_days": 0}, "retention.usage_days"), ({"days": 1}, "retention.days")]
)
def test_a_retention_that_cannot_be_is_refused(api: ApiServer, retention: dict[str, int], field: str) -> None:
    answer = send(api, "PATCH", "/v1/tenants/acme", json={"retention": retention})
    assert (answer.status_code, error_of(answer)["field"]) == (400, field)


def upload(api: ApiServer, task: str, seed: int) -> httpx2.Response:
    path = f"/v1/tasks/{task}/versions"
    return send(api, "POST", path, MEMBER, content=artifact(3, seed), headers=RAW)


def kept(api: ApiServer) -> dict[str, int]:
    """What is left of the tenant's limits, by their names."""
    limits = send(api, "GET", "/v1/me", MEMBER).json()["limits"]["left"]
    return {each["limit"]: each["left"] for each in limits}


def push(api: ApiServer, content: bytes) -> httpx2.Response:
    return send(api, "POST", "/v1/files?name=rows.tsv", MEMBER, content=content, headers=RAW)


def test_a_full_tenant_is_told_what_is_full_and_what_is_left(api: ApiServer) -> None:
    assert upload(api, "full", 1).status_code == 201
    limit(api, {"stored": {"prompts": 2, "file_bytes": 10}})
    assert kept(api) == {"stored.prompts": 1, "stored.file_bytes": 10}
    assert upload(api, "full", 2).status_code == 201
    refused = counted(api, "chorus_uploads_refused_total", reason="limit_exceeded")
    for task in ("full", "another"):
        assert reached(upload(api, task, 3)) == {
            "of": "tenant", "limit": "stored.prompts", "window": None, "most": 2, "used": 2,
        }  # fmt: skip
    assert counted(api, "chorus_uploads_refused_total", reason="limit_exceeded") == refused + 2
    assert upload(api, "full", 2).status_code == 200, "the same again is no new version"
    assert push(api, b"123456").status_code == 201
    assert reached(push(api, b"12345"))["used"] == 6
    assert kept(api) == {"stored.prompts": 0, "stored.file_bytes": 4}
    assert send(api, "DELETE", "/v1/tasks/full/versions/2", MEMBER).status_code == 204
    assert upload(api, "full", 3).status_code == 201
    limit(api, {})


def first_line(api: ApiServer, path: str, size: int) -> str:
    """The first line of an answer to a request whose body waits for `100 Continue`."""
    with socket.create_connection(("127.0.0.1", httpx2.URL(api.url).port or 0), timeout=300) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MEMBER}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        return connection.makefile("rb").readline().decode().strip()


def test_an_upload_that_does_not_fit_is_refused_before_its_body_is_read(api: ApiServer) -> None:
    """The control is the same request with room for it: then the body is asked for."""
    limit(api, {"stored": {"file_bytes": 2**20 + api.store.stored_use("acme").file_bytes}})
    assert first_line(api, "/v1/files?name=a", 2**20 + 1).startswith("HTTP/1.1 429")
    assert first_line(api, "/v1/files?name=a", 2**20).startswith("HTTP/1.1 100")
    limit(api, {"stored": {"prompts": 0}})
    assert first_line(api, "/v1/tasks/none/versions", 10_000).startswith("HTTP/1.1 429")
    limit(api, {})
    assert first_line(api, "/v1/tasks/none/versions", 10_000).startswith("HTTP/1.1 100")


def job(file: str, steps: int, **changes: Any) -> dict[str, Any]:
    recipe = {"prompt_length": 3, "steps": steps, "batch_size": 4}
    return {
        "task": "t",
        "data": {"train": {"file": file}},
        "labels": ["no", "yes"],
        "recipe": recipe,
    } | changes


def test_a_months_training_steps_are_reserved_given_back_and_left(api: ApiServer) -> None:
    limit(api, {"per_month": {"training_steps": {"soft": 50, "hard": 100}}, "stored": {"unfinished_jobs": 2}})
    file = push(api, b"text\tlabel\ngood\tyes\nbad\tno\n").json()["id"]

    def start(steps: int, **changes: Any) -> httpx2.Response:
        return send(api, "POST", "/v1/tuning/jobs", MEMBER, json=job(file, steps, **changes))

    def left() -> int:
        return kept(api)["per_month.training_steps"]

    first = start(10, ensemble=3)
    assert first.status_code == 201 and "chorus-budget-warning" not in first.headers
    assert left() == 70, "each step trains every prompt"
    assert reached(start(71)) == {
        "of": "tenant", "limit": "per_month.training_steps", "window": "month", "most": 100, "used": 30,
    }  # fmt: skip
    sweep = {"space": {"learning_rate": [0.1, 0.3]}}
    assert reached(start(18, seeds=2, sweep=sweep))["used"] == 30, "72 steps of four prompts"
    second = start(70)
    assert second.headers["chorus-budget-warning"] == '"tenant-training-steps-month";used=100;soft=50'
    assert left() == 0
    assert reached(start(1))["limit"] == "stored.unfinished_jobs"
    path = f"/v1/tuning/jobs/{second.json()['id']}"
    assert send(api, "POST", f"{path}/cancel", MEMBER).status_code == 200
    assert left() == 70
    resumed = send(api, "POST", f"{path}/resume", MEMBER)
    assert "used=100" in resumed.headers["chorus-budget-warning"] and left() == 0
    assert send(api, "GET", "/v1/me", MEMBER).json()["limits"]["max_unfinished_jobs"] == 2
    limit(api, {})


def test_the_examples_of_the_document_are_limits() -> None:
    assert TenantLimits.model_validate(LIMITS).document() == LIMITS
