"""Methods and headers that every route shares: HEAD beside GET, `Allow`, and one `X-Request-Id`."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from chorus_server.api.inference import calls
from chorus_server.api.routes.asgi import ROUTERS
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.testing import example_calibration
from tests.server.api.api_harness import ApiServer, Gate, error_of, eventually, gated_server

ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
PATHS = sorted({route.path for route in ROUTES})
LIVE = ("/metrics", "/v1/operations")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")


def taken(path: str) -> list[str]:
    """What the routes of a path say, HEAD beside GET."""
    found = {method for route in ROUTES if route.path == path for method in route.methods}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def url_of(path: str) -> str:
    for name, value in ((":path", ""), ("{n}", "1"), ("{calibration}", "1"), ("{", ""), ("}", "")):
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize("path", PATHS)
def test_a_405_lists_every_method_of_the_path(api: ApiServer, path: str) -> None:
    for method in METHODS:
        answer = api.http.request(method, url_of(path))
        assert (answer.status_code == 405) == (method not in taken(path)), method
        if answer.status_code == 405:
            assert sorted(answer.headers["allow"].split(", ")) == taken(path)
            assert method == "HEAD" or error_of(answer)["code"] == "method_not_allowed"


@pytest.fixture(scope="module")
def stocked(api: ApiServer) -> ApiServer:
    for task in ("task", "model"):
        api.push(task, labels=["good", "bad"])
    api.post("/v1/ensembles/name/versions", {"tasks": ["task"]})
    api.post("/v1/packs/name/versions", {"questions": {"q": {"task": "task"}}})
    api.store.calibrate("default", "task", 1, example_calibration())
    return api


@pytest.mark.parametrize("path", [path for path in PATHS if "GET" in taken(path)])
def test_head_answers_as_get_without_the_body(stocked: ApiServer, path: str) -> None:
    """`/metrics` counts what is asked, `/v1/operations` says how long ago it was: lengths may differ."""
    get, head = (stocked.http.request(method, url_of(path)) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (get.status_code, b"")
    varying = {"date", "x-request-id"} | ({"content-length"} if path in LIVE else set())
    shown = [{k: v for k, v in answer.headers.items() if k not in varying} for answer in (get, head)]
    assert shown[0] == shown[1]
    assert head.headers["content-length"] != "0"
    made = ("{file}", "{job}", "{evaluation}", "{batch}", "{calibration_job}", "{key}", "{tenant}")
    random = any(name in path for name in made)
    assert get.status_code == 200 or random


def test_the_connection_goes_on_after_a_head(stocked: ApiServer) -> None:
    """A body after a HEAD would be read as the next answer."""
    path = "/v1/tasks/task/versions/1/artifact"
    with socket.create_connection(("127.0.0.1", stocked.port), timeout=300) as client:
        request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        client.sendall(request + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        while more := client.recv(65536):
            received += more
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.endswith(b"\r\n\r\n")


def test_head_needs_the_key_of_get(tmp_path: Path, vocabulary: Vocabulary) -> None:
    reads, infers = "canary-reads-0123456789", "canary-infers-0123456789"
    keys = KeyRing(
        {
            reads: Principal("default", "reads", frozenset({Scope.READ})),
            infers: Principal("default", "infers", frozenset({Scope.INFER})),
        },
        Principal("default", "anonymous"),
    )
    with ApiServer(tmp_path, vocabulary, keys=keys) as server:
        for key, status in ((None, 401), (infers, 403), (reads, 200)):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            assert server.http.head("/v1/tasks", headers=headers).status_code == status


def job_of(api: ApiServer) -> str:
    content = b"text\tlabel\ngood\tyes\nbad\tno\n"
    sent = {"content": content, "headers": {"content-type": "application/octet-stream"}}
    file = api.http.post("/v1/files", params={"name": "train.tsv"}, **sent).json()["id"]
    recipe = {"prompt_length": 3, "steps": 10}
    body = {"task": "t", "data": {"train": {"file": file}}, "labels": ["no", "yes"], "recipe": recipe}
    found: str = api.post("/v1/tuning/jobs", body).json()["id"]
    return found


def test_head_of_a_stream_that_never_ends_does(api: ApiServer) -> None:
    """The job waits for ever, and so would its follower."""
    job = job_of(api)
    answer = api.http.head(f"/v1/tuning/jobs/{job}/events")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    eventually(lambda: api.services.feeds.followers == 0)
    with api.http.stream("GET", f"/v1/tuning/jobs/{job}/events") as control:
        text = control.iter_text()
        assert next(text).startswith("id: 1\n")
        assert api.services.feeds.followers == 1


@pytest.mark.parametrize("given", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "a.b_c:D-9", "x" * 128])
def test_a_well_formed_id_is_kept(api: ApiServer, given: str) -> None:
    for path, status in (("/v1/tasks", 200), ("/v1/tasks/absent", 404), ("/nothing", 404), ("/healthz", 200)):
        answer = api.http.get(path, headers={"x-request-id": given})
        assert answer.headers.get_list("x-request-id") == [given]
        assert answer.status_code == status
        assert status == 200 or error_of(answer)["request_id"] == given
    for stream in (False, True):
        body = {"task": None, "input": "x", "stream": stream}
        answer = api.http.post("/v1/generate", json=body, headers={"x-request-id": given})
        text = answer.text.split("data: ")[-1] if stream else answer.text
        assert json.loads(text)["id"] == given


@pytest.mark.parametrize(
    "given", ["", "a b", "a,b", "x" * 129, "a\u00e9", 'a"b', "<a>", "tenant=x id=y", "a/../b"]
)
def test_any_other_id_is_replaced(api: ApiServer, given: str) -> None:
    answer = api.http.get("/v1/tasks", headers={"x-request-id": given.encode("latin-1")})
    [made] = answer.headers.get_list("x-request-id")
    assert made.startswith("req_") and len(made) == 28
    twice = api.http.get("/v1/tasks", headers=[("x-request-id", "a"), ("x-request-id", "a")])
    assert twice.headers["x-request-id"].startswith("req_")


def asked_at_once(server: ApiServer, gate: Gate, times: int) -> list[int]:
    """The statuses of so many requests with one id, all under way at once."""
    statuses: list[int] = []

    def ask() -> None:
        body = {"task": None, "inputs": ["x", "good"]}
        headers = {"x-request-id": "one"}
        statuses.append(server.http.post("/v1/generate", json=body, headers=headers).status_code)

    threads = [threading.Thread(target=ask) for _ in range(times)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: server.engine.stats().permits + 2 * len(statuses) == 2 * times)
    finally:
        gate.open.set()
        for thread in threads:
            thread.join(300)
    return sorted(statuses)


@pytest.mark.parametrize("broken", [False, True], ids=["real", "control"])
def test_requests_with_one_id_run_beside_each_other(
    tmp_path: Path, vocabulary: Vocabulary, gate: Gate, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        monkeypatch.setattr(calls.secrets, "token_hex", lambda _: "")
    gate.close()
    with gated_server(tmp_path, vocabulary, gate) as server:
        assert asked_at_once(server, gate, 3) == ([200, 409, 409] if broken else [200, 200, 200])


def test_an_answer_to_a_defect_has_the_id_once_and_is_logged_as_a_500(
    tmp_path: Path, vocabulary: Vocabulary, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    with ApiServer(tmp_path, vocabulary) as server:
        monkeypatch.setattr(server.services.lifecycle, "report", broken)
        answer = server.http.get("/readyz", headers={"x-request-id": "seen"})
        assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")
        assert answer.headers.get_list("x-request-id") == ["seen"]
        labels = {"route": "/readyz", "status": "500"}
        count = lambda: server.services.metrics.registry.get_sample_value(  # noqa: E731
            "chorus_http_request_seconds_count", labels
        )
        eventually(lambda: count() == 1.0)
    assert "request seen failed unexpectedly" in caplog.text
