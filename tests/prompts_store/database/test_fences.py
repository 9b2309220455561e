"""Row-level security: with the store's own conditions switched off, no other tenant's row is there.

Asked as `chorus_app`. The controls ask as a superuser and as an owner that took the fence down, and get them.
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event, inspect

from prompts_store import PromptStore
from prompts_store.budgets.leases import LeaseAsk
from prompts_store.database import (
    EVERY_TENANT,
    audit_tables,  # noqa: F401 - their tables join the metadata
    job_tables,  # noqa: F401
    scoped,
    tenant_tables,  # noqa: F401
    usage_tables,  # noqa: F401
)
from prompts_store.database.tables import metadata
from prompts_store.errors import NotFoundError, StoreError
from prompts_store.pages import encode_cursor
from prompts_store.records import Creation, EnsembleMember, PackEntry
from prompts_store.testing import example_calibration, example_file, example_prompt
from prompts_store.usage.records import UsageRow
from tests.postgres_server import PostgresServer, as_role

NO_TENANT = {
    "blobs": "equal content is stored once for all tenants: a digest, a size and a count",
    "store_identity": "one row, about the whole store",
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAR = datetime(2100, 1, 1, tzinfo=UTC)
UNIQUE = ("acme", "birch")
# The condition that the application puts into a query, as the compiler writes it.
CONDITION = re.compile(r"\b\w+\.(tenant|owner) = %\((tenant|owner)_\d+\)s(::VARCHAR)?")


def fill(store: PromptStore) -> None:
    """The same of everything for two tenants."""
    for i, tenant in enumerate(UNIQUE):
        store.create_tenant(tenant)
        store.create_key(tenant, "website", scopes=["infer"])
        store.publish(tenant, "sst2", *example_prompt(7, labels=("yes", "no")))
        store.publish(tenant, "sst2", *example_prompt(8, labels=("yes", "no")))
        store.calibrate(tenant, "sst2", 1, example_calibration())
        store.publish_ensemble(tenant, "team", [EnsembleMember(tenant, "sst2", 1)])
        store.publish_pack(tenant, "desk", [PackEntry("mood", tenant, "sst2", 2)])
        store.share("task", tenant, "sst2", "dogwood", ["infer"])
        store.open_session(tenant, str(i) * 64, public="a" * 8, seal=None, expires_at=FAR)
        file = example_file(store, b"rows", tenant=tenant)
        store.creating(Creation("key", "", ("this",))).create_job(
            tenant,
            "tuning",
            {"base_fingerprint": "base"},
            files={"data.train.file": file.id},
            training_steps=3,
        )
        row = UsageRow(i, NOW, tenant, "", "", "", "answered", 1, 1, 1, "request", 0)
        store.record_usage("0123456789abcdef", [row])
        store.lease_budgets("0123456789abcdef", [LeaseAsk(tenant, "", "per_month.requests", 9, 0, need=1)])


@pytest.fixture(scope="module")
def postgres_server(both_postgres_servers: PostgresServer) -> PostgresServer:
    return both_postgres_servers


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.emptied()


@pytest.fixture
def filled(tmp_path: Path, url: str) -> Iterator[PromptStore]:
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        fill(store)
        yield store


def fenced() -> list[str]:
    return [table.name for table in metadata.sorted_tables if table.name not in NO_TENANT]


def rows(connection: Connection) -> dict[str, int]:
    """How many rows of each table are there for somebody who asks for all of them."""
    return {
        name: connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar_one() for name in fenced()
    }


def test_every_table_is_fenced_or_said_to_belong_to_nobody(filled: PromptStore) -> None:
    assert filled.fence_fault() is None
    with filled._database.read(EVERY_TENANT) as connection:
        query = "SELECT tablename FROM pg_policies WHERE policyname = 'tenant' AND cmd = 'ALL'"
        policies = set(connection.exec_driver_sql(query).scalars())
        forced = "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
        assert policies == set(connection.exec_driver_sql(forced).scalars()) == set(fenced())
        assert NO_TENANT.keys() <= set(inspect(connection).get_table_names())


def test_without_any_condition_a_tenant_sees_half_of_everything(filled: PromptStore) -> None:
    with filled._database.read(EVERY_TENANT) as connection:
        both = rows(connection)
    # Whoever something is shared with sees the grants, and what its own audit log tells of them.
    with filled._database.read("dogwood") as connection:
        borrowed = rows(connection)
    assert {name for name, number in borrowed.items() if number} == {"grants", "audit", "audit_heads"}
    both |= {name: both[name] - borrowed[name] for name in ("audit", "audit_heads")}
    seen = []
    for tenant in UNIQUE:
        with filled._database.read(tenant) as connection:
            seen.append(rows(connection))
            for name in ("tasks", "files", "jobs", "keys", "audit", "changes", "usage"):
                found = connection.exec_driver_sql(f'SELECT DISTINCT tenant FROM "{name}"').scalars().all()
                assert found == [tenant], name
    assert seen[0] == seen[1] == {name: number / 2 for name, number in both.items()}
    assert min(both.values()) >= 2, "a table that had nothing in it proves nothing"


def test_whoever_names_no_tenant_sees_nothing(filled: PromptStore, url: str) -> None:
    with filled._database.engine.connect() as connection, connection.begin():
        assert not any(rows(connection).values())
    with filled._database.read("cedar") as connection:
        assert not any(rows(connection).values())
    # chorus_app is not believed when it says every tenant: for that it has to be chorus_upkeep.
    with psycopg.connect(url) as raw:
        raw.execute("SELECT set_config('chorus.tenant', '*', true)")
        assert raw.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
        raw.execute("SET ROLE chorus_upkeep")
        assert raw.execute("SELECT count(*) FROM tasks").fetchone() == (2,)
        # What a transaction said ends with it.
        raw.commit()
        assert raw.execute("SELECT count(*) FROM tasks").fetchone() == (0,)


@contextmanager
def unscoped(store: PromptStore) -> Iterator[list[str]]:
    """The store without its own conditions on tenants. Yields the statements that lost one."""
    changed: list[str] = []

    def strip(connection: Any, cursor: Any, statement: str, *more: Any) -> tuple[str, Any]:
        stripped = CONDITION.sub("true", statement)
        if stripped != statement:
            changed.append(stripped)
        return stripped, more[0]

    event.listen(store._database.engine, "before_cursor_execute", strip, retval=True)
    try:
        yield changed
    finally:
        event.remove(store._database.engine, "before_cursor_execute", strip)


def leaks(store: PromptStore) -> list[str]:
    """What acme is shown of birch's when the store has forgotten whose it is."""
    theirs = {
        "file": store.list_files("birch").items[0].id,
        "job": store.list_jobs("birch", "tuning").items[0].id,
        "key": store.list_keys("birch").items[0].id,
    }
    # Names that acme has not, so that a row that is found is birch's.
    store.publish("birch", "hers", *example_prompt(9, labels=("maybe",)))
    store.publish_ensemble("birch", "theirs", [EnsembleMember("birch", "hers", 1)])
    found: list[str] = []
    with unscoped(store) as changed:
        lists: list[Any] = [
            store.list_tasks("acme").items,
            store.list_tasks("acme", label="maybe").items,
            store.list_ensembles("acme").items,
            store.list_files("acme").items,
            store.list_jobs("acme", "tuning").items,
            store.list_keys("acme").items,
            store.audit_rows("acme", limit=500),
            store.usage(NOW, NOW + timedelta(hours=1), tenant="acme", group_by=["tenant"]),
        ]
        found += [str(item) for items in lists for item in items if item.tenant != "acme"]
        for one in (
            lambda: store.get_task("acme", "hers"),
            lambda: store.resolve("hers", tenant="acme"),
            lambda: store.list_versions("acme", "hers").items,
            lambda: store.alias_history("acme", "hers"),
            lambda: store.get_ensemble("acme", "theirs"),
            lambda: store.get_file("acme", theirs["file"]),
            lambda: store.get_job("acme", theirs["job"]),
            lambda: store.job_events("acme", theirs["job"]),
            lambda: store.list_files("acme", cursor=encode_cursor("files", theirs["file"])).items,
            lambda: store.get_key("acme", theirs["key"]),
            lambda: store.delete_file("acme", theirs["file"]),
            lambda: store.cancel_job("acme", theirs["job"]),
            lambda: store.pause_job("acme", theirs["job"]),
            lambda: store.revoke_key("acme", theirs["key"]),
            lambda: store.delete_task("acme", "hers"),
            lambda: store.set_alias("acme", "hers", "canary", 1),
        ):
            try:
                found.append(f"found {one()}")
            except NotFoundError:
                pass
            except StoreError as error:
                if error.code != "invalid_cursor":
                    found.append(f"told {error}")
    assert len(changed) > 20
    return found


def test_with_its_own_scoping_off_the_store_shows_and_changes_nothing_of_another(
    filled: PromptStore,
) -> None:
    assert leaks(filled) == []
    assert filled.get_task("birch", "hers").aliases == {"live": 1}
    assert filled.list_jobs("birch", "tuning").items[0].status == "queued"
    assert filled.list_keys("birch").items[0].revoked_at is None


@pytest.mark.parametrize("login", ["chorus", "chorus_migrate"])
def test_control_a_superuser_and_an_owner_without_the_fence_are_shown_it(
    tmp_path: Path, postgres_server: PostgresServer, login: str
) -> None:
    url = postgres_server.create()
    postgres_server.fence(url)
    url = as_role(url, login)
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        assert login in str(store.fence_fault())
        fill(store)
        if login != "chorus":
            assert leaks(store) == [], "FORCE holds the owner too"
            with psycopg.connect(url) as raw:
                for name in fenced():
                    raw.execute(f'ALTER TABLE "{name}" DISABLE ROW LEVEL SECURITY')
                raw.commit()
        assert len(leaks(store)) > 15


def test_another_tenants_rows_cannot_be_written(filled: PromptStore) -> None:
    with filled._database.write("acme") as connection:
        for statement in ("UPDATE tasks SET description = 'x'", "DELETE FROM job_events"):
            assert connection.exec_driver_sql(statement).rowcount == 1
    with filled._database.read("birch") as connection:
        assert connection.exec_driver_sql("SELECT description FROM tasks").scalars().all() == [""]
        assert connection.exec_driver_sql("SELECT count(*) FROM job_events").scalar() == 1
        (task,) = connection.exec_driver_sql("SELECT id FROM tasks").scalars()
    for statement in (
        "UPDATE tasks SET tenant = 'birch'",
        "INSERT INTO task_labels VALUES ('birch', 'x', 'sst2', 1)",
        f"INSERT INTO aliases VALUES ({task}, 'canary', 1)",
    ):
        with pytest.raises(StoreError, match="row-level security"):
            _write(filled, "acme", statement)
    # Control: the same is nobody else's business in one's own.
    _write(filled, "birch", f"INSERT INTO aliases VALUES ({task}, 'canary', 1)")


def _write(store: PromptStore, tenant: str, statement: str) -> None:
    store._database._tells = True
    with store._database.write(tenant) as connection:
        connection.exec_driver_sql(statement)


def test_a_transaction_moves_to_another_tenant_and_back(filled: PromptStore) -> None:
    owners = "SELECT tenant FROM tasks ORDER BY tenant"

    def seen(connection: Connection) -> list[str]:
        return list(connection.exec_driver_sql(owners).scalars())

    with filled._database.read("acme") as connection:
        with scoped(connection, "birch"):
            assert seen(connection) == ["birch"]
            with scoped(connection, EVERY_TENANT):
                assert seen(connection) == ["acme", "birch"]
            with pytest.raises(KeyError), scoped(connection, EVERY_TENANT):
                raise KeyError
            assert seen(connection) == ["birch"]
        assert seen(connection) == ["acme"]


def test_members_of_another_tenant_stay_in_an_ensemble(filled: PromptStore) -> None:
    """They are another's rows, and a part of what the ensemble's owner made."""
    filled.share("task", "birch", "sst2", "acme", ["infer"])
    members = [EnsembleMember("acme", "sst2", 1), EnsembleMember("birch", "sst2", 2)]
    filled.publish_ensemble("acme", "mixed", members)
    assert filled.get_ensemble("acme", "mixed").latest.members == tuple(members)


def test_a_login_that_could_see_nothing_is_refused(
    tmp_path: Path, postgres_server: PostgresServer, url: str
) -> None:
    with psycopg.connect(as_role(url, "chorus").replace("chorus_app", "chorus")) as raw:
        raw.execute("DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        raw.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO plain")
    with pytest.raises(StoreError, match=r"roles\.sql"):
        PromptStore.open(tmp_path, database_url=url.replace("chorus_app", "plain"))


def test_who_may_not_change_the_tables_is_told_who_may(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    url = postgres_server.create()
    postgres_server.fence(url)
    with pytest.raises(StoreError, match="chorus store migrate"):
        PromptStore.open(tmp_path, database_url=as_role(url, "chorus_app"))
    PromptStore.open(tmp_path, database_url=as_role(url, "chorus_migrate")).close()
    with closing(PromptStore.open(tmp_path, database_url=as_role(url, "chorus_app"))) as store:
        assert store.fence_fault() is None and store.check().clean


def test_that_no_fence_stands_is_logged_and_a_table_without_one_is_named(
    tmp_path: Path, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    PromptStore.open(tmp_path, database_url=postgres_server.emptied()).close()
    assert "row-level security" not in caplog.text
    PromptStore.open(tmp_path, database_url=postgres_server.emptied("chorus")).close()
    assert caplog.text.count("row-level security is not up: no policy holds the login chorus,") == 1
    url = postgres_server.create()
    postgres_server.fence(url)
    PromptStore.open(tmp_path / "other", database_url=as_role(url, "chorus_migrate")).close()
    assert "owns the tables" in caplog.text
    with psycopg.connect(url) as raw:
        raw.execute("ALTER TABLE files NO FORCE ROW LEVEL SECURITY")
    with closing(PromptStore.open(tmp_path / "other", database_url=as_role(url, "chorus_app"))) as store:
        assert store.fence_fault() == "these tables have no policies: files"
