"""Ensembles and packs, which name several versions at once: their lists, and one with its versions beside
each other and its aliases."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from chorus_console.door import Visit
from chorus_console.same import same
from chorus_console.views.moving import ENSEMBLES, MOVES, PACKS, Kind, heads, moves_wanted, named, number_of
from chorus_console.views.versions import MOST_BESIDE

_PAGE = 25


async def ensembles(visit: Visit) -> Response:
    """A page of the ensembles with their members."""
    return await _table(visit, ENSEMBLES)


async def packs(visit: Visit) -> Response:
    """A page of the packs with their questions."""
    return await _table(visit, PACKS)


async def ensemble(visit: Visit) -> Response:
    """An ensemble: its members, version by version."""
    return await _one(visit, ENSEMBLES)


async def pack(visit: Visit) -> Response:
    """A pack: what answers its questions, version by version."""
    return await _one(visit, PACKS)


async def _table(visit: Visit, kind: Kind) -> Response:
    query = visit.request.query_params
    prefix, cursor = query.get("prefix", "").strip(), query.get("cursor") or None
    page = await kind.methods(visit.client).page(prefix=prefix or None, limit=_PAGE, cursor=cursor)
    return await visit.show(
        "sets.html", kind=kind, sets=getattr(page, kind.plural), next=page.next_cursor, cursor=cursor,
        prefix=prefix,
        same=same("GET", f"/v1/{kind.plural}",
                  f"{kind.plural} = client.{kind.plural}.list({f'prefix={prefix!r}' if prefix else ''})",
                  "chorus", kind.command, "list", *(["--prefix", prefix] if prefix else []), prefix=prefix),
    )  # fmt: skip


async def _one(visit: Visit, kind: Kind) -> Response:
    name, client, query = named(visit), visit.client, visit.request.query_params
    methods, cursor = kind.methods(client), query.get("cursor") or None
    page, aliases = await asyncio.gather(
        methods.versions_page(name, limit=_PAGE, cursor=cursor),
        methods.aliases(name, limit=moves_wanted(visit)),
    )
    chosen = [number_of(each) for each in query.getlist("version")[:MOST_BESIDE]]
    live = aliases.aliases.get("live")
    chosen = chosen or [each.version for each in page.versions[:1]] + ([live] if live else [])
    found = await kind.versions(client, name, list(dict.fromkeys(chosen)))
    tenant, _, bare = name.partition("/")
    route, calls = f"/v1/{kind.plural}/{bare}", f"client.{kind.plural}"
    return await visit.show(
        "set.html", kind=kind, name=name, next=page.next_cursor, cursor=cursor,
        versions=list(zip(page.versions, heads(page.versions, aliases.aliases), strict=True)),
        chosen=heads(found, aliases.aliases), rows=kind.facts(found), aliases=aliases,
        more_moves=len(aliases.history) == MOVES,
        same=[
            same("GET", f"{route}/versions", f"versions = {calls}.versions({name!r})",
                 "chorus", kind.command, "versions", name, tenant=tenant),
            same("GET", f"{route}/aliases", f"aliases = {calls}.aliases({name!r})",
                 "chorus", kind.command, "aliases", name, tenant=tenant),
        ],
    )  # fmt: skip
