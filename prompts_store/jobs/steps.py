"""Training steps of jobs, as their tenants' months count them.

A job takes all of its steps out of the month in which it is created or resumed, and gives back at its end
those that it did not do. So no job is begun that the month has no room for, and none is stopped halfway.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from prompts_store import checks
from prompts_store.database.job_tables import jobs, training_steps
from prompts_store.errors import InvalidError, LimitError
from prompts_store.jobs.events import SOFT_LIMIT, add_events
from prompts_store.months import month_after, month_of
from prompts_store.tenants import stored
from prompts_store.text import shown

DONE = "training_steps"
"""In a job's progress: how many steps it has done in all its attempts."""

_MOST = 2**53


def check_steps(steps: object) -> int:
    """Return the number of a job's steps if it can be one.

    Raises:
        InvalidError: field `training_steps`.
    """
    if isinstance(steps, int) and not isinstance(steps, bool) and 0 <= steps <= _MOST:
        return steps
    raise InvalidError(f"{shown(steps)} is no number of training steps.", field="training_steps")


def reserve(connection: Connection, tenant: str, job_number: int, steps: int, now: datetime) -> None:
    """Take what a job may still do out of this month. Beyond the soft limit, an event says so.

    Args:
        steps: the most that the job does in all, with what it has done before.

    Raises:
        LimitError: `limit_exceeded`: the month has no room for them.
    """
    of_job = training_steps.c.job_number == job_number
    counted = select(func.coalesce(func.sum(training_steps.c.steps), 0)).where(of_job)
    more = steps - int(connection.execute(counted).scalar_one())
    if more <= 0:
        return
    hard = stored.steps_budget(stored.limits_of(connection, tenant)).hard
    used = stored.steps_of_month(connection, tenant, now)
    month = month_of(now)
    if hard is not None and used + more > hard:
        raise LimitError(
            f"The job may take {more} training steps, and {max(0, hard - used)} of the month's {hard} are "
            "left: send fewer steps or prompts, wait for the next month (UTC), or ask whoever operates this "
            "server for a higher limit.",
            quota=stored.steps_limit(hard, used),
            retry_after_seconds=(month_after(now) - now).total_seconds(),
        )
    kept = connection.execute(
        update(training_steps)
        .where(of_job, training_steps.c.month == month)
        .values(steps=training_steps.c.steps + more)
    )
    if not kept.rowcount:
        row = {"tenant": tenant, "month": month, "job_number": job_number, "steps": more}
        connection.execute(insert(training_steps).values(row))
    soft = stored.over_soft(connection, tenant, now)
    if soft is not None:
        add_events(connection, job_number, [(SOFT_LIMIT, asdict(soft))], now)


def settle(connection: Connection, job_number: int) -> None:
    """Give back what a job has not done, now that it is over."""
    query = select(training_steps).where(training_steps.c.job_number == job_number)
    rows = connection.execute(query.order_by(training_steps.c.month)).all()
    if not rows:
        return
    progress = connection.execute(select(jobs.c.progress).where(jobs.c.number == job_number)).scalar_one()
    said = progress.get(DONE)
    done = int(said) if checks.is_finite(said) else 0
    before = sum(row.steps for row in rows[:-1])
    connection.execute(
        update(training_steps)
        .where(training_steps.c.job_number == job_number, training_steps.c.month == rows[-1].month)
        .values(steps=min(max(0, done - before), rows[-1].steps))
    )
