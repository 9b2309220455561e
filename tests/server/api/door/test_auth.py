"""The route table against callers.

A new route without a scope cannot be made, and one without a row here fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter

from chorus_server.api.door.routing import ChorusRoute
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from tests.server.api.api_harness import ApiServer, artifact, error_of
from tests.server.api.route_table import ROUTES

OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
KEYS = {scope: f"canary-{scope.name.lower()}-0123456789" for scope in Scope}
ALL = "canary-everything-0123456789"


GUARDED = [(method, path, door.scope) for (method, path), door in ROUTES.items() if door is not None]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    keys = {secret: Principal("default", scope.name, frozenset({scope})) for scope, secret in KEYS.items()}
    ring = KeyRing(keys | {ALL: Principal("default", "all")}, Principal("default", "anonymous"))
    with ApiServer(tmp_path_factory.mktemp("locked"), vocabulary, keys=ring) as server:
        yield server


def call(api: ApiServer, method: str, path: str, key: str | None) -> Any:
    for name, value in (
        ("task", "x"),
        ("n", "1"),
        ("alias", "live"),
        ("name", "x"),
        ("file", "x"),
        ("job", "x"),
        ("tenant", "x"),
        ("key", "x"),
    ):
        path = path.replace("{" + name + "}", value)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return api.http.request(method, path, headers=headers)


def test_only_the_two_health_routes_are_open() -> None:
    assert {route for route, door in ROUTES.items() if door is None} == OPEN
    assert len(GUARDED) == 125


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED, ids=lambda value: str(value))
def test_every_other_route_needs_a_key_with_its_scope(
    locked: ApiServer, method: str, path: str, scope: Scope | None
) -> None:
    anonymous = call(locked, method, path, None)
    assert (anonymous.status_code, error_of(anonymous)["code"]) == (401, "unauthenticated")
    assert anonymous.headers["www-authenticate"] == "Bearer"
    bad = call(locked, method, path, "not-a-key-of-this-server")
    assert (bad.status_code, error_of(bad)["code"]) == (401, "unauthenticated")
    assert "not-a-key" not in bad.text
    for other in Scope:
        answer = call(locked, method, path, KEYS[other])
        if scope is None or other is scope:
            assert answer.status_code not in (401, 403)
        else:
            assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")
    assert call(locked, method, path, ALL).status_code not in (401, 403)


def test_the_open_routes_answer_anybody(locked: ApiServer) -> None:
    for method, path in OPEN:
        assert call(locked, method, path, None).status_code == 200
        assert call(locked, method, path, "whatever-this-is").status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic " + ALL, ALL, "Bearer " + "x" * 10_000, "Bearer \u00e9\u00e9"]
)
def test_odd_authorisation_headers_are_a_401(locked: ApiServer, header: str) -> None:
    answer = locked.http.get("/v1/tasks", headers={"authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    error_of(answer)


def test_the_scheme_is_case_insensitive(locked: ApiServer) -> None:
    assert locked.http.get("/v1/tasks", headers={"authorization": f"bEARER {ALL}"}).status_code == 200


def test_nobody_without_a_key_can_make_the_server_read_a_body(locked: ApiServer) -> None:
    huge = b"x" * (locked.settings.max_body_bytes + 1)
    answer = locked.http.post("/v1/generate", content=huge, headers={"content-type": "application/json"})
    assert answer.status_code == 401


def test_keys_are_in_no_log_and_no_answer(locked: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"authorization": f"Bearer {ALL}", "content-type": "application/octet-stream"}
    texts = [
        locked.http.post("/v1/tasks/t/versions", content=artifact(), headers=headers).text,
        locked.http.get("/metrics", headers={"authorization": f"Bearer {KEYS[Scope.METRICS]}"}).text,
        locked.http.get("/v1/model", headers=headers).text,
        locked.http.get("/openapi.json", headers=headers).text,
        locked.http.get("/v1/tasks", headers={"authorization": f"Bearer {KEYS[Scope.INFER]}"}).text,
        caplog.text,
    ]
    assert all("canary" not in text for text in texts)


def test_a_route_without_a_scope_cannot_be_made() -> None:
    router = APIRouter(route_class=ChorusRoute)
    with pytest.raises(TypeError, match="names no scope"):

        @router.get("/v1/forgotten")
        async def forgotten() -> None: ...
