"""What only PostgreSQL could get wrong: writers at once, snapshots, the order of names, a server away."""

import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event, text, update

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT, postgresql
from prompts_store.database.tables import tasks
from prompts_store.errors import InvalidError, StoreError
from prompts_store.testing import FakeClock, example_prompt
from tests.postgres_server import PostgresServer

SPEC = {"base_fingerprint": "base"}


@pytest.fixture(scope="module")
def postgres_server(both_postgres_servers: PostgresServer) -> PostgresServer:
    return both_postgres_servers


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.emptied()


@pytest.fixture
def store(tmp_path: Path, url: str) -> Iterator[PromptStore]:
    with closing(PromptStore.open(tmp_path, database_url=url)) as made:
        yield made


def test_opening_at_once_migrates_once(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.create()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            PromptStore.open(tmp_path, database_url=url).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(PromptStore.open(tmp_path, database_url=url)) as store:
        assert store.check().clean


_RUNNER = """
import sys
from pathlib import Path
from prompts_store import PromptStore
store = PromptStore.open(Path(sys.argv[1]), database_url=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while (claimed := store.claim_job("tuning", sys.argv[3], 600, "base")) is not None:
    print(claimed[0].id, claimed[1].token, flush=True)
store.close()
"""


def _claims_of_processes(folder: Path, url: str, processes: int) -> list[str]:
    """What each of several processes got that claimed at once, as `job token` lines."""
    arguments = [sys.executable, "-c", _RUNNER, str(folder), url]
    running = [
        subprocess.Popen([*arguments, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return [line for process in _let_go(running) for line in process.communicate(timeout=300)[0].splitlines()]


def _let_go(running: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return running


def test_processes_that_claim_at_once_never_get_the_same(
    store: PromptStore, tmp_path: Path, url: str
) -> None:
    made = [store.create_job(f"tenant{number % 3}", "tuning", SPEC).id for number in range(30)]
    taken = _claims_of_processes(tmp_path, url, 3)
    assert sorted(taken) == sorted(f"{job_id} 1" for job_id in made)


def _taken(stores: list[PromptStore], at_update: Callable[[], object]) -> list[str]:
    """What each of several stores got that claimed at once; `at_update` runs when one has chosen its job."""
    taken: list[str] = []
    seen: set[int] = set()

    def choosing(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("UPDATE jobs") and threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            at_update()

    def run(store: PromptStore) -> None:
        try:
            claimed = store.claim_job("tuning", "worker", 60, "base")
            taken.append(claimed[0].id if claimed else "none")
        except StoreError:
            taken.append("failed")

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for store in stores:
        event.listen(store._database.engine, "before_cursor_execute", choosing)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        event.remove(store._database.engine, "before_cursor_execute", choosing)
    return sorted(taken)


def test_a_claim_waits_for_one_that_has_chosen(store: PromptStore, url: str, tmp_path: Path) -> None:
    """The first that chose commits only when the server says that the other waits for the lock."""
    made = [store.create_job("acme", "tuning", SPEC).id for _ in range(2)]
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    saw: list[bool] = []

    def until_another_waits() -> None:
        deadline = time.monotonic() + 300
        while not saw and time.monotonic() < deadline:
            with store._database.read(EVERY_TENANT) as connection:
                if connection.exec_driver_sql(waiting).scalar():
                    saw.append(True)

    with (
        closing(PromptStore.open(tmp_path, database_url=url)) as one,
        closing(PromptStore.open(tmp_path, database_url=url)) as two,
    ):
        assert _taken([one, two], until_another_waits) == sorted(made)
    assert saw


def test_control_without_the_publish_lock_both_choose_the_same(
    store: PromptStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [store.create_job("acme", "tuning", SPEC).id for _ in range(2)]
    whose = lambda connection: connection.exec_driver_sql(postgresql.scope(connection))  # noqa: E731
    monkeypatch.setattr(postgresql, "_begin", whose)
    with (
        closing(PromptStore.open(tmp_path, database_url=url)) as one,
        closing(PromptStore.open(tmp_path, database_url=url)) as two,
    ):
        taken = _taken([one, two], threading.Barrier(2, timeout=300).wait)
    assert taken != sorted(made), "the lock made no difference"


def test_a_reader_sees_one_moment(store: PromptStore) -> None:
    store.publish("acme", "sst2", *example_prompt(1))
    with store._database.read(EVERY_TENANT) as connection:
        query = "SELECT count(*) FROM versions"
        assert connection.exec_driver_sql(query).scalar() == 1
        store.publish("acme", "sst2", *example_prompt(2))
        assert connection.exec_driver_sql(query).scalar() == 1
    with store._database.read(EVERY_TENANT) as connection:
        assert connection.exec_driver_sql(query).scalar() == 2


def test_a_reader_cannot_write(store: PromptStore) -> None:
    with (
        pytest.raises(StoreError, match="ReadOnlySqlTransaction"),
        store._database.read(EVERY_TENANT) as connection,
    ):
        connection.exec_driver_sql("DELETE FROM tasks")


def test_names_go_by_their_bytes_whatever_the_language(
    store: PromptStore, postgres_server: PostgresServer
) -> None:
    if not postgres_server.languages:
        pytest.skip("this build of PostgreSQL has no rules of languages")
    """In English '-' and '.' do not count for the order, and pages would lose names."""
    names = ["a", "a-b", "a.c", "a1", "a_b", "ab", "b"]
    for i, name in enumerate(names):
        store.publish("acme", name, *example_prompt(i))
    found: list[str] = []
    cursor = None
    while True:
        page = store.list_tasks("acme", limit=2, cursor=cursor)
        found += [task.name for task in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert found == sorted(names)
    with store._database.read(EVERY_TENANT) as connection:
        english = [
            row[0]
            for row in connection.exec_driver_sql(
                'SELECT name::text COLLATE "en-x-icu" AS n FROM tasks ORDER BY n'
            )
        ]
    assert english != sorted(names), "the server's language would not show it"


def test_a_writer_that_waits_too_long_is_told_and_a_reader_does_not_wait(
    store: PromptStore, tmp_path: Path, url: str
) -> None:
    store.publish("acme", "sst2", *example_prompt(1))
    with (
        closing(PromptStore.open(tmp_path, database_url=url)) as other,
        other._database.write(EVERY_TENANT) as lock,
    ):
        lock.execute(update(tasks).values(description="half-written"))  # its row is locked as well
        with pytest.raises(StoreError, match="The database is locked") as caught:
            store.check_writable(0.01)
        assert caught.value.code == "store_unavailable"
        store.check_readable()
        assert store.get_task("acme", "sst2").description == ""
    store.check_writable(0.01)
    assert store.get_task("acme", "sst2").description == "half-written"


def test_a_lost_connection_is_made_anew(store: PromptStore, url: str, tmp_path: Path) -> None:
    store.publish("acme", "sst2", *example_prompt(1))
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    with (
        closing(PromptStore.open(tmp_path, database_url=url)) as other,
        other._database.write("acme") as connection,
    ):
        connection.exec_driver_sql(kill)
    assert store.resolve("sst2", tenant="acme").number == 1


def test_a_commit_that_died_leaves_nothing(store: PromptStore, tmp_path: Path, url: str) -> None:
    with closing(PromptStore.open(tmp_path, database_url=url)) as other:
        with pytest.raises(StoreError), store._database.write(EVERY_TENANT) as connection:
            connection.exec_driver_sql("DELETE FROM alembic_version")
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        other.publish("acme", "sst2", *example_prompt(1))
        assert store.check().clean
    PromptStore.open(tmp_path, database_url=url).close()


def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        PromptStore.open(tmp_path, database_url=f"postgresql://chorus@/chorus?host={tmp_path}")
    assert caught.value.code == "store_unavailable"
    assert "can be reached" in caught.value.message
    assert str(tmp_path) in caught.value.message, "who starts the server must see what is wrong"


def test_what_the_server_says_of_itself_is_logged_and_not_told_to_callers(
    store: PromptStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreError) as caught, store._database.write(EVERY_TENANT) as connection:
        connection.exec_driver_sql("SELECT 1 / 0")
    assert "DivisionByZero" in caught.value.message and "division by zero" not in caught.value.message
    assert "division by zero" in caplog.text


def test_a_missing_driver_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidError, match=r"chorus-prompts\[postgresql\]") as caught:
        PromptStore.open(tmp_path, database_url="postgresql://localhost/chorus")
    assert (caught.value.code, caught.value.field) == ("invalid_database_url", "database_url")


def test_leases_run_out_by_the_stores_clock(tmp_path: Path, url: str) -> None:
    clock = FakeClock()
    with closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store:
        store.create_job("acme", "tuning", SPEC)
        assert store.claim_job("tuning", "one", 10, "base") is not None
        assert store.claim_job("tuning", "two", 10, "base") is None
        clock.advance(10)
        assert store.claim_job("tuning", "two", 10, "base") is not None


CANARY = "a text of a client's"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("INSERT INTO canaries VALUES (:v), (:v)", "23505 canaries canaries_v_key"),
        ("INSERT INTO canaries VALUES (:v, NULL)", "23502 canaries n"),
        ("SELECT CAST(:v AS bigint)", "22P02"),
    ],
)
def test_what_postgresql_repeats_of_rows_is_nowhere(
    store: PromptStore, url: str, caplog: pytest.LogCaptureFixture, statement: str, told: str
) -> None:
    """Neither in the log nor in the traceback of a defect; where it went wrong is there."""
    table = "CREATE TEMP TABLE canaries (v text UNIQUE, n int NOT NULL DEFAULT 1)"
    with pytest.raises(StoreError) as caught, store._database.write(EVERY_TENANT) as connection:
        connection.execute(text(table))
        connection.execute(text(statement), {"v": CANARY})
    everything = caplog.text + "".join(traceback.format_exception(caught.value))
    assert told in everything and CANARY not in everything

    with psycopg.connect(url) as plain:  # the control: the driver's own error has it
        plain.execute(table)
        with pytest.raises(psycopg.Error, match=CANARY):
            plain.execute(statement.replace(":v", "%(v)s"), {"v": CANARY})  # type: ignore[arg-type]
