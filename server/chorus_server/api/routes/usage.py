"""`GET /v1/usage`: what a tenant used, added up, as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from chorus_server.api.door.auth import MayRead
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import OperatedTenant, operated_tenant
from chorus_server.api.http.responses import READ_ERRORS
from chorus_server.api.inference.answers import list_response
from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.services import services_of
from chorus_server.errors import ForbiddenError
from prompts_store.months import month_of
from prompts_store.usage.records import UsageGroup, UsageOutcome, UsageSum

router = APIRouter(route_class=ChorusRoute, tags=["usage"])

_GROUPED = ("start", "tenant", "key", "task", "outcome")
_COUNTS = ("items", "tokens_in", "tokens_out", "work_units")
_MOST_TASKS = 100


class UsageSumAnswer(AnswerModel):
    """Usage, added up. What it was not grouped by is null."""

    start: datetime | None = Field(description="The hour's, day's or month's first moment, in UTC.")
    tenant: str | None
    key: str | None = Field(description="Id of the key; null also for callers without one.")
    task: str | None = Field(description="`tenant/task`; null also for the base model.")
    outcome: UsageOutcome | None
    items: int
    tokens_in: int = Field(description="Input tokens, with the prompts' rows among them.")
    tokens_out: int = Field(description="Generated tokens.")
    work_units: int


class UsageAnswer(AnswerModel):
    """Usage of a time, in whole hours, ordered by time, tenant, key, task and outcome; with `top`, largest
    first."""

    group_by: list[UsageGroup]
    usage: list[UsageSumAnswer]


@router.get(
    "/v1/usage",
    response_model=UsageAnswer,
    responses={**READ_ERRORS, 200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def show_usage(
    request: Request,
    principal: MayRead,
    since: Annotated[
        datetime | None,
        Query(alias="from", description="Its hour is the first; by default the month's, in UTC."),
    ] = None,
    until: Annotated[
        datetime | None,
        Query(alias="to", description="The hour that has the moment before it is the last; by default now."),
    ] = None,
    group_by: Annotated[
        list[UsageGroup] | None,
        Query(max_length=8, description="Any of these; of `hour`, `day` and `month`, one."),
    ] = None,
    tenant: OperatedTenant = None,
    task: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=129)]] | None,
        Query(max_length=_MOST_TASKS, description="Only what these used, without a tenant its own."),
    ] = None,
    top: Annotated[
        int | None, Query(ge=1, le=500, description="Only so many sums: those with the most work units.")
    ] = None,
) -> Response:
    """What the tenant used. With `Accept: text/csv` the answer is CSV, with a column for each group."""
    library = services_of(request).library
    owner = operated_tenant(principal, tenant)
    if principal.tasks is not None:
        raise ForbiddenError("A key for some tasks only does not see what its tenant used: use another key.")
    end = datetime.now(UTC) if until is None else _in_utc(until)
    begin = month_of(end) if since is None else _in_utc(since)
    groups = list(dict.fromkeys(group_by or ()))
    tasks = None if task is None else [name if "/" in name else f"{owner}/{name}" for name in task]
    found = partial(library.store.usage, begin, end, tenant=owner, group_by=groups, tasks=tasks, top=top)
    if "text/csv" in request.headers.get("accept", "").lower():
        return Response(await library.read(_csv, found, groups), media_type="text/csv")
    return await list_response(
        "usage", map(_sum_json, await library.read(found)), before={"group_by": groups}
    )


def _in_utc(moment: datetime) -> datetime:
    """A moment without a zone is in UTC. Others stay: the store refuses years that are too far."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _sum_json(found: UsageSum) -> dict[str, Any]:
    # Grouped by key or task, an empty one means that there was none.
    named = {name: getattr(found, name) or None for name in _GROUPED}
    return named | {name: getattr(found, name) for name in _COUNTS}


def _csv(find: Callable[[], list[UsageSum]], groups: Sequence[UsageGroup]) -> str:
    """Runs on a thread: there may be tens of thousands of lines."""
    spans = [name for name in groups if name in ("hour", "day", "month")]
    columns = ["start" if spans else "", *(name if name in groups else "" for name in _GROUPED[1:])]
    names = [*filter(None, columns), *_COUNTS]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\r\n")
    lines.writerow(names)
    for found in find():
        values = (getattr(found, name) for name in names)
        lines.writerow(
            value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
            for value in values
        )
    return text.getvalue()
