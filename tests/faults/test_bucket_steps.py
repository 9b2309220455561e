"""Death or an error at every step of what is done with a bucket: exactly the old state or the new one.

The same sweep as for a folder. A step is a call to the bucket, its answer, a call to the files, an SQL
statement, a commit, or the moment after a commit.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.blobs import BlobAddress, address
from prompts_store.blobs.bucket import Bucket
from prompts_store.blobs.bucket_places import BucketBlobs, BucketContents
from prompts_store.blobs.copies import LocalCopies
from prompts_store.errors import StoreError
from prompts_store.testing import (
    Died,
    FakeClock,
    Fault,
    FaultyFiles,
    example_file,
    example_prompt,
    file_bytes,
)
from tests.faults.store_faults import MAX_STEPS, FaultyDatabase, FewScans, sweep
from tests.s3_server import S3Server

LATER = timedelta(days=400)
"""A bucket has its own clock: the store's is ahead of it, so that all is old that nobody needs."""


class FaultyBucket(Bucket):
    """Each call is a step, and so is its answer."""

    files = FaultyFiles()

    def put(self, key: str, content: bytes) -> None:
        with _steps(self.files):
            super().put(key, content)

    def put_file(self, key: str, path: Path) -> None:
        with _steps(self.files):
            super().put_file(key, path)

    def look(self, key: str) -> tuple[int, datetime] | None:
        with _steps(self.files):
            return super().look(key)

    def remove(self, key: str) -> None:
        with _steps(self.files):
            super().remove(key)

    def get(self, key: str) -> bytes | None:
        with _steps(self.files):
            return super().get(key)


class _steps:  # noqa: N801 - reads like a function
    def __init__(self, files: FaultyFiles) -> None:
        self._files = files

    def __enter__(self) -> None:
        self._count()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._count()

    def _count(self) -> None:
        try:
            self._files.count()
        except OSError as error:
            raise StoreError("The bucket failed.") from error


def faulty_store(
    folder: Path, clock: FakeClock, place: BlobAddress, kind: type[BucketBlobs] = BucketBlobs
) -> tuple[PromptStore, FaultyFiles]:
    """A store with its blobs in a bucket, and what to arm."""
    files = FewScans()
    database = FaultyDatabase.open(folder, None)
    assert isinstance(database, FaultyDatabase)
    database.attach(files)
    sound = place.bucket()
    bucket = FaultyBucket(sound._objects, sound._name)
    bucket.files = files
    copies = LocalCopies(folder / "copies", most_bytes=1 << 20, files=files)
    contents = BucketContents(bucket, copies)
    return PromptStore(database, kind(bucket, copies), clock, contents=contents), files


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.advance((datetime.now(UTC) + LATER - clock()).total_seconds())
    return clock


@pytest.fixture
def place(s3_server: S3Server) -> BlobAddress:
    return s3_server.address()


@pytest.fixture
def observer(tmp_path: Path, clock: FakeClock, place: BlobAddress) -> Iterator[PromptStore]:
    with closing(PromptStore.open(tmp_path, blobs=place, clock=clock)) as made:
        _prepare(made)
        yield made


def _prepare(store: PromptStore) -> None:
    store.publish("acme", "sst2", *example_prompt(1))
    example_file(store, b"old rows", name="old.csv")


def _visible(store: PromptStore) -> object:
    """Everything that a caller can see, bytes included; but for ids of files, which are random."""
    assert store.check().clean
    versions = store.list_versions("acme", "sst2").items
    files = store.list_files("acme").items
    return (
        [(version.number, store.values(version.manifest.digest).tobytes()) for version in versions],
        [(file.name, file.size_bytes, file_bytes(store, "acme", file.id)) for file in files],
    )


OPERATIONS: dict[str, Callable[[PromptStore], object]] = {
    "publish": lambda store: store.publish("acme", "sst2", *example_prompt(5)),
    "upload": lambda store: example_file(store, b"new rows " * 100, name="new.csv"),
}


@pytest.mark.parametrize("fault", ["die", "EIO"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_step_leaves_the_old_state_or_the_new(
    tmp_path: Path, clock: FakeClock, place: BlobAddress, observer: PromptStore, name: str, fault: Fault
) -> None:
    with closing(PromptStore.open(tmp_path / "twin", clock=clock)) as twin:
        _prepare(twin)
        old = _visible(observer)
        OPERATIONS[name](twin)
        new = _visible(twin)
    store, files = faulty_store(tmp_path, clock, place)
    with closing(store):
        steps = sweep(
            store,
            files,
            OPERATIONS[name],
            fault,
            look=lambda: _visible(observer),
            old=old,
            new=new,
            again=lambda: observer.collect(grace_seconds=0),
        )
    assert steps > 10, "nothing was swept"
    # What the deaths left behind goes with the next collection.
    clock.advance(1)
    observer.collect(grace_seconds=0)
    report = observer.check()
    assert report.clean and (report.orphans, report.temporary_files) == (0, 0)


@pytest.mark.parametrize("fault", ["die"])
def test_a_collection_that_fails_at_any_step_takes_nothing_that_is_named(
    tmp_path: Path, clock: FakeClock, place: BlobAddress, observer: PromptStore, fault: Fault
) -> None:
    store, files = faulty_store(tmp_path, clock, place)
    with closing(store):
        for step in range(1, MAX_STEPS):
            number = observer.publish("acme", "sst2", *example_prompt(1000 + step)).version.number
            observer.delete_version("acme", "sst2", number)
            observer.delete_file("acme", example_file(observer, f"rows {step}".encode()).id)
            observer._blobs.put(f"{step:064x}", b"orphan", now=clock())
            clock.advance(1)
            before = _visible(observer)
            files.arm(fault, step)
            try:
                report = store.collect(grace_seconds=0)
            except (Died, StoreError):
                report = None
            files.arm(fault, 0)
            assert _visible(observer) == before
            if report is not None:
                break
            observer.collect(grace_seconds=0)
    assert report is not None and step > 15, "nothing was swept"
    after = observer.check()
    assert (after.blobs, after.orphans, after.temporary_files) == (1, 0, 0)


def test_control_a_row_without_its_blob_is_noticed(
    tmp_path: Path, clock: FakeClock, place: BlobAddress, observer: PromptStore
) -> None:
    """A store that commits first and sends the blob afterwards leaves a third state, and it is seen."""

    class RowFirst(BucketBlobs):
        def put(self, digest: str, content: bytes, *, now: datetime) -> None:
            """Later."""

        def has(self, digest: str) -> bool:
            return True

    store, _ = faulty_store(tmp_path, clock, place, RowFirst)
    with closing(store):
        store.publish("acme", "sst2", *example_prompt(5))
    assert [problem.kind for problem in observer.check().problems] == ["missing_blob"]


def test_the_client_gives_up_in_time() -> None:
    """Also under the publish lock, for which others wait 30 s."""
    assert address.CLIENT["timeout"] + address.RETRY["retry_timeout"] < timedelta(seconds=30)
