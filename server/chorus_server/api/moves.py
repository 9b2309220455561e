"""What the aliases of tasks, ensembles and packs have in common: their answer, and how they are moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from fastapi import Query, Request, Response

from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.records import history_json, move_json
from chorus_server.api.services import services_of
from chorus_server.tenancy.principal import Principal
from prompts_store.records import AliasMove

MovesLimit = Annotated[
    int | None, Query(ge=1, le=500, description="Only the newest moves; every move without it.")
]


async def aliases_response(
    aliases: Mapping[str, int], back: Mapping[str, int], history: Sequence[AliasMove]
) -> Response:
    """Where aliases point, where a rollback of each would lead, and how they moved, oldest first."""
    before = {"aliases": dict(aliases), "back": dict(back)}
    return await list_response("history", map(history_json, history), before=before)


async def moved(
    request: Request, principal: Principal, change: Callable[..., AliasMove], *args: object, **options: object
) -> Response:
    """Do what moves an alias, and tell where it points now."""
    library = services_of(request).library
    return json_response(move_json(await library.write(change, *args, moved_by=principal.name, **options)))


async def removed(
    request: Request, principal: Principal, change: Callable[..., AliasMove], *args: object
) -> Response:
    """Do what removes an alias."""
    await services_of(request).library.write(change, *args, moved_by=principal.name)
    return Response(status_code=204)
