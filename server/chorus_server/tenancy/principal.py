"""A principal is a caller whose key was checked: a tenant and the scopes of the key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from prompts_store.tenants.limits import KeyLimits, TenantLimits
from prompts_store.tenants.task_patterns import matches_any


class Scope(StrEnum):
    """What a key may do. Each route names the scope that it needs."""

    INFER = "infer"
    READ = "prompts:read"
    WRITE = "prompts:write"
    TUNE = "tune"
    METRICS = "metrics:read"
    ADMIN = "admin"
    OPERATOR = "operator"


ALL_SCOPES: frozenset[Scope] = frozenset(Scope)
TENANT_SCOPES: frozenset[Scope] = ALL_SCOPES - {Scope.OPERATOR}
"""All that concern one tenant."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request.

    Attributes:
        tenant: the namespace of names without a tenant, and who pays for the work.
        name: the key's name, for `created_by` and logs; never the key itself.
        scopes: what the key may do.
        weight: fair-share weight of the tenant.
        key: id of the key in the store; None for one from a file, and for a caller without any.
        tasks: patterns of the tasks and ensembles that the key may name, see `task_patterns`; None for any.
        keyless: whether no key was needed.
        limits, tenant_limits: what the key may use, and what its tenant; None for no limit.
    """

    tenant: str
    name: str
    scopes: frozenset[Scope] = ALL_SCOPES
    weight: float = 1.0
    key: str | None = None
    tasks: tuple[str, ...] | None = None
    keyless: bool = False
    limits: KeyLimits | None = None
    tenant_limits: TenantLimits | None = None

    def may_name(self, name: str, owner: str | None = None) -> bool:
        """Whether the key may name this task or ensemble of its tenant, or of another owner."""
        return matches_any(self.tasks, name, owner=owner or self.tenant, tenant=self.tenant)
