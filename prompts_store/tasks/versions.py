"""The store's versions: show, list, tombstone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from prompts_store.audit import chain
from prompts_store.base import StoreBase, check_owner
from prompts_store.database.tables import (
    aliases,
    ensemble_members,
    ensemble_versions,
    ensembles,
    pack_entries,
    pack_versions,
    packs,
    tasks,
    versions,
)
from prompts_store.errors import ConflictError, NotFoundError
from prompts_store.pages import DEFAULT_LIMIT, check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import Page, PromptVersion, Reference
from prompts_store.tasks import aliasing, counts
from prompts_store.tasks.references import check_version
from prompts_store.tasks.rows import find_task, select_versions, version_record
from prompts_store.tenants import feed, stored
from prompts_store.text import quoted

_CURSOR = "versions"


class Versions(StoreBase):
    """Versions of tasks."""

    def get_version(self, tenant: str, task: str, number: int) -> PromptVersion:
        """A live version. NotFoundError: `unknown_task`, `unknown_version`."""
        check_owner(tenant, task)
        reference = Reference(tenant, task, version=check_version(number), alias=None)
        with self._database.read(tenant) as connection:
            return version_record(resolve(connection, reference, field="version"))

    def list_versions(
        self, tenant: str, task: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[PromptVersion]:
        """A page of a task's live versions, newest first. NotFoundError: `unknown_task`; InvalidError."""
        check_owner(tenant, task)
        limit = check_limit(limit)
        before = decode_cursor(_CURSOR, cursor, check_version)
        with self._database.read(tenant) as connection:
            row = find_task(connection, tenant, task)
            query = select_versions().where(versions.c.task_id == row.id, versions.c.deleted_at.is_(None))
            if before is not None:
                query = query.where(versions.c.number < before)
            rows = connection.execute(query.order_by(versions.c.number.desc()).limit(limit + 1)).all()
        return make_page(rows, limit, version_record, lambda row: encode_cursor(_CURSOR, row.number))

    def delete_version(self, tenant: str, task: str, number: int, *, deleted_by: str = "") -> None:
        """Tombstone a version. Lists and references lose it at once, its values are removed when nobody reads
        them.

        Raises:
            NotFoundError: `unknown_task`, `unknown_version`.
            ConflictError: an alias, a live ensemble or a live pack of the tenant names it.
        """
        check_owner(tenant, task, deleted_by)
        number = check_version(number)

        with self._database.write(tenant) as connection:
            now = self._clock()
            row = resolve(connection, Reference(tenant, task, version=number, alias=None), field="version")
            named = [
                alias
                for alias, at in aliasing.current(connection, aliasing.TASKS, row.task_id).items()
                if at == number
            ]
            if named:
                raise ConflictError(
                    f"Version {number} is named by {quoted(named)}; move or remove that first.",
                    field="version",
                )
            require_unused(connection, tenant, versions.c.id == row.id, f"Version {number}", field="version")
            counts.release(connection, row.digest, now)
            values_bytes = stored.VALUE_BYTES * row.length * row.width
            stored.add(connection, tenant, prompts=-1, prompt_bytes=-values_bytes)
            connection.execute(
                update(versions)
                .where(versions.c.id == row.id)
                .values(deleted_at=now, deleted_by=deleted_by, blob_digest=None)
            )
            connection.execute(
                update(tasks).where(tasks.c.id == row.task_id).values(live_versions=tasks.c.live_versions - 1)
            )
            feed.record(connection, "version_deleted", tenant, f"{task}@{number}", now=now)
            before = {"digest": row.digest, "manifest_digest": row.manifest_digest}
            chain.append(connection, "version.delete", tenant, f"{task}@{number}", now=now, before=before)


def resolve(connection: Connection, reference: Reference, *, field: str = "task") -> Row[Any]:
    """The row of the live version that a reference names, in one query.

    Raises:
        NotFoundError: `unknown_task`, `unknown_version` or `unknown_alias`.
    """
    query = select_versions().where(
        tasks.c.tenant == reference.tenant,
        tasks.c.name == reference.task,
        tasks.c.deleted_at.is_(None),
        versions.c.deleted_at.is_(None),
    )
    if reference.version is not None:
        query = query.where(versions.c.number == reference.version)
    else:
        query = query.join(
            aliases, and_(aliases.c.owner_id == versions.c.task_id, aliases.c.number == versions.c.number)
        ).where(aliases.c.alias == reference.alias)
    row = connection.execute(query).one_or_none()
    if row is not None:
        return row
    find_task(connection, reference.tenant, reference.task, field=field)
    if reference.version is None:
        raise aliasing.unknown_alias(
            str(reference.alias), f"task {reference.tenant}/{reference.task}", field=field
        )
    raise unknown_version(reference.tenant, reference.task, reference.version, field=field)


def require_unused(connection: Connection, tenant: str, which: Any, what: str, *, field: str) -> None:
    """Raise ConflictError if a live ensemble or pack of their own tenant has some of these versions.

    Another tenant's, to whose owner the task was granted, keeps nobody from deleting: it is no longer
    answered.

    Args:
        which: a condition on `versions`.
    """
    ensemble = (
        select(ensembles.c.name)
        .join(ensemble_versions, ensemble_versions.c.ensemble_id == ensembles.c.id)
        .join(ensemble_members, ensemble_members.c.ensemble_version_id == ensemble_versions.c.id)
        .join(versions, versions.c.id == ensemble_members.c.version_id)
        .where(which, ensembles.c.tenant == tenant, ensemble_versions.c.deleted_at.is_(None))
    )
    name = connection.execute(ensemble.limit(1)).scalar()
    if name is not None:
        raise ConflictError(f"{what} is a member of the ensemble '{name}'; delete that first.", field=field)
    name = pack_with(connection, tenant, which)
    if name is not None:
        raise ConflictError(
            f"{what} answers a question of the pack '{name}'; delete that first.", field=field
        )


def pack_with(connection: Connection, tenant: str, which: Any) -> str | None:
    """A live pack of the tenant that has some of these versions.

    Args:
        which: a condition on `versions`.
    """
    query = (
        select(packs.c.name)
        .join(pack_versions, pack_versions.c.pack_id == packs.c.id)
        .join(pack_entries, pack_entries.c.pack_version_id == pack_versions.c.id)
        .join(versions, versions.c.id == pack_entries.c.version_id)
        .where(which, packs.c.tenant == tenant, pack_versions.c.deleted_at.is_(None))
        .limit(1)
    )
    name: str | None = connection.execute(query).scalar()
    return name


def unknown_version(tenant: str, task: str, number: int, *, field: str = "version") -> NotFoundError:
    """The error for a version that does not exist, or no longer does."""
    return NotFoundError(
        f"The task {tenant}/{task} has no version {number}, or it was deleted.",
        field=field,
        code="unknown_version",
    )
