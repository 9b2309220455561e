"""Finding rows of lists, and turning them into the records that the store returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, select

from prompts_store.database import EVERY_TENANT, scoped
from prompts_store.database.tables import tasks, versions
from prompts_store.errors import NotFoundError
from prompts_store.grants import rows as grants
from prompts_store.lists.kinds import ListKind, V
from prompts_store.records import ListRecord, Reference
from prompts_store.tasks import aliasing


def find_list(
    connection: Connection, kind: ListKind[V], tenant: str, name: str, *, field: str | None = None
) -> Row[Any]:
    """The row of a list that is not deleted.

    Raises:
        NotFoundError: `unknown_ensemble` or `unknown_pack`.
    """
    owners = kind.family.owners
    row = connection.execute(
        select(owners).where(owners.c.tenant == tenant, owners.c.name == name, owners.c.deleted_at.is_(None))
    ).one_or_none()
    if row is None:
        raise grants.unknown(kind.word, tenant, name, field=field or kind.word)
    return row


def referenced(
    connection: Connection, kind: ListKind[V], reference: Reference, *, field: str | None = None
) -> V:
    """The version of a list that a reference names.

    Raises:
        NotFoundError: `unknown_ensemble` or `unknown_pack`; `unknown_version`, `unknown_alias`.
    """
    family, field = kind.family, field or kind.word
    owner = find_list(connection, kind, reference.tenant, reference.task, field=field)
    number = reference.version
    if number is None:
        number = aliasing.current(connection, family, owner.id).get(str(reference.alias))
    whose = f"{kind.word} {owner.tenant}/{owner.name}"
    if number is None:
        raise aliasing.unknown_alias(str(reference.alias), whose, field=field)
    query = live_versions(kind).where(family.owner == owner.id, family.versions.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError(f"The {whose} has no version {number}.", field=field, code="unknown_version")
    return list_versions(connection, kind, [row])[0]


def live_versions(kind: ListKind[V]) -> Select[Any]:
    """The versions of lists that are not deleted, with tenant and name."""
    family = kind.family
    return (
        select(family.owners.c.tenant, family.owners.c.name, family.versions)
        .join(family.versions, family.owner == family.owners.c.id)
        .where(family.versions.c.deleted_at.is_(None))
    )


def list_records(
    connection: Connection, kind: ListKind[V], owners: Sequence[Row[Any]]
) -> list[ListRecord[V]]:
    """Lists with their newest versions and their aliases, from rows of their names."""
    family, keys = kind.family, [owner.id for owner in owners]
    table = family.versions
    newest = (
        select(family.owner.label("owner"), func.max(table.c.number).label("number"))
        .where(family.owner.in_(keys), table.c.deleted_at.is_(None))
        .group_by(family.owner)
        .subquery()
    )
    rows = connection.execute(
        live_versions(kind).join(
            newest, and_(newest.c.owner == family.owner, newest.c.number == table.c.number)
        )
    ).all()
    made = list_versions(connection, kind, rows)
    latest = {row.name: version for row, version in zip(rows, made, strict=True)}
    named = aliasing.current_of(connection, family, keys)
    back = aliasing.backs_of(connection, family, keys)
    return [
        ListRecord(
            owner.tenant,
            owner.name,
            owner.created_at,
            latest[owner.name],
            named.get(owner.id, {}),
            back.get(owner.id, {}),
        )
        for owner in owners
    ]


def list_versions(connection: Connection, kind: ListKind[V], rows: Sequence[Row[Any]]) -> list[V]:
    """Versions with what they list, from rows of `live_versions`."""
    query = (
        select(kind.items, tasks.c.tenant, tasks.c.name, versions.c.number)
        .join(versions, versions.c.id == kind.items.c.version_id)
        .join(tasks, tasks.c.id == versions.c.task_id)
        .where(kind.list_version.in_([row.id for row in rows]))
        .order_by(kind.list_version, kind.items.c.position)
    )
    items: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    # A list's owner knows whose versions it lists.
    with scoped(connection, EVERY_TENANT):
        found = connection.execute(query).all()
    for item in found:
        items[item._mapping[kind.list_version]].append(item)
    return [kind.version(row, items[row.id]) for row in rows]
