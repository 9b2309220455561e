"""Tenants, what they use, and who changed what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from chorus import ForbiddenError
from chorus.cli.audit import chain_problems
from chorus.cli.tenants import STATUSES
from chorus.types import AuditRow
from chorus_console.door import Visit
from chorus_console.pages import local
from chorus_console.same import same

_PAGE = 25
_DAYS = 14


def tenant_of(visit: Visit) -> str | None:
    """Whose page it is: another tenant's, for operators, or one's own."""
    return visit.request.query_params.get("tenant") or None


async def table(visit: Visit) -> Response:
    """A page of the tenants, for operators; everybody else has one."""
    query = visit.request.query_params
    prefix, status, cursor = (query.get(name, "").strip() for name in ("prefix", "status", "cursor"))
    try:
        page = await visit.client.tenants.page(
            prefix=prefix or None, status=status or None, limit=_PAGE, cursor=cursor or None
        )
    except ForbiddenError:
        return visit.go(local("tenants", "keys"))
    given = [(name, value) for name, value in (("prefix", prefix), ("status", status)) if value]
    arguments = ", ".join(f"{name}={value!r}" for name, value in given)
    words = [word for name, value in given for word in (f"--{name}", value)]
    return await visit.show(
        "tenants.html", tenants=page.tenants, next=page.next_cursor, cursor=cursor, prefix=prefix,
        status=status, statuses=STATUSES,
        same=same("GET", "/v1/tenants", f"tenants = client.tenants.list({arguments})",
                  "chorus", "tenants", "list", *words, prefix=prefix, status=status),
    )  # fmt: skip


async def usage(visit: Visit) -> Response:
    """What was used, by day and by task."""
    tenant, since = tenant_of(visit), datetime.now(UTC).date() - timedelta(days=_DAYS - 1)
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
    query, tenant = visit.request.query_params, tenant_of(visit)
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
