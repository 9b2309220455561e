import math
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url

from prompts_store import CollectReport, PromptStore
from prompts_store.blobs import BlobEntry, Blobs, LocalBlobs
from prompts_store.blobs.format import encode
from prompts_store.database import Database
from prompts_store.errors import InvalidError, NotFoundError, StoreError
from prompts_store.records import PromptVersion
from prompts_store.testing import FakeClock, example_file, example_prompt
from prompts_store.upkeep import file_collector
from tests.postgres_server import PostgresServer, as_superuser


def publish(store: PromptStore, seed: int, task: str = "sst2") -> PromptVersion:
    values, manifest = example_prompt(seed)
    return store.publish("acme", task, values, manifest).version


def test_a_deleted_version_goes_after_the_grace_period(store: PromptStore, clock: FakeClock) -> None:
    publish(store, 1)
    version = publish(store, 2)
    clock.advance(1000)
    store.delete_version("acme", "sst2", 2)
    clock.advance(59)
    assert store.collect(grace_seconds=60) == CollectReport()
    store.values(version.manifest.digest)
    clock.advance(1)
    report = store.collect(grace_seconds=60)
    assert (report.blobs, report.freed_bytes) == (1, 128 + 4 * 15)
    with pytest.raises(NotFoundError):
        store.values(version.manifest.digest)
    assert store.collect(grace_seconds=0) == CollectReport()
    assert store.check().clean


def test_published_again_within_the_grace_period_it_stays(store: PromptStore, clock: FakeClock) -> None:
    publish(store, 1)
    version = publish(store, 2)
    store.delete_version("acme", "sst2", 2)
    clock.advance(100)
    publish(store, 2)
    assert store.collect(grace_seconds=0) == CollectReport()
    store.values(version.manifest.digest)


def test_held_until_answered(store: PromptStore) -> None:
    publish(store, 1)
    version = publish(store, 2)
    with store.hold(version), store.hold(version):
        store.delete_version("acme", "sst2", 2)
        with store.hold(version):
            assert store.collect(grace_seconds=0).held == 1
        assert store.collect(grace_seconds=0).held == 1
        store.values(version.manifest.digest)
    assert store.collect(grace_seconds=0).blobs == 1
    with pytest.raises(NotFoundError) as caught, store.hold(version):
        pytest.fail("there is nothing to hold")
    assert caught.value.code == "unknown_version"
    assert store._leases.held() == 0


def test_a_lease_ends_with_an_error_too(store: PromptStore) -> None:
    version = publish(store, 1)
    with pytest.raises(ZeroDivisionError), store.hold(version):
        raise ZeroDivisionError
    assert store._leases.held() == 0


def test_a_removal_holds_up_no_reader_and_whoever_comes_too_late_is_told(
    disk_store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The readers come from inside the removal: one that waited for it would wait for ever."""
    kept, gone = publish(disk_store, 1), publish(disk_store, 2)
    disk_store.delete_version("acme", "sst2", 2)
    remove, came = disk_store._blobs.remove, []

    def slowly(digest: str) -> int | None:
        with disk_store.hold(kept), disk_store.hold(kept, known=True):
            came.append("kept")
        for known in (False, True):
            with pytest.raises(NotFoundError, match="has no version 2"), disk_store.hold(gone, known=known):
                pytest.fail("it is being removed")
        return remove(digest)

    monkeypatch.setattr(disk_store._blobs, "remove", slowly)
    assert disk_store.collect(grace_seconds=0).blobs == 1
    assert came == ["kept"] and disk_store._leases.held() == 0


def test_orphans_of_dead_uploads_go(disk_store: PromptStore, clock: FakeClock, tmp_path: Path) -> None:
    LocalBlobs(tmp_path / "data" / "blobs").put("ab" * 32, b"never named", now=clock())
    assert disk_store.check().orphans == 1 and disk_store.check().clean
    clock.advance(10)
    assert disk_store.collect(grace_seconds=11).orphans == 0
    assert disk_store.collect(grace_seconds=10).orphans == 1
    assert disk_store.check().orphans == 0


class StoppingBlobs(LocalBlobs):
    """Stops after each put, until told to go on: an upload in flight, at its worst moment."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.stored, self.go_on = threading.Event(), threading.Event()

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        super().put(digest, content, now=now)
        self.stored.set()
        assert self.go_on.wait(300)


def _race(store: PromptStore, blobs: Blobs, collect: Any) -> PromptVersion:
    """Publish with `blobs`, and run `collect` between its put and its commit."""
    uploader = PromptStore(store._database, blobs, store._clock)
    made: list[PromptVersion] = []
    thread = threading.Thread(target=lambda: made.append(publish(uploader, 7)))
    thread.start()
    assert isinstance(blobs, StoppingBlobs)
    assert blobs.stored.wait(300)
    collect()
    blobs.go_on.set()
    thread.join()
    return made[0]


def test_a_blob_that_an_upload_is_about_to_name_survives(disk_store: PromptStore, tmp_path: Path) -> None:
    """Even with no grace period at all: the upload looks again under the publish lock."""
    reports: list[CollectReport] = []
    version = _race(
        disk_store,
        StoppingBlobs(tmp_path / "data" / "blobs"),
        lambda: reports.append(disk_store.collect(grace_seconds=0)),
    )
    assert reports[0].orphans == 1, "the collector came too late to show anything"
    disk_store.values(version.manifest.digest)
    assert disk_store.check().clean


def test_the_same_for_content_that_was_deleted_before(disk_store: PromptStore, tmp_path: Path) -> None:
    publish(disk_store, 7)
    disk_store.delete_task("acme", "sst2")
    reports: list[CollectReport] = []
    version = _race(
        disk_store,
        StoppingBlobs(tmp_path / "data" / "blobs"),
        lambda: reports.append(disk_store.collect(grace_seconds=0)),
    )
    assert reports[0].blobs == 1
    assert version.number == 2
    disk_store.values(version.manifest.digest)


def test_control_an_upload_that_does_not_look_again_loses(disk_store: PromptStore, tmp_path: Path) -> None:
    class Trusting(StoppingBlobs):
        def has(self, digest: str) -> bool:
            return True

    version = _race(
        disk_store,
        Trusting(tmp_path / "data" / "blobs"),
        lambda: disk_store.collect(grace_seconds=0),
    )
    assert version.number == 1
    assert [problem.kind for problem in disk_store.check().problems] == ["missing_blob"]


def test_the_grace_period_alone_keeps_it_too(disk_store: PromptStore, tmp_path: Path) -> None:
    reports: list[CollectReport] = []
    _race(
        disk_store,
        StoppingBlobs(tmp_path / "data" / "blobs"),
        lambda: reports.append(disk_store.collect(grace_seconds=1)),
    )
    assert reports == [CollectReport()]


def test_the_collector_looks_again_under_the_lock(disk_store: PromptStore, tmp_path: Path) -> None:
    """An orphan gets its name after the collector has listed it, and before it takes the lock."""
    values, manifest = example_prompt(7)

    class Racing(Database):
        locks = 0

        @contextmanager
        def write(self, tenant: str) -> Iterator[Connection]:
            if not self.locks:
                disk_store.publish("acme", "sst2", values, manifest)
            self.locks += 1
            with super().write(tenant) as connection:
                yield connection

    blobs = LocalBlobs(tmp_path / "data" / "blobs")
    blobs.put(manifest.digest, encode(values), now=disk_store._clock())
    database = Racing(disk_store._database.engine, memory=False)
    racing = PromptStore(database, blobs, disk_store._clock, contents=disk_store._contents)
    assert [one.kind for one in racing.plan_collection(grace_seconds=0).removals] == ["orphan"]
    assert racing.collect(grace_seconds=0) == CollectReport()
    assert database.locks > 1
    disk_store.values(manifest.digest)


def test_an_orphan_that_was_put_again_since_it_was_listed_stays(
    disk_store: PromptStore, clock: FakeClock, tmp_path: Path
) -> None:
    """Its upload would find it gone, and send it again under the lock."""
    name = "ab" * 32
    listed: list[BlobEntry] = []

    class Racing(LocalBlobs):
        def entries(self) -> Iterator[BlobEntry]:
            listed.extend(super().entries())
            self.put(name, b"content", now=clock())
            return iter(listed)

    blobs = Racing(tmp_path / "data" / "blobs")
    blobs.put(name, b"content", now=clock())
    clock.advance(60)
    racing = PromptStore(disk_store._database, blobs, clock, contents=disk_store._contents)
    assert racing.collect(grace_seconds=30) == CollectReport() and blobs.has(name)
    clock.advance(30)
    assert listed and disk_store.collect(grace_seconds=30).orphans == 1


def test_a_collection_whose_session_died_removes_nothing_more(
    postgres_server: PostgresServer, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL has given the lock to others, who publish what was still to be removed."""
    url = postgres_server.emptied()
    with (
        closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as store,
        closing(PromptStore.open(tmp_path, database_url=url, clock=clock)) as other,
    ):
        for seed in (1, 2):
            values, manifest = example_prompt(seed)
            store._blobs.put(manifest.digest, encode(values), now=clock())
        remove = store._blobs.remove
        made: list[PromptVersion] = []

        def slowly(digest: str, *, before: datetime | None = None) -> int | None:
            if not made:
                with psycopg.connect(as_superuser(make_url(url)), autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                (seed,) = (seed for seed in (1, 2) if example_prompt(seed)[1].digest != digest)
                made.append(publish(other, seed))
            return remove(digest, before=before)

        monkeypatch.setattr(store._blobs, "remove", slowly)
        with pytest.raises(StoreError):
            store.collect(grace_seconds=0)
        other.values(made[0].manifest.digest)


@pytest.mark.parametrize(("seconds", "locks"), [(0.0, 9), (math.inf, 3)], ids=["slow", "control"])
def test_a_slow_removal_is_the_last_under_its_lock(
    disk_store: PromptStore, monkeypatch: pytest.MonkeyPatch, seconds: float, locks: int
) -> None:
    for seed in range(3):
        publish(disk_store, seed)
        disk_store._blobs.put(f"{seed:064x}", b"orphan", now=disk_store._clock())
        disk_store.delete_file("acme", example_file(disk_store, f"{seed}".encode()).id)
    disk_store.delete_task("acme", "sst2")
    write, taken = disk_store._database.write, []

    def counted(*arguments: Any) -> Any:
        taken.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(file_collector, "HOLD_SECONDS", seconds)
    monkeypatch.setattr(disk_store._database, "write", counted)
    report = disk_store.collect(grace_seconds=0)
    assert (report.blobs, report.orphans, report.files) == (3, 3, 3)
    assert len(taken) == locks + 2, "the last are for the report, and for usage"


@pytest.mark.parametrize("grace", [-1, math.nan, math.inf])
def test_a_bad_grace_period_is_refused(store: PromptStore, grace: float) -> None:
    with pytest.raises(InvalidError) as caught:
        store.collect(grace_seconds=grace)
    assert caught.value.field == "grace_seconds"
