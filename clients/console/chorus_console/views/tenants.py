"""Tenants, their keys, what they use, and who changed what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.responses import Response

from chorus import ForbiddenError
from chorus.cli.audit import chain_problems
from chorus.types import AuditRow
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import same

_PAGE = 25
_DAYS = 14
_LONGEST_DAYS = 3650
SCOPES = ("infer", "prompts:read", "prompts:write", "tune", "metrics:read", "admin", "operator")


def _tenant(visit: Visit) -> str | None:
    """Whose page it is: another tenant's, for operators, or one's own."""
    return visit.request.query_params.get("tenant") or None


async def table(visit: Visit) -> Response:
    """A page of the tenants, for operators; everybody else has one."""
    cursor = visit.request.query_params.get("cursor") or None
    try:
        page = await visit.client.tenants.page(limit=_PAGE, cursor=cursor)
    except ForbiddenError:
        return visit.go(local("tenants", "keys"))
    return await visit.show(
        "tenants.html", tenants=page.tenants, next=page.next_cursor, cursor=cursor,
        same=same("GET", "/v1/tenants", "tenants = client.tenants.list()", "chorus", "tenants", "list"),
    )  # fmt: skip


async def keys(visit: Visit) -> Response:
    """A tenant's keys, newest first, and what is left of its limits."""
    tenant, cursor = _tenant(visit), visit.request.query_params.get("cursor") or None
    me = await visit.me()
    page = await visit.client.keys.page(tenant=tenant, limit=_PAGE, cursor=cursor)
    return await visit.show(
        "keys.html", keys=page.keys, next=page.next_cursor, cursor=cursor, tenant=tenant,
        left=[] if tenant else me.limits.left, scopes=[each for each in SCOPES if each in me.scopes],
        same=same("GET", "/v1/keys", "keys = client.keys.list()", "chorus", "keys", "list", tenant=tenant),
    )  # fmt: skip


async def make(visit: Visit) -> Response:
    """Make a key, and show it this once."""
    form = await visit.form()
    patterns = [each.strip() for each in (await visit.text("tasks")).split(",")]
    key = await visit.client.keys.create(
        await visit.text("name"),
        scopes=[str(each) for each in form.getlist("scope")],
        tasks=[each for each in patterns if each] or None,
        expires_at=_after(await visit.text("days")),
        tenant=_tenant(visit),
    )
    return await visit.show("key_made.html", made=key)


def _after(days: str) -> datetime | None:
    if not days:
        return None
    if not (days.isascii() and days.isdigit() and len(days) < 9 and 0 < int(days) <= _LONGEST_DAYS):
        raise HTTPException(400, f"Days are a whole number from 1 to {_LONGEST_DAYS:,}.")
    return datetime.now(UTC) + timedelta(days=int(days))


async def change(visit: Visit) -> Response:
    """Rotate a key: another with the same rights, beside it; or revoke one."""
    tenant, name = _tenant(visit), visit.request.path_params["key"]
    if await visit.text("what") == "revoke":
        await visit.client.keys.revoke(name, tenant=tenant)
        return visit.go(local("tenants", "keys", tenant=tenant))
    old = await visit.client.keys.get(name, tenant=tenant)
    key = await visit.client.keys.create(
        old.name,
        scopes=old.scopes,
        tasks=old.tasks,
        limits=old.limits,
        expires_at=old.expires_at,
        tenant=tenant,
    )
    return await visit.show("key_made.html", made=key)


async def usage(visit: Visit) -> Response:
    """What was used, by day and by task."""
    tenant, since = _tenant(visit), datetime.now(UTC).date() - timedelta(days=_DAYS - 1)
    days, top = await asyncio.gather(
        visit.client.usage(since=since.isoformat(), group_by=["day"], tenant=tenant),
        visit.client.usage(since=since.isoformat(), group_by=["task"], tenant=tenant, top=_PAGE),
    )
    return await visit.show(
        "usage.html", days=days.usage, tasks=top.usage, tenant=tenant, since=since.isoformat(), length=_DAYS,
        same=same("GET", "/v1/usage", f"report = client.usage(since={since.isoformat()!r}, group_by=['day'])",
                  "chorus", "usage", "--from", since.isoformat(), "--by", "day",
                  **{"from": since.isoformat(), "group_by": "day", "tenant": tenant}),
    )  # fmt: skip


async def audit(visit: Visit) -> Response:
    """A page of the audit log, oldest first, each row checked against the one before it."""
    query, tenant = visit.request.query_params, _tenant(visit)
    text = query.get("after", "")
    after = int(text) if text.isdecimal() and len(text) < 16 else None
    # With the row before the page, so that pages are checked against each other.
    before, limit = (after - 1, _PAGE + 1) if after else (None, _PAGE)
    page = await visit.client.audit.page(tenant=tenant, after=before, limit=limit)
    last, rows, problems = checked(page.rows, after)
    return await visit.show(
        "audit.html", rows=rows, last=last, next=page.next_after, after=after, tenant=tenant,
        problems=problems,
        same=same("GET", "/v1/audit", "page = client.audit.page()",
                  "chorus", "audit", "verify", tenant=tenant),
    )  # fmt: skip


def checked(
    found: Sequence[AuditRow], after: int | None
) -> tuple[AuditRow | None, list[AuditRow], list[str]]:
    """The row before a page, if it is there, the rows of the page, and where they are not one chain."""
    rows, problems = list(found), []
    last = before = rows.pop(0) if after and rows and rows[0].sequence == after else None
    for row in rows:
        problems += chain_problems(last, row)
        last = row
    return before, rows, problems
