"""What is special about a bucket, on a real S3 server: copies, ids, credentials, and what it cannot do."""

import logging
import os
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import obstore
import pytest

from prompts_store import PromptStore
from prompts_store.blobs import BlobAddress, LocalBlobs, LocalContents
from prompts_store.blobs.bucket import PART_BYTES
from prompts_store.blobs.bucket_places import BucketBlobs, BucketContents
from prompts_store.blobs.format import encode
from prompts_store.errors import ConflictError, CorruptError, InvalidError, NotFoundError, StoreError
from prompts_store.testing import example_file, example_prompt, file_bytes
from tests.memory import peak_bytes
from tests.s3_server import BUCKET, KEY, SECRET, S3Server

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def address(s3_server: S3Server) -> BlobAddress:
    return s3_server.address()


def copies(folder: Path) -> list[Path]:
    return [path for path in (folder / "copies").rglob("*") if path.is_file()]


def test_two_machines_share_a_bucket(address: BlobAddress, tmp_path: Path) -> None:
    """Each has a folder of its own; what one makes, the other reads, and reads again without the bucket."""
    url = f"sqlite:///{tmp_path}/shared.db"
    with (
        closing(PromptStore.open(tmp_path / "one", database_url=url, blobs=address)) as one,
        closing(PromptStore.open(tmp_path / "two", database_url=url, blobs=address)) as two,
    ):
        values, manifest = example_prompt(1)
        one.publish("acme", "sst2", values, manifest)
        file = example_file(one, b"text,label\n" * 100)
        for store in (two, one, two):
            assert store.values(manifest.digest).tobytes() == values.tobytes()
            assert file_bytes(store, "acme", file.id) == b"text,label\n" * 100
        assert one.check().clean and one.pairing().one
        assert len(copies(tmp_path / "two")) == 2
        two.delete_file("acme", file.id)
        two.delete_task("acme", "sst2")
        report = two.collect(grace_seconds=0)
        assert (report.blobs, report.files) == (1, 1) and copies(tmp_path / "two") == []
        with pytest.raises(NotFoundError):
            two.values(manifest.digest)


def test_a_damaged_copy_is_fetched_again_and_a_damaged_object_is_told(
    address: BlobAddress, tmp_path: Path
) -> None:
    with closing(PromptStore.open(tmp_path, blobs=address)) as store:
        values, manifest = example_prompt(1)
        store.publish("acme", "sst2", values, manifest)
        assert store.values(manifest.digest).tobytes() == values.tobytes()
        (copy,) = copies(tmp_path)
        copy.write_bytes(copy.read_bytes()[:-1] + b"x")
        assert store.values(manifest.digest).tobytes() == values.tobytes()
        # In the bucket itself: the check reads past the copy.
        store._blobs.put(manifest.digest, encode(example_prompt(2)[0]), now=NOW)
        assert [problem.kind for problem in store.check().problems] == ["corrupt_blob"]
        copies(tmp_path)[0].unlink()
        with pytest.raises(CorruptError):
            store.values(manifest.digest)
        store.publish("acme", "sst2", values, manifest)
        assert store.check().clean


def test_a_damaged_data_file_is_told_and_mended(address: BlobAddress, tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path, blobs=address)) as store:
        file = example_file(store, b"rows")
        address.bucket().put(f"files/{file.sha256[:2]}/{file.sha256}", b"sown")
        assert [problem.kind for problem in store.check().problems] == ["corrupt_file"]
        assert file_bytes(store, "acme", file.id) == b"rows", "the copy is sound"
        copies(tmp_path)[0].unlink()
        with pytest.raises(CorruptError) as caught:
            store.local_file("acme", file.id)
        assert caught.value.code == "corrupt_file" and copies(tmp_path) == []
        example_file(store, b"rows")
        assert store.check().clean and file_bytes(store, "acme", file.id) == b"rows"


@pytest.mark.parametrize("spoilt", [b"", bytes(1000), b"rows"], ids=["empty", "zeros", "shorter"])
def test_a_copy_that_a_power_cut_spoilt_is_fetched_again(
    address: BlobAddress, tmp_path: Path, spoilt: bytes
) -> None:
    """By the next process that uses it."""
    with closing(PromptStore.open(tmp_path, blobs=address)) as store:
        file = example_file(store, b"rows\n" * 200)
    (copy,) = copies(tmp_path)
    copy.write_bytes(spoilt)
    with closing(PromptStore.open(tmp_path, blobs=address)) as store:
        assert file_bytes(store, "acme", file.id) == b"rows\n" * 200 == copy.read_bytes()
        copy.write_bytes(spoilt)
    with closing(PromptStore.open(tmp_path, blobs=address)) as store:
        report = store.backup(BlobAddress(f"file://{tmp_path}/backup"))
        assert (report.files, report.damaged) == (1, ())


def test_what_is_read_stays_though_the_same_is_uploaded_again(address: BlobAddress, tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path, blobs=replace(address, cache_bytes=1 << 20))) as store:
        content = os.urandom(700_000)
        file = example_file(store, content, name="once.csv")
        with store.local_file("acme", file.id) as path:
            example_file(store, content, name="again.csv")
            example_file(store, os.urandom(700_000), name="other.csv")
            assert path.read_bytes() == content, "somebody reads it"
            assert len(copies(tmp_path)) == 1, "the other had to go"


def test_a_large_file_goes_in_parts_and_is_never_in_memory(address: BlobAddress, tmp_path: Path) -> None:
    """The control, reading it whole, is seen."""
    chunk = os.urandom(1 << 20)
    with closing(PromptStore.open(tmp_path, blobs=replace(address, cache_bytes=1 << 20))) as store:

        def send() -> None:
            with store.write_file("acme", "large.csv", max_bytes=1 << 30) as writer:
                for _ in range(3 * PART_BYTES // len(chunk) + 1):
                    writer.write(chunk)
                writer.commit()

        assert peak_bytes(send) < 4 << 20
        (file,) = store.list_files("acme").items
        assert copies(tmp_path) == [], "it is larger than all copies may be"
        assert peak_bytes(lambda: store.local_file("acme", file.id)) < 2 * PART_BYTES + (1 << 20)
        assert peak_bytes(lambda: file_bytes(store, "acme", file.id)) > 3 * PART_BYTES
        with store.local_file("acme", file.id) as path:
            opened = path.open("rb")
            example_file(store, b"others come and go")
            assert path.exists(), "somebody reads it"
        with opened:
            assert not path.exists() and len(opened.read()) == file.size_bytes


def test_a_file_that_is_written_while_it_is_read_is_no_mixture(address: BlobAddress, tmp_path: Path) -> None:
    """The control, parts of whatever is there, is one."""
    bucket = address.bucket()
    old, new = b"o" * (PART_BYTES + 1), b"n" * (PART_BYTES + 1)
    for one_version in (False, True):
        bucket.put("backup.db", old)
        parts = bucket.parts("backup.db", one_version=one_version)
        begun = next(parts)
        bucket.put("backup.db", new)
        if not one_version:
            assert begun + next(parts) not in (old, new)
            continue
        with pytest.raises(StoreError, match="was written while it was read"):
            next(parts)
    assert address.get_file("backup.db", tmp_path / "copy") and (tmp_path / "copy").read_bytes() == new


def test_copies_keep_within_their_bound(address: BlobAddress, tmp_path: Path) -> None:
    """The least recently used go, and what was read lately stays."""
    with closing(PromptStore.open(tmp_path, blobs=replace(address, cache_bytes=100_000))) as store:
        files = [example_file(store, bytes([number]) * 30_000) for number in range(3)]
        assert len(copies(tmp_path)) == 3
        os.utime(next(p for p in copies(tmp_path) if p.name == files[0].sha256), (1, 1))
        os.utime(next(p for p in copies(tmp_path) if p.name == files[1].sha256), (2, 2))
        file_bytes(store, "acme", files[0].id)
        example_file(store, b"x" * 30_000)
        kept = {path.name for path in copies(tmp_path)}
        assert sum(path.stat().st_size for path in copies(tmp_path)) <= 100_000
        assert files[0].sha256 in kept and files[1].sha256 not in kept
        assert file_bytes(store, "acme", files[1].id) == bytes([1]) * 30_000


def test_one_of_many_databases_gets_an_empty_bucket(address: BlobAddress, tmp_path: Path) -> None:
    """Those that come at the same instant: one id stays. The control, writing without looking, leaves the
    last."""
    blobs, _ = address.open(tmp_path)
    assert isinstance(blobs, BucketBlobs)
    barrier, won = threading.Barrier(8), []

    def identify(number: int) -> None:
        barrier.wait()
        if blobs.identify(f"id {number}", now=NOW, instead_of=None):
            won.append(f"id {number}")

    threads = [threading.Thread(target=identify, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [blobs.identity()]
    address.bucket().put("blobs/store-id", b"id 9\n")
    assert won != [blobs.identity()]


@pytest.mark.parametrize("version", [None, "7"])
def test_a_conditional_write_has_the_version_only_where_there_is_one(
    address: BlobAddress, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    """GCS, which no test has seen, asks for it; S3 without versions must not be given one."""
    modes: list[object] = []
    found = SimpleNamespace(bytes=lambda: b"old", meta={"e_tag": "tag", "version": version})
    monkeypatch.setattr(obstore, "get", lambda *arguments: found)
    monkeypatch.setattr(obstore, "put", lambda *arguments, mode: modes.append(mode))
    assert address.bucket().exchange("blobs/store-id", b"new", b"old")
    assert modes == [{"e_tag": "tag"} | ({} if version is None else {"version": version})]


def test_another_database_collects_nothing_until_it_adopts(address: BlobAddress, tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path / "one", blobs=address)) as one:
        one.publish("acme", "sst2", *example_prompt(1))
    with closing(PromptStore.open(tmp_path / "two", blobs=address)) as two:
        assert not two.pairing().one
        with pytest.raises(ConflictError) as caught:
            two.collect(grace_seconds=0)
        assert caught.value.code == "other_store"
        two.adopt()
        assert two.pairing().one and two.collect(grace_seconds=0).orphans == 1


def test_a_store_that_is_not_there_is_told(address: BlobAddress, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        PromptStore.open(tmp_path, blobs=address, make=False)
    assert (caught.value.code, caught.value.field) == ("no_store", "blob_url")


@pytest.mark.parametrize("wrong", ["key", "secret", "bucket", "port"])
def test_what_cannot_be_reached_is_told_without_secrets(
    s3_server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    """Nor has the log any, though S3 answers with the key that it does not know."""
    address = s3_server.address(port=1 if wrong == "port" else None)
    keys = {"key": ("wrong-key-canary", SECRET), "secret": (KEY, "wrong-secret-canary")}.get(wrong)
    if keys:
        given = tmp_path / "credentials"
        given.write_text(f"[default]\naws_access_key_id={keys[0]}\naws_secret_access_key={keys[1]}\n")
        address = replace(address, credentials_file=given)
    if wrong == "bucket":
        address = replace(address, url="s3://absent/place")
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreError) as caught:
        PromptStore.open(tmp_path / "data", blobs=address)
    assert (caught.value.code, caught.value.field) == ("store_unavailable", "blob_url")
    reasons = {"bucket": "there is no such bucket", "port": "it cannot be reached"}
    assert reasons.get(wrong, "access was denied (403") in caught.value.message
    told = f"{caught.value.message}{caplog.text}{caught.value.__cause__}{address}"
    assert "canary" not in told


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": "s3://key-canary:secret@bucket/place"}, "blob_url"),
        ({"url": "s3://"}, "blob_url"),
        ({"url": "ftp://bucket"}, "blob_url"),
        ({"url": "file://host/folder"}, "blob_url"),
        ({"url": "s3://bucket/place?key=canary"}, "blob_url"),
        ({"url": "s3://bucket:no/"}, "blob_url"),
        ({"allow_http": False}, "blob_url"),
        ({"endpoint": "127.0.0.1:9000"}, "blob_url"),
        ({"endpoint": "https://key:canary@host"}, "blob_url"),
        ({"endpoint": "https://[canary"}, "blob_url"),
        ({"endpoint": "https://host:canary"}, "blob_url"),
        ({"endpoint": "https://host;region=canary"}, "blob_url"),
        ({"endpoint": "https://host/#canary"}, "blob_url"),
        ({"credentials_file": Path("/absent")}, "blob_credentials_file"),
        ({"credentials_file": Path("/etc/hostname")}, "blob_credentials_file"),
    ],
)
def test_what_cannot_be_an_address_is_refused(
    address: BlobAddress, tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        replace(address, **changes).open(tmp_path)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.field) == ("invalid_blob_place", field)
    assert "canary" not in caught.value.message


def test_a_url_says_how_to_reach_its_bucket() -> None:
    place = "s3://bucket/place"
    assert BlobAddress.of(place) == BlobAddress(place)
    said = f"{place}?endpoint=http://host:9000&region=here&path_style=false&allow_http=true"
    whole = BlobAddress(place, "http://host:9000", "here", path_style=False, allow_http=True)
    assert BlobAddress.of(said) == whole
    assert BlobAddress.of(place, like=said.replace("place", "other")) == whole
    assert BlobAddress.of(f"{place}?region=there", like=said) == BlobAddress(place, region="there")
    assert BlobAddress.of("gs://bucket/place", like=said) == BlobAddress("gs://bucket/place")
    folder = BlobAddress.of("file:///folder", like=said, cache_bytes=5)
    assert folder == BlobAddress("file:///folder", cache_bytes=5)


@pytest.mark.parametrize(
    "said",
    [
        "s3://bucket?key=canary", "s3://bucket?region=", "s3://bucket?region=canary&region=other",
        "s3://bucket?path_style=canary", "s3://bucket?canary", "s3://bucket?&", "gs://bucket?region=canary",
        "file:///folder?region=canary",
    ],
)  # fmt: skip
def test_a_url_that_says_something_else_is_refused(said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        BlobAddress.of(said)
    assert (caught.value.code, caught.value.field) == ("invalid_blob_place", "blob_url")
    assert "canary" not in caught.value.message


def test_credentials_are_read_again(address: BlobAddress, tmp_path: Path) -> None:
    """A file that is replaced while the server runs is read at the next start of 5 minutes."""
    given = tmp_path / "credentials"
    given.write_text(f"[default]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n")
    blobs, contents = replace(address, credentials_file=given).open(tmp_path / "cache")
    given.unlink()
    blobs.put("ab" * 32, b"content", now=NOW)
    assert blobs.get("ab" * 32) == b"content" and isinstance(contents, BucketContents)


def test_a_folder_is_written_by_our_own_writer(tmp_path: Path) -> None:
    blobs, contents = BlobAddress(f"file://{tmp_path}/a%20folder").open(tmp_path / "cache")
    assert isinstance(blobs, LocalBlobs) and isinstance(contents, LocalContents)
    assert (tmp_path / "a folder" / "blobs").is_dir() and not (tmp_path / "cache").exists()


def test_a_store_moves_into_a_bucket_by_copying(address: BlobAddress, tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as store:
        store.publish("acme", "sst2", *example_prompt(1))
        file = example_file(store, b"rows")
    bucket = address.bucket()
    for kind in ("blobs", "files"):
        for path in (tmp_path / kind).rglob("*"):
            if path.is_file():
                bucket.put(str(path.relative_to(tmp_path)), path.read_bytes())
    with closing(PromptStore.open(tmp_path, blobs=address)) as store:
        assert store.pairing().one and store.check().clean
        assert file_bytes(store, "acme", file.id) == b"rows"
    assert BUCKET in address.url


def test_a_file_that_a_collector_took_is_sent_again_while_others_may_write(
    address: BlobAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    send = BucketContents.send

    def then_taken(contents: BucketContents, digest: str, path: Path) -> None:
        other.check_writable(1)  # fails while somebody has the publish lock
        send(contents, digest, path)
        sent.append(digest)
        if len(sent) == 1:
            assert other.collect(grace_seconds=0).files == 1

    url = f"sqlite:///{tmp_path}/shared.db"
    with (
        closing(PromptStore.open(tmp_path / "one", database_url=url, blobs=address)) as one,
        closing(PromptStore.open(tmp_path / "two", database_url=url, blobs=address)) as other,
    ):
        monkeypatch.setattr(BucketContents, "send", then_taken)
        file = example_file(one, b"rows")
        assert len(sent) == 2 and file_bytes(other, "acme", file.id) == b"rows"


def test_a_file_that_is_taken_twice_is_sent_under_the_lock(
    address: BlobAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    send = BucketContents.send

    def then_taken(contents: BucketContents, digest: str, path: Path) -> None:
        send(contents, digest, path)
        sent.append(digest)
        if len(sent) <= 2:
            contents.remove(digest)

    with closing(PromptStore.open(tmp_path, blobs=address)) as store:
        monkeypatch.setattr(BucketContents, "send", then_taken)
        file = example_file(store, b"rows")
        assert len(sent) == 3 and file_bytes(store, "acme", file.id) == b"rows"
        assert store.check().clean
