"""The store's tenants: make, show, list, change, suspend, resume, delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from prompts_store import checks
from prompts_store.audit import chain
from prompts_store.audit.records import Action
from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tenant_tables import tenants
from prompts_store.errors import ConflictError, InvalidError
from prompts_store.names import AFTER_NAMES, check_name, check_prefix
from prompts_store.pages import DEFAULT_LIMIT, check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import Page
from prompts_store.tenants import feed
from prompts_store.tenants.limits import TenantLimits
from prompts_store.tenants.records import (
    TENANT_STATUSES,
    ChangeKind,
    Retention,
    Tenant,
    TenantStatus,
)
from prompts_store.tenants.standing import unknown_tenant
from prompts_store.text import has_control_characters, shown

MAX_DISPLAY_NAME_CHARACTERS = 256
MAX_WEIGHT = 1_000_000
MAX_RETENTION_DAYS = 36_500
MAX_GRACE_SECONDS = 10 * 365 * 86_400

_CURSOR = "tenants"
# Greater than every character of a name.


class Tenants(StoreBase):
    """Owners of everything else. A deleted one is as one that is not there; its name is not given again."""

    def create_tenant(
        self,
        name: str,
        *,
        display_name: str = "",
        weight: float = 1.0,
        limits: TenantLimits | None = None,
        retention: Retention | None = None,
        created_by: str = "",
    ) -> Tenant:
        """Make a tenant.

        Raises:
            InvalidError: with the field at fault.
            ConflictError: `tenant_exists`: there is one of that name, or there was.
        """
        checks.check_text(created_by, field="created_by")
        check_name(name, field="tenant")
        values = _checked(display_name, weight, limits or TenantLimits(), retention or Retention())
        with self._database.write(name) as connection:
            found = _row(connection, name)
            if found is not None:
                raise ConflictError(
                    f"The name {shown(name)} is taken: a tenant has it, or had it before it was deleted; "
                    f"choose another.",
                    field="tenant",
                    code="tenant_exists",
                )
            return self._create(connection, name, values, created_by)

    def ensure_tenant(self, name: str, *, created_by: str = "") -> Tenant:
        """A tenant by its name, made now where there is none.

        Raises:
            InvalidError: with the field at fault.
            NotFoundError: `unknown_tenant`: it was deleted.
        """
        checks.check_text(created_by, field="created_by")
        check_name(name, field="tenant")
        with self._database.read(name) as connection:
            found = _row(connection, name)
        if found is None:
            with self._database.write(name) as connection:
                if _row(connection, name) is None:
                    return self._create(
                        connection, name, _checked("", 1.0, TenantLimits(), Retention()), created_by
                    )
        return self.get_tenant(name)

    def get_tenant(self, name: str) -> Tenant:
        """A tenant that is not deleted. NotFoundError: `unknown_tenant`."""
        check_name(name, field="tenant")
        with self._database.read(name) as connection:
            return tenant_record(find_tenant(connection, name))

    def list_tenants(
        self,
        *,
        prefix: str = "",
        status: TenantStatus | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[Tenant]:
        """A page of tenants by name: of one status, or all but the deleted.

        Raises:
            InvalidError: a bad prefix, status, limit or cursor.
        """
        limit, prefix = check_limit(limit), check_prefix(prefix)
        after = decode_cursor(_CURSOR, cursor, lambda key: check_name(key, field="cursor"))
        if status is None:
            query = select(tenants).where(tenants.c.status != "deleted")
        else:
            query = select(tenants).where(tenants.c.status == _check_status(status))
        if prefix:
            query = query.where(tenants.c.name >= prefix, tenants.c.name < prefix + AFTER_NAMES)
        if after is not None:
            query = query.where(tenants.c.name > after)
        with self._database.read(EVERY_TENANT) as connection:
            rows = connection.execute(query.order_by(tenants.c.name).limit(limit + 1)).all()
        return make_page(rows, limit, tenant_record, lambda row: encode_cursor(_CURSOR, row.name))

    def update_tenant(
        self,
        name: str,
        *,
        display_name: str | None = None,
        weight: float | None = None,
        limits: TenantLimits | None = None,
        retention: Retention | None = None,
    ) -> Tenant:
        """Change what is given, each as a whole; None leaves it. Where it is so already, nothing is written.

        Raises:
            InvalidError: with the field at fault.
            NotFoundError: `unknown_tenant`.
        """
        check_name(name, field="tenant")
        values = _checked(display_name, weight, limits, retention)
        return self._change(name, values, "tenant_updated", "tenant.update")

    def suspend_tenant(self, name: str) -> Tenant:
        """Nobody is let in with its keys, and none of its jobs is begun, until it is resumed.

        Raises:
            NotFoundError: `unknown_tenant`.
        """
        values = {"status": "suspended", "suspended_at": self._clock()}
        return self._change(name, values, "tenant_suspended", "tenant.suspend", already="suspended")

    def resume_tenant(self, name: str) -> Tenant:
        """Undo a suspension. NotFoundError: `unknown_tenant`."""
        values = {"status": "active", "suspended_at": None}
        return self._change(name, values, "tenant_resumed", "tenant.resume", already="active")

    def delete_tenant(self, name: str, *, grace_seconds: float) -> Tenant:
        """Delete a tenant: absent to everybody from now on. What it had goes after the grace period, with
        `purge_tenants`; the answer's `purge_after` says when.

        Raises:
            InvalidError: field `grace_seconds`.
            NotFoundError: `unknown_tenant`.
        """
        if not (checks.is_finite(grace_seconds) and 0 <= grace_seconds <= MAX_GRACE_SECONDS):
            raise InvalidError(
                f"The grace period is {shown(grace_seconds)} seconds; it is a number from 0 to "
                f"{MAX_GRACE_SECONDS}.",
                field="grace_seconds",
            )
        now = self._clock()
        values = {
            "status": "deleted",
            "suspended_at": None,
            "deleted_at": now,
            "purge_after": now + timedelta(seconds=grace_seconds),
        }
        return self._change(name, values, "tenant_deleted", "tenant.delete")

    def _create(
        self, connection: Connection, name: str, values: Mapping[str, Any], created_by: str
    ) -> Tenant:
        now = self._clock()
        connection.execute(
            insert(tenants).values(
                name=name, status="active", created_at=now, created_by=created_by, **values
            )
        )
        feed.record(connection, "tenant_created", name, now=now)
        chain.append(connection, "tenant.create", name, now=now, after=values)
        return tenant_record(find_tenant(connection, name))

    def _change(
        self,
        name: str,
        values: Mapping[str, Any],
        kind: ChangeKind,
        action: Action,
        *,
        already: str | None = None,
    ) -> Tenant:
        check_name(name, field="tenant")
        with self._database.write(name) as connection:
            row = find_tenant(connection, name)
            before, after = chain.difference(row, values)
            if row.status != already and after:
                connection.execute(update(tenants).where(tenants.c.name == name).values(**values))
                now = self._clock()
                feed.record(connection, kind, name, now=now)
                chain.append(connection, action, name, now=now, before=before, after=after)
                row = connection.execute(select(tenants).where(tenants.c.name == name)).one()
            return tenant_record(row)


def find_tenant(connection: Connection, name: str) -> Row[Any]:
    """The row of a tenant that is not deleted.

    Raises:
        NotFoundError: `unknown_tenant`.
    """
    row = _row(connection, name)
    if row is None or row.status == "deleted":
        raise unknown_tenant(name)
    return row


def tenant_record(row: Row[Any]) -> Tenant:
    """A tenant from the columns of `tenants`."""
    return Tenant(
        name=row.name,
        display_name=row.display_name,
        weight=row.weight,
        status=row.status,
        limits=TenantLimits.read(row.limits),
        retention=Retention(row.usage_days, row.audit_days),
        created_at=row.created_at,
        created_by=row.created_by,
        suspended_at=row.suspended_at,
        deleted_at=row.deleted_at,
        purge_after=row.purge_after,
    )


def _row(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(tenants).where(tenants.c.name == name)).one_or_none()


def _checked(
    display_name: str | None,
    weight: float | None,
    limits: TenantLimits | None,
    retention: Retention | None,
) -> dict[str, Any]:
    """The columns of what is given. InvalidError, with the field at fault."""
    values: dict[str, Any] = {}
    if display_name is not None:
        checks.check_text(display_name, field="display_name", limit=MAX_DISPLAY_NAME_CHARACTERS)
        if has_control_characters(display_name):
            raise InvalidError("display_name is one line of text.", field="display_name")
        values["display_name"] = display_name
    if weight is not None:
        if not (checks.is_finite(weight) and 1 / MAX_WEIGHT <= weight <= MAX_WEIGHT):
            raise InvalidError(
                f"The weight is {shown(weight)}; it is a number from {1 / MAX_WEIGHT:g} to {MAX_WEIGHT}.",
                field="weight",
            )
        values["weight"] = float(weight)
    if limits is not None:
        values["limits"] = limits.document()
    if retention is not None:
        values["usage_days"] = _check_days(retention.usage_days, "retention.usage_days")
        values["audit_days"] = _check_days(retention.audit_days, "retention.audit_days")
    return values


def _check_days(days: object, field: str) -> int | None:
    if days is None:
        return None
    if isinstance(days, int) and not isinstance(days, bool) and 1 <= days <= MAX_RETENTION_DAYS:
        return days
    raise InvalidError(f"{shown(days)} is no number of days from 1 to {MAX_RETENTION_DAYS}.", field=field)


def _check_status(status: object) -> TenantStatus:
    for known in TENANT_STATUSES:
        if status == known:
            return known
    raise InvalidError(
        f"{shown(status)} is not a status of a tenant; it is one of {', '.join(TENANT_STATUSES)}.",
        field="status",
        code="invalid_status",
    )
