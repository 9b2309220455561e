"""`/healthz`, `/readyz` and `/metrics`. The first two are open; they reveal only the state of the process."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from chorus_server.api.door.auth import MayScrape
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.responses import errors
from chorus_server.api.inference.answers import json_response
from chorus_server.api.schemas.common import AnswerModel, StoreTrouble
from chorus_server.api.services import services_of
from prompts_store.errors import StoreError

router = APIRouter(tags=["server"])
guarded = APIRouter(route_class=ChorusRoute, tags=["server"])


class HealthAnswer(AnswerModel):
    """Whether the process is alive."""

    status: str


class ReadyAnswer(AnswerModel):
    """Whether the server takes requests, how far compiling is, and what is wrong with the store, if
    anything."""

    status: str
    done: int | None = None
    total: int | None = None
    store: StoreTrouble | None = None


@router.get("/healthz", response_model=HealthAnswer, responses={503: {"model": HealthAnswer}})
async def healthz(request: Request) -> Response:
    """200 while the process lives and its engine has not died."""
    dead = services_of(request).lifecycle.phase == "dead"
    return json_response({"status": "dead" if dead else "ok"}, 503 if dead else 200)


@router.get("/readyz", response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer}})
async def readyz(request: Request) -> Response:
    """200 once every program is compiled, until the server drains, its engine dies, or its database has been
    unreadable for too long. The answer comes from memory and waits for nothing."""
    services = services_of(request)
    lifecycle, health = services.lifecycle, services.library.health
    report, ready = lifecycle.report(), lifecycle.phase == "ready"
    if ready and not health.serves:
        report, ready = {"status": StoreError.default_code}, False
    trouble = health.report()
    return json_response(report if trouble is None else report | {"store": trouble}, 200 if ready else 503)


@guarded.get(
    "/metrics",
    response_class=Response,
    responses={
        **errors(400, 401, 403, 429, 503),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    },
)
async def metrics(request: Request, principal: MayScrape) -> Response:
    """Prometheus text."""
    services = services_of(request)
    text = await services.text.run(generate_latest, services.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
