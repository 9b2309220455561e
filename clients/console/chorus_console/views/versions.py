"""Versions of one task beside each other, and moves of its aliases, which show first what would change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus.types import Version
from chorus_console.door import Visit
from chorus_console.pages import plain, size, task_path
from chorus_console.same import Same, same

MOST_BESIDE = 4

Row = tuple[str, list[str], bool]
"""A fact's name, its value in each version, and whether these differ."""


def _task(visit: Visit) -> str:
    return "{tenant}/{task}".format(**visit.request.path_params)


async def compare(visit: Visit) -> Response:
    """Up to four versions side by side."""
    name, numbers = _task(visit), visit.request.query_params.getlist("version")[:MOST_BESIDE]
    if not numbers:
        raise HTTPException(400, "Choose the versions to compare.")
    versions = await asyncio.gather(*(visit.client.tasks.version(name, number_of(each)) for each in numbers))
    return await visit.show(
        "compare.html", task=name, versions=versions, rows=facts(versions),
        same=same("GET", f"/v1/tasks/{name.partition('/')[2]}/versions/{versions[0].version}",
                  f"version = client.tasks.version({name!r}, {versions[0].version})",
                  "chorus", "tasks", "show", f"{name}@{versions[0].version}", tenant=name.partition("/")[0]),
    )  # fmt: skip


def number_of(text: str) -> int:
    """A version's number. Raises HTTPException 400 if it is none."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise HTTPException(400, "A version is a number from 1.")
    return int(text)


def facts(versions: Sequence[Version]) -> list[Row]:
    """What is known of versions, fact by fact."""
    documents = [_facts(version) for version in versions]
    names = dict.fromkeys(name for document in documents for name in document)
    rows = []
    for name in names:
        values = [plain(document[name]) if name in document else "–" for document in documents]
        rows.append((name, values, len(set(values)) > 1))
    return rows


def _facts(version: Version) -> dict[str, object]:
    """In the order in which people ask for them; what stands in a recipe is a fact of its own."""
    lineage = dict(version.lineage)
    recipe = lineage.pop("recipe", {})
    found: dict[str, object] = {f"metric: {name}": value for name, value in sorted(version.metrics.items())}
    found |= {"template": version.template, "labels": ", ".join(version.labels) or None}
    found["prompt"] = f"{version.length} rows of {version.width}"
    found["size"] = size(4 * version.length * version.width)
    found |= {f"setting: {name}": value for name, value in sorted(version.settings.items())}
    if isinstance(recipe, dict):
        found |= {f"recipe: {name}": value for name, value in sorted(recipe.items())}
    else:
        lineage["recipe"] = recipe
    found |= {f"lineage: {name}": value for name, value in sorted(lineage.items())}
    found |= {"calibration": version.calibration, "values' digest": version.digest[:16]}
    found |= {"made": version.created_at.strftime("%Y-%m-%d %H:%M"), "made by": version.created_by or None}
    return found


async def propose(visit: Visit) -> Response:
    """What a promotion or a rollback would change, before it is done."""
    name, query, client = _task(visit), visit.request.query_params, visit.client.tasks
    alias = query.get("alias", "live").strip() or "live"
    aliases = await client.aliases(name, limit=1)
    now, back = aliases.aliases.get(alias), query.get("back") == "1"
    wanted = going_back(aliases.back, alias) if back else number_of(query.get("version", ""))
    numbers = [wanted] if now is None or now == wanted else [now, wanted]
    versions = await asyncio.gather(*(client.version(name, number) for number in numbers))
    return await visit.show(
        "move.html", whole=name, kind="tasks", page=task_path(name), alias=alias, now=now, wanted=wanted,
        back=back, versions=versions, rows=facts(versions),
        same=_moving(name, alias, now, wanted, back).doing("Roll back" if back else "Promote"),
    )  # fmt: skip


def going_back(back: Mapping[str, int], alias: str) -> int:
    """To which version a rollback goes. Raises HTTPException 409 if to none."""
    if alias not in back:
        raise HTTPException(409, f"There is nothing that {alias} could go back to.")
    return back[alias]


def _moving(name: str, alias: str, now: int | None, version: int, back: bool) -> Same:
    tenant, _, task = name.partition("/")
    expected = now or 0
    if back:
        return same(
            "POST", f"/v1/tasks/{task}/rollback",
            f"client.tasks.rollback({name!r}, {alias!r}, version={version}, expected={expected})",
            "chorus", "tasks", "rollback", name, "--alias", alias,
            body={"alias": alias, "version": version, "expected": expected}, tenant=tenant,
        )  # fmt: skip
    return same(
        "PUT", f"/v1/tasks/{task}/aliases/{alias}",
        f"client.tasks.promote({name!r}, {version}, {alias!r}, expected={expected})",
        "chorus", "tasks", "promote", name, str(version), "--alias", alias,
        body={"version": version, "expected": expected}, tenant=tenant,
    )  # fmt: skip


async def move(visit: Visit) -> Response:
    """Point an alias at a version, or back to where it was; only if it still is where the page said."""
    name, client = _task(visit), visit.client.tasks
    alias, now, wanted, back = await asked_move(visit)
    if back:
        await client.rollback(name, alias, version=wanted, expected=now)
    else:
        await client.promote(name, wanted, alias, expected=now)
    return visit.go(task_path(name, moved=alias))


async def asked_move(visit: Visit) -> tuple[str, int, int, bool]:
    """What the form of `move.html` says: the alias, the version that it named (0: none) and the one that it
    is to name, and whether that is a rollback."""
    alias, now = await visit.text("alias", "live"), await visit.text("now")
    wanted = number_of(await visit.text("version"))
    return alias, number_of(now) if now else 0, wanted, await visit.text("back") == "1"
