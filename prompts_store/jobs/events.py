"""What happened in a job: a list of events numbered 1, 2, ... that only grows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from prompts_store import checks
from prompts_store.database.job_tables import job_events, jobs
from prompts_store.errors import InvalidError
from prompts_store.text import shown

MAX_EVENT_BYTES = 65_536
# The store writes one with every change of a job's status, in the same transaction.
STATUS = "status"
# And this one with a job that takes its tenant's month beyond a soft limit.
SOFT_LIMIT = "soft_limit"

_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)


def check_events(events: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The events in the form in which they are stored.

    Raises:
        InvalidError: field `events.2.kind` or `events.2.data`.
    """
    checked = []
    for i, (kind, data) in enumerate(events):
        if not (isinstance(kind, str) and _KIND.fullmatch(kind)) or kind in (STATUS, SOFT_LIMIT):
            raise InvalidError(
                f"{shown(kind)} is not a kind of event: use lower-case letters, digits and '_'; 'status' and "
                f"'soft_limit' are reserved for the store.",
                field=f"events.{i}.kind",
            )
        field = f"events.{i}.data"
        checked.append((kind, checks.check_object(data, field=field, limit_bytes=MAX_EVENT_BYTES)))
    return checked


def add_events(
    connection: Connection, job_number: int, events: Sequence[tuple[str, Mapping[str, Any]]], now: datetime
) -> None:
    """Append to a job's events. The caller holds the publish lock."""
    if not events:
        return
    which = jobs.c.number == job_number
    last = connection.execute(select(jobs.c.last_event).where(which)).scalar_one()
    rows = [
        {"job_number": job_number, "seq": last + i, "at": now, "kind": kind, "data": dict(data)}
        for i, (kind, data) in enumerate(events, 1)
    ]
    connection.execute(insert(job_events), rows)
    connection.execute(update(jobs).where(which).values(last_event=last + len(rows)))
