"""What other rooms ask about a tenant before they make something of it."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, Select, select

from prompts_store.database import EVERY_TENANT, scoped
from prompts_store.database.tenant_tables import tenants
from prompts_store.errors import NotFoundError
from prompts_store.text import shown


def require_not_deleted(connection: Connection, tenant: str) -> None:
    """Refuse what would be new in a deleted tenant, so that a purge ends. A tenant may have no row.

    Raises:
        NotFoundError: `unknown_tenant`.
    """
    status = connection.execute(select(tenants.c.status).where(tenants.c.name == tenant)).scalar()
    if status == "deleted":
        raise unknown_tenant(tenant)


def is_active(connection: Connection, tenant: str) -> bool:
    """Whether it is neither suspended nor deleted. A tenant may have no row."""
    status = connection.execute(select(tenants.c.status).where(tenants.c.name == tenant)).scalar()
    return status in (None, "active")


def stopped_tenants() -> Select[tuple[str]]:
    """The names of tenants whose jobs are not begun: suspended and deleted ones."""
    return select(tenants.c.name).where(tenants.c.status != "active")


def stopped_of(connection: Connection, names: Collection[str]) -> set[str]:
    """Those of some tenants that are suspended or deleted."""
    with scoped(connection, EVERY_TENANT):
        query = stopped_tenants().where(tenants.c.name.in_(names))
        return {row.name for row in connection.execute(query)}


def unknown_tenant(tenant: str) -> NotFoundError:
    """The error for a tenant that is not there, or no longer."""
    return NotFoundError(
        f"There is no tenant {shown(tenant)}, or it was deleted.", field="tenant", code="unknown_tenant"
    )
