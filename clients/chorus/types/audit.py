"""Who changed what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from chorus.types.base import Wire


class AuditRow(Wire):
    """One change.

    Attributes:
        tenant: whose log this is; empty in that of the whole store.
        sequence: 1, 2, ... without holes in each log.
        actor: the id of a key, else its name; `chorus` for the server itself.
        before, after: small facts of what was changed; None where there was nothing, or is nothing now.
        previous: the hash of the row before; zeros in the first.
        hash: SHA-256 of the row without it, as JSON with sorted keys and no whitespace.
    """

    tenant: str
    sequence: int
    at: datetime
    actor: str
    address: str
    request_id: str
    action: str
    subject: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    previous: str
    hash: str


class AuditPage(Wire):
    """Part of an audit log, oldest first. `next_after` is None on the last page."""

    rows: list[AuditRow]
    next_after: int | None = None
