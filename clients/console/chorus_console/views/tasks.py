"""The list of tasks, and one task with its versions and aliases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from chorus import ApiError
from chorus.types import Task
from chorus.types.grants import Grant
from chorus_console.door import Visit
from chorus_console.pages import local, task_path
from chorus_console.same import same
from chorus_console.views.grants import share as share_it
from chorus_console.views.grants import sharing
from chorus_console.views.moving import MOVES, TASKS, moves_wanted, named

_FIRST = (
    ("prompts:read", "tasks"), ("metrics:read", "operations"), ("admin", "tenants"), ("operator", "tenants"),
    ("infer", "try"),
)  # fmt: skip
_PAGE = 25


async def first(visit: Visit) -> Response:
    """The first page is the list of tasks, or else the first one that the key may see."""
    scopes = (await visit.me()).scopes
    found = next((page for scope, page in _FIRST if scope in scopes), None)
    if found is None:
        raise HTTPException(
            403,
            "This key is for programs: it has none of the scopes that pages need, such as prompts:read or "
            "infer. Sign out, and sign in with a key that has one of them.",
        )
    return RedirectResponse(local(found), 303)


async def table(visit: Visit) -> Response:
    """A page of the tasks, by prefix and label."""
    query = visit.request.query_params
    prefix, label, cursor = (query.get(name, "").strip() for name in ("prefix", "label", "cursor"))
    page = await visit.client.tasks.page(
        prefix=prefix or None, label=label or None, limit=_PAGE, cursor=cursor or None
    )
    return await visit.show(
        "tasks.html", tasks=page.tasks, used=await _used(visit, page.tasks), prefix=prefix, label=label,
        next=page.next_cursor, cursor=cursor,
        same=same("GET", "/v1/tasks", _listed(prefix, label), *_listing(prefix, label),
                  prefix=prefix, label=label),
    )  # fmt: skip


def _listed(prefix: str, label: str) -> str:
    given = [f"{name}={value!r}" for name, value in (("prefix", prefix), ("label", label)) if value]
    return f"tasks = client.tasks.list({', '.join(given)})"


def _listing(prefix: str, label: str) -> list[str]:
    words = ["chorus", "tasks", "list"]
    for name, value in (("prefix", prefix), ("label", label)):
        words += [f"--{name}", value] if value else []
    return words


async def _used(visit: Visit, tasks: Sequence[Task]) -> dict[str, tuple[int, float]] | None:
    """Of each task the items of the last day, and how many a minute there were in this hour and the one
    before; None where the key may not ask."""
    now, names = datetime.now(UTC), [each.task for each in tasks]
    if not names:  # and not of every task
        return {}
    begin = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    try:
        report = await visit.client.usage(
            since=now - timedelta(days=1), group_by=["task", "hour"], task=names
        )
    except ApiError:
        return None
    found = dict.fromkeys(names, (0, 0.0))
    for each in report.usage:
        if each.task is not None and each.start is not None:
            items, rate = found[each.task]
            late = each.items if each.start >= begin else 0
            found[each.task] = (items + each.items, rate + late * 60 / (now - begin).total_seconds())
    return found


async def one(visit: Visit) -> Response:
    """One task: its versions, newest first, its aliases, and how they moved."""
    name, client, cursor = named(visit), visit.client.tasks, visit.request.query_params.get("cursor") or None
    tenant, _, bare = name.partition("/")
    task, versions, aliases = await asyncio.gather(
        client.get(name),
        client.versions_page(name, limit=_PAGE, cursor=cursor),
        client.aliases(name, limit=moves_wanted(visit)),
    )
    live = next((v for v in versions.versions if v.version == aliases.aliases.get("live")), None)
    if live is None and "live" in aliases.aliases:
        live = await client.version(name, aliases.aliases["live"])
    return await visit.show(
        "task.html",
        kind=TASKS, grants=await _grants(visit, name), task=task, live=live, versions=versions.versions,
        next=versions.next_cursor, cursor=cursor, aliases=aliases, more_moves=len(aliases.history) == MOVES,
        same=[
            same("GET", f"/v1/tasks/{bare}/versions", f"versions = client.tasks.versions({name!r})",
                 "chorus", "tasks", "versions", name, tenant=tenant),
            same("GET", f"/v1/tasks/{bare}/aliases", f"aliases = client.tasks.aliases({name!r})",
                 "chorus", "tasks", "aliases", name, tenant=tenant),
            *sharing("task", name),
        ],
    )  # fmt: skip


async def _grants(visit: Visit, name: str) -> list[Grant] | None:
    """With whom a task is shared; None where that is nothing of the caller's."""
    try:
        return await visit.client.tasks.grants(name)
    except ApiError:
        return None


async def share(visit: Visit) -> Response:
    """Let another tenant use a task, or end that."""
    name = named(visit)
    await share_it(visit, "task", name, await visit.text("grantee"))
    return visit.go(task_path(name))
