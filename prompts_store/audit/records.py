"""What the store hands out of its audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Action = Literal[
    "task.publish",
    "task.delete",
    "version.delete",
    "version.calibrate",
    "alias.move",
    "alias.rollback",
    "alias.remove",
    "ensemble.publish",
    "ensemble.delete",
    "ensemble_alias.move",
    "ensemble_alias.rollback",
    "ensemble_alias.remove",
    "pack.publish",
    "pack.delete",
    "pack_alias.move",
    "pack_alias.rollback",
    "pack_alias.remove",
    "task.share",
    "task.unshare",
    "ensemble.share",
    "ensemble.unshare",
    "pack.share",
    "pack.unshare",
    "file.create",
    "file.delete",
    "job.create",
    "job.cancel",
    "job.pause",
    "job.resume",
    "tenant.create",
    "tenant.update",
    "tenant.suspend",
    "tenant.resume",
    "tenant.delete",
    "tenant.purge",
    "key.create",
    "key.update",
    "key.revoke",
    "audit.drop",
    "store.collect",
    "store.adopt",
    "store.restore",
    "store.repair",
]

OF_THE_STORE = ""
"""In place of a tenant's name: the log of what concerns the whole store."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change. No row has a secret, an input, an output or what a file holds.

    Attributes:
        tenant: whose log this is.
        sequence: 1, 2, ... without holes in each log.
        actor, address, request_id: see `records.Actor`; of a grant in the grantee's log, `tenant` and the
            owner's name, without an address.
        action: an `Action`, or one that this code does not know yet.
        subject: what was changed: `task@3`, `task@alias`, an id, another tenant's `tenant/task`, or nothing
            where it is the tenant itself.
        before, after: small facts of it; None where there was nothing, or is nothing now.
        previous: the hash of the row before; zeros in the first.
        hash: see `chain.row_hash`.
    """

    tenant: str
    sequence: int
    at: datetime
    actor: str
    address: str
    request_id: str
    action: str
    subject: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows to read: those that have all that is given.

    Attributes:
        since, until: from this moment on, and before that one.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Where a log ends, and where what is kept of it begins.

    Attributes:
        sequence, hash: of the newest row.
        dropped, dropped_hash: of the newest row that retention has dropped; 0 and zeros where it has none.
    """

    sequence: int
    hash: str
    dropped: int
    dropped_hash: str


AuditFault = Literal["changed", "missing", "reordered", "head"]


@dataclass(frozen=True, slots=True)
class AuditProblem:
    """Something that nobody could have written into a log by appending to it.

    Attributes:
        kind: a row was `changed`, is `missing` or was `reordered`, or the `head` does not fit the rows.
        sequence: the first row at fault.
    """

    kind: AuditFault
    sequence: int
    message: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a verification found.

    Attributes:
        rows: number of rows that were read.
        head: where the log ends. Whoever keeps this elsewhere can prove later that nothing before it was
            rewritten. None where the log is empty.
        problems: in order, at most `verifying.MAX_PROBLEMS`.
    """

    tenant: str
    rows: int
    head: AuditHead | None
    problems: tuple[AuditProblem, ...]

    @property
    def clean(self) -> bool:
        """Whether the chain is whole."""
        return not self.problems
