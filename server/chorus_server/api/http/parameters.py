"""Path and query parameters that several routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from chorus_server.errors import NotFoundError
from chorus_server.tenancy.principal import Principal

TaskName = Annotated[str, Path(max_length=256, description="A task in the key's tenant.")]
EnsembleName = Annotated[str, Path(max_length=256, description="An ensemble in the key's tenant.")]
AliasName = Annotated[str, Path(max_length=256, description="Starts with a letter.")]
VersionInPath = Annotated[int, Path(ge=1, le=2_147_483_647, description="A version's number.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Items per page.")]
Cursor = Annotated[str | None, Query(max_length=1024, description="`next_cursor` of the previous page.")]
Prefix = Annotated[str | None, Query(max_length=256, description="Only names that begin with this.")]
TenantName = Annotated[
    str | None, Query(max_length=256, description="Tenant of the task; by default the key's own.")
]


def tenant_for(principal: Principal, tenant: str | None, code: str = "unknown_task") -> str:
    """The tenant whose objects a request reads or changes.

    Raises:
        NotFoundError: it is another tenant. Nothing is shared yet, so the answer is as if there were no such
            object.
    """
    if tenant is not None and tenant != principal.tenant:
        raise NotFoundError("There is no such object in this tenant.", field="tenant", code=code)
    return principal.tenant
