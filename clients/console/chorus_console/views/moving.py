"""Moves of the aliases of tasks, ensembles and packs, which show first what would change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import AsyncClient
from chorus_console.door import Visit
from chorus_console.facts import Row, beside, of_ensemble, of_pack, of_task
from chorus_console.pages import local
from chorus_console.same import Same, same

MOVES, MOST_MOVES = 20, 500
"""How many moves a page shows, and how many if it is asked for more."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What has versions and aliases.

    Attributes:
        plural: in paths, and of the client's attribute.
        command: the command's group.
    """

    plural: Literal["tasks", "ensembles", "packs"]
    command: str

    def path(self, name: str, *rest: str, **query: object) -> str:
        """The page of `tenant/name`, or of something below it."""
        return local(self.plural, *name.split("/", 1), *rest, **query)

    def methods(self, client: AsyncClient) -> Any:
        """The client's methods."""
        return getattr(client, self.plural)

    async def versions(self, client: AsyncClient, name: str, numbers: Sequence[int]) -> list[Any]:
        """The versions with these numbers."""
        methods = self.methods(client)
        one = methods.version if self.plural == "tasks" else methods.get
        return list(await asyncio.gather(*(one(f"{name}@{number}") for number in numbers)))

    def facts(self, versions: Sequence[Any]) -> list[Row]:
        """What is known of versions, beside each other."""
        of: Any = {"tasks": of_task, "ensembles": of_ensemble, "packs": of_pack}[self.plural]
        return beside([of(version) for version in versions])

    async def propose(self, visit: Visit) -> Response:
        """What a promotion or a rollback would change, before it is done."""
        await visit.needs("prompts:write")
        name, query = named(visit), visit.request.query_params
        alias, back = query.get("alias", "live").strip() or "live", query.get("back") == "1"
        found = await self.methods(visit.client).aliases(name, limit=1)
        now = found.aliases.get(alias)
        wanted = _going_back(found.back, alias) if back else number_of(query.get("version", ""))
        versions = await self.versions(
            visit.client, name, [wanted] if now in (None, wanted) else [now, wanted]
        )
        return await visit.show(
            "move.html", whole=name, kind=self, alias=alias, now=now, wanted=wanted, back=back,
            versions=heads(versions, found.aliases), rows=self.facts(versions),
            same=self._moving(name, alias, now or 0, wanted, back),
        )  # fmt: skip

    def _moving(self, name: str, alias: str, now: int, wanted: int, back: bool) -> Same:
        tenant, _, bare = name.partition("/")
        deed, words = ("rollback", "") if back else ("promote", f"{wanted}, ")
        last = f"{alias!r}, version={wanted}" if back else f"{alias!r}"
        return same(
            "POST" if back else "PUT",
            f"/v1/{self.plural}/{bare}/" + ("rollback" if back else f"aliases/{alias}"),
            f"client.{self.plural}.{deed}({name!r}, {words}{last}, expected={now})",
            "chorus", self.command, deed, name, *([] if back else [str(wanted)]), "--alias", alias,
            body=({"alias": alias} if back else {}) | {"version": wanted, "expected": now}, tenant=tenant,
        ).doing("Roll back" if back else "Promote")  # fmt: skip

    async def move(self, visit: Visit) -> Response:
        """Point an alias at a version, or back to where it was; only if it still is where the page said."""
        name, methods, now = named(visit), self.methods(visit.client), await visit.text("now")
        alias, wanted = await visit.text("alias", "live"), number_of(await visit.text("version"))
        expected = number_of(now) if now else 0
        if await visit.text("back") == "1":
            await methods.rollback(name, alias, version=wanted, expected=expected)
        else:
            await methods.promote(name, wanted, alias, expected=expected)
        return visit.go(self.path(name))


TASKS, ENSEMBLES, PACKS = Kind("tasks", "tasks"), Kind("ensembles", "ensemble"), Kind("packs", "packs")


def named(visit: Visit) -> str:
    """`tenant/name`, as the path says."""
    return "{tenant}/{name}".format(**visit.request.path_params)


def number_of(text: str) -> int:
    """A version's number. Raises HTTPException 400 if it is none."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise HTTPException(400, "A version is a number from 1.")
    return int(text)


def heads(versions: Sequence[Any], aliases: Mapping[str, int]) -> list[dict[str, Any]]:
    """The number of each version, and the aliases that name it."""
    return [
        {"version": each.version, "aliases": [name for name, at in aliases.items() if at == each.version]}
        for each in versions
    ]


def _going_back(back: Mapping[str, int], alias: str) -> int:
    """To which version a rollback goes. Raises HTTPException 409 if to none."""
    if alias not in back:
        raise HTTPException(409, f"There is nothing that {alias} could go back to.")
    return back[alias]


def moves_wanted(visit: Visit) -> int:
    """How many moves a page is asked for."""
    return MOST_MOVES if visit.request.query_params.get("moves") == "all" else MOVES
