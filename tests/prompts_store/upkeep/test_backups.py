"""Backups, between all kinds of databases and places: what is restored is what was there, to the bit."""

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect

from prompts_store import PromptStore
from prompts_store.audit.records import OF_THE_STORE
from prompts_store.blobs import BlobAddress
from prompts_store.database import EVERY_TENANT
from prompts_store.errors import ConflictError, CorruptError, NotFoundError, StoreError
from prompts_store.records import EnsembleMember
from prompts_store.testing import FakeClock, example_file, example_prompt, file_bytes
from prompts_store.upkeep import backups
from prompts_store.upkeep.backups import ROWS_FILE

Open = Callable[[Path, str], PromptStore]


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a store on a folder: `sqlite` and `folder`, or `postgresql`, as `chorus_app`, and `bucket`."""
    made = []

    def open_one(folder: Path, kind: str) -> PromptStore:
        url = blobs = None
        if kind == "postgresql":
            server = request.getfixturevalue("postgres_server")
            url, blobs = server.emptied(), request.getfixturevalue("s3_server").address()
        made.append(PromptStore.open(folder, database_url=url, blobs=blobs))
        return made[-1]

    yield open_one
    for store in made:
        store.close()


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], BlobAddress]:
    def place(kind: str) -> BlobAddress:
        if kind == "bucket":
            found: BlobAddress = request.getfixturevalue("s3_server").address()
            return found
        return BlobAddress(f"file://{tmp_path}/backup")

    return place


def fill(store: PromptStore) -> None:
    store.create_tenant("acme")
    for seed in (1, 2, 3):
        store.publish("acme", "sst2", *example_prompt(seed, labels=("yes", "no")))
    store.set_alias("acme", "sst2", "live", 2)
    store.delete_version("acme", "sst2", 3)
    store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 1)])
    file = example_file(store, b"text,label\n" * 1000)
    store.create_job("acme", "tuning", {"base_fingerprint": "base"}, files={"data.train.file": file.id})
    store.create_key("acme", "website", scopes=["infer"])


def seen(store: PromptStore) -> object:
    """Everything that a caller can see, bytes included."""
    assert store.check().clean
    versions = store.list_versions("acme", "sst2").items
    files = store.list_files("acme").items
    return (
        versions,
        [store.values(version.manifest.digest).tobytes() for version in versions],
        store.alias_history("acme", "sst2"),
        store.list_ensembles("acme").items,
        [(file, file_bytes(store, "acme", file.id)) for file in files],
        store.list_jobs("acme", "tuning").items,
        store.list_keys("acme").items,
        [row.hash for row in store.every_audit_row("acme")],
    )


@pytest.mark.parametrize(
    ("source", "place", "into"),
    [("sqlite", "folder", "sqlite"), ("sqlite", "bucket", "postgresql"), ("postgresql", "folder", "sqlite")],
)
def test_what_is_restored_is_what_was_there(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress], source: str, place: str, into: str
) -> None:
    store, address = opened(tmp_path / "old", source), target(place)
    fill(store)
    report = store.backup(address)
    assert (report.blobs, report.files, report.damaged) == (2, 1, ())
    restored = opened(tmp_path / "new", into)
    assert restored.restore(address).blobs == 2
    assert seen(restored) == seen(store)
    assert [row.action for row in restored.every_audit_row(OF_THE_STORE)] == ["store.restore"]
    assert restored.pairing().one and restored.pairing().id != store.pairing().id
    # It goes on counting where the other was.
    assert restored.publish("acme", "sst2", *example_prompt(4)).version.number == 4
    assert example_file(restored, b"more").id and restored.check().clean


def test_a_backup_is_made_while_others_write_and_collect(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress]
) -> None:
    """It is of one moment: whatever it has is whole. The second copies only what is new."""
    store, address = opened(tmp_path / "old", "sqlite"), target("folder")
    fill(store)
    begun, over, written = threading.Event(), threading.Event(), list[int]()

    def disturb() -> None:
        seed = 100
        while not over.is_set():
            seed += 1
            number = store.publish("acme", "busy", *example_prompt(seed)).version.number
            store.set_alias("acme", "busy", "live", number)
            if number > 1:
                store.delete_version("acme", "busy", number - 1)
            store.delete_file("acme", example_file(store, f"{seed}".encode()).id)
            store.collect(grace_seconds=3600)  # longer than any backup takes
            written.append(number)
            begun.set()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert begun.wait(300)  # every backup has something of the others
        before = len(written)
        reports = [store.backup(address) for _ in range(4)]
        while len(written) == before and thread.is_alive():  # a busy machine may not have come to them
            reports.append(store.backup(address))
    finally:
        over.set()
        thread.join()
    assert len(written) > before, "nobody wrote"
    assert all(not report.damaged for report in reports) and reports[1].blobs < reports[0].blobs + 2
    restored = opened(tmp_path / "new", "sqlite")
    restored.restore(address)
    assert restored.check().clean
    (live,) = (task for task in restored.list_tasks("acme").items if task.name == "busy")
    assert live.versions >= 1 and restored.resolve("busy", tenant="acme")


def test_a_backup_that_dies_leaves_the_earlier_one(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address = opened(tmp_path / "old", "sqlite"), target("folder")
    fill(store)
    store.backup(address)
    before = seen(store)
    store.publish("acme", "sst2", *example_prompt(7))

    def die(*arguments: object) -> int:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(backups, "_copy_rows", die)
        with pytest.raises(StoreError):
            store.backup(address)
        with pytest.raises(StoreError):
            opened(tmp_path / "broken", "sqlite").restore(address)
    restored = opened(tmp_path / "new", "sqlite")
    restored.restore(address)
    assert seen(restored) == before
    broken = PromptStore.open(tmp_path / "broken")
    with closing(broken):
        broken.restore(address)  # it goes on
        assert seen(broken) == before


@pytest.mark.parametrize("damage", ["cut", "mixed", "other"])
def test_rows_that_are_damaged_are_not_restored(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress], damage: str
) -> None:
    store, address = opened(tmp_path / "old", "sqlite"), target("folder")
    fill(store)
    store.backup(address)
    rows = tmp_path / "backup" / ROWS_FILE
    content = rows.read_bytes()
    half = len(content) // 2
    rows.write_bytes({"cut": content[:half], "mixed": content[:half] + bytes(half), "other": b"rows"}[damage])
    new = opened(tmp_path / "new", "sqlite")
    with pytest.raises(CorruptError) as caught:
        new.restore(address)
    assert caught.value.code == "corrupt_file"
    rows.write_bytes(content)
    new.restore(address)
    assert seen(new) == seen(store)


def test_copies_of_a_bucket_do_not_pile_up(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when a backup is made nor when it is restored: the disk for it may be small."""
    store, new = opened(tmp_path / "old", "sqlite"), opened(tmp_path / "new", "sqlite")
    fill(store)
    for number in range(5):
        example_file(store, f"row {number}".encode())
    held, opened_before = [], backups._opened

    def looking(place: BlobAddress, scratch: Path) -> object:
        blobs, contents = opened_before(place, scratch)
        size = contents.size

        def sized(digest: str) -> int | None:
            held.append(sum(1 for path in scratch.glob("cache/??/*")))
            return size(digest)

        monkeypatch.setattr(contents, "size", sized)
        return blobs, contents

    monkeypatch.setattr(backups, "_opened", looking)
    address = target("bucket")
    assert store.backup(address).files == 6
    assert held and max(held) == 0
    assert new.restore(address).files == 6 and seen(new) == seen(store)


def test_damage_is_told_and_left_out(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress]
) -> None:
    store, address = opened(tmp_path / "old", "sqlite"), target("folder")
    fill(store)
    digest = example_prompt(1, labels=("yes", "no"))[1].digest
    store._blobs.put(digest, b"damaged", now=FakeClock()())
    assert store.backup(address).damaged == (digest,)
    restored = opened(tmp_path / "new", "sqlite")
    assert restored.restore(address).damaged == (digest,)
    assert [problem.kind for problem in restored.check().problems] == ["missing_blob"]


def test_what_is_in_the_way_is_told(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress]
) -> None:
    store, other = opened(tmp_path / "old", "sqlite"), opened(tmp_path / "other", "sqlite")
    fill(store)
    address = target("folder")
    with pytest.raises(NotFoundError) as absent:
        other.restore(address)
    assert absent.value.code == "no_store"
    store.backup(address)
    for mistake, code in (
        (lambda: other.backup(address), "other_store"),
        (lambda: store.backup(BlobAddress(f"file://{tmp_path}/old")), "other_store"),
        (lambda: store.restore(address), "store_not_empty"),
    ):
        with pytest.raises(ConflictError) as caught:
            mistake()
        assert caught.value.code == code
    assert (tmp_path / "backup" / ROWS_FILE).stat().st_mode & 0o777 == 0o600


def test_sessions_are_neither_backed_up_nor_restored(
    tmp_path: Path, opened: Open, target: Callable[[str], BlobAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who signed out after the backup stays out, also with a backup that an earlier Chorus made."""
    store, address, digest = opened(tmp_path / "old", "sqlite"), target("folder"), "ab" * 32
    over = datetime.now(UTC) + timedelta(hours=1)
    store.open_session("acme", digest, public=None, seal=digest, expires_at=over)

    def kept() -> int:
        with closing(sqlite3.connect(tmp_path / "backup" / ROWS_FILE)) as rows:
            return int(rows.execute("SELECT count(*) FROM sessions").fetchone()[0])

    store.backup(address)
    assert kept() == 0
    with monkeypatch.context() as patch:
        patch.setattr(backups, "_kept_tables", backups._content_tables)
        store.backup(address)
    assert kept() == 1, "control"
    restored = opened(tmp_path / "new", "sqlite")
    restored.restore(address)
    assert restored.find_session(digest) is None and store.find_session(digest) is not None


def test_every_table_is_known(tmp_path: Path, opened: Open) -> None:
    """Also one that somebody adds: what is copied goes by what the code knows of the tables."""
    with opened(tmp_path, "sqlite")._database.read(EVERY_TENANT) as connection:
        there = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert there == {table.name for table in backups.metadata.sorted_tables}


@pytest.mark.parametrize("content", [b"", b"no database " * 1000, None], ids=["empty", "other", "torn"])
def test_a_damaged_earlier_backup_is_told_with_its_place(
    disk_store: PromptStore, tmp_path: Path, content: bytes | None
) -> None:
    target = BlobAddress(f"file://{tmp_path}/backup")
    disk_store.backup(target)
    rows = tmp_path / "backup" / ROWS_FILE
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CorruptError, match=f"{tmp_path}/backup/{ROWS_FILE} is damaged .*remove that file"):
        disk_store.backup(target)
    rows.unlink()
    disk_store.backup(target)  # as it says


def test_what_is_on_its_way_is_in_the_data_folder_and_does_not_stay(
    disk_store: PromptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not where the system has temporary files, which may be small."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    scratch = tmp_path / "data" / backups.SCRATCH
    old, fresh = scratch / "chorus-backup-old", scratch / "chorus-backup-fresh"
    for each in (old, fresh):
        each.mkdir(parents=True)
    os.utime(old, (0, 0))
    disk_store.backup(BlobAddress(f"file://{tmp_path}/backup"))
    assert list(scratch.iterdir()) == [fresh], "what a killed process left goes after a day"
    with closing(PromptStore.in_memory()) as other, pytest.raises(FileNotFoundError):  # the control
        other.backup(BlobAddress(f"file://{tmp_path}/other"))


def test_a_backup_that_takes_days_is_left_alone(
    disk_store: PromptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one begins meanwhile, and removes only what nobody works on."""
    named, begun = backups._named, []

    def slow(connection: Connection) -> object:
        (own,) = (tmp_path / "data" / backups.SCRATCH).iterdir()
        os.utime(own, (0, 0))
        with monkeypatch.context() as patch:
            patch.setattr(backups, "_named", named)
            disk_store.backup(BlobAddress(f"file://{tmp_path}/other"))
        begun.append(own.exists())
        return named(connection)

    monkeypatch.setattr(backups, "_named", slow)
    disk_store.backup(BlobAddress(f"file://{tmp_path}/backup"))
    assert begun == [True, True]


def test_what_another_process_removes_fails_no_backup(
    disk_store: PromptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "data" / backups.SCRATCH
    gone = scratch / "chorus-backup-gone"
    gone.mkdir(parents=True)
    entries = Path.iterdir

    def raced(self: Path) -> Iterator[Path]:
        found = list(entries(self))
        if self == scratch:
            shutil.rmtree(gone, ignore_errors=True)
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", raced)
    disk_store.backup(BlobAddress(f"file://{tmp_path}/backup"))
    assert list(entries(scratch)) == []
