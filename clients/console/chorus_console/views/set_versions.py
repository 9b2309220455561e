"""One ensemble or pack: its versions beside each other, its aliases, and moves of these, which show first
what would change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from chorus import ApiError, AsyncClient
from chorus.types import Ensemble, Pack
from chorus.types.audit import AuditRow
from chorus_console.door import Visit
from chorus_console.pages import brief, local
from chorus_console.same import Same, same
from chorus_console.views.versions import MOST_BESIDE, Row, asked_move, going_back, number_of

_LISTED = 25
_MOVES = 20


async def ensemble(visit: Visit) -> Response:
    """An ensemble: its members, version by version."""
    name, client = _name(visit), visit.client.ensembles
    tenant, _, bare = name.partition("/")
    newest = await client.get(name)
    numbers = _chosen(visit, newest.version, newest.aliases)
    found = await asyncio.gather(*(client.get(f"{name}@{number}") for number in numbers))
    return await visit.show(
        "set.html", kind="ensembles", name=name, newest=newest, numbers=_listed(visit, newest.version),
        chosen=numbers, versions=_heads(found, newest.aliases), rows=ensemble_facts(found), back={},
        history=await _history(visit.client, tenant, bare, newest.aliases), moves=False,
        same=same("GET", f"/v1/ensembles/{bare}", f"ensemble = client.ensembles.get({name!r})",
                  "chorus", "ensemble", "show", name, tenant=tenant),
    )  # fmt: skip


async def pack(visit: Visit) -> Response:
    """A pack: what answers its questions, version by version."""
    name, client = _name(visit), visit.client.packs
    tenant, _, bare = name.partition("/")
    newest = await client.get(name)
    numbers = _chosen(visit, newest.version, newest.aliases)
    found = await asyncio.gather(*(client.get(f"{name}@{number}") for number in numbers))
    return await visit.show(
        "set.html", kind="packs", name=name, newest=newest, numbers=_listed(visit, newest.version),
        chosen=numbers, versions=_heads(found, newest.aliases), rows=pack_facts(found), back=newest.back,
        history=await _history(visit.client, tenant, bare, newest.aliases), moves=True,
        same=same("GET", f"/v1/packs/{bare}", f"pack = client.packs.get({name!r})",
                  "chorus", "packs", "show", name, tenant=tenant),
    )  # fmt: skip


def _name(visit: Visit) -> str:
    return "{tenant}/{name}".format(**visit.request.path_params)


def _chosen(visit: Visit, newest: int, aliases: Mapping[str, int]) -> list[int]:
    """The versions that the address names; without any, the newest and the live one."""
    given = visit.request.query_params.getlist("version")[:MOST_BESIDE]
    numbers = [number_of(each) for each in given] or [newest, aliases.get("live", newest)]
    return list(dict.fromkeys(numbers))


def _listed(visit: Visit, newest: int) -> list[int]:
    """Numbers of versions, newest first, from the one that the address names on."""
    text = visit.request.query_params.get("before", "")
    first = min(number_of(text) - 1, newest) if text else newest
    return list(range(first, max(0, first - _LISTED), -1))


def _heads(found: Sequence[Ensemble | Pack], aliases: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {"version": each.version, "aliases": [a for a, number in aliases.items() if number == each.version]}
        for each in found
    ]


async def _history(
    client: AsyncClient, tenant: str, name: str, aliases: Mapping[str, int]
) -> list[AuditRow] | None:
    """How the aliases moved, newest first, as the audit log has it; None where that is nothing of the
    caller's."""
    try:
        pages = await asyncio.gather(
            *(client.audit.page(tenant=tenant, subject=f"{name}@{alias}", limit=500) for alias in aliases)
        )
    except ApiError:
        return None
    rows = [row for page in pages for row in page.rows if "_alias." in row.action]
    return sorted(rows, key=lambda row: -row.sequence)[:_MOVES]


def ensemble_facts(ensembles: Sequence[Ensemble]) -> list[Row]:
    """Who votes in versions of an ensemble, and with which weight."""
    documents = [
        {"vote": each.vote, "members": str(len(each.members))}
        | {
            f"{member.task}@{member.version}": "votes" if member.weight == 1 else f"votes × {member.weight:g}"
            for member in each.members
        }
        | {"made": each.created_at.strftime("%Y-%m-%d %H:%M")}
        for each in ensembles
    ]
    return _beside(documents)


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
    return _beside(documents)


def _beside(documents: Sequence[Mapping[str, str]]) -> list[Row]:
    names = dict.fromkeys(name for document in documents for name in document)
    found = [(name, [document.get(name, "–") for document in documents]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in found]


async def propose_pack(visit: Visit) -> Response:
    """What a promotion or a rollback of a pack would change, before it is done."""
    name, client, query = _name(visit), visit.client.packs, visit.request.query_params
    alias = query.get("alias", "live").strip() or "live"
    pack = await client.get(name)
    back = "version" not in query
    wanted = going_back(pack.back, alias) if back else number_of(query["version"])
    now = pack.aliases.get(alias)
    numbers = [wanted] if now is None or now == wanted else [now, wanted]
    found = await asyncio.gather(*(client.get(f"{name}@{number}") for number in numbers))
    return await visit.show(
        "move.html", whole=name, kind="packs", page=local("packs", *name.split("/")), alias=alias, now=now,
        wanted=wanted, back=back, versions=_heads(found, pack.aliases), rows=pack_facts(found),
        same=_moving(name, alias, now or 0, wanted, back),
    )  # fmt: skip


def _moving(name: str, alias: str, now: int, wanted: int, back: bool) -> Same:
    tenant, _, bare = name.partition("/")
    if back:
        return same(
            "POST", f"/v1/packs/{bare}/rollback",
            f"client.packs.rollback({name!r}, {alias!r}, version={wanted}, expected={now})",
            "chorus", "packs", "rollback", name, "--alias", alias,
            body={"alias": alias, "version": wanted, "expected": now}, tenant=tenant,
        ).doing("Roll back")  # fmt: skip
    return same(
        "PUT", f"/v1/packs/{bare}/aliases/{alias}",
        f"client.packs.promote({name!r}, {wanted}, {alias!r}, expected={now})",
        "chorus", "packs", "promote", name, str(wanted), "--alias", alias,
        body={"version": wanted, "expected": now}, tenant=tenant,
    ).doing("Promote")  # fmt: skip


async def move_pack(visit: Visit) -> Response:
    """Point an alias of a pack at a version, or back to where it was; only if it still is where the page
    said."""
    name, client = _name(visit), visit.client.packs
    alias, now, wanted, back = await asked_move(visit)
    if back:
        await client.rollback(name, alias, version=wanted, expected=now)
    else:
        await client.promote(name, wanted, alias, expected=now)
    return visit.go(local("packs", *name.split("/")))
