"""A store that an older Chorus made is brought up to date with everything in it."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, column, insert, inspect, null, select, text

from prompts_store import PromptStore
from prompts_store.blobs import BlobAddress
from prompts_store.database import EVERY_TENANT, Database, migrate, tables
from prompts_store.database.migrate import alembic_config, serves
from prompts_store.errors import ConflictError, LeaseLostError, StoreError
from prompts_store.jobs.records import ACTIVE, OVER, Lease
from prompts_store.records import EnsembleMember
from prompts_store.testing import FakeClock, example_file, example_prompt
from tests.newer_store import NEWEST, with_migration
from tests.older_store import older_store
from tests.postgres_server import PostgresServer
from tests.prompts_store.usage.usage_rows import added, in_tables, random_rows

pytestmark = pytest.mark.usefixtures("real_migrations")
NEW = {
    "files", "jobs", "job_files", "job_events", "store_identity", "tenants", "keys", "changes", "audit",
    "audit_heads",
    "usage", "usage_hours", "usage_days", "grants", "stored_use", "training_steps", "calibrations",
}  # fmt: skip


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


def visible(store: PromptStore) -> object:
    version = store.resolve("sst2", tenant="acme")
    return (
        store.list_tasks("acme").items,
        store.list_versions("acme", "sst2").items,
        store.alias_history("acme", "sst2"),
        store.values(version.manifest.digest).tobytes(),
        store.list_ensembles("acme").items,
    )


def test_the_first_tables_become_todays_with_what_they_hold(tmp_path: Path, url: str | None) -> None:
    with older_store("0001"), closing(PromptStore.open(tmp_path, database_url=url)) as store:
        for seed in (1, 2):
            store.publish("acme", "sst2", *example_prompt(seed, labels=("yes", "no")))
        store.set_alias("acme", "sst2", "live", 2)
        store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 1)])
        store.publish("acme", "gone", *example_prompt(3))
        store.delete_task("acme", "gone")
        before = visible(store)
        with store._database.read(EVERY_TENANT) as connection:
            assert not NEW & set(inspect(connection).get_table_names())
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        assert visible(store) == before
        assert store.check().clean
        file = example_file(store, b"rows")
        store.create_job("acme", "tuning", {"base_fingerprint": "base"}, files={"data.train.file": file.id})
        assert store.claim_job("tuning", "worker", 60, "base") is not None
        assert store.check().clean


def of_0_1_0(folder: Path, url: str | None, clock: FakeClock) -> None:
    """A store as 0.1.0 left it: rows, blobs and data files, and no id anywhere."""
    with older_store("0003"), closing(PromptStore.open(folder, database_url=url, clock=clock)) as store:
        for seed in range(6):
            store.publish("acme", f"task-{seed}", *example_prompt(seed))
            example_file(store, f"rows {seed}".encode())
        store.delete_task("acme", "task-0")
        store._blobs.put("ab" * 32, b"an upload that died", now=clock())
    assert not list(folder.glob("*/store-id"))
    clock.advance(60)


def test_a_store_of_0_1_0_gets_its_id_and_is_collected(
    tmp_path: Path, url: str | None, clock: FakeClock
) -> None:
    of_0_1_0(tmp_path, url, clock)
    with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        assert store.pairing().one and store.check().clean
        report = store.collect(grace_seconds=0)
        assert (report.blobs, report.orphans, report.files) == (1, 1, 0)


def test_a_fresh_database_beside_a_folder_of_0_1_0_never_gets_its_blobs(
    tmp_path: Path,
    url: str | None,
    clock: FakeClock,
    lost: Callable[[], str],
) -> None:
    """The folder has no id to compare. New uploads must not make it look like this database's."""
    of_0_1_0(tmp_path, url, clock)
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


def jobs_of_0_1_0(folder: Path, url: str | None, clock: FakeClock) -> None:
    """A store with tuning jobs of every status, from before there were other kinds."""
    now = FIRST_MOMENT
    with older_store("0004"), closing(PromptStore.open(folder, database_url=url, clock=clock)) as store:
        file = example_file(store, b"rows")
        with store._database.write(EVERY_TENANT) as connection:
            rows = Table("tuning_jobs", MetaData(), autoload_with=connection)
            files = Table("tuning_job_files", MetaData(), autoload_with=connection)
            events = Table("tuning_events", MetaData(), autoload_with=connection)
            for number, (status, changes) in enumerate(OLD_JOBS, start=1):
                over, held = status in OVER, status in ACTIVE
                row = {
                    "number": 10 * number,
                    "id": f"job-{number:024x}",
                    "tenant": "acme",
                    "status": status,
                    "spec": {"base_fingerprint": "base", "prompts": [{"task": "é"}], "seed": number},
                    "base_fingerprint": "base",
                    "created_at": now + number,
                    "created_by": "ann",
                    "queued_at": now + number,
                    "started_at": now + 100 if held or over else None,
                    "finished_at": now + 200 if over else None,
                    "error": null(),
                    "progress": {"step": number},
                    "result": {},
                    "cancel_requested": False,
                    "attempt": 2,
                    "lease_owner": "host process 1" if held else None,
                    "lease_token": 5,
                    "lease_expires_at": now + 60_000_000 if held else None,
                    "last_event": 2,
                }
                connection.execute(insert(rows).values(row | changes))
                for seq in (1, 2):
                    event = {"seq": seq, "at": now + seq, "kind": "status", "data": {"status": status}}
                    connection.execute(insert(events).values(job_number=row["number"], **event))
                number_of_file = select(column("number")).select_from(text("files")).scalar_subquery()
                connection.execute(insert(files).values(job_number=row["number"], file_number=number_of_file))
        assert file.tenant == "acme"


FIRST_MOMENT = 1_767_225_600_000_000
"""Of FakeClock, in microseconds since 1970."""

OLD_JOBS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("queued", {"attempt": 0, "lease_token": 0}),
    ("queued", {}),
    ("preparing", {}),
    ("preparing", {"lease_expires_at": FIRST_MOMENT - 1}),
    ("running", {"lease_token": 2**40}),
    ("running", {"cancel_requested": True}),
    ("succeeded", {"result": {"prompts": [{"version": 1}], "ensemble": None}}),
    ("failed", {"error": {"code": "internal", "message": "…", "field": None}}),
    ("cancelled", {"cancel_requested": True}),
)


def raw_rows(store: PromptStore, *names: str) -> list[Any]:
    """What tables hold, as the database has it; JSON as text."""
    with store._database.read(EVERY_TENANT) as connection:
        return [
            sorted(map(str, connection.exec_driver_sql(f"SELECT * FROM {name}").mappings())) for name in names
        ]


def test_tuning_jobs_of_every_status_become_jobs_of_their_kind(
    tmp_path: Path, url: str | None, clock: FakeClock
) -> None:
    jobs_of_0_1_0(tmp_path, url, clock)
    with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        assert store.check().clean
        jobs = {job.id: job for job in store.list_jobs("acme", "tuning").items}
        assert len(jobs) == len(OLD_JOBS)
        for number, (status, changes) in enumerate(OLD_JOBS, start=1):
            job = jobs[f"job-{number:024x}"]
            moment, over = clock() + timedelta(microseconds=number), status in OVER
            assert (job.kind, job.status, job.created_at, job.created_by) == (
                "tuning", status, moment, "ann",
            )  # fmt: skip
            assert job.spec == {"base_fingerprint": "base", "prompts": [{"task": "é"}], "seed": number}
            assert job.progress == {"step": number}
            assert job.result == changes.get("result", {}) and job.error == changes.get("error")
            assert job.cancel_requested == changes.get("cancel_requested", False)
            assert job.attempt == changes.get("attempt", 2)
            assert (job.finished_at is not None) == over
            events = store.job_events("acme", job.id)
            assert [(event.seq, event.kind, event.data) for event in events] == [
                (seq, "status", {"status": status}) for seq in (1, 2)
            ]
        # A lease is good across the upgrade, and an older token is not.
        running = Lease(f"job-{5:024x}", "acme", "host process 1", 2**40, clock())
        assert store.update_job(running, progress={"step": 9}).progress == {"step": 9}
        with pytest.raises(LeaseLostError):
            store.renew_lease(replace(running, token=2**40 - 1), 60)
        # The queue is what it was: in order, the overdue among them, the next token of each.
        taken = [store.claim_job("tuning", "worker", 60, "base") for _ in range(4)]
        assert [each and (each[0].id[-1], each[1].token) for each in taken] == [
            ("1", 1), ("2", 6), ("4", 6), None,
        ]  # fmt: skip
        (file,) = store.list_files("acme").items
        with pytest.raises(ConflictError, match="unfinished job-"):
            store.delete_file("acme", file.id)
        newest = store.create_job("acme", "tuning", {"base_fingerprint": "base"}, files={"f": file.id})
        assert store.list_jobs("acme", "tuning", limit=1).items == (newest,), "numbers go on"


def test_jobs_go_back_to_the_tables_of_tuning_jobs_as_they_were(
    tmp_path: Path, url: str | None, clock: FakeClock
) -> None:
    jobs_of_0_1_0(tmp_path, url, clock)
    names = ("tuning_jobs", "tuning_job_files", "tuning_events")
    with older_store("0004"), closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        before = raw_rows(store, *names)
    with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        now = raw_rows(store, "jobs", "job_files", "job_events")
        assert [len(rows) for rows in now] == [len(rows) for rows in before]
        with store._database.write(EVERY_TENANT) as connection:
            connection.exec_driver_sql("UPDATE jobs SET kind = 'batch' WHERE number = 20")
            command.downgrade(alembic_config(connection), "0004")
        after = raw_rows(store, *names)
    assert [len(rows) for rows in after] == [len(rows) - len(rows) // len(OLD_JOBS) for rows in before]
    assert all(set(some) < set(rows) for some, rows in zip(after, before, strict=True))
    with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        assert len(store.list_jobs("acme", "tuning").items) == len(OLD_JOBS) - 1
        newest = store.create_job("acme", "tuning", {"base_fingerprint": "base"})
        assert store.list_jobs("acme", "tuning", limit=1).items == (newest,)


def test_the_migrations_make_the_tables_that_the_code_knows(tmp_path: Path, url: str | None) -> None:
    with closing(Database.open(tmp_path, url)) as made, made.read(EVERY_TENANT) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        found = {table: _checks(connection, table) for table in ("versions", "blobs", "jobs", "tenants")}
    assert found == {
        "versions": {"ck_versions_blob"},
        "blobs": {"ck_blobs_count", "ck_blobs_unreferenced"},
        "jobs": {"ck_jobs_over", "ck_jobs_lease", "ck_jobs_expiry"},
        "tenants": {
            "ck_tenants_status",
            "ck_tenants_suspended",
            "ck_tenants_deleted",
            "ck_tenants_purge",
        },
    }


def test_control_a_column_that_no_migration_makes_is_noticed(tmp_path: Path, url: str | None) -> None:
    with closing(Database.open(tmp_path, url)) as made, made.write(EVERY_TENANT) as connection:
        connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN forgotten TEXT")
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) != []


def test_the_migrations_go_back_too(tmp_path: Path, url: str | None) -> None:
    with closing(Database.open(tmp_path, url)) as made, made.write(EVERY_TENANT) as connection:
        for revision, left in (("0001", "tasks"), ("base", None)):
            command.downgrade(alembic_config(connection), revision)
            names = set(inspect(connection).get_table_names())
            assert not NEW & names and (left is None or left in names)
        assert names == {"alembic_version"}


def test_hours_of_before_are_added_up_to_days(tmp_path: Path, url: str | None) -> None:
    """And those that come and go afterwards, with the same statements as older code has."""
    rows = random_rows(7, 60)
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        with store._database.write(EVERY_TENANT) as connection:
            command.downgrade(alembic_config(connection), "0020_serves_0019")
            assert "usage_days" not in inspect(connection).get_table_names()
        store.record_usage("f" * 16, rows[:30])
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        assert in_tables(store) == (added(rows[:30])[()],) * 2
        store.record_usage("f" * 16, rows)
        assert in_tables(store) == (added(rows)[()],) * 2
        store.drop_usage_of("acme")
        assert in_tables(store) == (added([each for each in rows if each.tenant != "acme"])[()],) * 2


def test_older_code_comes_up_on_tables_that_still_serve_it(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer Chorus added a table and a column."""
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_FOLDER", with_migration(tmp_path / "newer", f"9999_serves_{NEWEST}"))
        migrate.newest.cache_clear()
        with closing(PromptStore.open(tmp_path, database_url=url)) as newer:
            newer.publish("acme", "sst2", *example_prompt(1))
            assert not newer._database.newer
    migrate.newest.cache_clear()
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        assert store.publish("acme", "sst2", *example_prompt(2)).version.number == 2
        assert store._database.newer and store.check().clean
        with pytest.raises(ConflictError, match="newer Chorus"):
            store.backup(BlobAddress(f"file://{tmp_path}/backup"))
        with store._database.read(EVERY_TENANT) as connection:
            assert "of_later" in inspect(connection).get_table_names()


@pytest.mark.parametrize("revision", [f"9999_serves_{int(NEWEST) + 1:04}", "9999", f"9999_serves_{NEWEST}x"])
def test_control_older_code_refuses_tables_that_do_not_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_FOLDER", with_migration(tmp_path / "newer", revision))
        migrate.newest.cache_clear()
        PromptStore.open(tmp_path).close()
    migrate.newest.cache_clear()
    with pytest.raises(StoreError, match="newer version of Chorus"):
        PromptStore.open(tmp_path)


def test_which_code_a_migration_serves() -> None:
    assert serves("0022_serves_0020", "0020") and serves("0022_serves_0020", "0021_serves_0019")
    assert not serves("0022_serves_0020", "0019")
    assert not serves("0022_serves_0020", "0022")  # another 0022: who knows
    assert not serves("0022_serves_0020", "0023_serves_0019")


def in_order(revisions: list[str]) -> bool:
    """Whether each migration after 0019 says for whom its tables still do, never for older code than the one
    before."""
    oldest = "0000"
    for revision in revisions:
        if revision > "0019~":
            said = migrate._SERVES.fullmatch(revision)
            if said is None or not oldest <= said[1] <= revision[:4]:
                return False
            oldest = said[1]
    return True


def test_each_migration_says_whom_it_serves() -> None:
    scripts = ScriptDirectory.from_config(alembic_config(None)).walk_revisions()
    assert in_order([script.revision for script in scripts][::-1])


@pytest.mark.parametrize("bad", ["0020", "0020_serves_0021", "0021_serves_0019"])
def test_control_a_migration_that_does_not_say_it_is_noticed(bad: str) -> None:
    assert in_order(["0019", "0020_serves_0020", "0021_serves_0020"])
    assert not in_order(["0019", "0020_serves_0020", bad])


def _checks(connection: Connection, table: str) -> set[Any]:
    return {check["name"] for check in inspect(connection).get_check_constraints(table)}
