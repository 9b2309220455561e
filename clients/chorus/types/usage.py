"""What tenants used, added up."""

from __future__ import annotations

from datetime import datetime

from chorus.types.base import Wire


class UsageSum(Wire):
    """Usage, added up. What was not grouped by is None; so are the key of callers without one, and the task
    of the base model.

    Attributes:
        start: the first moment of the hour, day or month.
        tokens_in: input tokens, with the prompts' rows among them.
        work_units: what it costs.
    """

    start: datetime | None = None
    tenant: str | None = None
    key: str | None = None
    task: str | None = None
    outcome: str | None = None
    items: int
    tokens_in: int
    tokens_out: int
    work_units: int


class UsageReport(Wire):
    """Usage of a time, ordered by time, tenant, key, task and outcome; of the largest, largest first."""

    group_by: list[str]
    usage: list[UsageSum]
