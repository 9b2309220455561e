"""What the aliases of tasks, ensembles and packs have in common: their answer, and how they are moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import Request, Response

from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.records import history_json, move_json
from chorus_server.api.services import services_of
from chorus_server.tenancy.principal import Principal
from prompts_store.records import AliasMove, Page


async def aliases_response(
    aliases: Mapping[str, int], back: Mapping[str, int], page: Page[AliasMove]
) -> Response:
    """Where aliases point, where a rollback of each would lead, and a page of how they moved."""
    before, after = {"aliases": dict(aliases), "back": dict(back)}, {"next_cursor": page.next_cursor}
    return await list_response("history", map(history_json, page.items), before=before, after=after)


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
