"""The chain: how a row is appended, and what its hash covers.

A row is written in the transaction that makes the change it tells, so neither is ever there without the
other. The head of its log is locked meanwhile, so a log is one chain however many processes append to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, text, update

from prompts_store.audit.records import Action, AuditRow
from prompts_store.database.audit_tables import audit, audit_heads
from prompts_store.database.database import acting
from prompts_store.digests import canonical_json
from prompts_store.records import Actor

NO_HASH = "0" * 64

_HEAD = select(audit_heads).where(audit_heads.c.tenant == bindparam("log")).with_for_update()
_MOVE_HEAD = (
    update(audit_heads)
    .where(audit_heads.c.tenant == bindparam("log"))
    .values(sequence=bindparam("last"), hash=bindparam("last_hash"))
)
_FIRST_HEAD = text(
    "INSERT INTO audit_heads (tenant, sequence, hash, dropped, dropped_hash) "
    "VALUES (:log, 0, :hash, 0, :hash) ON CONFLICT DO NOTHING"
)


def append(
    connection: Connection,
    action: Action,
    tenant: str,
    subject: str = "",
    *,
    now: datetime,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    actor: Actor | None = None,
) -> None:
    """Add a row to a tenant's log. The caller commits it with the change that it tells.

    Args:
        actor: who did it; by default whoever the connection acts for.
        before, after: JSON values and moments. Nothing that a caller may regard as content.
    """
    head = connection.execute(_HEAD, {"log": tenant}).one_or_none()
    if head is None:
        connection.execute(_FIRST_HEAD, {"log": tenant, "hash": NO_HASH})
        head = connection.execute(_HEAD, {"log": tenant}).one()
    actor = actor or acting(connection)
    values: dict[str, Any] = {
        "tenant": tenant,
        "sequence": head.sequence + 1,
        "at": now,
        "actor": actor.name,
        "address": actor.address,
        "request_id": actor.request_id,
        "action": action,
        "subject": subject,
        "before": _plain(before),
        "after": _plain(after),
        "previous": head.hash,
    }
    row = AuditRow(**values, hash="")
    values["hash"] = row_hash(row)
    connection.execute(insert(audit), values)
    connection.execute(_MOVE_HEAD, {"log": tenant, "last": row.sequence, "last_hash": values["hash"]})


def difference(row: Row[Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the columns that get new values, those that change: as they are, and as they will be."""
    changed = {column: value for column, value in values.items() if row._mapping[column] != value}
    return {column: row._mapping[column] for column in changed}, changed


def row_hash(row: AuditRow) -> str:
    """SHA-256 (hex) of everything in a row but its hash, as canonical JSON: see `row_facts`."""
    facts = row_facts(row)
    del facts["hash"]
    return hashlib.sha256(canonical_json(facts)).hexdigest()


def row_facts(row: AuditRow) -> dict[str, Any]:
    """A row as JSON values, by the names of `AuditRow`. `at` is UTC to the microsecond, as in
    `2026-01-01T00:00:00.000000Z`. An exported row is this in one line, so that its hash can be computed from
    it."""
    return {field.name: getattr(row, field.name) for field in fields(row)} | {"at": _moment(row.at)}


def row_record(row: Row[Any]) -> AuditRow:
    """A row from the columns of `audit`."""
    return AuditRow(**row._mapping)


def _plain(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The facts as canonical JSON has them, so that an exported row is read back to what was hashed."""
    if facts is None:
        return None
    told = {key: _moment(value) if isinstance(value, datetime) else value for key, value in facts.items()}
    plain: dict[str, Any] = json.loads(canonical_json(told))
    return plain


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
