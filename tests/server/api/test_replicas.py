"""Four real server processes on one PostgreSQL and one bucket: what is changed at one is soon so at all.

How soon is measured in `benchmarks/keys.py`; here it only has to come. The control is a process that does not
read the change feed: it still goes by what was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from tests.postgres_server import PostgresServer
from tests.s3_server import S3Server
from tests.server.api.api_harness import artifact, eventually, train_vocabulary
from tests.server.api.replicas import serving

OPERATOR = "an-operator-of-tests-0123456789"
REPLICAS = 4
RAW = {"content-type": "application/octet-stream"}


class Replicas:
    """Those that follow the feed, and one that is deaf."""

    def __init__(self, urls: list[str]) -> None:
        self.clients = [httpx2.Client(base_url=url, timeout=300) for url in urls]
        self.deaf = self.clients.pop()

    def close(self) -> None:
        for client in (*self.clients, self.deaf):
            client.close()

    def change(self, at: int, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """By the operator, at one of them."""
        headers = {"authorization": f"Bearer {OPERATOR}", **more.pop("headers", {})}
        answer = self.clients[at].request(method, path, json=body, headers=headers, **more)
        assert answer.status_code in (200, 201, 204), answer.text
        return answer.json() if answer.content else None

    def publish(self, at: int, task: str, seed: int) -> None:
        path = f"/v1/tasks/{task}/versions"
        self.change(at, "POST", path, content=artifact(3, seed), headers=RAW)

    def key(self, at: int, tenant: str) -> dict[str, Any]:
        body = {"name": "k", "scopes": ["infer"]}
        found: dict[str, Any] = self.change(at, "POST", f"/v1/keys?tenant={tenant}", body)
        return found

    def seen(
        self, change: Callable[[], object], ask: Callable[[httpx2.Client], object], then: object
    ) -> None:
        """All see a change, after all saw what was, and only the deaf one goes on with that."""
        was = ask(self.deaf)
        assert was != then
        for client in self.clients:
            eventually(lambda client=client: ask(client) == was)  # type: ignore[misc]
        change()
        for client in self.clients:
            eventually(lambda client=client: ask(client) == then)  # type: ignore[misc]
        assert ask(self.deaf) == was, "control"


def answered(task: str, key: str = OPERATOR) -> Callable[[httpx2.Client], object]:
    """Which version answers at a replica, or the error's code."""

    def ask(client: httpx2.Client) -> object:
        headers = {"authorization": f"Bearer {key}"}
        body = {"task": task, "input": "good film", "max_new_tokens": 1}
        answer = client.post("/v1/generate", json=body, headers=headers)
        said = answer.json()
        return said["results"][0]["version"] if answer.status_code == 200 else said["error"]["code"]

    return ask


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, s3_server: S3Server
) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("replicas")
    vocabulary = train_vocabulary(folder)
    key = folder / "operator"
    key.write_text(OPERATOR)
    place = s3_server.address()
    settings = {
        "database_url": postgres_server.create(), "operator_key_file": key, "blob_url": s3_server.url(place),
        "blob_credentials_file": place.credentials_file,
    }  # fmt: skip
    with ExitStack() as stack:
        hows = [""] * REPLICAS + ["deaf"]
        urls = [
            stack.enter_context(serving(folder / str(number), vocabulary, how, **settings))
            for number, how in enumerate(hows)
        ]
        made = Replicas(urls)
        stack.callback(made.close)
        yield made


def test_promotion_rollback_and_deletion(replicas: Replicas) -> None:
    for at in (0, 1):
        replicas.publish(at, "moved", at)
    alias = "/v1/tasks/moved/aliases/live"
    replicas.seen(lambda: replicas.change(2, "PUT", alias, {"version": 2}), answered("moved"), 2)
    for client in replicas.clients:
        assert answered("moved")(client) == 2
    replicas.change(3, "DELETE", "/v1/tasks/moved")
    for client in replicas.clients:
        eventually(lambda client=client: answered("moved")(client) == "unknown_task")  # type: ignore[misc]
    assert answered("moved")(replicas.deaf) == 1, "control"


def test_a_revocation(replicas: Replicas) -> None:
    replicas.publish(0, "asked", 1)
    replicas.change(0, "POST", "/v1/tenants", {"name": "acme"})
    replicas.change(0, "PUT", "/v1/tasks/asked/grants/acme", {"rights": ["infer"]})
    key = replicas.key(1, "acme")
    path = f"/v1/keys/{key['id']}?tenant=acme"
    ask = answered("default/asked", key["key"])
    replicas.seen(lambda: replicas.change(2, "DELETE", path), ask, "unauthenticated")


def test_a_grant_and_its_end(replicas: Replicas) -> None:
    replicas.publish(1, "lent", 1)
    replicas.change(1, "POST", "/v1/tenants", {"name": "birch"})
    key = replicas.key(2, "birch")["key"]
    ask, path = answered("default/lent", key), "/v1/tasks/lent/grants/birch"
    for client in replicas.clients:
        assert ask(client) == "unknown_task"
    replicas.change(3, "PUT", path, {"rights": ["infer"]})
    for client in (*replicas.clients, replicas.deaf):
        eventually(lambda client=client: ask(client) == 1)  # type: ignore[misc]
    replicas.seen(lambda: replicas.change(0, "DELETE", path), ask, "unknown_task")


def test_a_limit(replicas: Replicas) -> None:
    replicas.publish(2, "limited", 1)
    replicas.change(2, "POST", "/v1/tenants", {"name": "cedar"})
    replicas.change(2, "PUT", "/v1/tasks/limited/grants/cedar", {"rights": ["infer"]})
    ask = answered("default/limited", replicas.key(3, "cedar")["key"])
    limits = {"limits": {"per_month": {"requests": {"hard": 1}}}}
    replicas.seen(lambda: replicas.change(1, "PATCH", "/v1/tenants/cedar", limits), ask, "limit_exceeded")


def test_jobs_of_every_kind_run_once(replicas: Replicas) -> None:
    """Nine jobs, asked for at all of them. Each row is answered once, wherever."""
    labels = {"label": ["no", "yes"]}
    replicas.change(0, "POST", "/v1/tasks/judge/versions", content=artifact(3, 9), headers=RAW, params=labels)
    rows = [{"text": f"good film {n}", "label": "yes" if n % 2 else "no"} for n in range(60)]
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/classify",
         "body": {"task": "judge", "input": row["text"], "labels": ["no", "yes"]}}
        for n, row in enumerate(rows)
    ]  # fmt: skip

    def file(at: int, what: list[dict[str, Any]]) -> str:
        content = "".join(json.dumps(each) + "\n" for each in what).encode()
        made = replicas.change(
            at, "POST", "/v1/files", params={"name": "a.jsonl"}, content=content, headers=RAW
        )
        return str(made["id"])

    jobs: list[str] = []
    for at in range(3):
        told = {"file": file(at, rows), "subjects": [{"task": "judge"}]}
        jobs.append(replicas.change(at, "POST", "/v1/evaluations", told)["id"])
        told = {"file": file(at, lines), "endpoint": "/v1/classify"}
        jobs.append(replicas.change(at + 1, "POST", "/v1/batches", told)["id"])
        path = "/v1/tasks/judge/versions/1/calibrations"
        jobs.append(replicas.change(at, "POST", path, {"file": file(at, rows)})["id"])
    for number, job in enumerate(jobs):
        said: dict[str, Any] = {}

        def over() -> bool:
            said.update(replicas.change(number % REPLICAS, "GET", f"/v1/jobs/{job}"))  # noqa: B023
            return said["finished_at"] is not None  # noqa: B023

        eventually(over)
        assert (said["status"], said["attempt"]) == ("succeeded", 1), said


def test_what_one_published_all_have(replicas: Replicas) -> None:
    """Nothing of it is only on the machine where it was made."""
    replicas.publish(3, "kept", 4)
    bits = {
        client.get(
            "/v1/tasks/kept/versions/1/artifact", headers={"authorization": f"Bearer {OPERATOR}"}
        ).content
        for client in replicas.clients
    }
    assert len(bits) == 1
