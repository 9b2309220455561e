"""`/v1/tenants`: tenants, for operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus.methods import Method
from chorus.routes import references
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import Tenant, TenantPage
from chorus.wire import Call, Request, Steps, encode_json, model_of, query_of, without_none

PATH = "/v1/tenants"


def _path(tenant: str, *rest: str) -> str:
    return "/".join((PATH, references.segment(tenant, "tenant"), *rest))


def _changes(
    display_name: str | None,
    weight: float | None,
    limits: Mapping[str, Any] | None,
    retention: Mapping[str, int | None] | None,
) -> dict[str, Any]:
    changes = {"display_name": display_name, "weight": weight, "limits": limits, "retention": retention}
    return without_none(changes)


def create(
    name: str,
    *,
    display_name: str | None = None,
    weight: float | None = None,
    limits: Mapping[str, Any] | None = None,
    retention: Mapping[str, int | None] | None = None,
) -> Call[Tenant]:
    """Make a tenant.

    Args:
        name: lower-case letters, digits, `.`, `_` and `-`. It stays for ever, and is never given again.
        display_name: for people.
        weight: its share of a busy server against the others'; default 1.
        limits: what it may use, such as `{"per_minute": {"requests": 600}, "stored": {"prompts": 100}}`; by
            default any amount.
        retention: for how many days its `usage_days` and `audit_days` are kept; by default as long as
            everybody's.

    Raises:
        ConflictError: `tenant_exists`: a tenant has this name, or had it.
    """
    body = {"name": name, **_changes(display_name, weight, limits, retention)}
    return Call(Request("POST", PATH, body=encode_json(body)), model_of(Tenant))


def list_page(
    *,
    prefix: str | None = None,
    status: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[TenantPage]:
    """One page of the tenants, by name.

    Args:
        prefix: only names that begin with this.
        status: `active`, `suspended` or `deleted`; by default all but the deleted ones.
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    query = query_of(prefix=prefix, status=status, limit=limit, cursor=cursor)
    return Call(get_page(PATH, query), model_of(TenantPage))


def list_all(*, prefix: str | None = None, status: str | None = None) -> Steps[list[Tenant]]:
    """Every tenant, by name; fetches page after page.

    Args:
        prefix: only names that begin with this.
        status: `active`, `suspended` or `deleted`; by default all but the deleted ones.
    """
    return (
        yield from every(
            lambda cursor: list_page(prefix=prefix, status=status, limit=PAGE, cursor=cursor),
            lambda page: page.tenants,
        )
    )


def get(tenant: str) -> Call[Tenant]:
    """Describe one tenant."""
    return Call(get_page(_path(tenant), ()), model_of(Tenant))


def update(
    tenant: str,
    *,
    display_name: str | None = None,
    weight: float | None = None,
    limits: Mapping[str, Any] | None = None,
    retention: Mapping[str, int | None] | None = None,
) -> Call[Tenant]:
    """Change what is given; the rest stays. Every process on the database follows within a second.

    Args:
        limits, retention: as in `create`, each in place of all that there was; `{}` removes them.
    """
    body = _changes(display_name, weight, limits, retention)
    return Call(Request("PATCH", _path(tenant), body=encode_json(body)), model_of(Tenant))


def suspend(tenant: str) -> Call[Tenant]:
    """Let nobody in with the tenant's keys, and begin none of its jobs, until it is resumed."""
    return Call(Request("POST", _path(tenant, "suspend")), model_of(Tenant))


def resume(tenant: str) -> Call[Tenant]:
    """Undo a suspension."""
    return Call(Request("POST", _path(tenant, "resume")), model_of(Tenant))


def delete(tenant: str) -> Call[Tenant]:
    """Delete a tenant. It is absent at once.

    Returns:
        The deleted tenant: what it had is removed after its `purge_after`.

    Raises:
        ConflictError: it is the tenant of the server's own settings.
    """
    return Call(Request("DELETE", _path(tenant)), model_of(Tenant))


class TenantMethods:
    """The methods of `client.tenants`."""

    create = Method(create)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    update = Method(update)
    suspend = Method(suspend)
    resume = Method(resume)
    delete = Method(delete)
