"""Wiring of the console: it asks the API in process, as whoever signed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chorus import AsyncClient
from chorus.errors import error_class
from chorus_console import console_routes
from chorus_server.api.door.in_process import InProcess
from chorus_server.api.door.pages import refuse_foreign
from chorus_server.api.http.errors import retry_seconds, status_of
from chorus_server.api.services import Services
from chorus_server.errors import ChorusError
from chorus_server.tenancy.sessions import Sessions
from prompts_store.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")


def add_console(api: FastAPI, services: Services) -> None:
    """Serve the console beside the API, below `/console`."""

    def client(host: str, address: str, key: str | None) -> AsyncClient:
        # Whoever waits for a page would rather read what is wrong than wait for another attempt.
        return AsyncClient(f"http://{host}", key or "", transport=InProcess(api, address), retries=0)

    async def work(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        async with _as_of_a_client():
            return await services.text.run(function, *args, **kwargs)

    routes = console_routes(client, _SessionsOfPages(services.sessions), work)
    for route in routes:
        route.app = _OwnPages(route.app)
    api.router.routes.extend(routes)


class _OwnPages:
    """Refuses changes that a page of another site asks for, as the API does. The console's own requests to
    the API, which carry the browser's `Host`, meet the rest of its rules there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refuse_foreign(Request(scope))
        await self._app(scope, receive, send)


class _SessionsOfPages:
    """The sessions, with errors as a client raises them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def open(self, key: str, address: str) -> str:
        async with _as_of_a_client():
            return await self._sessions.open(key, address)

    async def end(self, token: str) -> None:
        async with _as_of_a_client():
            await self._sessions.end(token)


@asynccontextmanager
async def _as_of_a_client() -> AsyncIterator[None]:
    try:
        yield
    except (ChorusError, StoreError) as error:
        status = status_of(error)
        raise error_class(error.code, status)(
            error.message,
            code=error.code,
            status=status,
            retry_after_seconds=retry_seconds(error) if status in (429, 503) else None,
        ) from error
