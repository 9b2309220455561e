"""T5: every route against every caller that must not get through it, and against every way to name another
tenant's object. A new route without a row here fails.

The keys are real ones of the store, and so are the tenants. What the other tenant has carries a canary.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.principal import ALL_SCOPES, TENANT_SCOPES, Scope
from prompts_store.store import PromptStore
from prompts_store.tenants.key_format import make_key, with_checksum
from tests.server.api.api_harness import ApiServer, artifact, error_of, stop_time
from tests.server.api.route_table import ROUTES

CANARY = "zzcanaryzz"
# The change feed, a key that is looked up anew, its last use, usage; and how a transaction begins.
BY_THE_CLOCK = ("changes.number", "WHERE keys.public", "last_used_at=", "usage", "BEGIN")
RAW = {"content-type": "application/octet-stream"}
GUARDED = {route: door for route, door in ROUTES.items() if door is not None}

Content = Callable[[Mapping[str, str]], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One way to name another tenant's object: in the URL, or in what is sent."""

    url: str
    content: Content = lambda names: {}


def sent(body: Any) -> Content:
    """JSON in which `<name>` stands for a name."""

    def content(names: Mapping[str, str]) -> dict[str, Any]:
        text = json.dumps(body)
        for name, value in names.items():
            text = text.replace(f"<{name}>", value)
        return {"content": text, "headers": {"content-type": "application/json"}}

    return content


def anywhere(url: str, content: Content = lambda names: {}) -> tuple[Case, ...]:
    """In the path, and with the tenant in the query."""
    return Case(url, content), Case(f"{url}{'&' if '?' in url else '?'}tenant={{tenant}}", content)


def references(body: Callable[[str], Any], url: str) -> tuple[Case, ...]:
    """In the body, by each form of a reference."""
    return tuple(
        Case(url, sent(body(reference)))
        for reference in ("<tenant>/<task>", "<tenant>/<task>@1", "<tenant>/<task>@<alias>", "<task>@<alias>")
    )


def job(**changes: Any) -> dict[str, Any]:
    return {
        "task": "new",
        "data": {"train": {"file": "<own_file>"}},
        "labels": ["no", "yes"],
        "recipe": {"prompt_length": 3, "steps": 10, "batch_size": 4},
        **changes,
    }


def evaluation(subject: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"subjects": [subject], "file": "<own_file>", **changes}


def decision(**changes: Any) -> dict[str, Any]:
    return {"input": "x", "questions": [{"type": "predicate", "instructions": "?", "name": "q"}], **changes}


def system_one(**changes: Any) -> dict[str, Any]:
    return {"state": "x", "questions": {"q": {"type": "noul", "instructions": "?"}}, **changes}


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "x"}]}


NONE: tuple[Case, ...] = ()
"""Nothing of a tenant's can be named; or the route is an operator's, for all tenants alike."""

MODELS = tuple(
    Case(f"{prefix}/v1/models/{name}")
    for prefix in ("", "/openai")
    for name in ("{task}", "{tenant}/{task}", "{tenant}%2F{task}@1", "{tenant}/{pack}", "{pack}")
)

TASK, VERSION = "/v1/tasks/{task}", "/v1/tasks/{task}/versions/1"

ROWS: dict[tuple[str, str], tuple[Case, ...]] = {
    ("GET", "/docs"): NONE,
    ("GET", "/metrics"): NONE,
    ("GET", "/openapi.json"): NONE,
    ("GET", "/v1/model"): NONE,
    ("GET", "/v1/operations"): NONE,
    ("POST", "/v1/store/check"): NONE,
    ("GET", "/v1/me"): NONE,
    ("GET", "/v1/shared"): NONE,
    ("GET", "/v1/tasks"): NONE,
    ("GET", "/v1/ensembles"): NONE,
    ("GET", "/v1/packs"): NONE,
    ("GET", "/v1/models"): NONE,
    ("POST", "/v1/embeddings"): NONE,
    ("GET", "/v1/files"): NONE,
    ("POST", "/v1/files"): NONE,
    ("GET", "/v1/tuning/jobs"): NONE,
    ("GET", "/openai/v1/files"): NONE,
    ("POST", "/openai/v1/files"): NONE,
    ("GET", "/v1/fine_tuning/jobs"): NONE,
    ("GET", "/v1/evaluations"): NONE,
    ("GET", "/v1/jobs"): NONE,
    ("GET", "/v1/batches"): NONE,
    ("GET", "/openai/v1/batches"): NONE,
    ("POST", "/v1/tenants"): NONE,
    ("GET", "/v1/tenants"): NONE,
    ("GET", "/v1/tenants/{tenant}"): NONE,
    ("PATCH", "/v1/tenants/{tenant}"): NONE,
    ("DELETE", "/v1/tenants/{tenant}"): NONE,
    ("POST", "/v1/tenants/{tenant}/suspend"): NONE,
    ("POST", "/v1/tenants/{tenant}/resume"): NONE,
    ("POST", "/v1/generate"): references(lambda task: {"task": task, "input": "x"}, "/v1/generate")
    + references(lambda task: {"requests": [{"task": task, "input": "x"}]}, "/v1/generate"),
    ("POST", "/v1/classify"): references(
        lambda task: {"task": task, "input": "x", "labels": ["a", "b"]}, "/v1/classify"
    ),
    ("POST", "/v1/ensemble"): (
        *references(lambda task: {"tasks": ["own", task], "input": "x"}, "/v1/ensemble"),
        Case("/v1/ensemble", sent({"ensemble": "<tenant>/<ensemble>", "input": "x"})),
        Case("/v1/ensemble", sent({"ensemble": "<tenant>/<ensemble>@1", "input": "x"})),
        Case("/v1/ensemble", sent({"ensemble": "<ensemble>", "input": "x"})),
    ),
    ("POST", "/v1/decisions"): (
        *references(lambda name: decision(model=name), "/v1/decisions"),
        Case("/v1/decisions", sent(decision(model="<tenant>/<pack>"))),
        Case("/v1/decisions", sent(decision(model="<tenant>/<pack>@1"))),
        Case("/v1/decisions", sent(decision(model="<pack>"))),
    ),
    ("POST", "/v1/completions"): references(lambda model: {"model": model, "prompt": "x"}, "/v1/completions")
    + references(lambda model: {"model": model, "prompt": "x", "stream": True}, "/openai/v1/completions"),
    ("POST", "/v1/chat/completions"): references(chat, "/v1/chat/completions")
    + references(lambda model: {**chat(model), "stream": True}, "/openai/v1/chat/completions"),
    ("POST", "/v1/responses"): references(lambda model: {"model": model, "input": "x"}, "/v1/responses"),
    ("GET", "/v1/models/{model:path}"): MODELS,
    ("DELETE", "/v1/models/{model:path}"): MODELS,
    ("POST", "/v1/systemone"): (
        *references(lambda name: system_one(model=name), "/v1/systemone"),
        Case("/v1/systemone", sent(system_one(model="<tenant>/<pack>"))),
    ),
    ("GET", "/v1/tasks/{task}"): anywhere(TASK),
    ("DELETE", "/v1/tasks/{task}"): anywhere(TASK),
    ("GET", "/v1/tasks/{task}/versions"): anywhere(f"{TASK}/versions"),
    ("POST", "/v1/tasks/{task}/versions"): (
        Case(f"{TASK}/versions?tenant={{tenant}}", lambda _: {"content": artifact(), "headers": RAW}),
    ),
    ("GET", "/v1/tasks/{task}/versions/{n}"): anywhere(VERSION),
    ("DELETE", "/v1/tasks/{task}/versions/{n}"): anywhere(VERSION),
    ("GET", "/v1/tasks/{task}/versions/{n}/artifact"): anywhere(f"{VERSION}/artifact"),
    ("GET", "/v1/tasks/{task}/versions/{n}/neighbors"): anywhere(f"{VERSION}/neighbors"),
    ("GET", "/v1/tasks/{task}/versions/{n}/calibrations"): anywhere(f"{VERSION}/calibrations"),
    ("GET", "/v1/tasks/{task}/versions/{n}/calibrations/{calibration}"): anywhere(
        f"{VERSION}/calibrations/1"
    ),
    ("POST", "/v1/tasks/{task}/versions/{n}/calibrations"): (
        *anywhere(f"{VERSION}/calibrations", sent({"file": "<own_file>", "labels": ["no", "yes"]})),
        Case("/v1/tasks/own/versions/1/calibrations", sent({"file": "<file>", "labels": ["no", "yes"]})),
    ),
    ("GET", "/v1/tasks/{task}/calibration_jobs/{calibration_job}"): (
        *anywhere(f"{TASK}/calibration_jobs/{{calibration_job}}"),
        Case("/v1/tasks/own/calibration_jobs/{calibration_job}"),
    ),
    ("POST", "/v1/tasks/{task}/calibration_jobs/{calibration_job}/cancel"): (
        *anywhere(f"{TASK}/calibration_jobs/{{calibration_job}}/cancel"),
        Case("/v1/tasks/own/calibration_jobs/{calibration_job}/cancel"),
    ),
    ("GET", "/v1/tasks/{task}/aliases"): anywhere(f"{TASK}/aliases"),
    ("PUT", "/v1/tasks/{task}/aliases/{alias}"): anywhere(f"{TASK}/aliases/{{alias}}", sent({"version": 1})),
    ("DELETE", "/v1/tasks/{task}/aliases/{alias}"): anywhere(f"{TASK}/aliases/{{alias}}"),
    ("POST", "/v1/tasks/{task}/rollback"): anywhere(f"{TASK}/rollback", sent({"alias": "<alias>"})),
    ("POST", "/v1/ensembles/{name}/versions"): (
        *references(lambda task: {"tasks": [task]}, "/v1/ensembles/new/versions"),
        Case("/v1/ensembles/{ensemble}/versions?tenant={tenant}", sent({"tasks": ["own"]})),
    ),
    ("GET", "/v1/ensembles/{name}"): anywhere("/v1/ensembles/{ensemble}")
    + anywhere("/v1/ensembles/{ensemble}?alias=live"),
    ("DELETE", "/v1/ensembles/{name}"): anywhere("/v1/ensembles/{ensemble}"),
    ("GET", "/v1/ensembles/{name}/versions"): anywhere("/v1/ensembles/{ensemble}/versions"),
    ("GET", "/v1/ensembles/{name}/aliases"): anywhere("/v1/ensembles/{ensemble}/aliases"),
    ("PUT", "/v1/ensembles/{name}/aliases/{alias}"): anywhere(
        "/v1/ensembles/{ensemble}/aliases/{alias}", sent({"version": 1})
    ),
    ("DELETE", "/v1/ensembles/{name}/aliases/{alias}"): anywhere("/v1/ensembles/{ensemble}/aliases/{alias}"),
    ("POST", "/v1/ensembles/{name}/rollback"): anywhere(
        "/v1/ensembles/{ensemble}/rollback", sent({"alias": "<alias>"})
    ),
    ("POST", "/v1/packs/{name}/versions"): (
        *references(lambda task: {"questions": {"q": {"task": task}}}, "/v1/packs/new/versions"),
        Case("/v1/packs/{pack}/versions?tenant={tenant}", sent({"questions": {"q": {"task": "own"}}})),
    ),
    ("GET", "/v1/packs/{name}"): anywhere("/v1/packs/{pack}") + anywhere("/v1/packs/{pack}?alias=live"),
    ("DELETE", "/v1/packs/{name}"): anywhere("/v1/packs/{pack}"),
    ("GET", "/v1/packs/{name}/versions"): anywhere("/v1/packs/{pack}/versions"),
    ("GET", "/v1/packs/{name}/aliases"): anywhere("/v1/packs/{pack}/aliases"),
    ("PUT", "/v1/packs/{name}/aliases/{alias}"): anywhere(
        "/v1/packs/{pack}/aliases/{alias}", sent({"version": 1})
    ),
    ("DELETE", "/v1/packs/{name}/aliases/{alias}"): anywhere("/v1/packs/{pack}/aliases/{alias}"),
    ("POST", "/v1/packs/{name}/rollback"): anywhere("/v1/packs/{pack}/rollback", sent({"alias": "<alias>"})),
    ("GET", "/v1/packs/{name}/grants"): anywhere("/v1/packs/{pack}/grants"),
    ("PUT", "/v1/packs/{name}/grants/{grantee}"): anywhere(
        "/v1/packs/{pack}/grants/{grantee}", sent({"rights": ["infer"]})
    ),
    ("DELETE", "/v1/packs/{name}/grants/{grantee}"): anywhere("/v1/packs/{pack}/grants/{grantee}"),
    ("GET", "/v1/tasks/{task}/grants"): anywhere(f"{TASK}/grants"),
    ("PUT", "/v1/tasks/{task}/grants/{grantee}"): anywhere(
        f"{TASK}/grants/{{grantee}}", sent({"rights": ["infer"]})
    ),
    ("DELETE", "/v1/tasks/{task}/grants/{grantee}"): anywhere(f"{TASK}/grants/{{grantee}}"),
    ("GET", "/v1/ensembles/{name}/grants"): anywhere("/v1/ensembles/{ensemble}/grants"),
    ("PUT", "/v1/ensembles/{name}/grants/{grantee}"): anywhere(
        "/v1/ensembles/{ensemble}/grants/{grantee}", sent({"rights": ["infer"]})
    ),
    ("DELETE", "/v1/ensembles/{name}/grants/{grantee}"): anywhere(
        "/v1/ensembles/{ensemble}/grants/{grantee}"
    ),
    ("GET", "/v1/files/{file}"): (Case("/v1/files/{file}"),),
    ("GET", "/v1/files/{file}/content"): (Case("/v1/files/{file}/content"),),
    ("DELETE", "/v1/files/{file}"): (Case("/v1/files/{file}"),),
    ("POST", "/v1/tuning/jobs"): (
        Case("/v1/tuning/jobs", sent(job(data={"train": {"file": "<file>"}}))),
        Case(
            "/v1/tuning/jobs",
            sent(job(data={"train": {"file": "<own_file>"}, "validation": {"file": "<file>"}})),
        ),
        *references(lambda task: job(initial_prompt=task), "/v1/tuning/jobs"),
    ),
    ("GET", "/v1/tuning/jobs/{job}"): (Case("/v1/tuning/jobs/{job}"),),
    ("GET", "/v1/tuning/jobs/{job}/events"): (
        Case("/v1/tuning/jobs/{job}/events?follow=false"),
        Case("/v1/tuning/jobs/{job}/events"),
    ),
    ("POST", "/v1/tuning/jobs/{job}/cancel"): (Case("/v1/tuning/jobs/{job}/cancel"),),
    ("POST", "/v1/tuning/jobs/{job}/pause"): (Case("/v1/tuning/jobs/{job}/pause"),),
    ("POST", "/v1/tuning/jobs/{job}/resume"): (Case("/v1/tuning/jobs/{job}/resume"),),
    ("GET", "/openai/v1/files/{file}"): (Case("/openai/v1/files/{file}"),),
    ("GET", "/openai/v1/files/{file}/content"): (Case("/openai/v1/files/{file}/content"),),
    ("DELETE", "/openai/v1/files/{file}"): (Case("/openai/v1/files/{file}"),),
    ("POST", "/v1/fine_tuning/jobs"): (
        Case("/v1/fine_tuning/jobs", sent({"model": "base", "training_file": "<file>"})),
        Case(
            "/openai/v1/fine_tuning/jobs",
            sent({"model": "base", "training_file": "<own_file>", "validation_file": "<file>"}),
        ),
        *references(lambda task: {"model": task, "training_file": "<own_file>"}, "/v1/fine_tuning/jobs"),
    ),
    **{
        (method, f"/v1/fine_tuning/jobs/{{job}}{tail}"): tuple(
            Case(f"{prefix}/v1/fine_tuning/jobs/{{job}}{tail}") for prefix in ("", "/openai")
        )
        for method, tail in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/checkpoints"),
            ("POST", "/cancel"),
            ("POST", "/pause"),
            ("POST", "/resume"),
        )
    },
    ("POST", "/v1/evaluations"): (
        Case("/v1/evaluations", sent(evaluation({"task": "own"}, file="<file>"))),
        Case(
            "/v1/evaluations",
            sent(evaluation({"base": {"few_shot": 1}}, examples="<file>", labels=["no", "yes"])),
        ),
        *references(lambda task: evaluation({"task": task}), "/v1/evaluations"),
        Case("/v1/evaluations", sent(evaluation({"ensemble": "<tenant>/<ensemble>"}))),
        Case("/v1/evaluations", sent(evaluation({"ensemble": "<ensemble>"}))),
        Case("/v1/evaluations", sent(evaluation({"pack": "<tenant>/<pack>", "question": "q"}))),
        Case("/v1/evaluations", sent(evaluation({"pack": "<tenant>/<pack>@1", "question": "none"}))),
        Case("/v1/evaluations", sent(evaluation({"pack": "<pack>", "question": "q"}))),
    ),
    ("GET", "/v1/evaluations/{evaluation}"): (Case("/v1/evaluations/{evaluation}"),),
    ("GET", "/v1/evaluations/{evaluation}/events"): (
        Case("/v1/evaluations/{evaluation}/events?follow=false"),
        Case("/v1/evaluations/{evaluation}/events"),
    ),
    ("POST", "/v1/evaluations/{evaluation}/cancel"): (Case("/v1/evaluations/{evaluation}/cancel"),),
    ("POST", "/v1/evaluations/{evaluation}/resume"): (Case("/v1/evaluations/{evaluation}/resume"),),
    **{
        (method, f"/v1/jobs/{{job}}{part}"): tuple(
            Case(f"/v1/jobs/{{{kind}}}{part}") for kind in ("job", "evaluation", "calibration_job", "batch")
        )
        for method, part in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/resume"))
    },
    ("POST", "/v1/batches"): (Case("/v1/batches", sent({"file": "<file>", "endpoint": "/v1/classify"})),),
    ("GET", "/v1/batches/{batch}"): (Case("/v1/batches/{batch}"),),
    ("GET", "/v1/batches/{batch}/events"): (
        Case("/v1/batches/{batch}/events?follow=false"),
        Case("/v1/batches/{batch}/events"),
    ),
    ("POST", "/v1/batches/{batch}/cancel"): (Case("/v1/batches/{batch}/cancel"),),
    ("POST", "/v1/batches/{batch}/resume"): (Case("/v1/batches/{batch}/resume"),),
    ("POST", "/openai/v1/batches"): (
        Case("/openai/v1/batches", sent({"input_file_id": "<file>", "endpoint": "/v1/classify"})),
    ),
    ("GET", "/openai/v1/batches/{batch}"): (Case("/openai/v1/batches/{batch}"),),
    ("POST", "/openai/v1/batches/{batch}/cancel"): (Case("/openai/v1/batches/{batch}/cancel"),),
    ("GET", "/v1/usage"): (
        Case("/v1/usage?tenant={tenant}"),
        Case("/v1/usage?tenant={tenant}&task={task}"),
    ),
    ("POST", "/v1/keys"): (Case("/v1/keys?tenant={tenant}", sent({"name": "x", "scopes": ["infer"]})),),
    ("GET", "/v1/keys"): (Case("/v1/keys?tenant={tenant}"),),
    ("GET", "/v1/audit"): (
        Case("/v1/audit?tenant={tenant}"),
        Case("/v1/audit?tenant={tenant}&format=jsonl"),
    ),
    ("GET", "/v1/keys/{key}"): anywhere("/v1/keys/{key}"),
    ("PATCH", "/v1/keys/{key}"): anywhere("/v1/keys/{key}", sent({"limits": {}})),
    ("DELETE", "/v1/keys/{key}"): anywhere("/v1/keys/{key}"),
}


@dataclass
class World:
    """A server with tenants, keys of every kind, and what the other tenant has."""

    api: ApiServer
    keys: dict[str, str]
    theirs: dict[str, str]

    def send(self, method: str, url: str, key: str | None, **content: Any) -> httpx2.Response:
        headers = dict(content.pop("headers", {}))
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return httpx2.request(method, self.api.url + url, headers=headers, timeout=300, **content)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[World]:
    with ApiServer(tmp_path_factory.mktemp("matrix"), vocabulary) as api:
        found = World(api, make_keys(api.store), {"tenant": "theirs"})
        stock(found)
        stop_time(api)  # what is remembered is not asked again only because the machine is busy
        yield found


def make_keys(store: PromptStore) -> dict[str, str]:
    """The keys by what is the matter with them; those of one scope by its name."""
    for tenant in ("ours", "theirs", "suspended", "deleted"):
        store.create_tenant(tenant, display_name=f"{CANARY} {tenant}" if tenant == "theirs" else "")
    everything = sorted(TENANT_SCOPES)

    def make(name: str, tenant: str = "ours", scopes: Any = everything, **options: Any) -> str:
        made, secret = store.create_key(tenant, name, scopes=scopes, **options)
        if name == "revoked":
            store.revoke_key(tenant, made.id)
        return secret

    keys = {
        "good": make("good"),
        "theirs": make("them", "theirs"),
        "operator": make("operator", "default", sorted(ALL_SCOPES)),
        "revoked": make("revoked"),
        "suspended": make("suspended", "suspended"),
        "deleted": make("deleted", "deleted"),
        "unknown": make_key(),
        "malformed": "ck_short",
        **{scope.value: make(scope.name.lower(), scopes=[scope]) for scope in Scope},
    }
    keys["wrong secret"] = with_other_secret(keys["good"])
    now, store._clock = store._clock, lambda: datetime.now(UTC) - timedelta(days=2)
    keys["expired"] = make("expired", expires_at=datetime.now(UTC) - timedelta(days=1))
    store._clock = now
    store.suspend_tenant("suspended")
    store.delete_tenant("deleted", grace_seconds=1000)
    return keys


def with_other_secret(key: str) -> str:
    """A right checksum, and the public part of a key that is there."""
    _, public, secret, _ = key.split("_")
    return with_checksum(f"ck_{public}_{secret[::-1]}")


def stock(world: World) -> None:
    """One of everything for the other tenant, with canaries, and a file and a task for ours."""
    key, names = world.keys["theirs"], world.theirs

    def made(method: str, url: str, key: str = key, **content: Any) -> dict[str, Any]:
        answer = world.send(method, url, key, **content)
        assert answer.status_code in (200, 201), answer.text
        result: dict[str, Any] = answer.json()
        return result

    for seed in (1, 2):
        query = {"label": [CANARY, "no"], "template": f"{CANARY} {{text}}", "description": CANARY}
        made("POST", "/v1/tasks/secret/versions", content=artifact(3, seed), headers=RAW, params=query)
    made("PUT", "/v1/tasks/secret/aliases/hidden", json={"version": 1})
    made("POST", "/v1/ensembles/panel/versions", json={"tasks": ["secret"]})
    made("PUT", "/v1/ensembles/panel/aliases/hidden", json={"version": 1})
    made("POST", "/v1/packs/desk/versions", json={"questions": {"q": {"task": "secret"}}})
    made("PUT", "/v1/packs/desk/aliases/hidden", json={"version": 1})
    rows = f"text\tlabel\n{CANARY}\tyes\n".encode()
    file = made("POST", f"/v1/files?name={CANARY}.tsv", content=rows, headers=RAW)["id"]
    document = job(task="secret", data={"train": {"file": file}})
    names |= {"task": "secret", "ensemble": "panel", "pack": "desk", "alias": "hidden"}
    names |= {"file": file, "grantee": "friends"}
    made("PUT", "/v1/tasks/secret/grants/friends", json={"rights": ["infer", "read"]})
    made("PUT", "/v1/ensembles/panel/grants/friends", json={"rights": ["infer", "read"]})
    made("PUT", "/v1/packs/desk/grants/friends", json={"rights": ["infer", "read"]})
    names["job"] = made("POST", "/v1/tuning/jobs", json=document)["id"]
    rows_of = {"file": file, "labels": [CANARY, "no"]}
    names["calibration_job"] = made("POST", "/v1/tasks/secret/versions/1/calibrations", json=rows_of)["id"]
    body = {"subjects": [{"task": "secret"}], "file": file}
    names["evaluation"] = made("POST", "/v1/evaluations", json=body)["id"]
    batch = {"file": file, "endpoint": "/v1/classify", "metadata": {"canary": CANARY}}
    names["batch"] = made("POST", "/v1/batches", json=batch)["id"]
    names["key"] = made("GET", "/v1/keys")["keys"][0]["id"]
    good = world.keys["good"]
    own = made("POST", "/v1/files?name=own.tsv", good, content=b"text\tlabel\nx\tyes\n", headers=RAW)
    names["own_file"] = own["id"]
    for seed in (1, 2):
        made("POST", "/v1/tasks/own/versions", good, content=artifact(3, seed), headers=RAW)


IDS = ("file", "job", "calibration_job", "evaluation", "batch", "key")


def absent(names: Mapping[str, str], tenant: str) -> dict[str, str]:
    """Names of what nobody has."""
    ids = {name: names[name].partition("-")[0] + "-" + "0" * 24 for name in IDS}
    missing = {
        "task": "missing",
        "model": "missing",
        "ensemble": "missing",
        "pack": "missing",
        "alias": "missing",
        "grantee": "missing",
    }
    return {**names, **missing, **ids, "tenant": tenant}


def told(answer: httpx2.Response, names: Mapping[str, str]) -> tuple[int, str]:
    """Status and error, without the request's id and with every name that was sent taken out."""
    error = error_of(answer)
    text = json.dumps({part: error[part] for part in ("code", "message", "field")})
    for name in sorted((names[part] for part in names if part != "own_file"), key=len, reverse=True):
        text = text.replace(name, "NAME")
    return answer.status_code, text


def filled(path: str, names: Mapping[str, str]) -> str:
    return path.replace(":path", "").format(**{"n": 1, "calibration": 1, "name": names["ensemble"], **names})


def test_every_route_has_a_row() -> None:
    assert set(ROWS) == set(GUARDED)


def test_control_a_new_route_without_a_row_would_be_seen() -> None:
    assert set(ROWS) != set(GUARDED) | {("GET", "/v1/forgotten")}


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_nobody_gets_through_who_must_not(world: World, route: tuple[str, str]) -> None:
    method, path = route
    url, scope = filled(path, absent(world.theirs, "nobody")), GUARDED[route].scope
    assert told(world.send(method, url, None), {})[0] == 401
    refused = {
        kind: told(world.send(method, url, world.keys[kind]), {})
        for kind in ("unknown", "malformed", "wrong secret", "revoked", "expired", "deleted")
    }
    assert len(set(refused.values())) == 1, refused  # one wording, whatever is wrong with the key
    status, text = refused["unknown"]
    assert status == 401 and json.loads(text)["code"] == "unauthenticated"
    assert error_of(world.send(method, url, world.keys["suspended"]))["code"] == "tenant_suspended"
    for other in Scope:
        answer = world.send(method, url, world.keys[other.value])
        if scope is None or other is scope:
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")


def test_guessing_keys_is_bounded_in_every_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.api.services.callers._guesses, "_clock", lambda: 0.0)  # all in one second
    answers = [world.send("GET", "/v1/tasks", make_key()) for _ in range(40)]
    codes = [error_of(answer)["code"] for answer in answers]
    assert set(codes) == {"unauthenticated", "too_many_unknown_keys"}
    refused = answers[codes.index("too_many_unknown_keys")]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert world.send("GET", "/v1/tasks", world.keys["good"]).status_code == 200  # what is known is let in


CASES = [(route, case) for route, cases in ROWS.items() for case in cases]


@pytest.mark.parametrize(
    ("route", "case"), CASES, ids=[f"{' '.join(route)} {n}" for n, (route, _) in enumerate(CASES)]
)
def test_what_another_tenant_has_answers_like_what_nobody_has(
    world: World, route: tuple[str, str], case: Case
) -> None:
    method, answers, asked = route[0], [], []
    for names in (world.theirs, absent(world.theirs, "theirs"), absent(world.theirs, "nobody")):
        with statements(world.api.store) as executed:
            answer = world.send(method, filled(case.url, names), world.keys["good"], **case.content(names))
        assert CANARY not in answer.text
        answers.append(told(answer, names))
        asked.append(executed)
    assert answers[0][0] == 404 and len(set(answers)) == 1, answers
    assert asked[0] == asked[1] == asked[2]


def test_control_what_is_there_takes_other_statements_than_what_is_not(world: World) -> None:
    asked = []
    for names in (world.theirs, absent(world.theirs, "theirs")):
        with statements(world.api.store) as executed:
            world.send("GET", filled(f"{TASK}/aliases", names), world.keys["theirs"])
        asked.append(executed)
    assert asked[0] != asked[1]
    assert len(asked[1]) == 1


def test_equal_content_of_two_tenants_tells_neither_of_the_other(world: World) -> None:
    """What `theirs` published and uploaded, and what nobody did, get the same answers by the same
    statements."""
    rows = [f"text\tlabel\n{word}\tyes\n".encode() for word in (CANARY, "zzfreshhzz")]
    for url, contents in (
        ("/v1/tasks/{}/versions", [artifact(3, 1), artifact(3, 77)]),
        ("/v1/files?name={}.tsv", rows),
    ):
        told_of = []
        for content in contents:
            name = f"equal-{len(told_of)}"
            with statements(world.api.store) as executed:
                answer = world.send(
                    "POST", url.format(name), world.keys["good"], content=content, headers=RAW
                )
            facts = answer.json()
            same = [facts.get(part) for part in ("created", "size_bytes", "number", "version")]
            told_of.append((answer.status_code, sorted(facts), same, executed))
        assert told_of[0] == told_of[1]
        assert told_of[0][0] == 201


@contextmanager
def statements(store: PromptStore) -> Iterator[list[str]]:
    """What the database was asked meanwhile, without what the process asks by the clock."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if not any(word in statement for word in BY_THE_CLOCK):
            found.append(statement)

    event.listen(store._database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(store._database.engine, "before_cursor_execute", note)


def test_control_the_owner_of_what_was_named_is_let_to_it(world: World) -> None:
    """So the cases do name what is there, and none of them has harmed it."""
    names, key = world.theirs, world.keys["theirs"]
    for path in (TASK, VERSION, f"{TASK}/aliases", "/v1/ensembles/{ensemble}", "/v1/files/{file}",
                 "/v1/tuning/jobs/{job}", "/v1/keys/{key}", f"{TASK}?tenant={{tenant}}"):  # fmt: skip
        answer = world.send("GET", filled(path, names), key)
        assert answer.status_code == 200, answer.text
    assert world.send("GET", TASK.format(**names), key).json()["aliases"] == {"hidden": 1, "live": 1}
    assert world.send("GET", filled("/v1/tuning/jobs/{job}", names), key).json()["status"] == "queued"


def test_nothing_of_another_tenant_is_in_a_list_a_page_or_the_metrics(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lists = ("tasks", "ensembles", "files", "tuning/jobs", "evaluations", "batches", "jobs", "keys")
    for path in (f"/v1/{name}" for name in lists):
        cursor = world.send("GET", f"{path}?limit=1", world.keys["theirs"]).json()["next_cursor"]
        for url in (path, *([f"{path}?cursor={cursor}"] if cursor else [])):
            answer = world.send("GET", url, world.keys["good"])
            # Another tenant's cursor of ids is none of this list; one of names says where to go on.
            assert answer.status_code == 200 or (url != path and error_of(answer)["code"] == "invalid_cursor")
            assert CANARY not in answer.text and "theirs" not in answer.text and "secret" not in answer.text
    answer = world.send("GET", "/v1/shared", world.keys["good"])
    assert (answer.status_code, answer.json()["shared"]) == (200, [])
    for path in ("/v1/audit", "/v1/audit?format=jsonl"):
        assert "theirs" in world.send("GET", path, world.keys["theirs"]).text
        answer = world.send("GET", path, world.keys["good"])
        assert CANARY not in answer.text and "theirs" not in answer.text and "secret" not in answer.text
    for path in ("/openapi.json", "/docs", "/v1/model", "/v1/me"):
        assert CANARY not in world.send("GET", path, world.keys["good"]).text
    body = {"task": "secret", "input": CANARY, "max_new_tokens": 2}
    answer = world.send("POST", "/v1/generate", world.keys["theirs"], json=body)
    assert answer.status_code == 200, answer.text
    everything = world.api.store.create_key("default", "everything", scopes=sorted(ALL_SCOPES))[1]
    assert CANARY not in world.send("GET", "/metrics", everything).text
    assert "theirs/secret" in world.send("GET", "/v1/operations", everything).text
    answer = world.send("GET", "/v1/operations", world.keys["good"])
    assert CANARY not in answer.text and "theirs" not in answer.text and "secret" not in answer.text
    assert CANARY not in caplog.text


def test_no_key_is_in_a_log_an_answer_or_the_store(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """T16. A key's answer has it once, when it is made; its public part may be shown, the rest may not."""
    caplog.set_level(logging.DEBUG)
    urls = ("/v1/keys", "/v1/me", "/metrics", "/openapi.json", "/docs", "/v1/tenants", "/v1/nothing")
    texts = [
        world.send(method, url, key).text
        for key in world.keys.values()
        for url in urls
        for method in ("GET", "POST")
    ]
    made = world.send("POST", "/v1/keys", world.keys["good"], json={"name": "new", "scopes": ["infer"]})
    secrets = [key.split("_")[2] for key in (*world.keys.values(), made.json()["key"]) if key.count("_") == 3]
    assert secrets[-1] in made.text and made.headers["cache-control"] == "no-store"
    everything = "\n".join([*texts, caplog.text])
    assert not [secret for secret in secrets if secret in everything]
    folder = world.api.settings.data_dir
    stored = b"".join(path.read_bytes() for path in folder.glob("chorus.db*"))
    assert made.json()["public"].encode() in stored
    assert not [secret for secret in secrets if secret.encode() in stored]
