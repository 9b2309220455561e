"""Finding rows of ensembles, and turning them into the records that the store returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, select

from prompts_store.database import EVERY_TENANT, scoped
from prompts_store.database.tables import (
    ensemble_members,
    ensemble_versions,
    ensembles,
    tasks,
    versions,
)
from prompts_store.errors import NotFoundError
from prompts_store.grants import rows as grants
from prompts_store.records import EnsembleMember, EnsembleRecord, EnsembleVersion, Reference
from prompts_store.tasks import aliasing


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
        raise unknown_ensemble(tenant, name, field=field)
    return row


def unknown_ensemble(tenant: str, name: str, *, field: str = "ensemble") -> NotFoundError:
    """The error for an ensemble that is not there, or no longer."""
    return grants.unknown("ensemble", tenant, name, field=field)


def resolve(connection: Connection, reference: Reference, *, field: str = "ensemble") -> EnsembleVersion:
    """The version of an ensemble that a reference names.

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
    query = live_versions().where(ensembles.c.id == owner.id, ensemble_versions.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(
            f"The ensemble {owner.tenant}/{owner.name} has no version {number}.",
            field=field,
            code="unknown_version",
        )
    return version_records(connection, [row])[0]


def live_versions() -> Select[Any]:
    """The versions of ensembles that are not deleted, with tenant and name."""
    return (
        select(ensembles.c.tenant, ensembles.c.name, ensemble_versions)
        .join(ensemble_versions, ensemble_versions.c.ensemble_id == ensembles.c.id)
        .where(ensemble_versions.c.deleted_at.is_(None))
    )


def ensemble_records(connection: Connection, owners: Sequence[Row[Any]]) -> list[EnsembleRecord]:
    """Ensembles with their newest versions and their aliases, from rows of `ensembles`."""
    keys = [owner.id for owner in owners]
    newest = (
        select(ensemble_versions.c.ensemble_id, func.max(ensemble_versions.c.number).label("number"))
        .where(ensemble_versions.c.ensemble_id.in_(keys), ensemble_versions.c.deleted_at.is_(None))
        .group_by(ensemble_versions.c.ensemble_id)
        .subquery()
    )
    query = live_versions().join(
        newest,
        and_(
            newest.c.ensemble_id == ensemble_versions.c.ensemble_id,
            newest.c.number == ensemble_versions.c.number,
        ),
    )
    latest = {record.name: record for record in version_records(connection, connection.execute(query).all())}
    named = aliasing.current_of(connection, aliasing.ENSEMBLES, keys)
    return [
        EnsembleRecord(
            owner.tenant, owner.name, owner.created_at, latest[owner.name], named.get(owner.id, {})
        )
        for owner in owners
    ]


def version_records(connection: Connection, rows: Sequence[Row[Any]]) -> list[EnsembleVersion]:
    """Versions with their members, from rows of `live_versions`."""
    query = (
        select(ensemble_members, tasks.c.tenant, tasks.c.name, versions.c.number)
        .join(versions, versions.c.id == ensemble_members.c.version_id)
        .join(tasks, tasks.c.id == versions.c.task_id)
        .where(ensemble_members.c.ensemble_version_id.in_([row.id for row in rows]))
        .order_by(ensemble_members.c.ensemble_version_id, ensemble_members.c.position)
    )
    members: defaultdict[int, list[EnsembleMember]] = defaultdict(list)
    # An ensemble's owner knows whose versions its members are.
    with scoped(connection, EVERY_TENANT):
        found = connection.execute(query).all()
    for row in found:
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
