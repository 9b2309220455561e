"""The store's decision packs: publish, resolve, show, list, tombstone, and their aliases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from prompts_store.base import check_owner
from prompts_store.database.tables import pack_entries
from prompts_store.digests import canonical_json
from prompts_store.grants.records import Right
from prompts_store.lists.kinds import ListKind
from prompts_store.lists.lists import Lists, add_version
from prompts_store.names import LIVE
from prompts_store.packs.entries import check_entries, find_entries
from prompts_store.pages import DEFAULT_LIMIT
from prompts_store.records import (
    AliasMove,
    ListRecord,
    PackEntry,
    PackVersion,
    Page,
    Reference,
    UnknownQuestions,
)
from prompts_store.tasks import aliasing


def _version(row: Row[Any], items: Sequence[Row[Any]]) -> PackVersion:
    entries = (PackEntry(item.question, item.tenant, item.name, item.number, item.labels) for item in items)
    return PackVersion(
        tenant=row.tenant,
        name=row.name,
        number=row.number,
        entries=tuple(entries),
        unknown_questions=row.unknown_questions,
        digest=row.digest,
        created_at=row.created_at,
        created_by=row.created_by,
    )


_KIND = ListKind(
    family=aliasing.PACKS,
    items=pack_entries,
    list_version=pack_entries.c.pack_version_id,
    version=_version,
    word="pack",
    published="pack_published",
    deleted="pack_deleted",
    publish="pack.publish",
    delete="pack.delete",
)


class Packs(Lists):
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
            return add_version(
                connection,
                _KIND,
                tenant,
                name,
                _pack_digest(checked, unknown_questions),
                {"unknown_questions": unknown_questions},
                [
                    {"version_id": version, "question": entry.question, "labels": dict(entry.labels)}
                    for entry, version in found
                ],
                facts={"questions": len(found), "unknown_questions": unknown_questions},
                created_by=created_by,
                now=self._clock(),
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
        return self._resolved(_KIND, reference, tenant, field, right)

    def get_pack(self, tenant: str, name: str) -> ListRecord[PackVersion]:
        """A pack with its newest version. NotFoundError: `unknown_pack`."""
        return self._shown(_KIND, tenant, name)

    def list_pack_versions(
        self, tenant: str, name: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[PackVersion]:
        """A page of a pack's versions, newest first. NotFoundError: `unknown_pack`; InvalidError."""
        return self._versions(_KIND, tenant, name, limit, cursor)

    def last_pack_number(self, tenant: str, name: str) -> int:
        """The highest version number that a pack ever had, even if it was deleted; 0 if the name was
        never used."""
        return self._last_number(_KIND, tenant, name)

    def list_packs(
        self, tenant: str, *, prefix: str = "", limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[ListRecord[PackVersion]]:
        """A page of a tenant's packs, by name. Raises InvalidError for a bad prefix, limit or cursor."""
        return self._page(_KIND, tenant, prefix, limit, cursor)

    def delete_pack(self, tenant: str, name: str, *, deleted_by: str = "") -> None:
        """Tombstone a pack. Its versions may then be deleted. NotFoundError: `unknown_pack`."""
        self._tombstone(_KIND, tenant, name, deleted_by)

    def set_pack_alias(
        self,
        tenant: str,
        name: str,
        alias: str,
        number: int,
        *,
        expected: int | None = None,
        moved_by: str = "",
    ) -> AliasMove:
        """Point a pack's alias at one of its versions.

        Args:
            expected: the version that it names now, 0 if there is no such alias; None for any.

        Raises:
            NotFoundError: `unknown_pack`, `unknown_version`.
            ConflictError: `alias_moved`: it names another than `expected`.
        """
        return self._set_alias(_KIND, tenant, name, alias, number, expected, moved_by)

    def remove_pack_alias(self, tenant: str, name: str, alias: str, *, moved_by: str = "") -> AliasMove:
        """Remove a pack's alias. NotFoundError: `unknown_pack`, `unknown_alias`."""
        return self._remove_alias(_KIND, tenant, name, alias, moved_by)

    def rollback_pack(
        self,
        tenant: str,
        name: str,
        alias: str = LIVE,
        *,
        version: int | None = None,
        expected: int | None = None,
        moved_by: str = "",
    ) -> AliasMove:
        """Point a pack's alias at the version that it named before.

        Args:
            version: where it is to go, as the record's `back` told it; None for wherever that is now.
            expected: the version that it names now; None for any.

        Raises:
            NotFoundError: `unknown_pack`, `unknown_alias`.
            ConflictError: there is nothing to go back to; `alias_moved`: it names another version than
                `expected`, or would go to another than `version`.
        """
        return self._rolled_back(_KIND, tenant, name, alias, version, expected, moved_by)

    def pack_alias_history(
        self, tenant: str, name: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[AliasMove]:
        """A page of the moves of a pack's aliases, as of a task's. Raises as that does:
        `unknown_pack`."""
        return self._history(_KIND, tenant, name, limit, cursor)


def _pack_digest(entries: Sequence[PackEntry], unknown_questions: str) -> str:
    """SHA-256 (hex) of the entries in order and of what happens to other questions, as canonical JSON."""
    rows = [[entry.question, entry.tenant, entry.task, entry.version, entry.labels] for entry in entries]
    content = {"entries": rows, "unknown_questions": unknown_questions}
    return hashlib.sha256(canonical_json(content)).hexdigest()
