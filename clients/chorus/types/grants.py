"""What tenants let others use."""

from __future__ import annotations

from datetime import datetime

from chorus.types.base import Wire


class Grant(Wire):
    """What a tenant may do with a task, an ensemble or a pack of another.

    Attributes:
        grantee: a tenant's name, or `*` for all.
        rights: `infer`, to ask it; `read`, to see and to download it.
    """

    grantee: str
    rights: list[str]
    created_at: datetime
    created_by: str = ""


class GrantList(Wire):
    """The grants of a task, an ensemble or a pack, by grantee."""

    grants: list[Grant]


class Shared(Wire):
    """A task, an ensemble or a pack of another tenant that the caller's tenant may use.

    Attributes:
        kind: `task`, `ensemble` or `pack`.
        reference: as requests name it: `acme/sst2`.
    """

    kind: str
    reference: str
    rights: list[str]


class SharedPage(Wire):
    """Part of what others share with the caller's tenant. `next_cursor` is None on the last page."""

    shared: list[Shared]
    next_cursor: str | None = None
