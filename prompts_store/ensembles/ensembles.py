"""The store's ensembles: publish, resolve, show, list, tombstone, and their aliases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, select, update

from prompts_store.audit import chain
from prompts_store.base import StoreBase, check_owner
from prompts_store.database import scoped
from prompts_store.database.tables import ensemble_members, ensemble_versions, ensembles
from prompts_store.digests import canonical_json
from prompts_store.ensembles.members import check_members, find_members
from prompts_store.ensembles.rows import (
    ensemble_records,
    find_ensemble,
    live_versions,
    resolve,
    version_records,
)
from prompts_store.grants import rows as grants
from prompts_store.grants.records import Right
from prompts_store.jobs.records import Lease
from prompts_store.jobs.rows import held
from prompts_store.names import LIVE, check_alias, check_name, check_prefix
from prompts_store.pages import DEFAULT_LIMIT, check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import (
    AliasMove,
    EnsembleMember,
    EnsembleRecord,
    EnsembleVersion,
    Page,
    Reference,
    Vote,
)
from prompts_store.tasks import aliasing
from prompts_store.tasks.references import check_version, parsed_reference
from prompts_store.tasks.rows import last_number
from prompts_store.tenants import feed, standing

_CURSOR = "ensembles"
_AFTER_NAMES = "\x7f"


class Ensembles(StoreBase):
    """Versioned lists of versions and their aliases."""

    def publish_ensemble(
        self,
        tenant: str,
        name: str,
        members: Sequence[EnsembleMember],
        vote: Vote = "majority",
        *,
        created_by: str = "",
        lease: Lease | None = None,
    ) -> tuple[EnsembleVersion, bool]:
        """Make a version of an ensemble. Returns it, and whether it is new. The first version gets `@live`.

        If a version with the same members, weights and vote exists, it is returned.

        Args:
            lease: lease of the job that makes it. A job that lost its lease makes none.

        Raises:
            LeaseLostError: another process runs the job now.
            InvalidError: `base_mismatch`, or names the field at fault.
            NotFoundError: a member does not exist, or is another tenant's and may not be asked.
        """
        check_owner(tenant, name, created_by, field="ensemble")
        checked = check_members(members, vote)
        with self._database.write(tenant) as connection:
            if lease is not None:
                held(connection, lease)
            found = find_members(connection, tenant, checked)
            return _add_version(
                connection, tenant, name, found, vote, created_by=created_by, now=self._clock()
            )

    def resolve_ensemble(
        self,
        reference: str | Reference,
        *,
        tenant: str,
        field: str = "ensemble",
        right: Right = "infer",
    ) -> EnsembleVersion:
        """The version of an ensemble that a reference names.

        Args:
            tenant: who asks, and whose it is if the reference does not name a tenant.
            right: what is needed of another tenant's.

        Raises:
            InvalidError: `invalid_reference`.
            NotFoundError: `unknown_ensemble`, also if it is another tenant's and not granted;
                `unknown_version`, `unknown_alias`.
        """
        parsed = parsed_reference(reference, tenant, field)
        with self._database.read(tenant) as connection:
            grants.require(
                connection, "ensemble", parsed.tenant, parsed.task, tenant=tenant, right=right, field=field
            )
            with scoped(connection, parsed.tenant):
                return resolve(connection, parsed, field=field)

    def get_ensemble(self, tenant: str, name: str) -> EnsembleRecord:
        """An ensemble with its newest version. NotFoundError: `unknown_ensemble`."""
        check_owner(tenant, name, field="ensemble")
        with self._database.read(tenant) as connection:
            return ensemble_records(connection, [find_ensemble(connection, tenant, name)])[0]

    def last_ensemble_number(self, tenant: str, name: str) -> int:
        """The highest version number that an ensemble ever had, even if it was deleted; 0 if the name was
        never used."""
        check_owner(tenant, name, field="ensemble")
        with self._database.read(tenant) as connection:
            return last_number(connection, ensembles, tenant, name)

    def list_ensembles(
        self, tenant: str, *, prefix: str = "", limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[EnsembleRecord]:
        """A page of a tenant's ensembles, by name. Raises InvalidError for a bad prefix, limit or cursor."""
        check_name(tenant, field="tenant")
        limit, prefix = check_limit(limit), check_prefix(prefix)
        after = decode_cursor(_CURSOR, cursor, lambda key: check_name(key, field="cursor"))
        query = select(ensembles).where(ensembles.c.tenant == tenant, ensembles.c.deleted_at.is_(None))
        if prefix:
            query = query.where(ensembles.c.name >= prefix, ensembles.c.name < prefix + _AFTER_NAMES)
        if after is not None:
            query = query.where(ensembles.c.name > after)
        with self._database.read(tenant) as connection:
            rows = connection.execute(query.order_by(ensembles.c.name).limit(limit + 1)).all()
            by_name = {record.name: record for record in ensemble_records(connection, rows[:limit])}
        return make_page(
            rows, limit, lambda row: by_name[row.name], lambda row: encode_cursor(_CURSOR, row.name)
        )

    def delete_ensemble(self, tenant: str, name: str, *, deleted_by: str = "") -> None:
        """Tombstone an ensemble. Its members may then be deleted. NotFoundError: `unknown_ensemble`."""
        check_owner(tenant, name, deleted_by, field="ensemble")

        with self._database.write(tenant) as connection:
            now = self._clock()
            owner = find_ensemble(connection, tenant, name)
            for alias in aliasing.current(connection, aliasing.ENSEMBLES, owner.id):
                aliasing.remove(connection, aliasing.ENSEMBLES, owner.id, alias, moved_by=deleted_by, now=now)
            alive = and_(
                ensemble_versions.c.ensemble_id == owner.id, ensemble_versions.c.deleted_at.is_(None)
            )
            connection.execute(update(ensemble_versions).where(alive).values(deleted_at=now))
            connection.execute(update(ensembles).where(ensembles.c.id == owner.id).values(deleted_at=now))
            grants.revoke_all(connection, "ensemble", tenant, name, now=now)
            feed.record(connection, "ensemble_deleted", tenant, name, now=now)
            before = {"last_version": owner.last_number}
            chain.append(connection, "ensemble.delete", tenant, name, now=now, before=before)

    def set_ensemble_alias(
        self, tenant: str, name: str, alias: str, number: int, *, moved_by: str = ""
    ) -> AliasMove:
        """Point an ensemble's alias at one of its versions.

        Raises:
            NotFoundError: `unknown_ensemble`, `unknown_version`.
        """
        check_owner(tenant, name, moved_by, field="ensemble")
        check_alias(alias)
        check_version(number)
        with self._database.write(tenant) as connection:
            key = find_ensemble(connection, tenant, name).id
            return aliasing.move(
                connection, aliasing.ENSEMBLES, key, alias, number, moved_by=moved_by, now=self._clock()
            )

    def remove_ensemble_alias(self, tenant: str, name: str, alias: str, *, moved_by: str = "") -> AliasMove:
        """Remove an ensemble's alias. NotFoundError: `unknown_ensemble`, `unknown_alias`."""
        check_owner(tenant, name, moved_by, field="ensemble")
        check_alias(alias)
        with self._database.write(tenant) as connection:
            key = find_ensemble(connection, tenant, name).id
            return aliasing.remove(
                connection, aliasing.ENSEMBLES, key, alias, moved_by=moved_by, now=self._clock()
            )

    def rollback_ensemble(
        self, tenant: str, name: str, alias: str = LIVE, *, moved_by: str = ""
    ) -> AliasMove:
        """Point an ensemble's alias at the version that it named before.

        Raises:
            NotFoundError: `unknown_ensemble`, `unknown_alias`.
            ConflictError: there is nothing to go back to.
        """
        check_owner(tenant, name, moved_by, field="ensemble")
        check_alias(alias)
        with self._database.write(tenant) as connection:
            key = find_ensemble(connection, tenant, name).id
            return aliasing.rollback(
                connection, aliasing.ENSEMBLES, key, alias, moved_by=moved_by, now=self._clock()
            )

    def ensemble_alias_history(self, tenant: str, name: str) -> list[AliasMove]:
        """Every move of an ensemble's aliases, oldest first. NotFoundError: `unknown_ensemble`."""
        check_owner(tenant, name, field="ensemble")
        with self._database.read(tenant) as connection:
            key = find_ensemble(connection, tenant, name).id
            return aliasing.history(connection, aliasing.ENSEMBLES, key)


def ensemble_digest(members: Sequence[EnsembleMember], vote: str) -> str:
    """SHA-256 (hex) of the members in order, their weights and the vote, as canonical JSON."""
    rows = [[member.tenant, member.task, member.version, member.weight] for member in members]
    return hashlib.sha256(canonical_json({"members": rows, "vote": vote})).hexdigest()


def _add_version(
    connection: Connection,
    tenant: str,
    name: str,
    members: Sequence[tuple[EnsembleMember, int]],
    vote: str,
    *,
    created_by: str,
    now: datetime,
) -> tuple[EnsembleVersion, bool]:
    """The version with these members, and whether it is new; if there is one already, that one.

    Args:
        members: with the keys of their versions, which must be live.
    """
    digest = ensemble_digest([member for member, _ in members], vote)
    query = live_versions().where(
        ensembles.c.tenant == tenant, ensembles.c.name == name, ensemble_versions.c.digest == digest
    )
    same = connection.execute(query).one_or_none()
    if same is not None:
        return version_records(connection, [same])[0], False
    owner, is_new = _open(connection, tenant, name, now)
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
    facts = {"digest": digest, "members": len(members), "vote": vote}
    chain.append(connection, "ensemble.publish", tenant, f"{name}@{number}", now=now, after=facts)
    if is_new:
        aliasing.move(connection, aliasing.ENSEMBLES, owner.id, LIVE, number, moved_by=created_by, now=now)
    feed.record(connection, "ensemble_published", tenant, f"{name}@{number}", now=now)
    reference = Reference(tenant, name, version=number, alias=None)
    return resolve(connection, reference), True


def _open(connection: Connection, tenant: str, name: str, now: datetime) -> tuple[Row[Any], bool]:
    standing.require_not_deleted(connection, tenant)
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
