"""What the access log says of each request, and how loudly."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest
from starlette.types import Message, Receive, Scope, Send

from chorus_server.api.http.access import AccessLog, AccessMiddleware
from chorus_server.api.metrics import ApiMetrics
from chorus_server.metrics import MetricsRegistry


def levels(caplog: pytest.LogCaptureFixture, route: str, status: int, log: bool = True) -> list[int]:
    """The levels of what is logged when this route answers so."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = SimpleNamespace(path=route)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None: ...

    registry = MetricsRegistry()
    middleware = AccessMiddleware(app, AccessLog(ApiMetrics(registry), log))
    with caplog.at_level(logging.DEBUG, "chorus.access"):
        asyncio.run(middleware({"type": "http", "method": "GET", "headers": []}, receive, send))
    labels = {"route": route, "status": str(status)}  # counted, however quietly it is logged
    assert registry.get_sample_value("chorus_http_request_seconds_count", labels) == 1
    return [record.levelno for record in caplog.records]


@pytest.mark.parametrize(
    ("route", "status"), [("/healthz", 200), ("/readyz", 200), ("/readyz", 503), ("/metrics", 200)]
)
def test_probes_are_logged_at_debug(caplog: pytest.LogCaptureFixture, route: str, status: int) -> None:
    assert levels(caplog, route, status) == [logging.DEBUG]


@pytest.mark.parametrize(
    ("route", "status"), [("/v1/generate", 200), ("/v1/model", 503), ("/metrics", 401), ("/metrics", 403)]
)
def test_requests_and_refused_keys_are_logged_at_info(
    caplog: pytest.LogCaptureFixture, route: str, status: int
) -> None:
    assert levels(caplog, route, status) == [logging.INFO]


def test_nothing_is_logged_when_the_log_is_off(caplog: pytest.LogCaptureFixture) -> None:
    assert levels(caplog, "/v1/generate", 200, log=False) == []
