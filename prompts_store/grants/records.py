"""What the store hands out about grants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

GrantKind = Literal["task", "ensemble", "pack"]
GRANT_KINDS: tuple[GrantKind, ...] = get_args(GrantKind)

Right = Literal["infer", "read"]
RIGHTS: tuple[Right, ...] = get_args(Right)
"""`infer`: to ask it; `read`: to see it and to download it. Neither contains the other."""

EVERYBODY = "*"
"""In place of a tenant's name: every tenant. No tenant can have this name."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one tenant, or everybody, may do with a task, an ensemble or a pack of another tenant.

    Attributes:
        tenant, name: whose, and which.
        grantee: a tenant's name, or `EVERYBODY`.
        rights: in the order of `RIGHTS`, at least one.
    """

    kind: GrantKind
    tenant: str
    name: str
    grantee: str
    rights: tuple[Right, ...]
    created_at: datetime
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class Shared:
    """A task, an ensemble or a pack of another tenant that a tenant may use.

    Attributes:
        tenant, name: whose, and which.
        rights: of all grants that count for the tenant together.
    """

    kind: GrantKind
    tenant: str
    name: str
    rights: tuple[Right, ...]
