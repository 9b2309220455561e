"""A browser reaches a server on loopback for every page it shows; the page must change and read nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from chorus_server.api.door import routing
from chorus_server.api.routes.asgi import ROUTERS
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal
from tests.server.api.api_harness import ApiServer, artifact, error_of, eventually

KEY = "canary-of-a-program-0123456789"
ROUTES = {
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods
}
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
REFUSED = {("POST", "/v1/embeddings")}
"""Whoever asks."""

CHANGES = {(method, path) for method, path in ROUTES if method != "GET"} - REFUSED
BINARY = {"content-type": "application/octet-stream"}

FOREIGN = [
    {"origin": "http://attacker.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://localhost:1"},
    {"origin": "http://127.0.0.1"},
    {"sec-fetch-site": "cross-site", "origin": "http://attacker.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "of a browser to come"},
]
"""What a browser adds to the request of a page, so that a server can tell."""

FORMS: list[dict[str, Any]] = [
    {},
    {"content": b'{"alias": "live"}', "headers": {"content-type": "text/plain"}},
    {"data": {"alias": "live"}},
    {"files": {"file": ("train.tsv", b"text\tlabel\nx\ty\n")}},
    {"files": {"file": ("p", artifact(3, 9))}},
]
"""What a form or `fetch` sends to another site without asking it first."""


def serve(folder: Path, vocabulary: Vocabulary, **options: Any) -> Iterator[ApiServer]:
    with ApiServer(folder, vocabulary, **options) as server:
        server.http.headers["authorization"] = f"Bearer {KEY}"
        yield server


@pytest.fixture
def keyless(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    yield from serve(tmp_path, vocabulary)


@pytest.fixture
def keyed(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    ring = KeyRing({KEY: Principal("default", "key")}, Principal("default", "anonymous"))
    yield from serve(tmp_path, vocabulary, keys=ring)


def stock(api: ApiServer) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    """A request for each route that changes something or costs work: the URL and what is sent. Done in this
    order, each succeeds.
    """
    for seed in (1, 2):
        api.push("a", seed=seed, labels=["good", "bad"])
        api.push("b", seed=seed, labels=["good", "bad"])
    api.push("of_openai")
    api.http.put("/v1/tasks/a/aliases/live", json={"version": 2})
    for policy in ("refuse", "base"):
        api.post("/v1/packs/p/versions", {"questions": {"q": {"task": "a"}}, "unknown_questions": policy})
    api.http.put("/v1/packs/p/aliases/live", json={"version": 2})
    for weight in (1, 2):
        api.post("/v1/ensembles/moved/versions", {"tasks": ["a@1"], "weights": [weight]})
    api.http.put("/v1/ensembles/moved/aliases/live", json={"version": 2})
    content = b"text\tlabel\ngood\tyes\nbad\tno\n"
    files = [
        api.http.post("/v1/files", params={"name": f"{n}.tsv"}, content=content, headers=BINARY).json()["id"]
        for n in range(3)
    ]
    job = {
        "task": "a",
        "data": {"train": {"file": files[0]}},
        "labels": ["no", "yes"],
        "recipe": {"prompt_length": 3, "steps": 10, "batch_size": 4},
    }
    made, tuned = (api.post("/v1/tuning/jobs", job).json()["id"] for _ in range(2))
    calibration = {"file": files[0], "labels": ["no", "yes"]}
    calibrated = api.post("/v1/tasks/a/versions/1/calibrations", calibration).json()["id"]
    evaluation = {"subjects": [{"task": "a"}], "file": files[0], "labels": ["no", "yes"]}
    evaluated = api.post("/v1/evaluations", evaluation).json()["id"]
    batch = {"file": files[0], "endpoint": "/v1/classify"}
    batches = [api.post("/v1/batches", batch).json()["id"] for _ in range(2)]
    openai_batch = {"input_file_id": files[0], "endpoint": "/v1/classify"}
    tasks, versions = "/v1/tasks/{task}", "/v1/tasks/{task}/versions"
    return {
        ("POST", "/v1/generate"): ("/v1/generate", {"json": {"task": "a", "input": "x"}}),
        ("POST", "/v1/classify"): ("/v1/classify", {"json": {"task": "a", "input": "x"}}),
        ("POST", "/v1/ensemble"): ("/v1/ensemble", {"json": {"tasks": ["a", "b"], "input": "x"}}),
        ("POST", versions): ("/v1/tasks/a/versions", {"content": artifact(3, 7), "headers": BINARY}),
        ("POST", tasks + "/rollback"): ("/v1/tasks/a/rollback", {}),
        ("PUT", tasks + "/aliases/{alias}"): ("/v1/tasks/a/aliases/new", {"json": {"version": 1}}),
        ("DELETE", tasks + "/aliases/{alias}"): ("/v1/tasks/a/aliases/new", {}),
        ("POST", "/v1/ensembles/{name}/versions"): ("/v1/ensembles/e/versions", {"json": {"tasks": ["a"]}}),
        ("PUT", "/v1/ensembles/{name}/aliases/{alias}"): (
            "/v1/ensembles/e/aliases/new",
            {"json": {"version": 1}},
        ),
        ("DELETE", "/v1/ensembles/{name}/aliases/{alias}"): ("/v1/ensembles/e/aliases/new", {}),
        ("POST", "/v1/ensembles/{name}/rollback"): ("/v1/ensembles/moved/rollback", {}),
        ("POST", "/v1/decisions"): (
            "/v1/decisions",
            {
                "json": {
                    "model": "base",
                    "input": "x",
                    "questions": [{"type": "predicate", "instructions": "?"}],
                }
            },
        ),
        ("POST", "/v1/completions"): ("/v1/completions", {"json": {"model": "a", "prompt": "x"}}),
        ("POST", "/v1/chat/completions"): (
            "/openai/v1/chat/completions",
            {"json": {"model": "a", "messages": [{"role": "user", "content": "x"}]}},
        ),
        ("POST", "/v1/responses"): ("/openai/v1/responses", {"json": {"model": "a", "input": "x"}}),
        ("DELETE", "/v1/models/{model:path}"): ("/openai/v1/models/of_openai", {}),
        ("POST", "/v1/systemone"): (
            "/v1/systemone",
            {
                "json": {
                    "model": "base",
                    "state": "x",
                    "questions": {"q": {"type": "noul", "instructions": "?"}},
                }
            },
        ),
        ("POST", "/v1/packs/{name}/versions"): (
            "/v1/packs/p/versions",
            {"json": {"questions": {"new": {"task": "a"}}}},
        ),
        ("PUT", "/v1/packs/{name}/aliases/{alias}"): ("/v1/packs/p/aliases/new", {"json": {"version": 1}}),
        ("DELETE", "/v1/packs/{name}/aliases/{alias}"): ("/v1/packs/p/aliases/new", {}),
        ("POST", "/v1/packs/{name}/rollback"): ("/v1/packs/p/rollback", {}),
        ("PUT", "/v1/packs/{name}/grants/{grantee}"): (
            "/v1/packs/p/grants/*",
            {"json": {"rights": ["infer"]}},
        ),
        ("DELETE", "/v1/packs/{name}/grants/{grantee}"): ("/v1/packs/p/grants/*", {}),
        ("DELETE", "/v1/packs/{name}"): ("/v1/packs/p", {}),
        ("PUT", tasks + "/grants/{grantee}"): ("/v1/tasks/a/grants/acme", {"json": {"rights": ["infer"]}}),
        ("DELETE", tasks + "/grants/{grantee}"): ("/v1/tasks/a/grants/acme", {}),
        ("PUT", "/v1/ensembles/{name}/grants/{grantee}"): (
            "/v1/ensembles/e/grants/*",
            {"json": {"rights": ["infer"]}},
        ),
        ("DELETE", "/v1/ensembles/{name}/grants/{grantee}"): ("/v1/ensembles/e/grants/*", {}),
        ("DELETE", "/v1/ensembles/{name}"): ("/v1/ensembles/e", {}),
        ("DELETE", versions + "/{n}"): ("/v1/tasks/a/versions/2", {}),
        ("DELETE", tasks): ("/v1/tasks/b", {}),
        ("POST", "/v1/files"): ("/v1/files?name=c.tsv", {"content": content, "headers": BINARY}),
        ("DELETE", "/v1/files/{file}"): (f"/v1/files/{files[1]}", {}),
        ("POST", versions + "/{n}/calibrations"): (
            "/v1/tasks/a/versions/1/calibrations",
            {"json": calibration},
        ),
        ("POST", tasks + "/calibration_jobs/{calibration_job}/cancel"): (
            f"/v1/tasks/a/calibration_jobs/{calibrated}/cancel",
            {},
        ),
        ("POST", "/v1/tuning/jobs"): ("/v1/tuning/jobs", {"json": job}),
        ("POST", "/v1/tuning/jobs/{job}/cancel"): (f"/v1/tuning/jobs/{made}/cancel", {}),
        ("POST", "/v1/tuning/jobs/{job}/resume"): (f"/v1/tuning/jobs/{made}/resume", {}),
        ("POST", "/v1/tuning/jobs/{job}/pause"): (f"/v1/tuning/jobs/{tuned}/pause", {}),
        ("POST", "/v1/fine_tuning/jobs"): (
            "/openai/v1/fine_tuning/jobs",
            {"json": {"model": "base", "training_file": files[0]}},
        ),
        **{
            ("POST", f"/v1/fine_tuning/jobs/{{job}}/{verb}"): (
                f"/openai/v1/fine_tuning/jobs/{tuned}/{verb}",
                {},
            )
            for verb in ("resume", "pause", "cancel")
        },
        ("POST", "/openai/v1/files"): (
            "/openai/v1/files",
            {"data": {"purpose": "batch"}, "files": {"file": ("d.jsonl", content)}},
        ),
        ("DELETE", "/openai/v1/files/{file}"): (f"/openai/v1/files/{files[2]}", {}),
        ("POST", "/v1/evaluations"): ("/v1/evaluations", {"json": evaluation}),
        ("POST", "/v1/evaluations/{evaluation}/cancel"): (f"/v1/evaluations/{evaluated}/cancel", {}),
        ("POST", "/v1/evaluations/{evaluation}/resume"): (f"/v1/evaluations/{evaluated}/resume", {}),
        ("POST", "/v1/jobs/{job}/cancel"): (f"/v1/jobs/{made}/cancel", {}),
        ("POST", "/v1/jobs/{job}/resume"): (f"/v1/jobs/{made}/resume", {}),
        ("POST", "/v1/batches"): ("/v1/batches", {"json": batch}),
        ("POST", "/v1/batches/{batch}/cancel"): (f"/v1/batches/{batches[0]}/cancel", {}),
        ("POST", "/v1/batches/{batch}/resume"): (f"/v1/batches/{batches[0]}/resume", {}),
        ("POST", "/openai/v1/batches"): ("/openai/v1/batches", {"json": openai_batch}),
        ("POST", "/openai/v1/batches/{batch}/cancel"): (f"/openai/v1/batches/{batches[1]}/cancel", {}),
        ("POST", "/v1/store/check"): ("/v1/store/check", {}),
        ("POST", "/v1/tenants"): ("/v1/tenants", {"json": {"name": "acme"}}),
        ("PATCH", "/v1/tenants/{tenant}"): ("/v1/tenants/acme", {"json": {"weight": 2.0}}),
        ("POST", "/v1/tenants/{tenant}/suspend"): ("/v1/tenants/acme/suspend", {}),
        ("POST", "/v1/tenants/{tenant}/resume"): ("/v1/tenants/acme/resume", {}),
        ("DELETE", "/v1/keys/{key}"): (f"/v1/keys/{(revoked := revoked_key(api))}", {}),
        ("PATCH", "/v1/keys/{key}"): (f"/v1/keys/{revoked}", {"json": {"limits": {}}}),
        ("POST", "/v1/keys"): ("/v1/keys?tenant=acme", {"json": {"name": "k", "scopes": ["infer"]}}),
        ("DELETE", "/v1/tenants/{tenant}"): ("/v1/tenants/acme", {}),
    }


def revoked_key(api: ApiServer) -> str:
    """One that was revoked before anybody knew of it, so that the server stays as open as it was."""
    key, _ = api.store.create_key("default", "revoked", scopes=["infer"])
    api.store.revoke_key("default", key.id)
    return key.id


def revoke_all(api: ApiServer) -> None:
    """A server that was open before the first key was made is open again."""
    for key in api.store.list_keys("acme").items:
        api.store.revoke_key("acme", key.id)
    eventually(lambda: api.http.get("/v1/tasks").status_code == 200)


def state(api: ApiServer) -> dict[str, Any]:
    """Everything that is kept, and how much work was done."""
    pages = ["/v1/tasks", "/v1/ensembles", "/v1/packs", "/v1/files", "/v1/jobs"]
    pages += [f"/v1/tasks/{task}/{part}" for task in "ab" for part in ("versions", "aliases")]
    return {page: api.http.get(page).json() for page in pages} | {"steps": api.engine.stats().steps}


def ask(
    api: ApiServer, method: str, url: str, sent: dict[str, Any], added: dict[str, str]
) -> httpx2.Response:
    return api.http.request(method, url, **{**sent, "headers": {**sent.get("headers", {}), **added}})


@pytest.mark.parametrize("server", ["keyless", "keyed"])
def test_no_page_of_another_origin_changes_anything(server: str, request: pytest.FixtureRequest) -> None:
    api: ApiServer = request.getfixturevalue(server)
    known = stock(api)
    assert set(known) == CHANGES  # a new route needs a line
    before = state(api)
    for (method, _), (url, valid) in known.items():
        for sent in [valid, *FORMS]:
            for added in FOREIGN if sent is valid else FOREIGN[-4:-1]:
                answer = ask(api, method, url, sent, added)
                assert (answer.status_code, error_of(answer)["code"]) == (403, "foreign_origin"), (url, added)
    assert state(api) == before

    # The control: without what a browser adds, or from a page of the server's own, the same requests count.
    host = api.url.removeprefix("http://")
    own = [{}, {"origin": api.url, "sec-fetch-site": "same-origin"}, {"origin": f"HTTP://{host}"}]
    for number, ((method, _), (url, valid)) in enumerate(known.items()):
        answer = ask(api, method, url, valid, own[number % len(own)])
        # The only key that leaves the server open was revoked, and changes no more.
        over = method == "PATCH" and "/keys/" in url and error_of(answer)["code"] == "key_over"
        assert over or answer.status_code in (200, 201, 202, 204), (url, answer.text)
        if answer.status_code == 201 and url.startswith("/v1/keys"):
            revoke_all(api)
    after = state(api)
    assert not {name for name in after if after[name] == before[name]}


def test_without_the_door_a_page_moves_an_alias(keyless: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above and below."""
    monkeypatch.setattr(routing, "refuse_pages", lambda *_: None)
    stock(keyless)
    page = {"host": "attacker.example", "origin": "http://attacker.example", "sec-fetch-site": "cross-site"}
    assert keyless.http.post("/v1/tasks/a/rollback", headers=page).json()["version"] == 1
    assert keyless.http.get("/v1/tasks", headers=page).status_code == 200


LOCAL = ["localhost", "LocalHost:1", "127.0.0.1", "127.9.9.9:8000", "[::1]", "[0:0::1]:65535"]
OTHERS = [
    "attacker.example",
    "attacker.example:8000",
    "localhost.attacker.example",
    "127.0.0.1.nip.io",
    "localhost@attacker.example",
    "attacker.example@localhost",
    "localhost:80@attacker.example",
    "localhost, attacker.example",
    "localhost.",
    "2130706433",
    "0x7f.0.0.1",
    "127.1",
    "0.0.0.0:8000",
    "10.0.0.1",
    "[::2]",
    "::1",
    "[::1",
    "localhost:",
    "localhost:123456",
    "localhost/",
    "",
]


def test_by_a_name_of_another_site_nothing_is_read(api: ApiServer) -> None:
    """A page whose own name was made to mean 127.0.0.1 may read every answer, so it gets none."""
    for method, path in ROUTES - OPEN:
        url = path.replace("{n}", "1")
        answer = api.http.request(method, url, headers={"host": "attacker.example:8000"})
        assert (answer.status_code, error_of(answer)["code"]) == (403, "unknown_host"), path
    for host in OTHERS:
        answer = api.http.get("/v1/tasks", headers={"host": host})
        assert (answer.status_code, error_of(answer)["code"]) == (403, "unknown_host"), host
    for host in LOCAL:  # the control
        assert api.http.get("/v1/tasks", headers={"host": host}).status_code == 200, host


def test_two_hosts_or_none_are_no_host(api: ApiServer) -> None:
    for head in ("1.1\r\nHost: localhost\r\nHost: attacker.example", "1.1", "1.0"):
        with socket.create_connection(("127.0.0.1", api.port), timeout=300) as client:
            client.sendall(f"GET /v1/tasks HTTP/{head}\r\n\r\n".encode())
            assert client.recv(4096).split()[1] in (b"400", b"403"), head


def test_health_is_told_by_any_name(api: ApiServer) -> None:
    """Kubernetes asks by a pod's address."""
    for method, path in OPEN:
        assert api.http.request(method, path, headers={"host": "10.0.0.1:8000"}).status_code == 200


def test_where_a_key_is_needed_any_name_will_do(keyed: ApiServer) -> None:
    assert keyed.http.get("/v1/tasks", headers={"host": "chorus.example"}).status_code == 200
    answer = keyed.http.get("/v1/tasks", headers={"host": "chorus.example", "authorization": ""})
    assert answer.status_code == 401
    own = {"host": "chorus.example:443", "origin": "https://chorus.example"}
    assert keyed.http.post("/v1/generate", json={"task": None, "input": "x"}, headers=own).status_code == 200


def test_bound_insecurely_any_name_will_do_and_pages_may_still_change_nothing(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    for api in serve(tmp_path, vocabulary, http_host="0.0.0.0", insecure_bind=True):
        assert api.http.get("/v1/tasks", headers={"host": "chorus:8000"}).status_code == 200
        headers = {"host": "chorus:8000", "origin": "http://attacker.example"}
        assert error_of(api.http.post("/v1/tasks/a/rollback", headers=headers))["code"] == "foreign_origin"


def test_no_path_with_a_slash_at_its_end_is_sent_to_the_host_that_the_caller_wrote(
    api: ApiServer,
) -> None:
    for method, path in ROUTES:
        answer = api.http.request(method, path + "/", headers={"host": "attacker.example"})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found"), path
        assert "location" not in answer.headers
        assert "slash" in error_of(answer)["message"]
