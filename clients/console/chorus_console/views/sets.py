"""Lists of ensembles and packs: what names several versions at once."""

from __future__ import annotations

from starlette.responses import Response

from chorus_console.door import Visit
from chorus_console.same import same

_PAGE = 25


async def ensembles(visit: Visit) -> Response:
    """A page of the stored ensembles with their members."""
    query = visit.request.query_params
    prefix, cursor = query.get("prefix", "").strip(), query.get("cursor") or None
    page = await visit.client.ensembles.page(prefix=prefix or None, limit=_PAGE, cursor=cursor)
    return await visit.show(
        "ensembles.html", ensembles=page.ensembles, next=page.next_cursor, prefix=prefix,
        same=same("GET", "/v1/ensembles", "ensembles = client.ensembles.list()",
                  "chorus", "ensemble", "list", prefix=prefix),
    )  # fmt: skip


async def packs(visit: Visit) -> Response:
    """A page of the decision packs with their questions."""
    query = visit.request.query_params
    prefix, cursor = query.get("prefix", "").strip(), query.get("cursor") or None
    page = await visit.client.packs.page(prefix=prefix or None, limit=_PAGE, cursor=cursor)
    return await visit.show(
        "packs.html", packs=page.packs, next=page.next_cursor, prefix=prefix,
        same=same("GET", "/v1/packs", "packs = client.packs.list()",
                  "chorus", "packs", "list", prefix=prefix),
    )  # fmt: skip
