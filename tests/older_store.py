"""Stores as older versions of Chorus left them, made with today's code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, Select, create_engine, inspect, null, select, text

from prompts_store.audit import chain
from prompts_store.database import database
from prompts_store.database.migrate import alembic_config, is_empty
from prompts_store.database.tables import tasks
from prompts_store.database.tables import versions as versions_table
from prompts_store.grants import rows as grants
from prompts_store.jobs import steps
from prompts_store.tasks import publishing, versions
from prompts_store.tasks.rows import VERSION_COLUMNS
from prompts_store.tenants import feed, standing, stored
from prompts_store.tenants.limits import TenantLimits
from prompts_store.upkeep import checking

LATER_COLUMNS = (
    ("jobs", "paused", "BOOLEAN NOT NULL DEFAULT FALSE"),
    ("files", "purpose", "VARCHAR(16) NOT NULL DEFAULT 'fine-tune'"),
    ("files", "made_by", "VARCHAR(32)"),
    ("store_identity", "upkeep_due_at", "BIGINT"),
)
"""Columns that today's code reads and those tables lack: they are there inside, and gone afterwards."""


@contextmanager
def older_store(revision: str) -> Iterator[None]:
    """Inside, an empty database gets the tables of a revision before tenants, and none is brought up to date.

    Tasks, versions, aliases, ensembles, files and jobs are written as ever, but nothing of tenants, and
    nothing in the audit log. Versions have no calibration.
    """

    urls = set()

    def upgrade(connection: Connection) -> None:
        if is_empty(connection):
            command.upgrade(alembic_config(connection), revision)
            urls.add(connection.engine.url)
            change(connection, "ADD COLUMN {} {}")

    def change(connection: Connection, how: str) -> None:
        for table, column, kind in LATER_COLUMNS:
            if inspect(connection).has_table(table):
                connection.execute(text(f"ALTER TABLE {table} {how.format(column, kind)}"))

    def select_versions() -> Select[Any]:
        source = versions_table.join(tasks, tasks.c.id == versions_table.c.task_id)
        return select(*VERSION_COLUMNS, null().label("calibration_number")).select_from(source)

    with pytest.MonkeyPatch.context() as patch:
        for module in (checking, publishing, versions):
            patch.setattr(module, "select_versions", select_versions)
        patch.setattr(database, "upgrade", upgrade)
        patch.setattr(feed, "record", lambda *told, **now: None)
        patch.setattr(chain, "append", lambda *told, **facts: None)
        patch.setattr(grants, "require", lambda *which, **how: None)
        patch.setattr(grants, "revoke_all", lambda *which, **now: None)
        patch.setattr(standing, "require_not_deleted", lambda connection, tenant: None)
        patch.setattr(stored, "add", lambda *of, **more: None)
        patch.setattr(stored, "limits_of", lambda connection, tenant: TenantLimits())
        patch.setattr(versions, "pack_with", lambda connection, tenant, which: None)
        patch.setattr(steps, "reserve", lambda *of: None)
        patch.setattr(steps, "settle", lambda *of: None)
        yield
    for url in urls:
        engine = create_engine(url)
        with engine.begin() as connection:
            change(connection, "DROP COLUMN {}")
        engine.dispose()
