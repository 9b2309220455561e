"""What tenants used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from chorus.methods import Method
from chorus.types import UsageReport
from chorus.wire import Call, Request, model_of, query_of


def usage(
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    group_by: Sequence[str] = (),
    tenant: str | None = None,
) -> Call[UsageReport]:
    """What was used from one moment until another, in whole hours.

    Args:
        since: a moment, or text such as `2026-11-01` or `2026-11-01T09:00Z`; by default the month's first.
        until: like `since`; by default now.
        group_by: any of `tenant`, `key`, `task`, `outcome`, and one of `hour`, `day`, `month`. Nothing gives
            one sum.
        tenant: by default the key's own.
    """
    ends = {"from": _text(since), "to": _text(until)}
    query = query_of(**ends, group_by=list(group_by), tenant=tenant)
    return Call(Request("GET", "/v1/usage", query, repeatable=True), model_of(UsageReport))


def _text(moment: datetime | str | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment


class UsageMethods:
    """The method of the client itself that asks about usage."""

    usage = Method(usage)
