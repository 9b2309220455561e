"""A principal is a caller whose key was checked: a tenant and the scopes of the key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key may do. Each route names the scope that it needs."""

    INFER = "infer"
    READ = "prompts:read"
    WRITE = "prompts:write"
    TUNE = "tune"
    METRICS = "metrics:read"


ALL_SCOPES: frozenset[Scope] = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request.

    Attributes:
        tenant: the namespace of names without a tenant, and who pays for the work.
        name: the key's name, for `created_by` and logs; never the key itself.
        scopes: what the key may do.
        weight: fair-share weight of the tenant.
        key: id of the key in the store; None for one from a file, and for a caller without any.
    """

    tenant: str
    name: str
    scopes: frozenset[Scope] = ALL_SCOPES
    weight: float = 1.0
    key: str | None = None
