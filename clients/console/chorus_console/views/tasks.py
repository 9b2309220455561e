"""The list of tasks, and one task with its versions and aliases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from chorus import ApiError
from chorus.types import AliasHistoryEntry, Task, Version
from chorus.types.grants import Grant
from chorus_console.door import Visit
from chorus_console.pages import local, task_path
from chorus_console.same import same
from chorus_console.views.grants import share as share_it
from chorus_console.views.grants import sharing

_FIRST = (
    ("prompts:read", "tasks"), ("metrics:read", "operations"), ("admin", "tenants"), ("operator", "tenants")
)  # fmt: skip
_PAGE = 25
_MOVES, _MOST_MOVES = 20, 500


async def first(visit: Visit) -> Response:
    """The first page is the list of tasks, or else the first one that the key may see."""
    scopes = (await visit.me()).scopes
    found = next((page for scope, page in _FIRST if scope in scopes), None)
    if found is None:
        raise HTTPException(
            403,
            "This key is for programs: it lacks the scope prompts:read, which the pages need. Sign out, and "
            "sign in with a key that has it.",
        )
    return RedirectResponse(local(found), 303)


async def table(visit: Visit) -> Response:
    """A page of the tasks, by prefix and label. What each is like comes in a second request."""
    query = visit.request.query_params
    prefix, label, cursor = (query.get(name, "").strip() for name in ("prefix", "label", "cursor"))
    page = await visit.client.tasks.page(
        prefix=prefix or None, label=label or None, limit=_PAGE, cursor=cursor or None
    )
    values: dict[str, Any] = {
        "tasks": page.tasks, "prefix": prefix, "label": label, "next": page.next_cursor, "cursor": cursor,
        "same": same("GET", "/v1/tasks", _listed(prefix, label), *_listing(prefix, label),
                     prefix=prefix, label=label),
    }  # fmt: skip
    if query.get("more") == "1":
        lives, used = await asyncio.gather(_lives(visit, page.tasks), _used(visit, page.tasks))
        return await visit.show("task_rows.html", lives=lives, used=used, **values)
    return await visit.show("tasks.html", lives={}, used=None, **values)


def _listed(prefix: str, label: str) -> str:
    given = [f"{name}={value!r}" for name, value in (("prefix", prefix), ("label", label)) if value]
    return f"tasks = client.tasks.list({', '.join(given)})"


def _listing(prefix: str, label: str) -> list[str]:
    words = ["chorus", "tasks", "list"]
    for name, value in (("prefix", prefix), ("label", label)):
        words += [f"--{name}", value] if value else []
    return words


async def _lives(
    visit: Visit, tasks: Sequence[Task]
) -> dict[str, tuple[Version | None, AliasHistoryEntry | None]]:
    """Of each task the live version, and the last move of an alias."""

    async def live(task: Task) -> tuple[Version | None, AliasHistoryEntry | None]:
        number, client = task.aliases.get("live"), visit.client.tasks
        try:
            version = None if number is None else await client.version(task.task, number)
            moves = (await client.aliases(task.task, limit=1)).history
        except ApiError:  # deleted meanwhile, or shared for use only
            return None, None
        return version, moves[-1] if moves else None

    found = await asyncio.gather(*(live(task) for task in tasks))
    return {task.task: each for task, each in zip(tasks, found, strict=True)}


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
    parts, query = visit.request.path_params, visit.request.query_params
    name, cursor = f"{parts['tenant']}/{parts['task']}", query.get("cursor") or None
    client, moves = visit.client.tasks, _MOST_MOVES if query.get("moves") == "all" else _MOVES
    task, versions, aliases = await asyncio.gather(
        client.get(name),
        client.versions_page(name, limit=_PAGE, cursor=cursor),
        client.aliases(name, limit=moves),
    )
    live = next((v for v in versions.versions if v.version == aliases.aliases.get("live")), None)
    if live is None and "live" in aliases.aliases:
        live = await client.version(name, aliases.aliases["live"])
    return await visit.show(
        "task.html",
        grants=await _grants(visit, name),
        task=task, live=live, versions=versions.versions, next=versions.next_cursor, aliases=aliases.aliases,
        back=aliases.back, history=aliases.history[::-1], more_moves=len(aliases.history) == _MOVES,
        same=[
            same("GET", f"/v1/tasks/{parts['task']}/versions", f"versions = client.tasks.versions({name!r})",
                 "chorus", "tasks", "versions", name, tenant=parts["tenant"]),
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
    name = "{tenant}/{task}".format(**visit.request.path_params)
    await share_it(visit, "task", name, await visit.text("grantee"))
    return visit.go(task_path(name))
