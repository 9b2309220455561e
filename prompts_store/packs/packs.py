"""The store's decision packs: publish, resolve, show, list, tombstone, and their aliases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, select, update

from prompts_store.audit import chain
from prompts_store.base import StoreBase, check_owner
from prompts_store.database import scoped
from prompts_store.database.tables import pack_entries, pack_versions, packs
from prompts_store.digests import canonical_json
from prompts_store.grants import rows as grants
from prompts_store.grants.records import Right
from prompts_store.names import LIVE, check_alias, check_name, check_prefix
from prompts_store.packs.entries import check_entries, find_entries
from prompts_store.packs.rows import find_pack, live_packs, pack_records, read_packs, referenced_pack
from prompts_store.pages import DEFAULT_LIMIT, check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import (
    AliasMove,
    PackEntry,
    PackRecord,
    PackVersion,
    Page,
    Reference,
    UnknownQuestions,
)
from prompts_store.tasks import aliasing
from prompts_store.tasks.references import check_version, parsed_reference
from prompts_store.tasks.rows import last_number
from prompts_store.tenants import feed, standing

_CURSOR = "packs"
_AFTER_NAMES = "\x7f"


class Packs(StoreBase):
    """Versioned lists of questions with the versions that answer them, and their aliases."""

    def publish_pack(
        self,
        tenant: str,
        name: str,
        entries: Sequence[PackEntry],
        unknown_questions: UnknownQuestions = "refuse",
        *,
        created_by: str = "",
    ) -> tuple[PackVersion, bool]:
        """Make a version of a pack. Returns it, and whether it is new. The first version gets `@live`.

        If a version with the same questions exists, it is returned.

        Raises:
            InvalidError: `base_mismatch`, or names the field at fault.
            NotFoundError: a version does not exist, or is another tenant's and may not be asked.
        """
        check_owner(tenant, name, created_by, field="pack")
        checked = check_entries(entries, unknown_questions)
        with self._database.write(tenant) as connection:
            found = find_entries(connection, tenant, checked)
            return _add_version(
                connection, tenant, name, found, unknown_questions, created_by=created_by, now=self._clock()
            )

    def resolve_pack(
        self,
        reference: str | Reference,
        *,
        tenant: str,
        field: str = "pack",
        right: Right = "infer",
    ) -> PackVersion:
        """The version of a pack that a reference names.

        Args:
            tenant: who asks, and whose it is if the reference does not name a tenant.
            right: what is needed of another tenant's.

        Raises:
            InvalidError: `invalid_reference`.
            NotFoundError: `unknown_pack`, also if it is another tenant's and not granted;
                `unknown_version`, `unknown_alias`.
        """
        parsed = parsed_reference(reference, tenant, field)
        with self._database.read(tenant) as connection:
            grants.require(
                connection, "pack", parsed.tenant, parsed.task, tenant=tenant, right=right, field=field
            )
            with scoped(connection, parsed.tenant):
                return referenced_pack(connection, parsed, field=field)

    def get_pack(self, tenant: str, name: str) -> PackRecord:
        """A pack with its newest version. NotFoundError: `unknown_pack`."""
        check_owner(tenant, name, field="pack")
        with self._database.read(tenant) as connection:
            return pack_records(connection, [find_pack(connection, tenant, name)])[0]

    def last_pack_number(self, tenant: str, name: str) -> int:
        """The highest version number that a pack ever had, even if it was deleted; 0 if the name was
        never used."""
        check_owner(tenant, name, field="pack")
        with self._database.read(tenant) as connection:
            return last_number(connection, packs, tenant, name)

    def list_packs(
        self, tenant: str, *, prefix: str = "", limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[PackRecord]:
        """A page of a tenant's packs, by name. Raises InvalidError for a bad prefix, limit or cursor."""
        check_name(tenant, field="tenant")
        limit, prefix = check_limit(limit), check_prefix(prefix)
        after = decode_cursor(_CURSOR, cursor, lambda key: check_name(key, field="cursor"))
        query = select(packs).where(packs.c.tenant == tenant, packs.c.deleted_at.is_(None))
        if prefix:
            query = query.where(packs.c.name >= prefix, packs.c.name < prefix + _AFTER_NAMES)
        if after is not None:
            query = query.where(packs.c.name > after)
        with self._database.read(tenant) as connection:
            rows = connection.execute(query.order_by(packs.c.name).limit(limit + 1)).all()
            by_name = {record.name: record for record in pack_records(connection, rows[:limit])}
        return make_page(
            rows, limit, lambda row: by_name[row.name], lambda row: encode_cursor(_CURSOR, row.name)
        )

    def delete_pack(self, tenant: str, name: str, *, deleted_by: str = "") -> None:
        """Tombstone a pack. Its versions may then be deleted. NotFoundError: `unknown_pack`."""
        check_owner(tenant, name, deleted_by, field="pack")

        with self._database.write(tenant) as connection:
            now = self._clock()
            owner = find_pack(connection, tenant, name)
            for alias in aliasing.current(connection, aliasing.PACKS, owner.id):
                aliasing.remove(connection, aliasing.PACKS, owner.id, alias, moved_by=deleted_by, now=now)
            alive = and_(pack_versions.c.pack_id == owner.id, pack_versions.c.deleted_at.is_(None))
            connection.execute(update(pack_versions).where(alive).values(deleted_at=now))
            connection.execute(update(packs).where(packs.c.id == owner.id).values(deleted_at=now))
            grants.revoke_all(connection, "pack", tenant, name, now=now)
            feed.record(connection, "pack_deleted", tenant, name, now=now)
            before = {"last_version": owner.last_number}
            chain.append(connection, "pack.delete", tenant, name, now=now, before=before)

    def set_pack_alias(
        self, tenant: str, name: str, alias: str, number: int, *, moved_by: str = ""
    ) -> AliasMove:
        """Point a pack's alias at one of its versions.

        Raises:
            NotFoundError: `unknown_pack`, `unknown_version`.
        """
        check_owner(tenant, name, moved_by, field="pack")
        check_alias(alias)
        check_version(number)
        with self._database.write(tenant) as connection:
            key = find_pack(connection, tenant, name).id
            return aliasing.move(
                connection, aliasing.PACKS, key, alias, number, moved_by=moved_by, now=self._clock()
            )

    def remove_pack_alias(self, tenant: str, name: str, alias: str, *, moved_by: str = "") -> AliasMove:
        """Remove a pack's alias. NotFoundError: `unknown_pack`, `unknown_alias`."""
        check_owner(tenant, name, moved_by, field="pack")
        check_alias(alias)
        with self._database.write(tenant) as connection:
            key = find_pack(connection, tenant, name).id
            return aliasing.remove(
                connection, aliasing.PACKS, key, alias, moved_by=moved_by, now=self._clock()
            )

    def rollback_pack(self, tenant: str, name: str, alias: str = LIVE, *, moved_by: str = "") -> AliasMove:
        """Point a pack's alias at the version that it named before.

        Raises:
            NotFoundError: `unknown_pack`, `unknown_alias`.
            ConflictError: there is nothing to go back to.
        """
        check_owner(tenant, name, moved_by, field="pack")
        check_alias(alias)
        with self._database.write(tenant) as connection:
            key = find_pack(connection, tenant, name).id
            return aliasing.rollback(
                connection, aliasing.PACKS, key, alias, moved_by=moved_by, now=self._clock()
            )

    def pack_alias_history(self, tenant: str, name: str) -> list[AliasMove]:
        """Every move of a pack's aliases, oldest first. NotFoundError: `unknown_pack`."""
        check_owner(tenant, name, field="pack")
        with self._database.read(tenant) as connection:
            key = find_pack(connection, tenant, name).id
            return aliasing.history(connection, aliasing.PACKS, key)


def _pack_digest(entries: Sequence[PackEntry], unknown_questions: str) -> str:
    """SHA-256 (hex) of the entries in order and of what happens to other questions, as canonical JSON."""
    rows = [[entry.question, entry.tenant, entry.task, entry.version, entry.labels] for entry in entries]
    content = {"entries": rows, "unknown_questions": unknown_questions}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _add_version(
    connection: Connection,
    tenant: str,
    name: str,
    entries: Sequence[tuple[PackEntry, int]],
    unknown_questions: str,
    *,
    created_by: str,
    now: datetime,
) -> tuple[PackVersion, bool]:
    """The version with these entries, and whether it is new; if there is one already, that one.

    Args:
        entries: with the keys of their versions, which must be live.
    """
    digest = _pack_digest([entry for entry, _ in entries], unknown_questions)
    query = live_packs().where(
        packs.c.tenant == tenant, packs.c.name == name, pack_versions.c.digest == digest
    )
    same = connection.execute(query).one_or_none()
    if same is not None:
        return read_packs(connection, [same])[0], False
    owner, is_new = _open(connection, tenant, name, now)
    number = owner.last_number + 1
    made = connection.execute(
        insert(pack_versions).values(
            pack_id=owner.id,
            number=number,
            unknown_questions=unknown_questions,
            digest=digest,
            created_at=now,
            created_by=created_by,
        )
    )
    key = made.inserted_primary_key[0] if made.inserted_primary_key else None
    connection.execute(
        insert(pack_entries),
        [
            {
                "pack_version_id": key,
                "position": position,
                "question": entry.question,
                "version_id": version,
                "labels": dict(entry.labels),
            }
            for position, (entry, version) in enumerate(entries)
        ],
    )
    connection.execute(update(packs).where(packs.c.id == owner.id).values(last_number=number))
    facts = {"digest": digest, "questions": len(entries), "unknown_questions": unknown_questions}
    chain.append(connection, "pack.publish", tenant, f"{name}@{number}", now=now, after=facts)
    if is_new:
        aliasing.move(connection, aliasing.PACKS, owner.id, LIVE, number, moved_by=created_by, now=now)
    feed.record(connection, "pack_published", tenant, f"{name}@{number}", now=now)
    return referenced_pack(connection, Reference(tenant, name, version=number, alias=None)), True


def _open(connection: Connection, tenant: str, name: str, now: datetime) -> tuple[Row[Any], bool]:
    standing.require_not_deleted(connection, tenant)
    found = connection.execute(
        select(packs).where(packs.c.tenant == tenant, packs.c.name == name)
    ).one_or_none()
    if found is None:
        connection.execute(insert(packs).values(tenant=tenant, name=name, created_at=now, last_number=0))
    elif found.deleted_at is not None:
        connection.execute(
            update(packs).where(packs.c.id == found.id).values(deleted_at=None, created_at=now)
        )
    return find_pack(connection, tenant, name), found is None or found.deleted_at is not None
