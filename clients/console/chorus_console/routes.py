"""The console's paths."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chorus_console.door import Clients, Door, Handler, Sessions, Visit, Work
from chorus_console.pages import HERE
from chorus_console.views import (
    asked_fields,
    asking,
    batching,
    evaluating,
    grants,
    interpreting,
    jobs,
    keys,
    moving,
    operations,
    sets,
    signing,
    tasks,
    tenant_settings,
    tenants,
    tuning,
    tuning_new,
    versions,
)

_YEAR = "public, max-age=31536000, immutable"

VIEWS: Sequence[tuple[str, str, Handler]] = (
    ("GET", "", tasks.first),
    ("GET", "/sign-in", signing.show),
    ("POST", "/sign-in", signing.enter),
    ("POST", "/sign-out", signing.leave),
    ("GET", "/tasks", tasks.table),
    ("GET", "/tasks/{tenant}/{name}", tasks.one),
    ("POST", "/tasks/{tenant}/{name}/share", tasks.share),
    ("GET", "/tasks/{tenant}/{name}/compare", versions.compare),
    ("GET", "/tasks/{tenant}/{name}/move", moving.TASKS.propose),
    ("POST", "/tasks/{tenant}/{name}/move", moving.TASKS.move),
    ("GET", "/ensembles", sets.ensembles),
    ("GET", "/ensembles/{tenant}/{name}", sets.ensemble),
    ("GET", "/ensembles/{tenant}/{name}/move", moving.ENSEMBLES.propose),
    ("POST", "/ensembles/{tenant}/{name}/move", moving.ENSEMBLES.move),
    ("GET", "/packs", sets.packs),
    ("GET", "/packs/{tenant}/{name}", sets.pack),
    ("GET", "/packs/{tenant}/{name}/move", moving.PACKS.propose),
    ("POST", "/packs/{tenant}/{name}/move", moving.PACKS.move),
    ("GET", "/try", asking.show),
    ("GET", "/try/fields", asking.fields),
    ("POST", "/try", asking.ask),
    ("GET", "/tune", tuning.table),
    ("POST", "/tune", tuning_new.start),
    ("GET", "/tune/new", tuning_new.new),
    ("POST", "/tune/data", tuning_new.look),
    ("POST", "/tune/data/validation", tuning_new.look_at_split),
    ("POST", "/tune/data/test", tuning_new.look_at_split),
    ("POST", "/tune/preview", tuning_new.preview),
    ("GET", "/tune/{job}", tuning.one),
    ("GET", "/tune/{job}/live", tuning.live),
    ("GET", "/tune/{job}/mistakes", tuning.mistakes),
    ("POST", "/tune/{job}/cancel", tuning.cancel),
    ("POST", "/tune/{job}/pause", tuning.pause),
    ("POST", "/tune/{job}/resume", tuning.resume),
    ("GET", "/interpret", interpreting.show),
    ("GET", "/jobs", jobs.table),
    ("GET", "/jobs/evaluate", evaluating.new),
    ("POST", "/jobs/evaluate", evaluating.start),
    ("POST", "/jobs/evaluate/data", evaluating.look),
    ("POST", "/jobs/fields", asked_fields.show),
    ("GET", "/jobs/batch", batching.new),
    ("POST", "/jobs/batch", batching.start),
    ("POST", "/jobs/batch/data", batching.look),
    ("GET", "/jobs/files/{file}", jobs.file),
    ("GET", "/jobs/{job}", jobs.one),
    ("GET", "/jobs/{job}/live", jobs.live),
    ("POST", "/jobs/{job}", jobs.change),
    ("GET", "/operations", operations.show),
    ("POST", "/operations", operations.check),
    ("GET", "/tenants", tenants.table),
    ("GET", "/tenants/new", tenant_settings.new),
    ("POST", "/tenants/new", tenant_settings.make),
    ("GET", "/tenants/settings", tenant_settings.settings),
    ("POST", "/tenants/settings", tenant_settings.change),
    ("GET", "/tenants/keys", keys.table),
    ("POST", "/tenants/keys", keys.make),
    ("GET", "/tenants/keys/{key}", keys.one),
    ("POST", "/tenants/keys/{key}", keys.change),
    ("GET", "/tenants/grants", grants.show),
    ("POST", "/tenants/grants", grants.change),
    ("GET", "/tenants/usage", tenants.usage),
    ("GET", "/tenants/audit", tenants.audit),
)
"""Method, path below `/console`, and what answers. Tests derive from it what they look at."""


def console_routes(clients: Clients, sessions: Sessions, work: Work) -> list[Route]:
    """The routes of the console, all below `/console`.

    Args:
        clients: makes clients that ask this server.
        sessions: who is signed in.
        work: runs what takes long.
    """
    door = Door(clients, sessions, work)
    made = [
        Route(
            f"/console{path}",
            door.endpoint(handler, anybody=path.startswith("/sign-")),
            methods=[method],
            include_in_schema=False,
        )
        for method, path, handler in VIEWS
    ]
    files = Route("/console/files/{folder}/{name}", _files(), methods=["GET"], include_in_schema=False)
    rest = Route("/console/{rest:path}", door.endpoint(_nothing), include_in_schema=False)
    return [*made, files, rest]


async def _nothing(visit: Visit) -> Response:
    raise HTTPException(404, "There is no such page.")


def _files() -> Callable[[Request], Response]:
    """Styles, scripts and pictures: read once, and kept by browsers, as their address changes with them."""
    kept = {
        (folder, file.name): (file.read_bytes(), mimetypes.guess_type(file.name)[0] or "text/plain")
        for folder in ("static", "vendor")
        for file in (HERE / folder).iterdir()
        if file.is_file()
    }

    def answer(request: Request) -> Response:
        found = kept.get((request.path_params["folder"], request.path_params["name"]))
        if found is None:
            return Response("There is no such file.", 404, media_type="text/plain")
        headers = {"Cache-Control": _YEAR, "X-Content-Type-Options": "nosniff"}
        return Response(found[0], media_type=found[1], headers=headers)

    return answer
