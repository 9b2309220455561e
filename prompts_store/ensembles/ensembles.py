"""The store's ensembles: publish, resolve, show, list, tombstone, and their aliases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from prompts_store.base import check_owner
from prompts_store.database.tables import ensemble_members
from prompts_store.digests import canonical_json
from prompts_store.ensembles.members import check_members, find_members
from prompts_store.grants.records import Right
from prompts_store.jobs.records import Lease
from prompts_store.jobs.rows import held
from prompts_store.lists.kinds import ListKind
from prompts_store.lists.lists import Lists, add_version
from prompts_store.names import LIVE
from prompts_store.pages import DEFAULT_LIMIT
from prompts_store.records import (
    AliasMove,
    EnsembleMember,
    EnsembleVersion,
    ListRecord,
    Page,
    Reference,
    Vote,
)
from prompts_store.tasks import aliasing


def _version(row: Row[Any], items: Sequence[Row[Any]]) -> EnsembleVersion:
    return EnsembleVersion(
        tenant=row.tenant,
        name=row.name,
        number=row.number,
        members=tuple(EnsembleMember(item.tenant, item.name, item.number, item.weight) for item in items),
        vote=row.vote,
        digest=row.digest,
        created_at=row.created_at,
        created_by=row.created_by,
    )


_KIND = ListKind(
    family=aliasing.ENSEMBLES,
    items=ensemble_members,
    list_version=ensemble_members.c.ensemble_version_id,
    version=_version,
    word="ensemble",
    published="ensemble_published",
    deleted="ensemble_deleted",
    publish="ensemble.publish",
    delete="ensemble.delete",
)


class Ensembles(Lists):
    """Versioned lists of versions that vote, and their aliases."""

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
            return add_version(
                connection,
                _KIND,
                tenant,
                name,
                ensemble_digest(checked, vote),
                {"vote": vote},
                [{"version_id": version, "weight": member.weight} for member, version in found],
                facts={"members": len(found), "vote": vote},
                created_by=created_by,
                now=self._clock(),
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
        return self._resolved(_KIND, reference, tenant, field, right)

    def get_ensemble(self, tenant: str, name: str) -> ListRecord[EnsembleVersion]:
        """An ensemble with its newest version. NotFoundError: `unknown_ensemble`."""
        return self._shown(_KIND, tenant, name)

    def list_ensemble_versions(
        self, tenant: str, name: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[EnsembleVersion]:
        """A page of an ensemble's versions, newest first. NotFoundError: `unknown_ensemble`; InvalidError."""
        return self._versions(_KIND, tenant, name, limit, cursor)

    def last_ensemble_number(self, tenant: str, name: str) -> int:
        """The highest version number that an ensemble ever had, even if it was deleted; 0 if the name was
        never used."""
        return self._last_number(_KIND, tenant, name)

    def list_ensembles(
        self, tenant: str, *, prefix: str = "", limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[ListRecord[EnsembleVersion]]:
        """A page of a tenant's ensembles, by name. Raises InvalidError for a bad prefix, limit or cursor."""
        return self._page(_KIND, tenant, prefix, limit, cursor)

    def delete_ensemble(self, tenant: str, name: str, *, deleted_by: str = "") -> None:
        """Tombstone an ensemble. Its members may then be deleted. NotFoundError: `unknown_ensemble`."""
        self._tombstone(_KIND, tenant, name, deleted_by)

    def set_ensemble_alias(
        self,
        tenant: str,
        name: str,
        alias: str,
        number: int,
        *,
        expected: int | None = None,
        moved_by: str = "",
    ) -> AliasMove:
        """Point an ensemble's alias at one of its versions.

        Args:
            expected: the version that it names now, 0 if there is no such alias; None for any.

        Raises:
            NotFoundError: `unknown_ensemble`, `unknown_version`.
            ConflictError: `alias_moved`: it names another than `expected`.
        """
        return self._set_alias(_KIND, tenant, name, alias, number, expected, moved_by)

    def remove_ensemble_alias(self, tenant: str, name: str, alias: str, *, moved_by: str = "") -> AliasMove:
        """Remove an ensemble's alias. NotFoundError: `unknown_ensemble`, `unknown_alias`."""
        return self._remove_alias(_KIND, tenant, name, alias, moved_by)

    def rollback_ensemble(
        self,
        tenant: str,
        name: str,
        alias: str = LIVE,
        *,
        version: int | None = None,
        expected: int | None = None,
        moved_by: str = "",
    ) -> AliasMove:
        """Point an ensemble's alias at the version that it named before.

        Args:
            version: where it is to go, as the record's `back` told it; None for wherever that is now.
            expected: the version that it names now; None for any.

        Raises:
            NotFoundError: `unknown_ensemble`, `unknown_alias`.
            ConflictError: there is nothing to go back to; `alias_moved`: it names another version than
                `expected`, or would go to another than `version`.
        """
        return self._rolled_back(_KIND, tenant, name, alias, version, expected, moved_by)

    def ensemble_alias_history(
        self, tenant: str, name: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[AliasMove]:
        """A page of the moves of an ensemble's aliases, as of a task's. Raises as that does:
        `unknown_ensemble`."""
        return self._history(_KIND, tenant, name, limit, cursor)


def ensemble_digest(members: Sequence[EnsembleMember], vote: str) -> str:
    """SHA-256 (hex) of the members in order, their weights and the vote, as canonical JSON."""
    rows = [[member.tenant, member.task, member.version, member.weight] for member in members]
    return hashlib.sha256(canonical_json({"members": rows, "vote": vote})).hexdigest()
