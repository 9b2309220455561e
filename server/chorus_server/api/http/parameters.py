"""Path and query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.grants.records import GrantKind
from prompts_store.grants.rows import unknown
from prompts_store.names import check_name
from prompts_store.tenants.standing import unknown_tenant

TaskName = Annotated[str, Path(max_length=256, description="A task, without its tenant.")]
EnsembleName = Annotated[str, Path(max_length=256, description="An ensemble, without its tenant.")]
PackName = Annotated[str, Path(max_length=256, description="A decision pack, without its tenant.")]
AliasName = Annotated[str, Path(max_length=256, description="Starts with a letter.")]
VersionInPath = Annotated[int, Path(ge=1, le=2_147_483_647, description="A version's number.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Items per page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the previous page.")]
Prefix = Annotated[str | None, Query(max_length=256, description="Only names that begin with this.")]
TenantName = Annotated[
    str | None,
    Query(
        max_length=256,
        description="Whose it is; by default the key's own tenant's. Another's can be read with the right "
        "`read`, and is not changed.",
    ),
]

OperatedTenant = Annotated[
    str | None,
    Query(max_length=256, description="Whose; the caller's own when left out. For operators."),
]


def operated_tenant(principal: Principal, tenant: str | None) -> str:
    """The tenant that is meant: the caller's own, or for an operator any.

    Raises:
        NotFoundError: of the store, `unknown_tenant`: another's, and the caller is no operator.
    """
    if tenant is None or tenant == principal.tenant:
        return principal.tenant
    if Scope.OPERATOR not in principal.scopes:
        raise unknown_tenant(tenant)
    return tenant


def owner_of_task(principal: Principal, tenant: str | None, task: str) -> str:
    """The tenant whose task a request changes, which is the caller's own; see `task_to_read` for others.

    Raises:
        NotFoundError: of the store, `unknown_task`: another tenant's, or one that the key may not name. Both
            answer as one that is not there.
        InvalidError: of the store: no name.
    """
    return _owner(principal, tenant, task, "task")


def owner_of_ensemble(principal: Principal, tenant: str | None, name: str) -> str:
    """The same for an ensemble: `unknown_ensemble`."""
    return _owner(principal, tenant, name, "ensemble")


def owner_of_pack(principal: Principal, tenant: str | None, name: str) -> str:
    """The same for a pack: `unknown_pack`."""
    return _owner(principal, tenant, name, "pack")


def _owner(principal: Principal, tenant: str | None, name: str, kind: GrantKind) -> str:
    owner = principal.tenant if tenant is None else tenant
    if owner != principal.tenant or not principal.may_name(name):
        raise unknown(kind, check_name(owner, field="tenant"), check_name(name, field=kind), field=kind)
    return owner
