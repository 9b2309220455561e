"""Every route of the API, and the door that it stands behind."""

from __future__ import annotations

from fastapi.routing import APIRoute

from chorus_server.api.door.auth import Require
from chorus_server.api.routes.asgi import ROUTERS


def _table() -> dict[tuple[str, str], Require | None]:
    rows: dict[tuple[str, str], Require | None] = {}
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            doors = [d.call for d in route.dependant.dependencies if isinstance(d.call, Require)]
            assert len(doors) <= 1
            for method in route.methods:
                rows[method, route.path] = doors[0] if doors else None
    return dict(sorted(rows.items()))


ROUTES = _table()
"""By method and path; None where no key is needed."""
