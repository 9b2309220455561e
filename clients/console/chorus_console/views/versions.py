"""Versions of one task beside each other."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus_console.door import Visit
from chorus_console.same import same
from chorus_console.views.moving import TASKS, named, number_of

MOST_BESIDE = 4


async def compare(visit: Visit) -> Response:
    """Up to four versions side by side."""
    name, chosen = named(visit), visit.request.query_params.getlist("version")[:MOST_BESIDE]
    if not chosen:
        raise HTTPException(400, "Choose the versions to compare.")
    versions = await TASKS.versions(visit.client, name, [number_of(each) for each in chosen])
    tenant, _, bare = name.partition("/")
    return await visit.show(
        "compare.html", task=name, versions=versions, rows=TASKS.facts(versions),
        same=same("GET", f"/v1/tasks/{bare}/versions/{versions[0].version}",
                  f"version = client.tasks.version({name!r}, {versions[0].version})",
                  "chorus", "tasks", "show", f"{name}@{versions[0].version}", tenant=tenant),
    )  # fmt: skip
