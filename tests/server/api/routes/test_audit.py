"""The audit log over REST: what requests did, by whom, for those who may read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from chorus_server.api.schemas.audit import AuditPage
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from prompts_store.audit.records import OF_THE_STORE
from prompts_store.store import PromptStore
from prompts_store.tenants.records import Scope
from tests.server.api.api_harness import ApiServer, artifact, error_of

OPERATOR = "an-operator-of-tests-0123456789"
RAW = {"content-type": "application/octet-stream"}
ADMIN: list[Scope] = ["admin", "prompts:read", "prompts:write", "tune"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    ring = KeyRing({OPERATOR: Principal("default", "operator")}, Principal("default", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("audit"), vocabulary, keys=ring) as server:
        yield server


def key_of(store: PromptStore, tenant: str, *scopes: Scope) -> tuple[str, str]:
    """The id of a new key, and the key."""
    store.ensure_tenant(tenant)
    made, secret = store.create_key(tenant, f"of-{tenant}", scopes=scopes)
    return made.id, secret


def send(api: ApiServer, method: str, path: str, key: str, **content: Any) -> httpx2.Response:
    headers = content.pop("headers", {}) | {"authorization": f"Bearer {key}"}
    return api.http.request(method, path, headers=headers, **content)


def rows(api: ApiServer, key: str, **query: Any) -> list[dict[str, Any]]:
    answer = send(api, "GET", "/v1/audit", key, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    AuditPage.model_validate(found)
    return list(found["rows"])


def test_every_route_that_changes_something_tells_who_and_from_where(api: ApiServer) -> None:
    key_id, key = key_of(api.store, "acme", *ADMIN)
    before = len(rows(api, key))
    told: list[tuple[str, str]] = []

    def does(action: str, method: str, path: str, **content: Any) -> Any:
        request_id = f"request-{len(told)}"
        told.append((action, request_id))
        headers = content.pop("headers", {}) | {"x-request-id": request_id}
        answer = send(api, method, path, key, headers=headers, **content)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    does("task.publish", "POST", "/v1/tasks/a/versions", content=artifact(), headers=RAW)
    does("task.publish", "POST", "/v1/tasks/a/versions?template=x {text}", content=artifact(), headers=RAW)
    does("alias.move", "PUT", "/v1/tasks/a/aliases/live", json={"version": 2})
    does("alias.rollback", "POST", "/v1/tasks/a/rollback")
    does("alias.move", "PUT", "/v1/tasks/a/aliases/canary", json={"version": 2})
    does("alias.remove", "DELETE", "/v1/tasks/a/aliases/canary")
    does("version.delete", "DELETE", "/v1/tasks/a/versions/2")
    does("ensemble.publish", "POST", "/v1/ensembles/team/versions", json={"tasks": ["a"]})
    does("ensemble.delete", "DELETE", "/v1/ensembles/team")
    does("task.delete", "DELETE", "/v1/tasks/a")
    file = does("file.create", "POST", "/v1/files?name=a.tsv", content=b"text\tlabel\nx\tno\n", headers=RAW)
    recipe = {"prompt_length": 3, "steps": 10, "batch_size": 4}
    document = {
        "task": "b",
        "data": {"train": {"file": file["id"]}},
        "labels": ["no", "yes"],
        "recipe": recipe,
    }
    job = does("job.create", "POST", "/v1/tuning/jobs", json=document)
    does("job.cancel", "POST", f"/v1/tuning/jobs/{job['id']}/cancel")
    does("job.resume", "POST", f"/v1/tuning/jobs/{job['id']}/resume")
    does("job.cancel", "POST", f"/v1/tuning/jobs/{job['id']}/cancel")
    does("file.delete", "DELETE", f"/v1/files/{file['id']}")
    made = does("key.create", "POST", "/v1/keys", json={"name": "other", "scopes": ["tune"]})
    does("key.revoke", "DELETE", f"/v1/keys/{made['id']}")

    found = rows(api, key, after=before, limit=500)
    assert {row["actor"] for row in found} == {key_id}
    assert {row["address"] for row in found} == {"127.0.0.1"}
    assert set(told) <= {(row["action"], row["request_id"]) for row in found}
    assert {row["request_id"] for row in found} == {request_id for _, request_id in told}
    assert api.store.verify_audit("acme").clean
    assert made["key"] not in json.dumps(found) and key not in json.dumps(found)


def test_an_operator_is_named_by_its_key_in_the_log_of_the_tenant(api: ApiServer) -> None:
    for method, path, body in (
        ("POST", "/v1/tenants", {"name": "run"}),
        ("PATCH", "/v1/tenants/run", {"weight": 2}),
        ("POST", "/v1/tenants/run/suspend", None),
        ("POST", "/v1/tenants/run/resume", None),
        ("DELETE", "/v1/tenants/run", None),
    ):
        assert send(api, method, path, OPERATOR, json=body).status_code < 300
    found = rows(api, OPERATOR, tenant="run")
    assert [row["action"] for row in found] == [
        f"tenant.{verb}" for verb in ("create", "update", "suspend", "resume", "delete")
    ]
    assert {row["actor"] for row in found} == {"operator"}
    assert found[1]["before"] == {"weight": 1} and found[1]["after"] == {"weight": 2}


def test_a_tenant_reads_its_own_log_and_an_operator_any(api: ApiServer) -> None:
    _, own = key_of(api.store, "birch", "admin")
    _, others = key_of(api.store, "cedar", "admin")
    _, low = key_of(api.store, "cedar", "prompts:write")
    api.store.adopt()
    assert (
        {row["tenant"] for row in rows(api, own)}
        == {"birch"}
        == {row["tenant"] for row in rows(api, own, tenant="birch")}
    )
    assert {row["tenant"] for row in rows(api, OPERATOR, tenant="birch")} == {"birch"}
    assert [row["action"] for row in rows(api, OPERATOR, tenant=OF_THE_STORE)] == ["store.adopt"]
    for tenant in ("birch", "nobody", OF_THE_STORE):
        answer = send(api, "GET", "/v1/audit", others, params={"tenant": tenant})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "unknown_tenant")
    assert send(api, "GET", "/v1/audit", low).status_code == 403
    _, limited = api.store.create_key("cedar", "limited", scopes=["admin"], tasks=["a-*"])
    assert send(api, "GET", "/v1/audit", limited).status_code == 403, "the log tells of other tasks too"


def test_pages_and_filters(api: ApiServer) -> None:
    key_id, key = key_of(api.store, "dogwood", *ADMIN)
    for version in range(3):
        path = f"/v1/tasks/a/versions?template={version} {{text}}"
        assert send(api, "POST", path, key, content=artifact(), headers=RAW).status_code == 201
    whole = rows(api, key)
    paged, after = [], 0
    while after is not None:
        answer = send(api, "GET", "/v1/audit", key, params={"after": after, "limit": 2}).json()
        paged += answer["rows"]
        after = answer["next_after"]
    assert paged == whole and [row["sequence"] for row in whole] == list(range(1, len(whole) + 1))
    assert [row["subject"] for row in rows(api, key, action="task.publish")] == ["a@1", "a@2", "a@3"]
    assert [row["action"] for row in rows(api, key, subject="a@live")] == ["alias.move"]
    assert len(rows(api, key, actor=key_id)) == 4 and rows(api, key, actor="nobody") == []
    moment = whole[4]["at"]  # the two before it share one
    assert rows(api, key, since=moment) == whole[4:] and rows(api, key, until=moment) == whole[:4]
    for wrong in ({"after": -1}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}, {"format": "xml"}):
        assert send(api, "GET", "/v1/audit", key, params=wrong).status_code == 400


def test_an_export_has_every_row_and_is_verified_without_the_server(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus_server.api.routes.audit.MAX_LIMIT", 3)
    _, key = key_of(api.store, "elm", "admin")
    for weight in range(2, 9):
        api.store.update_tenant("elm", weight=weight + 0.5)
    answer = send(api, "GET", "/v1/audit", key, params={"format": "jsonl", "limit": 2})
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    exported = [json.loads(line) for line in answer.text.splitlines()]
    assert exported == rows(api, key, limit=500)
    previous = "0" * 64
    for row in exported:
        claimed = row.pop("hash")
        text = json.dumps(row, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == claimed and row["previous"] == previous
        previous = claimed
    head = api.store.verify_audit("elm").head
    assert head is not None and head.hash == previous
    some = send(api, "GET", "/v1/audit", key, params={"format": "jsonl", "after": 5}).text
    assert [json.loads(line)["sequence"] for line in some.splitlines()] == [6, 7, 8, 9]
