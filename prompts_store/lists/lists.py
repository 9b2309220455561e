"""What the store does alike with every kind of list: publish, resolve, show, page, tombstone, aliases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from prompts_store.audit import chain
from prompts_store.base import StoreBase, check_owner
from prompts_store.database import scoped
from prompts_store.grants import rows as grants
from prompts_store.grants.records import Right
from prompts_store.lists.kinds import ListKind, V
from prompts_store.lists.rows import find_list, list_records, list_versions, live_versions, referenced
from prompts_store.names import AFTER_NAMES, LIVE, check_alias, check_name, check_prefix
from prompts_store.pages import check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import AliasMove, ListRecord, Page, Reference
from prompts_store.tasks import aliasing
from prompts_store.tasks.references import check_version, parsed_reference
from prompts_store.tasks.rows import last_number
from prompts_store.tenants import feed, standing


class Lists(StoreBase):
    """Operations of ensembles and of packs, which give them their names."""

    def _resolved(
        self, kind: ListKind[V], reference: str | Reference, tenant: str, field: str, right: Right
    ) -> V:
        parsed = parsed_reference(reference, tenant, field)
        with self._database.read(tenant) as connection:
            owner = parsed.tenant
            grants.require(connection, kind.word, owner, parsed.task, tenant=tenant, right=right, field=field)
            with scoped(connection, owner):
                return referenced(connection, kind, parsed, field=field)

    def _shown(self, kind: ListKind[V], tenant: str, name: str) -> ListRecord[V]:
        check_owner(tenant, name, field=kind.word)
        with self._database.read(tenant) as connection:
            return list_records(connection, kind, [find_list(connection, kind, tenant, name)])[0]

    def _last_number(self, kind: ListKind[V], tenant: str, name: str) -> int:
        check_owner(tenant, name, field=kind.word)
        with self._database.read(tenant) as connection:
            return last_number(connection, kind.family.owners, tenant, name)

    def _page(
        self, kind: ListKind[V], tenant: str, prefix: str, limit: int, cursor: str | None
    ) -> Page[ListRecord[V]]:
        check_name(tenant, field="tenant")
        limit, prefix, owners = check_limit(limit), check_prefix(prefix), kind.family.owners
        after = decode_cursor(owners.name, cursor, lambda key: check_name(key, field="cursor"))
        query = select(owners).where(owners.c.tenant == tenant, owners.c.deleted_at.is_(None))
        if prefix:
            query = query.where(owners.c.name >= prefix, owners.c.name < prefix + AFTER_NAMES)
        if after is not None:
            query = query.where(owners.c.name > after)
        with self._database.read(tenant) as connection:
            rows = connection.execute(query.order_by(owners.c.name).limit(limit + 1)).all()
            by_name = {record.name: record for record in list_records(connection, kind, rows[:limit])}
        return make_page(
            rows, limit, lambda row: by_name[row.name], lambda row: encode_cursor(owners.name, row.name)
        )

    def _versions(self, kind: ListKind[V], tenant: str, name: str, limit: int, cursor: str | None) -> Page[V]:
        check_owner(tenant, name, field=kind.word)
        limit, owners, numbers = check_limit(limit), kind.family.owners, kind.family.versions.c.number
        before = decode_cursor(kind.family.versions.name, cursor, check_version)
        with self._database.read(tenant) as connection:
            find_list(connection, kind, tenant, name)
            query = live_versions(kind).where(owners.c.tenant == tenant, owners.c.name == name)
            if before is not None:
                query = query.where(numbers < before)
            rows = connection.execute(query.order_by(numbers.desc()).limit(limit + 1)).all()
            made = list_versions(connection, kind, rows[:limit])
        by_number = {row.number: version for row, version in zip(rows, made, strict=False)}
        cursors = kind.family.versions.name
        return make_page(
            rows, limit, lambda row: by_number[row.number], lambda row: encode_cursor(cursors, row.number)
        )

    def _tombstone(self, kind: ListKind[V], tenant: str, name: str, deleted_by: str) -> None:
        check_owner(tenant, name, deleted_by, field=kind.word)
        family = kind.family
        with self._database.write(tenant) as connection:
            now = self._clock()
            owner = find_list(connection, kind, tenant, name)
            for alias in aliasing.current(connection, family, owner.id):
                aliasing.remove(connection, family, owner.id, alias, moved_by=deleted_by, now=now)
            alive = (family.owner == owner.id) & family.versions.c.deleted_at.is_(None)
            connection.execute(update(family.versions).where(alive).values(deleted_at=now))
            owners = family.owners
            connection.execute(update(owners).where(owners.c.id == owner.id).values(deleted_at=now))
            grants.revoke_all(connection, kind.word, tenant, name, now=now)
            feed.record(connection, kind.deleted, tenant, name, now=now)
            before = {"last_version": owner.last_number}
            chain.append(connection, kind.delete, tenant, name, now=now, before=before)

    def _set_alias(
        self,
        kind: ListKind[V],
        tenant: str,
        name: str,
        alias: str,
        number: int,
        expected: int | None,
        moved_by: str,
    ) -> AliasMove:
        check_version(number)
        with self._changing_list(kind, tenant, name, alias, moved_by) as (connection, key):
            return aliasing.move(
                connection,
                kind.family,
                key,
                alias,
                number,
                expected=expected,
                moved_by=moved_by,
                now=self._clock(),
            )

    def _remove_alias(
        self, kind: ListKind[V], tenant: str, name: str, alias: str, moved_by: str
    ) -> AliasMove:
        with self._changing_list(kind, tenant, name, alias, moved_by) as (connection, key):
            return aliasing.remove(connection, kind.family, key, alias, moved_by=moved_by, now=self._clock())

    def _rolled_back(
        self,
        kind: ListKind[V],
        tenant: str,
        name: str,
        alias: str,
        version: int | None,
        expected: int | None,
        moved_by: str,
    ) -> AliasMove:
        with self._changing_list(kind, tenant, name, alias, moved_by) as (connection, key):
            return aliasing.rollback(
                connection,
                kind.family,
                key,
                alias,
                version=version,
                expected=expected,
                moved_by=moved_by,
                now=self._clock(),
            )

    @contextmanager
    def _changing_list(
        self, kind: ListKind[V], tenant: str, name: str, alias: str, moved_by: str
    ) -> Iterator[tuple[Connection, int]]:
        """A write to one list's aliases, with the list's key."""
        check_owner(tenant, name, moved_by, field=kind.word)
        check_alias(alias)
        with self._database.write(tenant) as connection:
            yield connection, find_list(connection, kind, tenant, name).id

    def _history(
        self, kind: ListKind[V], tenant: str, name: str, limit: int, cursor: str | None
    ) -> Page[AliasMove]:
        check_owner(tenant, name, field=kind.word)
        with self._database.read(tenant) as connection:
            key = find_list(connection, kind, tenant, name).id
            return aliasing.history(connection, kind.family, key, limit, cursor)


def add_version(
    connection: Connection,
    kind: ListKind[V],
    tenant: str,
    name: str,
    digest: str,
    columns: Mapping[str, str],
    items: Sequence[Mapping[str, Any]],
    *,
    facts: Mapping[str, Any],
    created_by: str,
    now: datetime,
) -> tuple[V, bool]:
    """The version of a list with this content, and whether it is new; if there is one already, that one.

    Args:
        digest: of the content.
        columns: of the version's row, beside those that every kind has.
        items: rows of what it lists, in order, with the keys of their versions, which must be live.
        facts: what the audit log tells of it, beside the digest.
    """
    family, owners = kind.family, kind.family.owners
    query = live_versions(kind).where(
        owners.c.tenant == tenant, owners.c.name == name, family.versions.c.digest == digest
    )
    same = connection.execute(query).one_or_none()
    if same is not None:
        return list_versions(connection, kind, [same])[0], False
    owner, is_new = _open(connection, kind, tenant, name, now)
    number = owner.last_number + 1
    row = {family.owner.name: owner.id, "number": number, "digest": digest, **columns}
    made = connection.execute(insert(family.versions).values(**row, created_at=now, created_by=created_by))
    key = made.inserted_primary_key[0] if made.inserted_primary_key else None
    connection.execute(
        insert(kind.items),
        [{kind.list_version.name: key, "position": position, **item} for position, item in enumerate(items)],
    )
    connection.execute(update(owners).where(owners.c.id == owner.id).values(last_number=number))
    subject = f"{name}@{number}"
    chain.append(connection, kind.publish, tenant, subject, now=now, after={"digest": digest, **facts})
    if is_new:
        aliasing.move(connection, family, owner.id, LIVE, number, moved_by=created_by, now=now)
    feed.record(connection, kind.published, tenant, subject, now=now)
    return referenced(connection, kind, Reference(tenant, name, version=number, alias=None)), True


def _open(
    connection: Connection, kind: ListKind[V], tenant: str, name: str, now: datetime
) -> tuple[Row[Any], bool]:
    """The row of a name, made or no longer deleted, and whether it was either."""
    standing.require_not_deleted(connection, tenant)
    owners = kind.family.owners
    found = connection.execute(
        select(owners).where(owners.c.tenant == tenant, owners.c.name == name)
    ).one_or_none()
    if found is None:
        connection.execute(insert(owners).values(tenant=tenant, name=name, created_at=now, last_number=0))
    elif found.deleted_at is not None:
        connection.execute(
            update(owners).where(owners.c.id == found.id).values(deleted_at=None, created_at=now)
        )
    return find_list(connection, kind, tenant, name), found is None or found.deleted_at is not None
