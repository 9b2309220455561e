import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import IntegrityError

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT, sqlite
from prompts_store.errors import InvalidError, StoreError
from prompts_store.testing import example_prompt


def publish(store: PromptStore, seed: int, task: str = "sst2") -> int:
    values, manifest = example_prompt(seed)
    return store.publish("acme", task, values, manifest).version.number


def pragma(engine: Engine, name: str) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_sqlite_is_set_to_keep_what_it_acknowledged(disk_store: PromptStore) -> None:
    engine = disk_store._database.engine
    assert pragma(engine, "journal_mode") == "wal"
    assert pragma(engine, "synchronous") == 2
    assert pragma(engine, "foreign_keys") == 1
    assert pragma(engine, "busy_timeout") == sqlite.READ_PATIENCE_MS
    with disk_store._database.write(EVERY_TENANT, 7.0) as connection:
        left_ms = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    assert left_ms is not None and 0 < left_ms <= 7000


def test_the_database_itself_refuses_a_version_without_a_blob(disk_store: PromptStore) -> None:
    publish(disk_store, 1)
    engine = disk_store._database.engine
    for statement in (
        "UPDATE versions SET blob_digest = 'nothing'",
        "UPDATE versions SET blob_digest = NULL",
        "DELETE FROM blobs",
        "UPDATE aliases SET number = 2",
        "UPDATE blobs SET reference_count = -1",
        "UPDATE blobs SET reference_count = 0",
    ):
        with engine.connect() as connection, pytest.raises(IntegrityError):
            connection.execute(text(statement))


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as store:
        publish(store, 1)
    with closing(sqlite3.connect(tmp_path / "chorus.db")) as raw, raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="newer version of Chorus"):
        PromptStore.open(tmp_path)


def test_a_broken_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "chorus.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError) as caught:
        PromptStore.open(tmp_path)
    assert caught.value.code == "store_unavailable"


@pytest.mark.parametrize("url", ["postgresql+psycopg2://localhost/chorus", "nonsense", "mysql://x/y"])
def test_a_database_url_that_this_version_cannot_use_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        PromptStore.open(tmp_path, database_url=url)
    assert (caught.value.code, caught.value.field) == ("invalid_database_url", "database_url")


def test_the_metadata_may_live_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    url = f"sqlite:///{elsewhere}"
    with closing(PromptStore.open(tmp_path / "a", database_url=url)) as store:
        publish(store, 1)
    assert elsewhere.exists() and not (tmp_path / "a" / "chorus.db").exists()
    with closing(PromptStore.open(tmp_path / "b", database_url="sqlite://")) as store:
        assert store.list_tasks("acme").items == ()


def test_a_percent_sign_in_the_folder_is_only_a_character(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path / "100%(a)s")) as store:
        assert publish(store, 1) == 1


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as store:
        publish(store, 1)
        publish(store, 2)
        store.set_alias("acme", "sst2", "live", 2)
        before = (store.resolve("sst2", tenant="acme"), store.alias_history("acme", "sst2").items)
    with closing(PromptStore.open(tmp_path)) as store:
        assert (store.resolve("sst2", tenant="acme"), store.alias_history("acme", "sst2").items) == before
        assert store.rollback("acme", "sst2").version == 1


def test_a_writer_that_waits_too_long_is_told_and_a_reader_does_not_wait(tmp_path: Path) -> None:
    with (
        closing(PromptStore.open(tmp_path)) as store,
        closing(sqlite3.connect(tmp_path / "chorus.db")) as raw,
    ):
        publish(store, 1)
        raw.execute("BEGIN EXCLUSIVE")
        raw.execute("UPDATE tasks SET description = 'half-written'")
        with pytest.raises(StoreError, match="The database is locked") as caught:
            store.check_writable(0.01)
        assert caught.value.code == "store_unavailable"
        store._database.engine.dispose()  # a connection that is made now does not wait either
        store.check_readable()
        assert store.get_task("acme", "sst2").description == ""
        raw.execute("COMMIT")
        store.check_writable(0.01)


def test_writers_of_one_process_wait_no_longer_than_those_of_others(disk_store: PromptStore) -> None:
    """The one at the head of the queue holds the lock for all: those behind it must not wait once more."""
    told: list[StoreError] = []

    def run() -> None:
        try:
            disk_store.check_writable(0.01)
        except StoreError as error:
            told.append(error)

    with disk_store._database.write(EVERY_TENANT):
        waiting = threading.Thread(target=run)
        waiting.start()
        waiting.join()  # while the lock is still held
    assert [error.code for error in told] == ["store_unavailable"]
    disk_store.check_writable(0.01)


def test_two_stores_on_one_database_see_each_other_at_once(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as one, closing(PromptStore.open(tmp_path)) as two:
        publish(one, 1)
        assert two.resolve("sst2", tenant="acme").number == 1
        publish(two, 2)
        two.set_alias("acme", "sst2", "live", 2)
        assert one.resolve("sst2", tenant="acme").number == 2
        one.delete_task("acme", "sst2")
        assert two.list_tasks("acme").items == ()


_PUBLISHER = """
import sys
from pathlib import Path
from prompts_store import PromptStore
from prompts_store.testing import example_prompt
store = PromptStore.open(Path(sys.argv[1]))
values, manifest = example_prompt(int(sys.argv[2]))
print(store.publish("acme", "sst2", values, manifest).version.number)
store.close()
"""


def test_processes_open_and_publish_at_once(tmp_path: Path) -> None:
    """All make the database, all migrate it, all want the next number."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PUBLISHER, str(tmp_path / "data"), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    numbers = [process.communicate(timeout=1200)[0] for process in processes]
    assert sorted(int(number) for number in numbers) == [1, 2, 3, 4]
    with closing(PromptStore.open(tmp_path / "data")) as store:
        assert store.check().clean
        assert store.get_task("acme", "sst2").versions == 4


def test_threads_publish_at_once(disk_store: PromptStore) -> None:
    """Some the same manifest, some others: one version each, and no number twice."""
    start = threading.Barrier(8)
    numbers: list[tuple[int, int]] = []

    def run(seed: int) -> None:
        start.wait()
        numbers.append((seed, publish(disk_store, seed)))

    threads = [threading.Thread(target=run, args=(thread % 4,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers) == 8
    assert len(set(numbers)) == 4 and {number for _, number in numbers} == {1, 2, 3, 4}
    assert disk_store.check().clean


def test_opening_and_closing_leaves_nothing_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("no /proc on this system to count descriptors in")
    with closing(PromptStore.open(tmp_path)) as store:
        publish(store, 1)
    before = len(list(folder.iterdir()))
    for seed in range(10):
        with closing(PromptStore.open(tmp_path)) as store:
            publish(store, seed)
    assert len(list(folder.iterdir())) <= before  # some of an earlier test's may be closed meanwhile


def test_the_engine_is_only_made_for_sqlite_files_and_memory() -> None:
    assert sqlite.is_memory(make_url("sqlite://"))
    assert sqlite.is_memory(make_url("sqlite:///:memory:"))
    assert not sqlite.is_memory(make_url("sqlite:///chorus.db"))
