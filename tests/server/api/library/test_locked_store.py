"""Another program holds the database's write lock: reads and inference go on, changes wait, then are told.

The lock is let go only after the answers are there, so no clock decides.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from chorus_server.api.routes.asgi import ROUTERS
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.testing import example_calibration
from tests.server.api.api_harness import ApiServer, artifact, error_of, eventually

WRITERS = 5  # more than a server has threads for them
RAW = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """A server with one of everything, and what the paths of its routes name."""
    folder = tmp_path_factory.mktemp("locked")
    with ApiServer(folder, vocabulary) as api:
        api.push("t", labels=["no", "yes"])
        api.push("uncached", seed=1, labels=["no", "yes"])
        assert api.post("/v1/ensembles/e/versions", {"tasks": ["t", "uncached"]}).status_code == 201
        mapped = {"true": "yes", "false": "no"}
        for name in ("e", "p"):
            pack = {"questions": {"q": {"task": "t", "values": mapped}}}
            assert api.post(f"/v1/packs/{name}/versions", pack).status_code == 201
        file = api.http.post("/v1/files", params={"name": "train.jsonl"}, content=b"{}\n", headers=RAW)
        job = api.post("/v1/tuning/jobs", job_document(file.json()["id"]))
        assert job.status_code == 201, job.text
        calibration = api.post("/v1/tasks/t/versions/1/calibrations", {"file": file.json()["id"]})
        assert calibration.status_code == 201, calibration.text
        evaluation = api.post("/v1/evaluations", evaluation_document(file.json()["id"]))
        assert evaluation.status_code == 201, evaluation.text
        api.store.calibrate("default", "t", 1, example_calibration())
        api.store.create_tenant("acme")
        key, _ = api.store.create_key("default", "revoked", scopes=["infer"])
        api.store.revoke_key("default", key.id)  # so that nobody needs one
        places = {"task": "t", "n": 1, "alias": "live", "name": "e", "tenant": "acme", "key": key.id}
        places |= {"calibration_job": calibration.json()["id"], "calibration": 1}
        batch = api.post("/v1/batches", {"file": file.json()["id"], "endpoint": "/v1/classify"})
        assert batch.status_code == 201, batch.text
        places |= {"evaluation": evaluation.json()["id"], "batch": batch.json()["id"], "model": "t"}
        yield {"api": api, "file": file.json()["id"], "job": job.json()["id"], **places}


def evaluation_document(file: str) -> dict[str, Any]:
    return {"subjects": [{"task": "t"}], "file": file}


def job_document(file: str) -> dict[str, Any]:
    return {
        "task": "new",
        "data": {"train": {"file": file}},
        "template": "{sentence}",
        "labels": ["no", "yes"],
        "recipe": {"prompt_length": 2},
    }


@contextmanager
def locked(api: ApiServer) -> Iterator[sqlite3.Connection]:
    """Another connection to the file is in the middle of a change."""
    file = api.settings.data_dir / "chorus.db"
    with closing(sqlite3.connect(file, timeout=300, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE tasks SET description = 'half-written'")
        try:
            yield other
        finally:
            if other.in_transaction:
                other.execute("ROLLBACK")


@contextmanager
def in_background(api: ApiServer, calls: list[tuple[str, str, Any]]) -> Iterator[list[int]]:
    """Requests on threads of their own; the statuses of those that were answered, all of them at the end."""
    answered: list[int] = []

    def run(method: str, path: str, body: Any) -> None:
        answered.append(httpx2.request(method, api.url + path, json=body, timeout=300).status_code)

    threads = [threading.Thread(target=run, args=call) for call in calls]
    for thread in threads:
        thread.start()
    yield answered
    for thread in threads:
        thread.join()


def waiting(api: ApiServer) -> int:
    """Calls that wait on the writers' threads or for one."""
    return api.services.library._writers._pending


MOVES = [("PUT", "/v1/tasks/t/aliases/a", {"version": 1})] * WRITERS
NOULS = {"q": {"type": "noul", "instructions": "?"}}
QUESTIONS = [{"type": "predicate", "name": "q", "instructions": "?"}]
INPUT = {"input": "good film", "deadline_seconds": 300}
INFERENCE: list[tuple[str, dict[str, Any]]] = [
    ("/v1/classify", {"task": "t", **INPUT}),
    ("/v1/generate", {"task": "t@1", "max_new_tokens": 2, **INPUT}),
    ("/v1/generate", {"task": "default/t", "max_new_tokens": 2, "stream": True, **INPUT}),
    ("/v1/ensemble", {"tasks": ["t", "uncached"], **INPUT}),
    ("/v1/ensemble", {"ensemble": "e", **INPUT}),
    ("/v1/decisions", {"model": "p", "input": "good film", "questions": QUESTIONS}),
    (
        "/v1/systemone",
        {"model": "t", "state": "good film", "questions": {"q": {"type": "noul", "instructions": "?"}}},
    ),
    ("/v1/decisions", {"model": "t", "input": "good film", "questions": QUESTIONS}),
    ("/v1/completions", {"model": "t", "prompt": "good film", "max_tokens": 2}),
    ("/v1/chat/completions", {"model": "t", "messages": [{"role": "user", "content": "good film"}]}),
    ("/v1/responses", {"model": "t@1", "input": "good film"}),
]


def get_routes() -> list[str]:
    routes = [route for router in ROUTERS for route in router.routes]
    gets = [route for route in routes if isinstance(route, APIRoute) and "GET" in route.methods]
    return sorted(route.path.replace(":path", "") for route in gets)


def test_whoever_only_reads_is_answered_while_writers_wait(
    named: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every GET route, every inference route: on references that are cached, and on some that are not."""
    api: ApiServer = named["api"]
    monkeypatch.setattr(api.store._database, "patience_seconds", 300.0)
    refused: dict[str, str] = {}
    with locked(api) as other, in_background(api, MOVES) as answered:
        eventually(lambda: waiting(api) == WRITERS)
        for path in get_routes():
            follows = path.endswith("/events") and "fine_tuning" not in path
            query = {"follow": "false"} if follows else {}
            answer = api.http.get(path.format(**named), params=query)
            if answer.status_code != 200:
                refused[path] = answer.text
        for path, body in INFERENCE:
            for _ in range(2):
                answer = api.post(path, body)
                if answer.status_code != 200 or '"error":{' in answer.text:
                    refused[path] = answer.text
        assert (answered, waiting(api), other.in_transaction) == ([], WRITERS, True)
        other.execute("ROLLBACK")
    assert refused == {}
    assert answered == [200] * WRITERS
    assert len(get_routes()) > 15


def test_control_readers_on_the_writers_threads_wait_for_the_lock(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        api.store._database.patience_seconds = 300.0
        api.push("t", labels=["no", "yes"])
        api.services.library._readers = api.services.library._writers  # as it was
        reads = [("GET", "/v1/tasks", None), ("POST", "/v1/classify", {"task": "t", **INPUT})]
        with locked(api) as other, in_background(api, MOVES) as moved:
            eventually(lambda: waiting(api) == WRITERS)
            with in_background(api, reads) as read:
                eventually(lambda: waiting(api) == WRITERS + len(reads))
                assert (moved, read) == ([], [])
                other.execute("ROLLBACK")
        assert (moved, read) == ([200] * WRITERS, [200, 200])


UNSTORED = ("/v1/embeddings", "/v1/store/check")
"""Routes that change nothing in the store."""

CHANGES: list[tuple[str, str, Any]] = [
    ("PUT", "/v1/tasks/t/aliases/b", {"version": 1}),
    ("DELETE", "/v1/tasks/t/aliases/live", None),
    ("POST", "/v1/tasks/t/rollback", {}),
    ("PUT", "/v1/tasks/t/grants/other", {"rights": ["infer"]}),
    ("DELETE", "/v1/tasks/t/grants/other", None),
    ("PUT", "/v1/ensembles/e/grants/*", {"rights": ["infer"]}),
    ("DELETE", "/v1/ensembles/e/grants/*", None),
    ("PUT", "/v1/ensembles/e/aliases/b", {"version": 1}),
    ("DELETE", "/v1/ensembles/e/aliases/live", None),
    ("POST", "/v1/ensembles/e/rollback", {}),
    ("PUT", "/v1/packs/p/grants/*", {"rights": ["infer"]}),
    ("DELETE", "/v1/packs/p/grants/*", None),
    ("PUT", "/v1/packs/p/aliases/b", {"version": 1}),
    ("DELETE", "/v1/packs/p/aliases/live", None),
    ("POST", "/v1/packs/p/rollback", {}),
    ("POST", "/v1/packs/new/versions", {"questions": {"q": {"task": "t"}}}),
    ("DELETE", "/v1/packs/p", None),
    ("DELETE", "/v1/tasks/t/versions/1", None),
    ("DELETE", "/v1/tasks/t", None),
    ("DELETE", "/v1/models/t@1", None),
    ("POST", "/v1/tasks/other/versions", artifact(seed=9)),
    ("POST", "/v1/ensembles/new/versions", {"tasks": ["t", "uncached"]}),
    ("DELETE", "/v1/ensembles/e", None),
    ("POST", "/v1/files?name=new.jsonl", b"{}\n"),
    ("DELETE", "/v1/files/{file}", None),
    ("POST", "/v1/tasks/t/versions/1/calibrations", "calibration"),
    ("POST", "/v1/tasks/t/calibration_jobs/{calibration_job}/cancel", None),
    ("POST", "/v1/tuning/jobs", "job"),
    ("POST", "/v1/tuning/jobs/{job}/cancel", None),
    ("POST", "/v1/tuning/jobs/{job}/pause", None),
    ("POST", "/v1/tuning/jobs/{job}/resume", None),
    ("POST", "/v1/jobs/{job}/cancel", None),
    ("POST", "/v1/jobs/{job}/resume", None),
    ("POST", "/openai/v1/files", "form"),
    ("DELETE", "/openai/v1/files/{file}", None),
    ("POST", "/v1/fine_tuning/jobs", "fine-tuning"),
    ("POST", "/v1/fine_tuning/jobs/{job}/cancel", None),
    ("POST", "/v1/fine_tuning/jobs/{job}/pause", None),
    ("POST", "/v1/fine_tuning/jobs/{job}/resume", None),
    ("POST", "/v1/evaluations", "evaluation"),
    ("POST", "/v1/evaluations/{evaluation}/cancel", None),
    ("POST", "/v1/evaluations/{evaluation}/resume", None),
    ("POST", "/v1/batches", "batch"),
    ("POST", "/v1/batches/{batch}/cancel", None),
    ("POST", "/v1/batches/{batch}/resume", None),
    ("POST", "/openai/v1/batches", "openai batch"),
    ("POST", "/openai/v1/batches/{batch}/cancel", None),
    ("POST", "/v1/tenants", {"name": "new"}),
    ("PATCH", "/v1/tenants/{tenant}", {"weight": 2.0}),
    ("POST", "/v1/tenants/{tenant}/suspend", None),
    ("POST", "/v1/tenants/{tenant}/resume", None),
    ("DELETE", "/v1/tenants/{tenant}", None),
    ("POST", "/v1/keys", {"name": "new", "scopes": ["infer"]}),
    ("PATCH", "/v1/keys/{key}", {"limits": {"in_flight": {"requests": 1}}}),
    ("DELETE", "/v1/keys/{key}", None),
]


def test_every_change_is_told_when_its_patience_ends(
    named: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    api: ApiServer = named["api"]
    monkeypatch.setattr(api.store._database, "patience_seconds", 0.01)
    changing = [
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and route.path not in {*dict(INFERENCE), *UNSTORED}
        for method in route.methods - {"GET"}
    ]
    assert len(changing) == len(CHANGES), "a new route that changes something has no line here"
    with locked(api):
        for method, path, body in CHANGES:
            content = {"content": body, "headers": RAW} if isinstance(body, bytes) else {"json": body}
            if body == "job":
                content = {"json": job_document(named["file"])}
            if body == "form":
                content = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"{}\n")}}
            if body == "fine-tuning":
                content = {"json": {"model": "base", "training_file": named["file"]}}
            if body == "calibration":
                content = {"json": {"file": named["file"]}}
            if body == "evaluation":
                content = {"json": evaluation_document(named["file"])}
            if body == "batch":
                content = {"json": {"file": named["file"], "endpoint": "/v1/classify"}}
            if body == "openai batch":
                content = {"json": {"input_file_id": named["file"], "endpoint": "/v1/classify"}}
            answer = api.http.request(method, path.format(**named), **content)
            assert answer.status_code == 503, (method, path, answer.text)
            assert int(answer.headers["retry-after"]) >= 1
            assert error_of(answer)["code"] == "store_unavailable"
            assert "which program holds the lock" in error_of(answer)["message"]
            assert api.post("/v1/classify", {"task": "t", **INPUT}).status_code == 200
    assert api.http.get("/v1/tasks/t/aliases").json()["aliases"]["live"] == 1
    assert api.http.get("/v1/tasks/other").status_code == 404


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second in which a busy machine does not come to a check is no trouble of the store's."""
    monkeypatch.setattr("chorus_server.api.library.store_health.LOOK_SECONDS", 300.0)


def looks_well(api: ApiServer) -> bool:
    """Whether a new check finds nothing wrong: a slow disk may hold up one of them."""
    asyncio.run(api.services.library.health.look())
    ready: dict[str, Any] = api.http.get("/readyz").json()
    return ready == {"status": "ready"}


@pytest.mark.usefixtures("slow_machine")
def test_readyz_says_since_when_the_database_takes_no_changes(named: dict[str, Any]) -> None:
    api: ApiServer = named["api"]
    look = api.services.library.health.look
    with locked(api):
        asyncio.run(look())
        ready = api.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert ready.json()["store"]["status"] == "unwritable"
        assert ready.json()["store"]["since_seconds"] >= 0
        assert api.http.get("/healthz").json() == {"status": "ok"}
    eventually(lambda: looks_well(api))


@pytest.mark.usefixtures("slow_machine")
def test_readyz_goes_down_when_the_database_is_gone_for_too_long(
    named: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    api: ApiServer = named["api"]
    look, file = api.services.library.health.look, api.settings.data_dir / "chorus.db"
    assert api.post("/v1/classify", {"task": "t", **INPUT}).status_code == 200
    api.store._database.engine.dispose()
    hidden = file.rename(file.with_name("hidden.db"))
    file.mkdir()
    api.store._database.engine.dispose()  # the change feed may have been read just before
    try:
        asyncio.run(look())
        ready = api.http.get("/readyz")
        assert (ready.status_code, ready.json()["store"]["status"]) == (200, "unreadable")
        assert api.post("/v1/classify", {"task": "t", **INPUT}).status_code == 200  # a spare
        unknown = api.post("/v1/classify", {"task": "other", **INPUT})
        assert (unknown.status_code, error_of(unknown)["code"]) == (503, "store_unavailable")
        assert int(unknown.headers["retry-after"]) >= 1
        # It has been so for so long.
        monkeypatch.setattr("chorus_server.api.library.store_health.STALE_SECONDS", 0.0)
        ready = api.http.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "store_unavailable")
        assert api.http.get("/healthz").status_code == 200
    finally:
        file.rmdir()
        hidden.rename(file)
    eventually(lambda: looks_well(api))  # the change feed is read again within a moment
