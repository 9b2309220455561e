"""What the store takes in and hands out about usage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

UsageOutcome = Literal["answered", "failed", "cancelled"]
USAGE_OUTCOMES: tuple[UsageOutcome, ...] = get_args(UsageOutcome)

UsageGroup = Literal["tenant", "key", "task", "outcome", "hour", "day", "month"]
"""By what usage may be added up; of the last three, one at a time."""
USAGE_GROUPS: tuple[UsageGroup, ...] = get_args(UsageGroup)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One item of a request, once its outcome is known. It has nothing of what was asked or answered.

    Attributes:
        sequence: which row of its replica it is; a replica counts its rows up.
        at: when the outcome was decided.
        tenant: who pays.
        key: id of the tenant's key; empty for a caller without one.
        task: `tenant/task`; empty for the base model without a prompt.
        digest: of the version that answered, as the answer names it; empty like `task`.
        tokens_in: input tokens, with the prompt's rows among them; 0 if the model never read the item.
        tokens_out: tokens generated, of all its sequences.
        work_units: what it costs.
        request_id: the id of the HTTP request.
        item: its place in that request, from 0.
    """

    sequence: int
    at: datetime
    tenant: str
    key: str
    task: str
    digest: str
    outcome: UsageOutcome
    tokens_in: int
    tokens_out: int
    work_units: int
    request_id: str
    item: int


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Usage, added up. What was not grouped by is None.

    Attributes:
        start: the first moment of the hour, day or month, in UTC.
        key, task: as in `UsageRow`, so empty means none.
        items: how many.
    """

    start: datetime | None
    tenant: str | None
    key: str | None
    task: str | None
    outcome: UsageOutcome | None
    items: int
    tokens_in: int
    tokens_out: int
    work_units: int
