"""Wiring of the console: it asks the API in process, as whoever signed in."""

from __future__ import annotations

import httpx2
from fastapi import FastAPI

from chorus import AsyncClient
from chorus_console import console_routes
from chorus_server.api.door.in_process import InProcess
from chorus_server.api.services import Services


def add_console(api: FastAPI, services: Services) -> None:
    """Serve the console beside the API, below `/console`."""
    inside = InProcess(api)

    def client(host: str, address: str, key: str | None) -> AsyncClient:
        transport = httpx2.ASGITransport(inside, raise_app_exceptions=False, client=(address, 0))
        # Whoever waits for a page would rather read what is wrong than wait for another attempt.
        return AsyncClient(f"http://{host}", key or "", transport=transport, retries=0)

    api.router.routes.extend(console_routes(client, services.sessions))
