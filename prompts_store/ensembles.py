"""Ensembles: ordered lists of versions and a vote, themselves versioned and addressed like a task."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, insert, select, update

from prompts_store import aliasing
from prompts_store.database.tables import (
    ensemble_members,
    ensemble_versions,
    ensembles,
    tasks,
    versions,
)
from prompts_store.digests import canonical_json
from prompts_store.errors import NotFoundError
from prompts_store.names import LIVE, check_name, check_prefix
from prompts_store.pages import check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import EnsembleMember, EnsembleRecord, EnsembleVersion, Page, Reference

_CURSOR = "ensembles"
_AFTER_NAMES = "\x7f"


def ensemble_digest(members: Sequence[EnsembleMember], vote: str) -> str:
    """SHA-256 (hex) of the members in order, their weights and the vote as canonical JSON."""
    rows = [[member.tenant, member.task, member.version, member.weight] for member in members]
    return hashlib.sha256(canonical_json({"members": rows, "vote": vote})).hexdigest()


def find_ensemble(connection: Connection, tenant: str, name: str, *, field: str = "ensemble") -> Row[Any]:
    """The row of a live ensemble.

    Raises:
        NotFoundError: `unknown_ensemble`.
    """
    row = connection.execute(
        select(ensembles).where(
            ensembles.c.tenant == tenant, ensembles.c.name == name, ensembles.c.deleted_at.is_(None)
        )
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no ensemble {tenant}/{name}.", field=field, code="unknown_ensemble")
    return row


def resolve_ensemble(
    connection: Connection, reference: Reference, *, field: str = "ensemble"
) -> EnsembleVersion:
    """The version of an ensemble that a reference means.

    Raises:
        NotFoundError: `unknown_ensemble`, `unknown_version`, `unknown_alias`.
    """
    owner = find_ensemble(connection, reference.tenant, reference.task, field=field)
    number = reference.version
    if number is None:
        number = aliasing.current(connection, aliasing.ENSEMBLES, owner.id).get(str(reference.alias))
    if number is None:
        raise aliasing.unknown_alias(
            str(reference.alias), f"ensemble {owner.tenant}/{owner.name}", field=field
        )
    query = _versions().where(ensembles.c.id == owner.id, ensemble_versions.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(
            f"The ensemble {owner.tenant}/{owner.name} has no version {number}.",
            field=field,
            code="unknown_version",
        )
    return _records(connection, [row])[0]


def add_ensemble_version(
    connection: Connection,
    tenant: str,
    name: str,
    members: Sequence[tuple[EnsembleMember, int]],
    vote: str,
    *,
    created_by: str,
    now: datetime,
) -> tuple[EnsembleVersion, bool]:
    """The version with these members, new or the one that is there, and whether it is new.

    Args:
        members: with the keys of their versions, which are live.
    """
    digest = ensemble_digest([member for member, _ in members], vote)
    query = _versions().where(
        ensembles.c.tenant == tenant, ensembles.c.name == name, ensemble_versions.c.digest == digest
    )
    same = connection.execute(query).one_or_none()
    if same is not None:
        return _records(connection, [same])[0], False
    owner, is_new = _open_ensemble(connection, tenant, name, now)
    number = owner.last_number + 1
    made = connection.execute(
        insert(ensemble_versions).values(
            ensemble_id=owner.id,
            number=number,
            vote=vote,
            digest=digest,
            created_at=now,
            created_by=created_by,
        )
    )
    key = made.inserted_primary_key[0] if made.inserted_primary_key else None
    connection.execute(
        insert(ensemble_members),
        [
            {"ensemble_version_id": key, "position": position, "version_id": version, "weight": member.weight}
            for position, (member, version) in enumerate(members)
        ],
    )
    connection.execute(update(ensembles).where(ensembles.c.id == owner.id).values(last_number=number))
    if is_new:
        aliasing.move(connection, aliasing.ENSEMBLES, owner.id, LIVE, number, moved_by=created_by, now=now)
    reference = Reference(tenant, name, version=number, alias=None)
    return resolve_ensemble(connection, reference), True


def get_ensemble(connection: Connection, tenant: str, name: str) -> EnsembleRecord:
    """An ensemble with its newest version and its aliases.

    Raises:
        NotFoundError: `unknown_ensemble`.
    """
    return _owner_records(connection, [find_ensemble(connection, tenant, name)])[0]


def list_ensembles(
    connection: Connection, tenant: str, *, prefix: str, limit: int, cursor: str | None
) -> Page[EnsembleRecord]:
    """A page of a tenant's ensembles by name.

    Raises:
        InvalidError: a bad prefix, limit or cursor.
    """
    limit, prefix = check_limit(limit), check_prefix(prefix)
    after = decode_cursor(_CURSOR, cursor, lambda key: check_name(key, field="cursor"))
    query = select(ensembles).where(ensembles.c.tenant == tenant, ensembles.c.deleted_at.is_(None))
    if prefix:
        query = query.where(ensembles.c.name >= prefix, ensembles.c.name < prefix + _AFTER_NAMES)
    if after is not None:
        query = query.where(ensembles.c.name > after)
    rows = connection.execute(query.order_by(ensembles.c.name).limit(limit + 1)).all()
    by_name = {record.name: record for record in _owner_records(connection, rows[:limit])}
    return make_page(rows, limit, lambda row: by_name[row.name], lambda row: encode_cursor(_CURSOR, row.name))


def delete_ensemble(
    connection: Connection, tenant: str, name: str, *, deleted_by: str, now: datetime
) -> None:
    """Tombstone an ensemble with its versions and aliases; its members are free to go.

    Raises:
        NotFoundError: `unknown_ensemble`.
    """
    owner = find_ensemble(connection, tenant, name)
    for alias in aliasing.current(connection, aliasing.ENSEMBLES, owner.id):
        aliasing.remove(connection, aliasing.ENSEMBLES, owner.id, alias, moved_by=deleted_by, now=now)
    alive = and_(ensemble_versions.c.ensemble_id == owner.id, ensemble_versions.c.deleted_at.is_(None))
    connection.execute(update(ensemble_versions).where(alive).values(deleted_at=now))
    connection.execute(update(ensembles).where(ensembles.c.id == owner.id).values(deleted_at=now))


def _versions() -> Select[Any]:
    return (
        select(ensembles.c.tenant, ensembles.c.name, ensemble_versions)
        .join(ensemble_versions, ensemble_versions.c.ensemble_id == ensembles.c.id)
        .where(ensemble_versions.c.deleted_at.is_(None))
    )


def _open_ensemble(connection: Connection, tenant: str, name: str, now: datetime) -> tuple[Row[Any], bool]:
    found = connection.execute(
        select(ensembles).where(ensembles.c.tenant == tenant, ensembles.c.name == name)
    ).one_or_none()
    if found is None:
        connection.execute(insert(ensembles).values(tenant=tenant, name=name, created_at=now, last_number=0))
    elif found.deleted_at is not None:
        connection.execute(
            update(ensembles).where(ensembles.c.id == found.id).values(deleted_at=None, created_at=now)
        )
    return find_ensemble(connection, tenant, name), found is None or found.deleted_at is not None


def _owner_records(connection: Connection, owners: Sequence[Row[Any]]) -> list[EnsembleRecord]:
    keys = [owner.id for owner in owners]
    newest = (
        select(ensemble_versions.c.ensemble_id, func.max(ensemble_versions.c.number).label("number"))
        .where(ensemble_versions.c.ensemble_id.in_(keys), ensemble_versions.c.deleted_at.is_(None))
        .group_by(ensemble_versions.c.ensemble_id)
        .subquery()
    )
    query = _versions().join(
        newest,
        and_(
            newest.c.ensemble_id == ensemble_versions.c.ensemble_id,
            newest.c.number == ensemble_versions.c.number,
        ),
    )
    latest = {record.name: record for record in _records(connection, connection.execute(query).all())}
    named = aliasing.current_of(connection, aliasing.ENSEMBLES, keys)
    return [
        EnsembleRecord(
            owner.tenant, owner.name, owner.created_at, latest[owner.name], named.get(owner.id, {})
        )
        for owner in owners
    ]


def _records(connection: Connection, rows: Sequence[Row[Any]]) -> list[EnsembleVersion]:
    query = (
        select(ensemble_members, tasks.c.tenant, tasks.c.name, versions.c.number)
        .join(versions, versions.c.id == ensemble_members.c.version_id)
        .join(tasks, tasks.c.id == versions.c.task_id)
        .where(ensemble_members.c.ensemble_version_id.in_([row.id for row in rows]))
        .order_by(ensemble_members.c.ensemble_version_id, ensemble_members.c.position)
    )
    members: defaultdict[int, list[EnsembleMember]] = defaultdict(list)
    for row in connection.execute(query):
        members[row.ensemble_version_id].append(EnsembleMember(row.tenant, row.name, row.number, row.weight))
    return [
        EnsembleVersion(
            tenant=row.tenant,
            name=row.name,
            number=row.number,
            members=tuple(members[row.id]),
            vote=row.vote,
            digest=row.digest,
            created_at=row.created_at,
            created_by=row.created_by,
        )
        for row in rows
    ]
