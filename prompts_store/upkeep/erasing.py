"""Takes the rows of a purged tenant out of the tables, some at a time.

Everywhere else rows of names stay when things are deleted, so that no name means two things. A deleted
tenant's name is never given again, so nothing of its own can be named again either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, delete, exists, or_, select, update

from prompts_store.database import EVERY_TENANT, Database
from prompts_store.database.job_tables import files, job_events, job_files, jobs, training_steps
from prompts_store.database.tables import (
    alias_moves,
    aliases,
    calibrations,
    ensemble_alias_moves,
    ensemble_aliases,
    ensemble_members,
    ensemble_versions,
    ensembles,
    pack_alias_moves,
    pack_aliases,
    pack_entries,
    pack_versions,
    packs,
    task_labels,
    tasks,
    versions,
)
from prompts_store.database.tenant_tables import creations, keys, sessions, stored_use

_AT_ONCE = 200


def erase(database: Database, tenant: str) -> None:
    """Remove every row of a tenant, except its own, its audit log's, and those that other tenants' rows
    refer to, which are emptied. Everything that it had was deleted before, and its usage dropped."""
    # Ensembles and packs before the versions that they name, jobs before the files that they read.
    _some(database, select(ensembles.c.id).where(ensembles.c.tenant == tenant), _erase_ensembles)
    _some(database, select(packs.c.id).where(packs.c.tenant == tenant), _erase_packs)
    _some(database, select(tasks.c.id).where(tasks.c.tenant == tenant, ~_is_named()), _erase_tasks)
    _some(database, select(jobs.c.number).where(jobs.c.tenant == tenant), _erase_jobs)
    for table in (files, keys, creations, sessions):
        number = table.c.number
        _some(database, select(number).where(table.c.tenant == tenant), partial(_remove, number))
    named = select(tasks.c.id).where(tasks.c.tenant == tenant)
    empty = {"template": "", "labels": [], "settings": {}, "lineage": {}, "metrics": {}}
    with database.write(EVERY_TENANT) as connection:
        connection.execute(update(versions).where(versions.c.task_id.in_(named)).values(**empty))
        kept = select(versions.c.id).where(versions.c.task_id.in_(named))
        connection.execute(delete(calibrations).where(calibrations.c.version_id.in_(kept)))
        connection.execute(delete(stored_use).where(stored_use.c.tenant == tenant))


def _some(
    database: Database, query: Select[Any], remove: Callable[[Connection, Sequence[int]], None]
) -> None:
    while True:
        with database.read(EVERY_TENANT) as connection:
            found = list(connection.execute(query.limit(_AT_ONCE)).scalars())
        if not found:
            return
        with database.write(EVERY_TENANT) as connection:
            remove(connection, found)


def _remove(column: Column[int], connection: Connection, found: Sequence[int]) -> None:
    connection.execute(delete(column.table).where(column.in_(found)))


def _is_named() -> ColumnElement[bool]:
    """Whether a version of a task is, or was, in an ensemble or a pack that still has rows."""
    members, entries = (
        exists().where(versions.c.task_id == tasks.c.id, table.c.version_id == versions.c.id)
        for table in (ensemble_members, pack_entries)
    )
    return or_(members, entries)


def _erase_ensembles(connection: Connection, found: Sequence[int]) -> None:
    own = select(ensemble_versions.c.id).where(ensemble_versions.c.ensemble_id.in_(found))
    connection.execute(delete(ensemble_members).where(ensemble_members.c.ensemble_version_id.in_(own)))
    for column in (
        ensemble_aliases.c.owner_id,
        ensemble_alias_moves.c.owner_id,
        ensemble_versions.c.ensemble_id,
        ensembles.c.id,
    ):
        _remove(column, connection, found)


def _erase_packs(connection: Connection, found: Sequence[int]) -> None:
    own = select(pack_versions.c.id).where(pack_versions.c.pack_id.in_(found))
    connection.execute(delete(pack_entries).where(pack_entries.c.pack_version_id.in_(own)))
    for column in (
        pack_aliases.c.owner_id,
        pack_alias_moves.c.owner_id,
        pack_versions.c.pack_id,
        packs.c.id,
    ):
        _remove(column, connection, found)


def _erase_tasks(connection: Connection, found: Sequence[int]) -> None:
    own = select(versions.c.id).where(versions.c.task_id.in_(found))
    connection.execute(delete(calibrations).where(calibrations.c.version_id.in_(own)))
    for column in (
        task_labels.c.task_id,
        aliases.c.owner_id,
        alias_moves.c.owner_id,
        versions.c.task_id,
        tasks.c.id,
    ):
        _remove(column, connection, found)


def _erase_jobs(connection: Connection, found: Sequence[int]) -> None:
    for column in (
        training_steps.c.job_number,
        job_events.c.job_number,
        job_files.c.job_number,
        jobs.c.number,
    ):
        _remove(column, connection, found)
