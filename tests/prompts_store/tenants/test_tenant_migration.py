"""From a data folder that 0.1.0 left: whoever owned anything is a tenant, and everything is still theirs."""

import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import inspect

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.migrate import alembic_config
from prompts_store.records import EnsembleMember
from prompts_store.tenants.limits import TenantLimits
from prompts_store.tenants.records import Retention, Tenant
from prompts_store.testing import FakeClock, example_file, example_prompt, file_bytes
from tests.older_store import LATER_COLUMNS, older_store
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.usefixtures("real_migrations")

ARCHIVE = Path(__file__).parents[2] / "fixtures" / "store" / "of_0_1_0.zip"
BEGUN = datetime(2026, 3, 1, tzinfo=UTC)
OLD_TABLES = (
    "tasks", "versions", "aliases", "alias_moves", "ensembles", "ensemble_versions", "ensemble_members",
    "files", "jobs", "job_files", "job_events", "blobs", "task_labels", "store_identity",
)  # fmt: skip


def tenant(name: str, minutes: int) -> Tenant:
    created_at = BEGUN + timedelta(minutes=minutes)
    return Tenant(name, "", 1.0, "active", TenantLimits(), Retention(None, None), created_at)


def rows(store: PromptStore) -> dict[str, list[Any]]:
    later = {column for _, column, _ in LATER_COLUMNS}
    with store._database.read(EVERY_TENANT) as connection:
        return {
            name: sorted(
                str({column: value for column, value in row.items() if column not in later})
                for row in connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()
            )
            for name in OLD_TABLES
        }


def test_a_folder_of_0_1_0_gets_its_tenants(tmp_path: Path, clock: FakeClock) -> None:
    shutil.unpack_archive(ARCHIVE, tmp_path)
    with older_store("0005"), closing(PromptStore.open(tmp_path, clock=clock)) as store:
        with store._database.read(EVERY_TENANT) as connection:
            assert "tenants" not in inspect(connection).get_table_names()
        before = rows(store)
        assert all(before.values())
    with closing(PromptStore.open(tmp_path, clock=clock)) as store:
        assert rows(store) == before, "every row as it was, with its tenant"
        assert list(store.list_tenants().items) == [
            tenant("acme", 0), tenant("birch", 3), tenant("cedar", 3), tenant("dogwood", 3), tenant("elm", 4),
        ]  # fmt: skip
        assert store.check().clean and store.pairing().one
        assert store.last_change() == 0 and store.list_keys("acme").items == ()
        # And it goes on: reading, writing, keys, deletion.
        version = store.resolve("sst2", tenant="acme")
        assert version.number == 2
        assert store.values(version.manifest.digest).tobytes() == example_prompt(2)[0].tobytes()
        assert [member.version for member in store.resolve_ensemble("team", tenant="birch").members] == [1, 3]
        (file,) = store.list_files("cedar").items
        assert file_bytes(store, "cedar", file.id) == b'{"text": "good", "label": "yes"}\n'
        key, secret = store.create_key("dogwood", "app", scopes=["infer"])
        found = store.find_key(secret[3:11])
        assert found is not None and found.key == key
        assert store.publish("elm", "gone", *example_prompt(5)).version.number == 2
        store.delete_tenant("cedar", grace_seconds=0)
        assert store.purge_tenants().purged == ["cedar"]
        assert store.check().clean


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_owners_of_any_kind_become_tenants_and_rows_stay(
    tmp_path: Path, clock: FakeClock, database: str, request: pytest.FixtureRequest
) -> None:
    url: str | None = None
    if database == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create()
    with older_store("0005"), closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        begun = clock()
        for name in ("b", "a"):
            store.publish(name, "task", *example_prompt(1))
            clock.advance(60)
        store.publish_ensemble("d", "team", [EnsembleMember("a", "task", 1)])
        example_file(store, b"rows", tenant="c")
        store.create_job("e", "tuning", {"base_fingerprint": "base"})
        store.create_job("a", "tuning", {"base_fingerprint": "base"})
        before = rows(store)
    minutes = {"a": 1, "b": 0, "c": 2, "d": 2, "e": 2}
    for _ in range(2):
        with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
            assert rows(store) == before
            assert {each.name: each.created_at - begun for each in store.list_tenants().items} == {
                name: timedelta(minutes=minute) for name, minute in minutes.items()
            }
            key, _ = store.create_key("a", "app", scopes=["infer"])
            assert store.find_key(key.public) is not None and store.last_change() == 1
            # Back, and here again.
            with store._database.write(EVERY_TENANT) as connection:
                command.downgrade(alembic_config(connection), "0005")
                left = set(inspect(connection).get_table_names())
            assert not left & {"tenants", "keys", "changes"}


def test_an_empty_store_has_no_tenants(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as store:
        assert store.list_tenants().items == ()
