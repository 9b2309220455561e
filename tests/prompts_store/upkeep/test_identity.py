"""A database and a folder that do not belong together: served, and never collected."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from prompts_store import PromptStore
from prompts_store.database import Database
from prompts_store.errors import ConflictError, NotFoundError
from prompts_store.testing import FakeClock, example_file, example_prompt
from prompts_store.upkeep.collector import MASS_REMOVAL, CollectReport
from prompts_store.upkeep.identity import Identity
from tests.postgres_server import PostgresServer

MANY = 24


def fill(store: PromptStore, count: int = MANY, *, first: int = 0) -> None:
    """So many prompts and as many data files."""
    for seed in range(first, first + count):
        store.publish("acme", f"task-{seed}", *example_prompt(seed))
        example_file(store, f"rows {seed}".encode())


def empty(store: PromptStore) -> None:
    for task in store.list_tasks("acme", limit=500).items:
        store.delete_task("acme", task.name)
    for file in store.list_files("acme", limit=500).items:
        store.delete_file("acme", file.id)


def kept(folder: Path) -> tuple[int, int]:
    """How many blobs and contents are in a data folder."""
    return len(list(folder.glob("blobs/??/*"))), len(list(folder.glob("files/??/*")))


def lose_database(folder: Path) -> None:
    for file in folder.glob("chorus.db*"):
        file.unlink()


def refused(store: PromptStore, *, allow_mass_removal: bool = False) -> ConflictError:
    with pytest.raises(ConflictError) as caught:
        store.collect(grace_seconds=0, allow_mass_removal=allow_mass_removal)
    return caught.value


@pytest.fixture
def folder(tmp_path: Path, clock: FakeClock) -> Path:
    """A data folder of 24 blobs and 24 data files, whose database was lost."""
    folder = tmp_path / "data"
    with closing(PromptStore.open(folder, clock=clock)) as store:
        fill(store)
    lose_database(folder)
    clock.advance(7200)
    return folder


def test_what_is_made_together_carries_one_id(disk_store: PromptStore, tmp_path: Path) -> None:
    pairing = disk_store.pairing()
    assert pairing.one and pairing.id is not None
    for name in ("blobs", "files"):
        file = tmp_path / "data" / name / "store-id"
        assert file.read_text() == f"{pairing.id}\n" and file.stat().st_mode & 0o777 == 0o600
    with closing(PromptStore.open(tmp_path / "data")) as again:
        assert again.pairing() == pairing
    with closing(PromptStore.open(tmp_path / "other")) as other:
        assert other.pairing().one and other.pairing().id != pairing.id


def test_every_form_of_store_collects(store: PromptStore, clock: FakeClock) -> None:
    fill(store, 3)
    empty(store)
    clock.advance(1)
    report = store.collect(grace_seconds=0)
    assert (report.blobs, report.files) == (3, 3)
    assert store.pairing().one and store.check().clean


def test_a_fresh_database_beside_old_blobs_removes_none(
    folder: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(PromptStore.open(folder, clock=clock)) as store:
        (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        # Serving goes on.
        fill(store, 1, first=100)
        assert store.resolve("task-100", tenant="acme").number == 1
        clock.advance(7200)
        error = refused(store, allow_mass_removal=True)
        assert error.code == "other_store" and error.message == warning
        pairing = store.pairing()
        theirs = pairing.folders[0].id
        assert pairing.id is not None and theirs is not None
        assert pairing.id in error.message and theirs in error.message
        assert "chorus store adopt" in error.message
        assert [problem.kind for problem in store.check().problems] == ["other_store"]
        assert kept(folder) == (MANY + 1, MANY + 1)


def test_control_without_the_ids_it_removes_all(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Identity, "require", lambda *_: None)
    monkeypatch.setattr("prompts_store.upkeep.collector.MASS_REMOVAL", MANY)
    with closing(PromptStore.open(folder, clock=clock)) as store:
        assert (store.collect(grace_seconds=3600).orphans, kept(folder)) == (MANY, (0, 0))


def test_the_brake_alone_keeps_them_too(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Identity, "require", lambda *_: None)
    with closing(PromptStore.open(folder, clock=clock)) as store:
        error = refused(store)
        assert error.code == "mass_removal" and f"{MANY} of {MANY} blobs" in error.message
        assert kept(folder) == (MANY, MANY)


def test_the_right_database_is_trusted_again_after_an_adoption(folder: Path, clock: FakeClock) -> None:
    with closing(PromptStore.open(folder, clock=clock)) as store:
        blobs, files = store.pairing().folders
        assert (blobs.held, blobs.known, blobs.needed, blobs.present) == (MANY, 0, 0, 0)
        assert (files.held, files.known) == (MANY, 0)
        store.adopt()
        assert store.pairing().one and store.check().clean
        # The brake still protects what the database does not know.
        assert refused(store).code == "mass_removal" and kept(folder) == (MANY, MANY)
        report = store.collect(grace_seconds=0, allow_mass_removal=True)
        assert (report.orphans, report.files, kept(folder)) == (MANY, MANY, (0, 0))
    with closing(PromptStore.open(folder, clock=clock)) as store:
        assert store.pairing().one


def test_a_backup_of_the_database_fits_its_folder(tmp_path: Path, clock: FakeClock) -> None:
    folder = tmp_path / "data"
    with closing(PromptStore.open(folder, clock=clock)) as store:
        fill(store, 2)
    shutil.copy(folder / "chorus.db", tmp_path / "backup.db")
    with closing(PromptStore.open(folder, clock=clock)) as store:
        fill(store, 1, first=2)
    lose_database(folder)
    with closing(PromptStore.open(folder, clock=clock)) as store:
        assert refused(store).code == "other_store"
    lose_database(folder)
    shutil.copy(tmp_path / "backup.db", folder / "chorus.db")
    with closing(PromptStore.open(folder, clock=clock)) as store:
        assert store.pairing().one and store.check().clean
        clock.advance(1)
        assert store.collect(grace_seconds=0).orphans == 1


def test_a_database_beside_another_ones_folder_removes_nothing(
    tmp_path: Path, clock: FakeClock, postgres_server: PostgresServer
) -> None:
    url, ours, theirs = postgres_server.create(), tmp_path / "ours", tmp_path / "theirs"
    with closing(PromptStore.open(theirs, clock=clock)) as store:
        fill(store)
    with closing(PromptStore.open(ours, database_url=url, clock=clock)) as store:
        fill(store, 2, first=50)
    clock.advance(7200)
    with closing(PromptStore.open(theirs, database_url=url, clock=clock)) as store:
        assert refused(store, allow_mass_removal=True).code == "other_store"
        assert kept(theirs) == (MANY, MANY)
    with closing(PromptStore.open(ours, database_url=url, clock=clock)) as store:
        assert store.collect(grace_seconds=0) == CollectReport() and store.check().clean


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_folder_that_was_not_mounted_gets_no_id(
    tmp_path: Path, clock: FakeClock, kind: str, request: pytest.FixtureRequest
) -> None:
    """An empty folder where the database's blobs should be; later the right one comes back."""
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("postgres_server").create()
    with closing(PromptStore.open(tmp_path / "data", database_url=url, clock=clock)) as store:
        fill(store, 2)
    with closing(PromptStore.open(tmp_path / "empty", database_url=url, clock=clock)) as store:
        error = refused(store)
        assert error.code == "other_store" and "blobs and files no id" in error.message
        assert {"other_store", "missing_blob", "missing_file"} == {p.kind for p in store.check().problems}
    with closing(PromptStore.open(tmp_path / "data", database_url=url, clock=clock)) as store:
        assert store.pairing().one and store.check().clean


def test_blobs_and_data_files_are_recognised_each_by_itself(tmp_path: Path, clock: FakeClock) -> None:
    """One of the two folders is another store's, as with a volume for each."""
    for name in ("one", "two"):
        with closing(PromptStore.open(tmp_path / name, clock=clock)) as store:
            fill(store)
    clock.advance(7200)
    shutil.rmtree(tmp_path / "one" / "files")
    shutil.copytree(tmp_path / "two" / "files", tmp_path / "one" / "files")
    with closing(PromptStore.open(tmp_path / "one", clock=clock)) as store:
        empty(store)
        error = refused(store, allow_mass_removal=True)
        assert error.code == "other_store" and "files the id" in error.message
        assert kept(tmp_path / "one") == (MANY, MANY)


@pytest.mark.parametrize("content", ["", "not an id", "\x00\xff"])
def test_a_damaged_id_is_nobodys(disk_store: PromptStore, tmp_path: Path, content: str) -> None:
    (tmp_path / "data" / "blobs" / "store-id").write_text(content)
    assert refused(disk_store).code == "other_store"
    disk_store.adopt()
    assert disk_store.collect(grace_seconds=0) == CollectReport()


class Passing(Database):
    """A database whose `before_lock` runs before the k-th time that the publish lock is taken."""

    locks = 0

    def arm(self, lock: int, before_lock: object) -> None:
        self.locks, self.lock, self.before_lock = 0, lock, before_lock

    @contextmanager
    def write(self, tenant: str) -> Iterator[Connection]:
        self.locks += 1
        if self.locks == getattr(self, "lock", 0):
            self.before_lock()  # type: ignore[operator]
        with super().write(tenant) as connection:
            yield connection


@pytest.mark.parametrize("looks_again", [True, False])
def test_a_folder_that_is_adopted_during_a_collection_loses_no_more(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, looks_again: bool
) -> None:
    """Each batch looks at the ids again. The control looks once, and removes what is another's by then."""
    monkeypatch.setattr("prompts_store.upkeep.collector.BATCH", 2)
    with closing(PromptStore.open(tmp_path, clock=clock)) as store:
        fill(store, 6)
        empty(store)
        clock.advance(1)
        database = Passing(store._database.engine, memory=False)
        passing = PromptStore(database, store._blobs, clock, contents=store._contents)
        database.arm(
            3, lambda: store._blobs.identify("another", now=clock(), instead_of=store._blobs.identity())
        )
        if looks_again:
            assert refused(passing).code == "other_store"
        else:
            monkeypatch.setattr(Identity, "require", lambda *_: None)
            passing.collect(grace_seconds=0)
        assert kept(tmp_path) == ((4, 6) if looks_again else (0, 0))


def orphans(store: PromptStore, clock: FakeClock, count: int) -> None:
    for number in range(count):
        store._blobs.put(f"{number:064x}", b"never named", now=clock())


@pytest.mark.parametrize(
    ("going", "staying", "goes"),
    [
        (MASS_REMOVAL, 0, True),  # all, but few
        (MASS_REMOVAL + 1, MASS_REMOVAL + 1, True),  # many, but not more than half
        (MASS_REMOVAL + 1, MASS_REMOVAL, False),
    ],
)
def test_the_brake_holds_beyond_twenty_and_a_half(
    store: PromptStore, clock: FakeClock, going: int, staying: int, goes: bool
) -> None:
    store.collect(grace_seconds=0)  # a store in memory has its id from its first collection on
    for seed in range(staying):
        store.publish("acme", f"task-{seed}", *example_prompt(seed))
    orphans(store, clock, going)
    clock.advance(10)
    if goes:
        assert store.collect(grace_seconds=5).orphans == going
        return
    assert store.plan_collection(grace_seconds=5).refusal == refused(store).message
    assert store.check().orphans == going
    plan = store.plan_collection(grace_seconds=5, allow_mass_removal=True)
    assert plan.refusal is None and len(plan.removals) == going
    assert store.collect(grace_seconds=5, allow_mass_removal=True).orphans == going
    assert store.check().clean and store.check().orphans == 0


def test_data_files_have_the_brake_as_well_and_temporary_files_do_not_count(
    disk_store: PromptStore, clock: FakeClock, tmp_path: Path
) -> None:
    fill(disk_store, MASS_REMOVAL + 1)
    for file in disk_store.list_files("acme", limit=500).items:
        disk_store.delete_file("acme", file.id)
    disk_store.delete_task("acme", "task-0")
    long_ago = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    for number in range(2 * MASS_REMOVAL):
        (tmp_path / "data" / "blobs" / "incoming" / f"{int(long_ago)}-{number:016x}").write_bytes(b"half")
    clock.advance(1)
    error = refused(disk_store)
    assert error.code == "mass_removal" and "21 of 21 data files" in error.message
    assert kept(tmp_path / "data") == (MASS_REMOVAL + 1, MASS_REMOVAL + 1), "not the blob either"
    for number in range(MASS_REMOVAL + 1):
        example_file(disk_store, f"more {number}".encode())
    plan = disk_store.plan_collection(grace_seconds=0)
    kinds = [one.kind for one in plan.removals]
    assert (kinds.count("blob"), kinds.count("file"), plan.temporary_files) == (1, 21, 40)
    report = disk_store.collect(grace_seconds=0)
    assert (report.blobs, report.files, report.temporary_files, report.orphans) == (1, 21, 40, 0)
    assert report.freed_bytes == sum(one.size_bytes for one in plan.removals)


def test_a_plan_takes_nothing_and_says_what_a_collection_takes(store: PromptStore, clock: FakeClock) -> None:
    fill(store, 4)
    store.delete_task("acme", "task-0")
    store.delete_file("acme", store.list_files("acme").items[0].id)
    orphans(store, clock, 1)
    clock.advance(60)
    store.delete_task("acme", "task-1")
    for _ in range(2):
        plan = store.plan_collection(grace_seconds=30)
        assert sorted(one.kind for one in plan.removals) == ["blob", "file", "orphan"]
    report = store.collect(grace_seconds=30)
    assert (report.blobs, report.orphans, report.files) == (1, 1, 1)
    assert report.freed_bytes == sum(one.size_bytes for one in plan.removals)
    assert store.plan_collection(grace_seconds=30).removals == ()
    clock.advance(timedelta(minutes=1).total_seconds())
    (left,) = store.plan_collection(grace_seconds=30).removals
    assert left.digest == example_prompt(1)[1].digest


def test_a_look_makes_no_store(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """A wrong name of a folder, of a file or of a database must not look like a sound, empty store."""
    with pytest.raises(NotFoundError) as caught:
        PromptStore.open(tmp_path / "nowhere", make=False)
    assert caught.value.code == "no_store" and not (tmp_path / "nowhere").exists()
    with closing(PromptStore.open(tmp_path / "data")):
        pass
    elsewhere = tmp_path / "elsewhere.db"
    for url in (f"sqlite:///{elsewhere}", postgres_server.create()):
        with pytest.raises(NotFoundError) as caught:
            PromptStore.open(tmp_path / "data", database_url=url, make=False)
        assert caught.value.code == "no_store" and not elsewhere.exists()
    PromptStore.open(tmp_path / "data", make=False).close()
