"""Whose task, ensemble or pack a request reads: the caller's own, or one that its owner lets it read."""

from __future__ import annotations

from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.tenancy.principal import Principal
from prompts_store.grants.records import GrantKind
from prompts_store.grants.rows import unknown
from prompts_store.names import check_name


async def task_to_read(library: PromptLibrary, principal: Principal, tenant: str | None, task: str) -> str:
    """The tenant whose task a request reads.

    Args:
        tenant: that the request names; None for the caller's own.

    Raises:
        NotFoundError: of the store, `unknown_task`: another tenant's without the right `read`, or one that
            the key may not name. Both answer as one that is not there.
        InvalidError: of the store: no name.
    """
    return await _owner(library, principal, "task", tenant, task)


async def ensemble_to_read(
    library: PromptLibrary, principal: Principal, tenant: str | None, name: str
) -> str:
    """The same for an ensemble: `unknown_ensemble`."""
    return await _owner(library, principal, "ensemble", tenant, name)


async def pack_to_read(library: PromptLibrary, principal: Principal, tenant: str | None, name: str) -> str:
    """The same for a pack: `unknown_pack`."""
    return await _owner(library, principal, "pack", tenant, name)


async def _owner(
    library: PromptLibrary, principal: Principal, kind: GrantKind, tenant: str | None, name: str
) -> str:
    owner = check_name(principal.tenant if tenant is None else tenant, field="tenant")
    if not principal.may_name(check_name(name, field=kind), owner):
        raise unknown(kind, owner, name, field=kind)
    if owner != principal.tenant:
        await library.read(
            library.store.require_grant, kind, owner, name, tenant=principal.tenant, right="read"
        )
    return owner
