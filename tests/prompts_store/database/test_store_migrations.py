"""A store that an older Chorus made is brought up to date with everything in it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from postgres_server import PostgresServer
from sqlalchemy import Connection, inspect

from prompts_store import PromptStore
from prompts_store.database import Database, database, tables
from prompts_store.database.migrate import alembic_config
from prompts_store.errors import ConflictError
from prompts_store.records import EnsembleMember
from prompts_store.testing import FakeClock, example_file, example_prompt

pytestmark = pytest.mark.usefixtures("real_migrations")
NEW = {"files", "tuning_jobs", "tuning_job_files", "tuning_events", "store_identity"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.create()


@pytest.fixture
def lost(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes a PostgreSQL database in place of one that was lost."""
    return lambda: request.getfixturevalue("postgres_server").create()


def first_tables_only(connection: Connection) -> None:
    command.upgrade(alembic_config(connection), "0001")


def tables_of_0_1_0(connection: Connection) -> None:
    command.upgrade(alembic_config(connection), "0003")


def visible(store: PromptStore) -> object:
    version = store.resolve("sst2", tenant="acme")
    return (
        store.list_tasks("acme").items,
        store.list_versions("acme", "sst2").items,
        store.alias_history("acme", "sst2"),
        store.values(version.manifest.digest).tobytes(),
        store.list_ensembles("acme").items,
    )


def test_the_first_tables_become_todays_with_what_they_hold(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(database, "upgrade", first_tables_only)
        with closing(PromptStore.open(tmp_path, database_url=url)) as store:
            for seed in (1, 2):
                store.publish("acme", "sst2", *example_prompt(seed, labels=("yes", "no")))
            store.set_alias("acme", "sst2", "live", 2)
            store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 1)])
            store.publish("acme", "gone", *example_prompt(3))
            store.delete_task("acme", "gone")
            before = visible(store)
            with store._database.read() as connection:
                assert not NEW & set(inspect(connection).get_table_names())
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        assert visible(store) == before
        assert store.check().clean
        file = example_file(store, b"rows")
        store.create_job("acme", {"base_fingerprint": "base"}, files={"data.train.file": file.id})
        assert store.claim_job("worker", 60, "base") is not None
        assert store.check().clean


def of_0_1_0(folder: Path, url: str | None, monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """A store as 0.1.0 left it: rows, blobs and data files, and no id anywhere."""
    with monkeypatch.context() as older:
        older.setattr(database, "upgrade", tables_of_0_1_0)
        with closing(PromptStore.open(folder, database_url=url, clock=clock)) as store:
            for seed in range(6):
                store.publish("acme", f"task-{seed}", *example_prompt(seed))
                example_file(store, f"rows {seed}".encode())
            store.delete_task("acme", "task-0")
            store._blobs.put("ab" * 32, b"an upload that died", now=clock())
    assert not list(folder.glob("*/store-id"))
    clock.advance(60)


def test_a_store_of_0_1_0_gets_its_id_and_is_collected(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    of_0_1_0(tmp_path, url, monkeypatch, clock)
    with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        assert store.pairing().one and store.check().clean
        report = store.collect(grace_seconds=0)
        assert (report.blobs, report.orphans, report.files) == (1, 1, 0)


def test_a_fresh_database_beside_a_folder_of_0_1_0_never_gets_its_blobs(
    tmp_path: Path,
    url: str | None,
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
    lost: Callable[[], str],
) -> None:
    """The folder has no id to compare. New uploads must not make it look like this database's."""
    of_0_1_0(tmp_path, url, monkeypatch, clock)
    for file in tmp_path.glob("chorus.db*"):
        file.unlink()
    url = url and lost()
    for first in (100, 200):
        with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
            for seed in range(first, first + 10):
                store.publish("acme", f"task-{seed}", *example_prompt(seed))
                example_file(store, f"rows {seed}".encode())
            clock.advance(60)
            with pytest.raises(ConflictError, match="no id") as caught:
                store.collect(grace_seconds=0)
            assert caught.value.code == "other_store"
            assert [folder.id is None for folder in store.pairing().folders] == [True, True]
            held, known = store.pairing().folders[0].held, store.pairing().folders[0].known
    assert (held, known) == (27, 20), "it does not look like this database's"
    with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        store.adopt()
        assert store.pairing().one and store.check().clean


def test_the_migrations_make_the_tables_that_the_code_knows(tmp_path: Path, url: str | None) -> None:
    with closing(Database.open(tmp_path, url)) as made, made.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        found = {table: _checks(connection, table) for table in ("versions", "blobs", "tuning_jobs")}
    assert found == {
        "versions": {"ck_versions_blob"},
        "blobs": {"ck_blobs_count", "ck_blobs_unreferenced"},
        "tuning_jobs": {"ck_tuning_jobs_over", "ck_tuning_jobs_lease", "ck_tuning_jobs_expiry"},
    }


def test_control_a_column_that_no_migration_makes_is_noticed(tmp_path: Path, url: str | None) -> None:
    with closing(Database.open(tmp_path, url)) as made, made.write() as connection:
        connection.exec_driver_sql("ALTER TABLE tuning_jobs ADD COLUMN forgotten TEXT")
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) != []


def test_the_migrations_go_back_too(tmp_path: Path, url: str | None) -> None:
    with closing(Database.open(tmp_path, url)) as made, made.write() as connection:
        for revision, left in (("0001", "tasks"), ("base", None)):
            command.downgrade(alembic_config(connection), revision)
            names = set(inspect(connection).get_table_names())
            assert not NEW & names and (left is None or left in names)
        assert names == {"alembic_version"}


def _checks(connection: Connection, table: str) -> set[Any]:
    return {check["name"] for check in inspect(connection).get_check_constraints(table)}
