"""The store's ensembles."""

from __future__ import annotations

from collections.abc import Sequence

from prompts_store import aliasing, ensembles
from prompts_store.database.tables import ensembles as ensemble_table
from prompts_store.jobs.records import JobLease
from prompts_store.jobs.rows import held
from prompts_store.members import check_members, find_members
from prompts_store.names import LIVE, check_alias, check_name
from prompts_store.pages import DEFAULT_LIMIT
from prompts_store.records import (
    AliasMove,
    EnsembleMember,
    EnsembleRecord,
    EnsembleVersion,
    Page,
    Reference,
    Vote,
)
from prompts_store.references import check_version
from prompts_store.store_base import StoreBase, check_owner, parsed_reference
from prompts_store.tasks import last_number


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
        lease: JobLease | None = None,
    ) -> tuple[EnsembleVersion, bool]:
        """Make a version of an ensemble, and whether it is new; the first gets `@live`.

        The same members, weights and vote again answer with the version that has them.

        Args:
            lease: of the job that makes it: whoever lost that makes none.

        Raises:
            LeaseLostError: the job is in other hands.
            InvalidError: `base_mismatch`, or with the field at fault.
            NotFoundError: a member that is not there.
        """
        check_owner(tenant, name, created_by, field="ensemble")
        checked = check_members(members, vote)
        with self._database.write() as connection:
            if lease is not None:
                held(connection, lease)
            found = find_members(connection, checked)
            return ensembles.add_ensemble_version(
                connection, tenant, name, found, vote, created_by=created_by, now=self._clock()
            )

    def resolve_ensemble(
        self, reference: str | Reference, *, tenant: str, field: str = "ensemble"
    ) -> EnsembleVersion:
        """The version of an ensemble that a reference means.

        Raises:
            InvalidError: `invalid_reference`.
            NotFoundError: `unknown_ensemble`, `unknown_version`, `unknown_alias`.
        """
        parsed = parsed_reference(reference, tenant, field)
        with self._database.read() as connection:
            return ensembles.resolve_ensemble(connection, parsed, field=field)

    def get_ensemble(self, tenant: str, name: str) -> EnsembleRecord:
        """An ensemble with its newest version. NotFoundError: `unknown_ensemble`."""
        check_owner(tenant, name, field="ensemble")
        with self._database.read() as connection:
            return ensembles.get_ensemble(connection, tenant, name)

    def last_ensemble_number(self, tenant: str, name: str) -> int:
        """The highest number that an ensemble ever gave, also a deleted one; 0 for a name never used."""
        check_owner(tenant, name, field="ensemble")
        with self._database.read() as connection:
            return last_number(connection, ensemble_table, tenant, name)

    def list_ensembles(
        self, tenant: str, *, prefix: str = "", limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[EnsembleRecord]:
        """A page of a tenant's ensembles by name. InvalidError: a bad prefix, limit or cursor."""
        check_name(tenant, field="tenant")
        with self._database.read() as connection:
            return ensembles.list_ensembles(connection, tenant, prefix=prefix, limit=limit, cursor=cursor)

    def delete_ensemble(self, tenant: str, name: str, *, deleted_by: str = "") -> None:
        """Tombstone an ensemble; its members are free to go. NotFoundError: `unknown_ensemble`."""
        check_owner(tenant, name, deleted_by, field="ensemble")

        with self._database.write() as connection:
            ensembles.delete_ensemble(connection, tenant, name, deleted_by=deleted_by, now=self._clock())

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
        with self._database.write() as connection:
            key = ensembles.find_ensemble(connection, tenant, name).id
            return aliasing.move(
                connection, aliasing.ENSEMBLES, key, alias, number, moved_by=moved_by, now=self._clock()
            )

    def remove_ensemble_alias(self, tenant: str, name: str, alias: str, *, moved_by: str = "") -> AliasMove:
        """Take an ensemble's alias away. NotFoundError: `unknown_ensemble`, `unknown_alias`."""
        check_owner(tenant, name, moved_by, field="ensemble")
        check_alias(alias)
        with self._database.write() as connection:
            key = ensembles.find_ensemble(connection, tenant, name).id
            return aliasing.remove(
                connection, aliasing.ENSEMBLES, key, alias, moved_by=moved_by, now=self._clock()
            )

    def rollback_ensemble(
        self, tenant: str, name: str, alias: str = LIVE, *, moved_by: str = ""
    ) -> AliasMove:
        """Point an ensemble's alias at the version that it meant before.

        Raises:
            NotFoundError: `unknown_ensemble`, `unknown_alias`.
            ConflictError: there is nothing to go back to.
        """
        check_owner(tenant, name, moved_by, field="ensemble")
        check_alias(alias)
        with self._database.write() as connection:
            key = ensembles.find_ensemble(connection, tenant, name).id
            return aliasing.rollback(
                connection, aliasing.ENSEMBLES, key, alias, moved_by=moved_by, now=self._clock()
            )

    def ensemble_alias_history(self, tenant: str, name: str) -> list[AliasMove]:
        """Every move of an ensemble's aliases, oldest first. NotFoundError: `unknown_ensemble`."""
        check_owner(tenant, name, field="ensemble")
        with self._database.read() as connection:
            key = ensembles.find_ensemble(connection, tenant, name).id
            return aliasing.history(connection, aliasing.ENSEMBLES, key)
