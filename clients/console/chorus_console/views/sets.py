"""Ensembles and packs: what names several versions at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.responses import Response

from chorus.types import Pack
from chorus_console.door import Visit
from chorus_console.pages import brief, local
from chorus_console.same import same
from chorus_console.views.versions import Row, asked_move, going_back

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


def _pack(visit: Visit) -> str:
    return "{tenant}/{pack}".format(**visit.request.path_params)


async def propose_pack(visit: Visit) -> Response:
    """What a rollback of a pack would change, before it is done."""
    name, client = _pack(visit), visit.client.packs
    alias = visit.request.query_params.get("alias", "live").strip() or "live"
    pack = await client.get(name)
    wanted, now = going_back(pack.back, alias), pack.aliases[alias]
    packs = await asyncio.gather(*(client.get(f"{name}@{number}") for number in (now, wanted)))
    versions = [
        {"version": each.version, "aliases": [a for a, n in pack.aliases.items() if n == each.version]}
        for each in packs
    ]
    tenant, _, bare = name.partition("/")
    return await visit.show(
        "move.html", whole=name, kind="packs", page=local("packs", prefix=bare), alias=alias, now=now,
        wanted=wanted, back=True, versions=versions, rows=pack_facts(packs),
        same=same(
            "POST", f"/v1/packs/{bare}/rollback",
            f"client.packs.rollback({name!r}, {alias!r}, version={wanted}, expected={now})",
            "chorus", "packs", "rollback", name, "--alias", alias,
            body={"alias": alias, "version": wanted, "expected": now}, tenant=tenant,
        ).doing("Roll back"),
    )  # fmt: skip


def pack_facts(packs: Sequence[Pack]) -> list[Row]:
    """What answers each question in versions of a pack."""
    documents = [
        {"other questions": pack.unknown_questions}
        | {
            f"question: {name}": " ".join((f"{each.task}@{each.version}", brief(each.values))).strip()
            for name, each in pack.questions.items()
        }
        for pack in packs
    ]
    names = dict.fromkeys(name for document in documents for name in document)
    found = [(name, [document.get(name, "–") for document in documents]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in found]


async def move_pack(visit: Visit) -> Response:
    """Point an alias of a pack back to where it was, only if that still is what the page said."""
    name = _pack(visit)
    alias, now, wanted, _ = await asked_move(visit)
    await visit.client.packs.rollback(name, alias, version=wanted, expected=now)
    return visit.go(local("packs", prefix=name.partition("/")[2]))
