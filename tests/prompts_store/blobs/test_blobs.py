import errno
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from prompts_store.blobs import Blobs, Files, LocalBlobs, MemoryBlobs
from prompts_store.blobs.bucket_places import BucketBlobs
from prompts_store.blobs.format import HEADER_BYTES, decode, encode
from prompts_store.errors import CorruptError, StoreError
from prompts_store.testing import FaultyFiles
from tests.s3_server import S3Server

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture(params=["local", "memory", "bucket"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "bucket":
        server: S3Server = request.getfixturevalue("s3_server")
        return server.address().open(tmp_path / "cache")[0]
    return LocalBlobs(tmp_path / "blobs") if request.param == "local" else MemoryBlobs()


def test_a_blob_is_there_until_it_is_removed(blobs: Blobs) -> None:
    assert (blobs.get(NAME), blobs.has(NAME), blobs.remove(NAME)) == (None, False, None)
    blobs.put(NAME, b"content", now=NOW)
    assert (blobs.get(NAME), blobs.has(NAME), blobs.has(OTHER)) == (b"content", True, False)
    assert (blobs.remove(NAME), blobs.get(NAME), list(blobs.entries())) == (7, None, [])


def test_what_was_put_again_later_is_not_removed(blobs: Blobs) -> None:
    blobs.put(NAME, b"content", now=NOW)
    (entry,) = blobs.entries()
    assert blobs.remove(NAME, before=entry.stored_at - timedelta(hours=1)) is None and blobs.has(NAME)
    assert blobs.remove(NAME, before=entry.stored_at) == 7 and not blobs.has(NAME)


def test_entries_tell_when_a_blob_was_last_put(blobs: Blobs) -> None:
    blobs.put(NAME, b"content", now=NOW)
    blobs.put(OTHER, b"other", now=NOW + timedelta(seconds=1.5))
    blobs.put(NAME, b"content", now=NOW + timedelta(seconds=9))
    found = {entry.digest: entry.stored_at - NOW for entry in blobs.entries()}
    if isinstance(blobs, BucketBlobs):  # by its own clock
        assert found.keys() == {NAME, OTHER} and found[NAME] >= found[OTHER]
        return
    assert found == {NAME: timedelta(seconds=9), OTHER: timedelta(seconds=1.5)}


def test_putting_again_mends_a_damaged_blob(blobs: Blobs) -> None:
    blobs.put(NAME, b"damaged", now=NOW)
    blobs.put(NAME, b"content", now=NOW)
    assert blobs.get(NAME) == b"content"


@pytest.mark.parametrize("skipped", [False, True], ids=["always written", "control"])
def test_a_blob_that_is_there_is_written_like_one_that_is_not(tmp_path: Path, skipped: bool) -> None:
    """Or an upload's time would tell who else has its content. The control looks first."""
    files = FaultyFiles()
    blobs = LocalBlobs(tmp_path, files=files)

    def steps(digest: str) -> int:
        files.arm("die", 0)
        if not (skipped and blobs.has(digest)):
            blobs.put(digest, b"content", now=NOW)
        return files.step

    steps(NAME)  # its folder is made
    assert (steps(NAME) == steps("ab" * 31 + "cd")) is not skipped


def test_nothing_unfinished_is_left_after_a_put(blobs: Blobs) -> None:
    blobs.put(NAME, b"content", now=NOW)
    assert blobs.unfinished() == 0
    assert blobs.sweep(NOW + timedelta(days=1)) == 0


def test_an_id_takes_the_place_of_the_one_that_the_caller_saw(blobs: Blobs) -> None:
    assert blobs.identity() is None
    assert not blobs.identify("one", now=NOW, instead_of="another")
    assert blobs.identify("one", now=NOW, instead_of=None)
    assert not blobs.identify("two", now=NOW, instead_of=None)
    assert blobs.identify("one", now=NOW, instead_of=None), "it is what was wanted"
    assert blobs.identity() == "one"
    assert blobs.identify("two", now=NOW, instead_of="one")
    assert blobs.identity() == "two"


def test_only_old_temporary_files_are_swept(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    old = tmp_path / "incoming" / f"{int(NOW.timestamp() * 1000)}-{'0' * 16}"
    new = tmp_path / "incoming" / f"{int(NOW.timestamp() * 1000) + 5000}-{'0' * 16}"
    foreign = tmp_path / "incoming" / "README"
    for path in (old, new, foreign):
        path.write_bytes(b"")
    assert blobs.unfinished() == 3
    assert blobs.sweep(NOW + timedelta(seconds=5)) == 1
    assert sorted(path.name for path in (tmp_path / "incoming").iterdir()) == sorted([new.name, foreign.name])


def test_a_file_that_is_being_written_is_locked_until_its_writer_ends(tmp_path: Path) -> None:
    files, path = Files(), tmp_path / "file"
    assert not files.is_locked(path)
    descriptor = files.create(path)
    files.lock(descriptor)
    assert files.is_locked(path)
    files.close(descriptor)
    assert not files.is_locked(path)


def test_a_disk_without_locks_takes_blobs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("prompts_store.blobs.files.fcntl.flock", refuse)
    blobs = LocalBlobs(tmp_path)
    blobs.put(NAME, b"content", now=NOW)
    assert blobs.get(NAME) == b"content"
    (tmp_path / "incoming" / f"1000-{'0' * 16}").write_bytes(b"dead")
    assert blobs.sweep(NOW) == 1


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    LocalBlobs(tmp_path / "blobs").put(NAME, b"content", now=NOW)
    path = tmp_path / "blobs" / "ab" / f"{NAME}.npy"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "AB" * 32, "ab", "", "ab" * 32 + "\n"])
def test_only_digests_are_names(tmp_path: Path, name: str) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    for attempt in (
        lambda: blobs.put(name, b"", now=NOW),
        lambda: blobs.get(name),
        lambda: blobs.has(name),
        lambda: blobs.remove(name),
    ):
        with pytest.raises(StoreError):
            attempt()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"a file")
    with pytest.raises(StoreError, match="data folder") as caught:
        LocalBlobs(tmp_path / "blobs")
    assert caught.value.code == "store_unavailable"


def _open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_descriptors_are_closed_also_after_a_failure(tmp_path: Path) -> None:
    class NoSync(Files):
        def sync(self, descriptor: int) -> None:
            raise OSError(5, "Input/output error")

    good, bad = LocalBlobs(tmp_path), LocalBlobs(tmp_path, files=NoSync())
    good.put(NAME, b"content", now=NOW)
    before = _open_descriptors()
    for _ in range(3):
        with pytest.raises(StoreError):
            bad.put(OTHER, b"content", now=NOW)
    assert _open_descriptors() <= before  # some of an earlier test's may be closed meanwhile
    assert (bad.unfinished(), bad.has(OTHER)) == (0, False)


@pytest.mark.parametrize("shape", [(1, 1), (100, 512), (3, 5), (150, 4096)])
def test_a_blob_is_an_npy_file(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    values[0, 0] = -0.0
    content = encode(values)
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
    assert loaded.dtype == np.float32 and loaded.tobytes() == values.tobytes() and loaded.shape == shape
    decoded = decode(content, digest=NAME)
    assert decoded.tobytes() == values.tobytes() and decoded.shape == shape and not decoded.flags.writeable


def test_every_changed_byte_of_the_header_and_every_other_length_is_found() -> None:
    content = encode(np.ones((3, 5), np.float32))
    for position in range(HEADER_BYTES):
        changed = bytearray(content)
        changed[position] ^= 1
        with pytest.raises(CorruptError):
            decode(bytes(changed), digest=NAME)
    for length in (*range(0, len(content), 7), len(content) - 1):
        with pytest.raises(CorruptError):
            decode(content[:length], digest=NAME)
    with pytest.raises(CorruptError):
        decode(content + b"\0", digest=NAME)
