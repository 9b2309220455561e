"""Tenants and keys over REST: what each answers, and that nobody gives or names what he may not."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chorus_server.api.schemas.common import MAX_ROWS
from chorus_server.api.schemas.tenants import (
    KeyAnswer,
    KeyPage,
    MeAnswer,
    NewKeyAnswer,
    TenantAnswer,
    TenantPage,
)
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import TENANT_SCOPES, Principal
from prompts_store.tenants.key_format import public_part
from tests.places import FIXTURES
from tests.server.api.api_harness import ApiServer, artifact, error_of

OPERATOR = "an-operator-of-tests-0123456789"
RAW = {"content-type": "application/octet-stream"}
INFER = ["infer", "prompts:read"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    ring = KeyRing({OPERATOR: Principal("default", "operator")}, Principal("default", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("keys"), vocabulary, keys=ring) as server:
        server.store.create_tenant("acme", display_name="Acme", weight=2.0)
        yield server


def send(api: ApiServer, method: str, path: str, key: str = OPERATOR, **content: Any) -> httpx2.Response:
    headers = content.pop("headers", {}) | {"authorization": f"Bearer {key}"}
    return api.http.request(method, path, headers=headers, **content)


def make(api: ApiServer, name: str, key: str = OPERATOR, tenant: str = "acme", **body: Any) -> dict[str, Any]:
    sent = {"name": name, "scopes": INFER} | body
    answer = send(api, "POST", f"/v1/keys?tenant={tenant}", key, json=sent)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(answer: httpx2.Response) -> tuple[int, str, str | None]:
    error = error_of(answer)
    return answer.status_code, error["code"], error["field"]


def test_a_tenant_is_made_shown_changed_and_deleted(api: ApiServer) -> None:
    body = {"name": "birch", "display_name": "Birch & Co", "weight": 2}
    made = send(api, "POST", "/v1/tenants", json=body)
    assert made.status_code == 201, made.text
    TenantAnswer.model_validate(made.json())
    assert made.json()["created_by"] == "operator" and made.json()["weight"] == 2.0
    assert send(api, "GET", "/v1/tenants/birch").json() == made.json()
    assert refusal(send(api, "POST", "/v1/tenants", json=body)) == (409, "tenant_exists", "tenant")
    changed = send(api, "PATCH", "/v1/tenants/birch", json={"weight": 0.5}).json()
    assert (changed["weight"], changed["display_name"]) == (0.5, "Birch & Co")
    suspended = send(api, "POST", "/v1/tenants/birch/suspend").json()
    assert suspended["status"] == "suspended" and suspended["suspended_at"]
    assert send(api, "POST", "/v1/tenants/birch/resume").json()["suspended_at"] is None
    page = send(api, "GET", "/v1/tenants?prefix=b&status=active")
    TenantPage.model_validate(page.json())
    assert [tenant["tenant"] for tenant in page.json()["tenants"]] == ["birch"]
    deleted = send(api, "DELETE", "/v1/tenants/birch")
    assert deleted.status_code == 200 and deleted.json()["purge_after"]
    assert refusal(send(api, "GET", "/v1/tenants/birch")) == (404, "unknown_tenant", "tenant")
    assert send(api, "GET", "/v1/tenants?status=deleted").json()["tenants"] == [deleted.json()]
    assert refusal(send(api, "DELETE", "/v1/tenants/default")) == (409, "conflict", "tenant")


def test_a_key_is_shown_once_and_says_what_it_may_do(api: ApiServer) -> None:
    answer = send(
        api,
        "POST",
        "/v1/keys?tenant=acme",
        json={"name": "web", "scopes": INFER, "tasks": ["s*"], "expires_at": "2100-01-01T02:00:00+02:00"},
    )
    made = answer.json()
    NewKeyAnswer.model_validate(made)
    secret = made.pop("key")
    assert public_part(secret) == made["public"] and answer.headers["cache-control"] == "no-store"
    assert (made["status"], made["expires_at"], made["created_by"]) == (
        "live",
        "2100-01-01T00:00:00Z",
        "operator",
    )
    KeyAnswer.model_validate(made)
    assert send(api, "GET", f"/v1/keys/{made['id']}?tenant=acme").json() == made
    page = send(api, "GET", "/v1/keys?tenant=acme").json()
    KeyPage.model_validate(page)
    assert made in page["keys"] and secret not in str(page)
    me = send(api, "GET", "/v1/me", secret).json()
    MeAnswer.model_validate(me)
    assert me["tenant"] == {"tenant": "acme", "display_name": "Acme", "weight": 2.0, "status": "active"}
    assert me["key"] == {name: made[name] for name in ("id", "public", "name", "tasks", "expires_at")}
    assert (me["limits"]["tenant"], me["limits"]["key"]) == ({}, made["limits"])
    assert me["scopes"] == INFER and me["limits"]["max_batch_rows"] == MAX_ROWS
    file = send(api, "GET", "/v1/me").json()
    assert (file["key"]["id"], file["key"]["name"]) == (None, "operator") and "operator" in file["scopes"]
    revoked = send(api, "DELETE", f"/v1/keys/{made['id']}?tenant=acme").json()
    assert revoked["status"] == "revoked"
    assert send(api, "GET", "/v1/me", secret).status_code == 401
    assert send(api, "DELETE", f"/v1/keys/{made['id']}?tenant=acme").json() == revoked


def test_two_live_keys_may_have_one_name(api: ApiServer) -> None:
    first, _ = make(api, "rotated"), make(api, "rotated")
    body = {"name": "rotated", "scopes": INFER}
    assert refusal(send(api, "POST", "/v1/keys?tenant=acme", json=body)) == (409, "too_many_keys", "name")
    send(api, "DELETE", f"/v1/keys/{first['id']}?tenant=acme")
    make(api, "rotated")


REFUSED = {
    "an unknown scope": ({"scopes": ["all"]}, 400, "scopes.0"),
    "no scope": ({"scopes": []}, 400, "scopes"),
    "no name": ({"name": "A Name"}, 400, "name"),
    "a bad pattern": ({"tasks": ["A"]}, 400, "tasks.0"),
    "no patterns": ({"tasks": []}, 400, "tasks"),
    "a moment without a zone": ({"expires_at": "2100-01-01T00:00:00"}, 400, "expires_at"),
    "a number for a moment": ({"expires_at": 4102444800}, 400, "expires_at"),
    "a moment that has passed": ({"expires_at": "2020-01-01T00:00:00Z"}, 400, "expires_at"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_key_that_cannot_be_is_refused(api: ApiServer, what: str) -> None:
    body, status, field = REFUSED[what]
    answer = send(api, "POST", "/v1/keys?tenant=acme", json={"name": "x", "scopes": INFER} | body)
    assert (answer.status_code, error_of(answer)["field"]) == (status, field), answer.text


def test_an_admin_manages_its_own_tenants_keys_and_gives_what_it_has(api: ApiServer) -> None:
    admin = make(api, "admin", scopes=[*INFER, "admin"])["key"]
    own = send(api, "POST", "/v1/keys", admin, json={"name": "by-admin", "scopes": ["infer", "admin"]})
    assert own.status_code == 201 and own.json()["tenant"] == "acme"
    assert send(api, "GET", f"/v1/keys/{own.json()['id']}?tenant=acme", admin).status_code == 200
    for scopes in (["infer", "tune"], ["infer", "operator"]):
        answer = send(api, "POST", "/v1/keys", admin, json={"name": "more", "scopes": scopes})
        assert refusal(answer) == (403, "forbidden", "scopes.1")
    for tenant in ("default", "nobody"):
        answers = [
            send(api, "GET", f"/v1/keys?tenant={tenant}", admin),
            send(api, "POST", f"/v1/keys?tenant={tenant}", admin, json={"name": "x", "scopes": ["infer"]}),
        ]
        assert {refusal(answer) for answer in answers} == {(404, "unknown_tenant", "tenant")}
    assert send(api, "GET", "/v1/tenants", admin).status_code == 403


def test_only_an_operator_lets_anybody_read_the_metrics_of_all(api: ApiServer) -> None:
    admin = make(api, "reader", scopes=sorted(TENANT_SCOPES))["key"]
    answer = send(api, "POST", "/v1/keys", admin, json={"name": "m", "scopes": ["metrics:read"]})
    assert refusal(answer) == (403, "forbidden", "scopes.0")


def test_a_key_with_patterns_gives_only_its_own(api: ApiServer) -> None:
    admin = make(api, "some", scopes=["infer", "admin"], tasks=["s*", "exact"])["key"]

    def attempt(**body: Any) -> httpx2.Response:
        sent = {"name": "sub", "scopes": ["infer"]} | body
        answer = send(api, "POST", "/v1/keys", admin, json=sent)
        if answer.status_code == 201:
            send(api, "DELETE", f"/v1/keys/{answer.json()['id']}", admin)
        return answer

    for tasks in (["s*"], ["exact"], ["sst2"], ["s*", "sst2"]):
        assert attempt(tasks=tasks).status_code == 201
    assert refusal(attempt()) == (403, "forbidden", "tasks")
    for tasks in (["*"], ["sst2", "t"], ["st*"]):
        assert refusal(attempt(tasks=tasks))[:2] == (403, "forbidden")


@pytest.fixture(scope="module")
def some(api: ApiServer) -> dict[str, str]:
    """A key that may name `mine-*`, one that may name anything, and a job of another's task."""
    scopes = ["infer", "prompts:read", "prompts:write", "tune"]
    keys = {"some": make(api, "mine", scopes=scopes, tasks=["mine-*"])["key"]}
    keys["any"] = make(api, "any", scopes=scopes)["key"]
    for task in ("mine-a", "other"):
        for seed in (1, 2):
            url = f"/v1/tasks/{task}/versions?label=good&label=bad"
            send(api, "POST", url, keys["any"], content=artifact(3, seed), headers=RAW)
    for name, task in (("mine-e", "other"), ("others", "mine-a")):
        url = f"/v1/ensembles/{name}/versions"
        assert send(api, "POST", url, keys["any"], json={"tasks": [task]}).status_code == 201
    file = send(
        api, "POST", "/v1/files?name=t.tsv", keys["any"], content=b"text\tlabel\na\tyes\n", headers=RAW
    )
    keys["file"] = file.json()["id"]
    started = send(api, "POST", "/v1/tuning/jobs", keys["any"], json=job("other", keys["file"]))
    assert started.status_code == 201, started.text
    keys["job"] = started.json()["id"]
    return keys


def job(task: str, file: str, **more: Any) -> dict[str, Any]:
    recipe = {"prompt_length": 3, "steps": 10, "batch_size": 4}
    return {
        "task": task,
        "data": {"train": {"file": file}},
        "labels": ["no", "yes"],
        "recipe": recipe,
        **more,
    }


def named(task: str, ensemble: str, made: str, file: str) -> list[tuple[str, str, Any]]:
    """A request for each way to name a task, an ensemble or a job."""
    at = f"/v1/tasks/{task}"
    return [
        ("POST", "/v1/generate", {"task": task, "input": "x"}),
        ("POST", "/v1/generate", {"task": f"acme/{task}@1", "input": "x"}),
        ("POST", "/v1/generate", {"requests": [{"task": f"{task}@live", "input": "x"}]}),
        ("POST", "/v1/classify", {"task": task, "input": "x"}),
        ("POST", "/v1/ensemble", {"tasks": ["mine-a", task], "input": "x"}),
        ("POST", "/v1/ensemble", {"ensemble": ensemble, "input": "x"}),
        ("GET", at, None),
        ("GET", f"{at}?tenant=acme", None),
        ("GET", f"{at}/versions", None),
        ("GET", f"{at}/versions/1", None),
        ("GET", f"{at}/versions/1/artifact", None),
        ("GET", f"{at}/versions/1/neighbors", None),
        ("GET", f"{at}/aliases", None),
        ("PUT", f"{at}/aliases/x", {"version": 1}),
        ("DELETE", f"{at}/aliases/x", None),
        ("POST", f"{at}/rollback", {}),
        ("POST", f"{at}/versions", artifact(3, 9)),
        ("DELETE", f"{at}/versions/2", None),
        ("DELETE", at, None),
        ("GET", f"/v1/ensembles/{ensemble}", None),
        ("POST", f"/v1/ensembles/{ensemble}/versions", {"tasks": ["mine-a"]}),
        ("POST", "/v1/ensembles/mine-new/versions", {"tasks": [task]}),
        ("DELETE", f"/v1/ensembles/{ensemble}", None),
        ("GET", f"/v1/tuning/jobs/{made}", None),
        ("GET", f"/v1/tuning/jobs/{made}/events?follow=false", None),
        ("POST", f"/v1/tuning/jobs/{made}/cancel", None),
        ("POST", f"/v1/tuning/jobs/{made}/resume", None),
        ("POST", "/v1/tuning/jobs", job(task, file)),
        ("POST", "/v1/tuning/jobs", job("mine-new", file, ensemble=2, ensemble_name=ensemble)),
        ("POST", "/v1/tuning/jobs", job("mine-new", file, initial_prompt=task)),
    ]


def asked(api: ApiServer, method: str, path: str, body: Any, key: str) -> httpx2.Response:
    if isinstance(body, bytes):
        return send(api, method, path, key, content=body, headers=RAW)
    return send(api, method, path, key, **({} if body is None else {"json": body}))


def test_what_the_patterns_leave_out_answers_like_what_is_not_there(
    api: ApiServer, some: dict[str, str]
) -> None:
    there = named("other", "others", some["job"], some["file"])
    missing = named("nothing", "nothings", "job-" + "0" * 24, some["file"])
    for (method, path, body), (_, absent_path, absent_body) in zip(there, missing, strict=True):
        answers = [
            asked(api, method, path, body, some["some"]),
            asked(api, method, absent_path, absent_body, some["some"]),
        ]
        assert [answer.status_code for answer in answers] == [404, 404], (path, answers[0].text)
        said = [error_of(answer) for answer in answers]
        message = said[0]["message"]
        for name, other in (("others", "nothings"), ("other", "nothing"), (some["job"], "job-" + "0" * 24)):
            message = message.replace(f"{name}.", f"{other}.").replace(f"'{name}'", f"'{other}'")
        assert (said[0]["code"], message, said[0]["field"]) == (
            said[1]["code"],
            said[1]["message"],
            said[1]["field"],
        )
    # Nothing of it was done, and whoever may name it finds it as it was.
    assert send(api, "GET", "/v1/tasks/other", some["any"]).json()["versions"] == 2
    assert send(api, "GET", f"/v1/tuning/jobs/{some['job']}", some["any"]).json()["status"] == "queued"


def test_what_the_patterns_fit_works_and_lists_show_nothing_else(
    api: ApiServer, some: dict[str, str]
) -> None:
    key = some["some"]
    rows = b"text\tlabel\na\tyes\n"
    file = send(api, "POST", "/v1/files?name=own.tsv", key, content=rows, headers=RAW).json()["id"]
    for method, path, body in (
        ("POST", "/v1/generate", {"task": "mine-a", "input": "x", "max_new_tokens": 2}),
        ("POST", "/v1/generate", {"task": None, "input": "x", "max_new_tokens": 2}),
        ("POST", "/v1/ensemble", {"ensemble": "mine-e", "input": "x"}),  # its member is `other`
        ("POST", "/v1/tasks/mine-new/versions", artifact(3, 4)),
        ("POST", "/v1/tuning/jobs", job("mine-b", file)),
    ):
        assert asked(api, method, path, body, key).status_code in (200, 201), path
    for path, part, field in (
        ("/v1/tasks", "tasks", "task"),
        ("/v1/ensembles", "ensembles", "ensemble"),
        ("/v1/tuning/jobs", "jobs", "tasks"),
    ):
        seen, every = (str([each[field] for each in send(api, "GET", path, who).json()[part]])
                       for who in (key, some["any"]))  # fmt: skip
        assert "acme/mine-" in seen and "other" not in seen and "other" in every


def test_what_a_deleted_tenant_had_goes_after_its_grace_period(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    ring = KeyRing({OPERATOR: Principal("default", "operator")}, Principal("default", "anonymous"))
    with ApiServer(tmp_path, vocabulary, keys=ring, tenant_grace_seconds=1000.0) as api:
        api.store.create_tenant("acme")
        key = make(api, "k", scopes=["prompts:write"])["key"]
        send(api, "POST", "/v1/tasks/t/versions", key, content=artifact(), headers=RAW)
        send(api, "DELETE", "/v1/tenants/acme")
        purge = api.services.upkeep.purge
        assert asyncio.run_coroutine_threadsafe(purge(), api.loop).result(300)  # type: ignore[arg-type]
        assert api.store.get_task("acme", "t").versions == 1  # the grace period is not over
        now = api.store._clock
        api.store._clock = lambda: now() + timedelta(seconds=1001)
        assert asyncio.run_coroutine_threadsafe(purge(), api.loop).result(300)  # type: ignore[arg-type]
        assert api.store.list_tasks("acme").items == ()


def test_a_data_folder_of_0_1_0_goes_on_with_its_key_and_token(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    data, key, token = tmp_path / "data", tmp_path / "key", tmp_path / "token"
    shutil.unpack_archive(FIXTURES / "store" / "of_0_1_0.zip", data)
    key.write_text("k" * 32)
    token.write_text("t" * 32)
    with ApiServer(data, vocabulary, api_key_file=key, scrape_token_file=token, tenant="acme") as api:
        assert send(api, "GET", "/v1/tasks", "k" * 32).json()["tasks"][0]["task"] == "acme/sst2"
        me = send(api, "GET", "/v1/me", "k" * 32).json()
        assert me["tenant"]["tenant"] == "acme" and me["key"]["name"] == "key"
        assert set(me["scopes"]) == TENANT_SCOPES
        assert send(api, "GET", "/metrics", "t" * 32).status_code == 200
        assert send(api, "GET", "/v1/tasks", "t" * 32).status_code == 403
        assert api.http.get("/v1/tasks").status_code == api.http.get("/metrics").status_code == 401
        assert send(api, "GET", "/v1/tenants", "k" * 32).status_code == 403
        made = send(api, "POST", "/v1/keys", "k" * 32, json={"name": "new", "scopes": INFER}).json()
        assert send(api, "GET", "/v1/tasks", made["key"]).status_code == 200
