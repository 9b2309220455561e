"""Finding rows of packs, and turning them into the records that the store returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, select

from prompts_store.database import EVERY_TENANT, scoped
from prompts_store.database.tables import pack_entries, pack_versions, packs, tasks, versions
from prompts_store.errors import NotFoundError
from prompts_store.grants import rows as grants
from prompts_store.records import PackEntry, PackRecord, PackVersion, Reference
from prompts_store.tasks import aliasing


def find_pack(connection: Connection, tenant: str, name: str, *, field: str = "pack") -> Row[Any]:
    """The row of a live pack.

    Raises:
        NotFoundError: `unknown_pack`.
    """
    row = connection.execute(
        select(packs).where(packs.c.tenant == tenant, packs.c.name == name, packs.c.deleted_at.is_(None))
    ).one_or_none()
    if row is None:
        raise unknown_pack(tenant, name, field=field)
    return row


def unknown_pack(tenant: str, name: str, *, field: str = "pack") -> NotFoundError:
    """The error for a pack that is not there, or no longer."""
    return grants.unknown("pack", tenant, name, field=field)


def referenced_pack(connection: Connection, reference: Reference, *, field: str = "pack") -> PackVersion:
    """The version of a pack that a reference names.

    Raises:
        NotFoundError: `unknown_pack`, `unknown_version`, `unknown_alias`.
    """
    owner = find_pack(connection, reference.tenant, reference.task, field=field)
    number = reference.version
    if number is None:
        number = aliasing.current(connection, aliasing.PACKS, owner.id).get(str(reference.alias))
    if number is None:
        raise aliasing.unknown_alias(str(reference.alias), f"pack {owner.tenant}/{owner.name}", field=field)
    query = live_packs().where(packs.c.id == owner.id, pack_versions.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(
            f"The pack {owner.tenant}/{owner.name} has no version {number}.",
            field=field,
            code="unknown_version",
        )
    return read_packs(connection, [row])[0]


def live_packs() -> Select[Any]:
    """The versions of packs that are not deleted, with tenant and name."""
    return (
        select(packs.c.tenant, packs.c.name, pack_versions)
        .join(pack_versions, pack_versions.c.pack_id == packs.c.id)
        .where(pack_versions.c.deleted_at.is_(None))
    )


def pack_records(connection: Connection, owners: Sequence[Row[Any]]) -> list[PackRecord]:
    """Packs with their newest versions and their aliases, from rows of `packs`."""
    keys = [owner.id for owner in owners]
    newest = (
        select(pack_versions.c.pack_id, func.max(pack_versions.c.number).label("number"))
        .where(pack_versions.c.pack_id.in_(keys), pack_versions.c.deleted_at.is_(None))
        .group_by(pack_versions.c.pack_id)
        .subquery()
    )
    query = live_packs().join(
        newest,
        and_(newest.c.pack_id == pack_versions.c.pack_id, newest.c.number == pack_versions.c.number),
    )
    latest = {record.name: record for record in read_packs(connection, connection.execute(query).all())}
    named = aliasing.current_of(connection, aliasing.PACKS, keys)
    return [
        PackRecord(owner.tenant, owner.name, owner.created_at, latest[owner.name], named.get(owner.id, {}))
        for owner in owners
    ]


def read_packs(connection: Connection, rows: Sequence[Row[Any]]) -> list[PackVersion]:
    """Versions with their entries, from rows of `live_packs`."""
    query = (
        select(pack_entries, tasks.c.tenant, tasks.c.name, versions.c.number)
        .join(versions, versions.c.id == pack_entries.c.version_id)
        .join(tasks, tasks.c.id == versions.c.task_id)
        .where(pack_entries.c.pack_version_id.in_([row.id for row in rows]))
        .order_by(pack_entries.c.pack_version_id, pack_entries.c.position)
    )
    entries: defaultdict[int, list[PackEntry]] = defaultdict(list)
    # A pack's owner knows whose versions answer its questions.
    with scoped(connection, EVERY_TENANT):
        found = connection.execute(query).all()
    for row in found:
        entries[row.pack_version_id].append(
            PackEntry(row.question, row.tenant, row.name, row.number, row.labels)
        )
    return [
        PackVersion(
            tenant=row.tenant,
            name=row.name,
            number=row.number,
            entries=tuple(entries[row.id]),
            unknown_questions=row.unknown_questions,
            digest=row.digest,
            created_at=row.created_at,
            created_by=row.created_by,
        )
        for row in rows
    ]
