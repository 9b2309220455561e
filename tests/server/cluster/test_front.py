from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI, Response

from chorus_server.cluster.front import Front


def ask(path: str, root: str = "") -> tuple[int, list[str], bytes]:
    """Status, names of headers and body, as a proxy gets them."""
    app = FastAPI()

    @app.get("/{rest:path}")
    def anything() -> Response:
        return Response("text", headers={"X-Request-Id": "abc", "X-Other": "kept"})

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": root + path, "root_path": root, "query_string": b""}
    asyncio.run(Front(app)(scope | {"headers": [(b"x-request-id", b"abc")]}, receive, send))
    head, *rest = sent
    names = [name.decode() for name, _ in head["headers"]]
    return head["status"], names, b"".join(each["body"] for each in rest)


def test_the_proxys_id_is_the_only_one() -> None:
    status, names, body = ask("/v1/model")
    assert (status, body) == (200, b"text")
    assert "x-other" in names and "x-request-id" not in names


def test_no_replica_is_scraped_through_the_proxy() -> None:
    for root in ("", "/chorus"):
        status, _, body = ask("/metrics", root)
        error = json.loads(body)["error"]
        assert status == 404 and error["code"] == "not_found" and error["request_id"] == "abc"
        assert "CHORUS_HTTP_PORT" in error["message"]
    assert ask("/v1/metrics")[0] == 200, "control"


def test_ray_finds_the_routes() -> None:
    app = FastAPI()
    front = Front(app)
    assert front.routes is app.routes and front.router is app.router
