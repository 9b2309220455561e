"""What tenants used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.types import UsageReport
from chorus.wire import Call, Request, model_of, query_of


def usage(
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    group_by: Sequence[str] = (),
    tenant: str | None = None,
    task: str | Sequence[str] | None = None,
    top: int | None = None,
) -> Call[UsageReport]:
    """What was used from one moment until another, in whole hours.

    Args:
        since: a moment, or text such as `2026-11-01` or `2026-11-01T09:00Z`; by default the month's first.
        until: like `since`; by default now.
        group_by: any of `tenant`, `key`, `task`, `outcome`, and one of `hour`, `day`, `month`. Nothing gives
            one sum.
        tenant: by default the key's own.
        task: only what this task used, or these, at most 100.
        top: only so many sums, at most 500: those with the most work units, largest first.

    Raises:
        InvalidArgumentError: `task` is a list of none, which would not mean all.
    """
    tasks = None if task is None else [task] if isinstance(task, str) else list(task)
    if tasks == []:
        raise InvalidArgumentError("task must name a task, or be left out.", field="task")
    ends = {"from": _text(since), "to": _text(until)}
    query = query_of(**ends, group_by=list(group_by), tenant=tenant, task=tasks, top=top)
    return Call(Request("GET", "/v1/usage", query, repeatable=True), model_of(UsageReport))


def _text(moment: datetime | str | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment


class UsageMethods:
    """The method of the client itself that asks about usage."""

    usage = Method(usage)
