"""A principal is a caller whose key was checked: a tenant and the scopes that the key carries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key may do; each route names the one it needs."""

    INFER = "infer"
    READ = "prompts:read"
    WRITE = "prompts:write"
    TUNE = "tune"
    METRICS = "metrics:read"


ALL_SCOPES: frozenset[Scope] = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        tenant: namespace whose tasks a bare name means, and who pays for the work.
        name: of the key, for `created_by` and logs; never the key itself.
        scopes: what the key may do.
        weight: fair-share weight of the tenant.
    """

    tenant: str
    name: str
    scopes: frozenset[Scope] = ALL_SCOPES
    weight: float = 1.0
