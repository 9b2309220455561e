"""A bucket that fails, is slow, hangs up in the middle or answers with other bytes: a clear error, and
exactly the old state or the new one. Once the trouble is over, the same works."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.blobs import BlobAddress, address
from prompts_store.errors import ConflictError, CorruptError, StoreError
from prompts_store.testing import example_file, example_prompt, file_bytes
from tests.faults.bad_s3 import BadS3, Trouble, bad_s3
from tests.s3_server import S3Server

ROWS = b"text,label\n" * 1000


@pytest.fixture
def bad(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadS3]:
    """With a client that tries once more, soon, and waits as long as a busy machine may take."""
    long = timedelta(seconds=300)
    monkeypatch.setattr(address, "CLIENT", {"timeout": long, "connect_timeout": long})
    soon = {"init_backoff": timedelta(milliseconds=10), "max_backoff": timedelta(milliseconds=20), "base": 2}
    monkeypatch.setattr(address, "RETRY", {"max_retries": 1, "retry_timeout": long, "backoff": soon})
    with bad_s3(s3_server.port) as proxy:
        yield proxy


@pytest.fixture
def place(bad: BadS3, s3_server: S3Server) -> BlobAddress:
    return s3_server.address(port=bad.port)


@pytest.fixture
def store(place: BlobAddress, tmp_path: Path) -> Iterator[PromptStore]:
    with closing(PromptStore.open(tmp_path, blobs=place)) as made:
        made.publish("acme", "sst2", *example_prompt(1))
        example_file(made, b"old")
        yield made


Troubles = Callable[[Trouble], AbstractContextManager[None]]


@pytest.fixture
def trouble(bad: BadS3, place: BlobAddress, store: PromptStore) -> Troubles:
    """Trouble of a kind within a block. Where nothing is answered, the store gives up after a second there,
    and only there."""

    @contextmanager
    def during(kind: Trouble) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, bad.trouble(kind):
            if kind == "slow":
                patch.setattr(address, "CLIENT", {"timeout": timedelta(seconds=1)})
                bucket = store._blobs._bucket  # type: ignore[attr-defined]
                patch.setattr(bucket, "_objects", place.bucket()._objects)
            yield

    return during


def _seen(store: PromptStore) -> object:
    assert store.check().clean
    versions = store.list_versions("acme", "sst2").items
    files = store.list_files("acme").items
    return (
        [(version.number, store.values(version.manifest.digest).tobytes()) for version in versions],
        [file_bytes(store, "acme", file.id) for file in files],
    )


OPERATIONS: dict[str, Callable[[PromptStore], object]] = {
    "publish": lambda store: store.publish("acme", "sst2", *example_prompt(2)),
    "upload": lambda store: example_file(store, ROWS),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["500", "409", "slow", "cut upload", "cut answer"])
def test_a_write_is_refused_whole_and_works_afterwards(
    store: PromptStore, bad: BadS3, trouble: Troubles, name: str, kind: Trouble
) -> None:
    old = _seen(store)
    if kind == "cut answer":  # a PUT's answer has no body that counts, so nothing is spoilt: it works
        with trouble(kind):
            OPERATIONS[name](store)
    else:
        with trouble(kind), pytest.raises(StoreError) as caught:
            OPERATIONS[name](store)
        assert bad.spoilt and caught.value.code == "store_unavailable"
        said = {"500": "500 InternalError", "409": "409 OperationAborted", "slow": "did not answer in time"}
        assert said.get(kind, "cannot be reached") in caught.value.message
        assert _seen(store) == old
        OPERATIONS[name](store)
    assert _seen(store) != old
    assert store.collect(grace_seconds=0).temporary_files == 0
    report = store.check()
    assert report.clean and (report.orphans, report.temporary_files) == (0, 0)


@pytest.mark.parametrize("kind", ["500", "slow", "cut answer"])
def test_a_read_is_refused_and_works_afterwards(store: PromptStore, trouble: Troubles, kind: Trouble) -> None:
    """Nothing of what was read is kept as a copy."""
    digest, (file,) = example_prompt(1)[1].digest, store.list_files("acme").items
    store._contents._copies.remove(file.sha256)  # type: ignore[attr-defined]
    with trouble(kind):
        for read in (lambda: store.values(digest), lambda: file_bytes(store, "acme", file.id)):
            with pytest.raises(StoreError) as caught:
                read()
            assert caught.value.code == "store_unavailable"
    assert store.values(digest).tobytes() == example_prompt(1)[0].tobytes()
    assert file_bytes(store, "acme", file.id) == b"old"


@pytest.mark.parametrize("kind", ["500", "cut upload", "cut answer"])
def test_what_fails_once_is_tried_again(store: PromptStore, bad: BadS3, kind: Trouble) -> None:
    if kind == "cut answer":
        with bad.trouble(kind, 1):
            store.values(example_prompt(1)[1].digest)
    else:
        with bad.trouble(kind, 1):
            store.publish("acme", "sst2", *example_prompt(2))
    assert bad.spoilt == 1 and store.check().clean


def test_other_bytes_are_never_served(store: PromptStore, bad: BadS3, s3_server: S3Server) -> None:
    """The control, a bucket alone, hands them on."""
    digest, (file,) = example_prompt(1)[1].digest, store.list_files("acme").items
    store._contents._copies.remove(file.sha256)  # type: ignore[attr-defined]
    with bad.trouble("other bytes"):
        assert store._blobs.get(digest) is not None
        with pytest.raises(CorruptError):
            store.values(digest)
        with pytest.raises(CorruptError):
            store.local_file("acme", file.id)
    assert store.values(digest).tobytes() == example_prompt(1)[0].tobytes()
    assert file_bytes(store, "acme", file.id) == b"old"


@pytest.mark.parametrize("kind", ["500", "slow"])
def test_a_collection_that_cannot_ask_removes_nothing(
    store: PromptStore, trouble: Troubles, kind: Trouble
) -> None:
    version = store.publish("acme", "sst2", *example_prompt(2)).version
    store.delete_version("acme", "sst2", version.number)
    with trouble(kind), pytest.raises(StoreError) as caught:
        store.collect(grace_seconds=0)
    assert not isinstance(caught.value, ConflictError)
    assert store._blobs.has(version.manifest.digest)
    assert store.collect(grace_seconds=0).blobs == 1 and store.check().clean


def test_a_store_does_not_open_without_its_bucket(bad: BadS3, place: BlobAddress, tmp_path: Path) -> None:
    with bad.trouble("500"), pytest.raises(StoreError) as caught:
        PromptStore.open(tmp_path, blobs=place)
    assert caught.value.field == "blob_url"
    PromptStore.open(tmp_path, blobs=place).close()
