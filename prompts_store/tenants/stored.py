"""How much each tenant keeps, counted as it changes and held to the tenant's limits.

Counting and refusing happen in the transaction that makes the change, under the publish lock: of two that
would each take the last place, one is refused, in whatever processes they are.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from prompts_store.base import StoreBase, check_owner
from prompts_store.database.job_tables import jobs, training_steps
from prompts_store.database.tables import tasks
from prompts_store.database.tenant_tables import stored_use, tenants
from prompts_store.errors import LimitError, Quota
from prompts_store.months import month_of
from prompts_store.names import check_name
from prompts_store.tenants.limits import Budget, TenantLimits
from prompts_store.tenants.records import StoredUse

VALUE_BYTES = 4
"""Of a prompt's value, which is kept in f32."""

_KEPT = ("prompts", "prompt_bytes", "file_bytes")
_WORDS = {
    "prompts": ("prompts", "delete versions"),
    "prompt_bytes": ("bytes of prompts", "delete versions"),
    "file_bytes": ("bytes of files", "delete files"),
    "unfinished_jobs": ("unfinished jobs", "wait for one to end, or cancel one"),
}


class StoredUses(StoreBase):
    """What tenants keep, and whether they may keep more."""

    def stored_use(self, tenant: str) -> StoredUse:
        """What a tenant uses of each stored limit, and of this month's training steps. Zeros for a tenant
        that has nothing."""
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            kept = _kept(connection, tenant)
            steps = steps_of_month(connection, tenant, self._clock())
            return StoredUse(
                **kept, unfinished_jobs=unfinished_jobs(connection, tenant), training_steps=steps
            )

    def check_version_room(self, tenant: str, task: str) -> None:
        """Refuse early what `publish` would refuse for a full tenant, whatever the prompt: nothing is new
        where a task has versions already, because the prompt may be one of them.

        Raises:
            LimitError: `limit_exceeded`.
        """
        check_owner(tenant, task)
        live = select(tasks.c.live_versions).where(tasks.c.tenant == tenant, tasks.c.name == task)
        with self._database.read(tenant) as connection:
            if not connection.execute(live).scalar():
                require_room(connection, tenant, prompts=1, prompt_bytes=VALUE_BYTES)

    def check_file_room(self, tenant: str, size_bytes: int) -> None:
        """Refuse a file early of which it is known that it has this many bytes or more.

        Raises:
            LimitError: `limit_exceeded`.
        """
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            require_room(connection, tenant, file_bytes=size_bytes)

    def soft_limit(self, tenant: str) -> Quota | None:
        """The soft limit of training steps, once this month's go beyond it."""
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            return over_soft(connection, tenant, self._clock())


def add(
    connection: Connection, tenant: str, *, prompts: int = 0, prompt_bytes: int = 0, file_bytes: int = 0
) -> None:
    """Count what a tenant keeps more, or less. The caller holds the publish lock."""
    more = {"prompts": prompts, "prompt_bytes": prompt_bytes, "file_bytes": file_bytes}
    counted = connection.execute(
        update(stored_use)
        .where(stored_use.c.tenant == tenant)
        .values({name: stored_use.c[name] + number for name, number in more.items()})
    )
    if not counted.rowcount:
        connection.execute(insert(stored_use).values(tenant=tenant, **more))


def require_room(
    connection: Connection,
    tenant: str,
    *,
    prompts: int = 0,
    prompt_bytes: int = 0,
    file_bytes: int = 0,
) -> None:
    """Refuse what goes beyond the tenant's limits.

    Args:
        prompts, prompt_bytes, file_bytes: how much more it would keep.

    Raises:
        LimitError: `limit_exceeded`.
    """
    most = limits_of(connection, tenant).stored
    if most is None:
        return
    kept = _kept(connection, tenant)
    for name, more in (("prompts", prompts), ("prompt_bytes", prompt_bytes), ("file_bytes", file_bytes)):
        limit = getattr(most, name)
        if more and limit is not None and kept[name] + more > limit:
            raise refusal(name, limit, kept[name], more)


def refusal(name: str, limit: int, used: int, more: int, *, code: str | None = None) -> LimitError:
    """The error for a stored limit.

    Args:
        name: of `StoredAmounts`.
    """
    what, remedy = _WORDS[name]
    return LimitError(
        f"The tenant has {used} {what} and may have {limit}, and this would be {more} more: {remedy}, or ask "
        "whoever operates this server for a higher limit.",
        code=code,
        quota=Quota(f"stored.{name}", None, limit, used),
    )


def limits_of(connection: Connection, tenant: str) -> TenantLimits:
    """The limits of a tenant; none if it has no row."""
    document = connection.execute(select(tenants.c.limits).where(tenants.c.name == tenant)).scalar()
    return TenantLimits.read(document) if document else TenantLimits()


def unfinished_jobs(connection: Connection, tenant: str) -> int:
    """How many jobs of a tenant, of every kind, are not over."""
    query = select(func.count()).where(jobs.c.tenant == tenant, jobs.c.finished_at.is_(None))
    return connection.execute(query).scalar_one()


def steps_of_month(connection: Connection, tenant: str, now: datetime) -> int:
    """Training steps of a moment's month: done, and reserved by unfinished jobs."""
    query = select(func.coalesce(func.sum(training_steps.c.steps), 0)).where(
        training_steps.c.tenant == tenant, training_steps.c.month == month_of(now)
    )
    return int(connection.execute(query).scalar_one())


def over_soft(connection: Connection, tenant: str, now: datetime) -> Quota | None:
    """See `StoredUses.soft_limit`."""
    soft = steps_budget(limits_of(connection, tenant)).soft
    if soft is None:
        return None
    used = steps_of_month(connection, tenant, now)
    return steps_limit(soft, used) if used > soft else None


def steps_budget(limits: TenantLimits) -> Budget:
    """What the limits say of a month's training steps."""
    month = limits.per_month
    return (month and month.training_steps) or Budget()


def steps_limit(limit: int, used: int) -> Quota:
    """A soft or hard limit of a month's training steps."""
    return Quota("per_month.training_steps", "month", limit, used)


def _kept(connection: Connection, tenant: str) -> dict[str, int]:
    row = connection.execute(select(stored_use).where(stored_use.c.tenant == tenant)).one_or_none()
    return {name: 0 if row is None else getattr(row, name) for name in _KEPT}
