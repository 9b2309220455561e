"""Blobs in a local folder, by our own short writer.

    put: create a temporary file (exclusive), write, fsync, rename, fsync the folder

obstore's local store never syncs, so what it has stored may be gone after a power cut; it is for buckets
only.

    FOLDER/incoming/MILLISECONDS-RANDOM      being written
    FOLDER/ab/ab12....npy                    a blob
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from prompts_store.blobs.files import Files
from prompts_store.blobs.interface import BlobEntry
from prompts_store.errors import StoreError

_BLOB = re.compile(r"([0-9a-f]{64})\.npy")
_TEMPORARY = re.compile(r"([0-9]{1,16})-[0-9a-f]{16}")
_SHARDS = tuple(f"{number:02x}" for number in range(256))


class LocalBlobs:
    """A `Blobs` in a folder of a local disk, for any number of processes on one machine.

    Args:
        folder: made when it is not there.
        files: the operating system, or a test's.
    """

    def __init__(self, folder: Path, *, files: Files | None = None) -> None:
        self._folder = folder
        self._files = files or Files()
        self._incoming = folder / "incoming"
        self._synced: set[str] = set()
        with _translated("prepare"):
            self._files.make_folder(self._incoming)
            self._files.sync_folder(folder)
            self._files.sync_folder(folder.parent)

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        """See `Blobs.put`. The bytes are on the disk before the name, and the name before this returns."""
        with _translated("write"):
            path = self._path(digest)
            self._make_shard(path.parent)
            if not self._keep(path, content, now):
                self._write(path, content, now)
            # Also for a blob that was there: whoever renamed it may not have come to this line.
            self._files.sync_folder(path.parent)

    def get(self, digest: str) -> bytes | None:
        """See `Blobs.get`."""
        with _translated("read"):
            try:
                return self._files.read(self._path(digest))
            except FileNotFoundError:
                return None

    def has(self, digest: str) -> bool:
        """See `Blobs.has`."""
        with _translated("read"):
            return self._files.exists(self._path(digest))

    def remove(self, digest: str) -> bool:
        """See `Blobs.remove`. Not synced: a blob that a power cut brings back is an orphan, swept again."""
        with _translated("remove from"):
            return self._unlink(self._path(digest))

    def entries(self) -> Iterator[BlobEntry]:
        """See `Blobs.entries`."""
        for shard in _SHARDS:
            with _translated("list"):
                found = list(self._files.scan(self._folder / shard))
            for name, seconds in found:
                if match := _BLOB.fullmatch(name):
                    yield BlobEntry(match[1], datetime.fromtimestamp(seconds, UTC))

    def unfinished(self) -> int:
        """See `Blobs.unfinished`."""
        with _translated("list"):
            return sum(1 for _ in self._files.scan(self._incoming))

    def sweep(self, before: datetime) -> int:
        """See `Blobs.sweep`. A temporary file's age is in its name: its own time moves with every write."""
        removed = 0
        with _translated("sweep"):
            for name, _ in list(self._files.scan(self._incoming)):
                match = _TEMPORARY.fullmatch(name)
                if match and int(match[1]) < before.timestamp() * 1000:
                    removed += self._unlink(self._incoming / name)
        return removed

    def _path(self, digest: str) -> Path:
        if not _BLOB.fullmatch(f"{digest}.npy"):
            raise StoreError("A blob's name is 64 hexadecimal digits.")
        return self._folder / digest[:2] / f"{digest}.npy"

    def _make_shard(self, shard: Path) -> None:
        # Once a process, not only when it is made: its maker may have died before the sync.
        if shard.name not in self._synced:
            self._files.make_folder(shard)
            self._files.sync_folder(self._folder)
            self._synced.add(shard.name)

    def _keep(self, path: Path, content: bytes, now: datetime) -> bool:
        """Whether the blob is there, whole; it then counts as stored now."""
        try:
            if self._files.read(path) != content:
                return False
            self._files.touch(path, now.timestamp())
        except FileNotFoundError:
            return False
        return True

    def _write(self, path: Path, content: bytes, now: datetime) -> None:
        temporary = self._incoming / f"{int(now.timestamp() * 1000)}-{secrets.token_hex(8)}"
        descriptor = self._files.create(temporary)
        try:
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[self._files.write(descriptor, rest) :]
                self._files.set_time(descriptor, now.timestamp())
                self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)
            self._files.rename(temporary, path)
        except BaseException:
            # Best effort: the first error is the one to tell, and a sweep takes what is left.
            with suppress(OSError):
                self._files.unlink(temporary)
            raise

    def _unlink(self, path: Path) -> bool:
        try:
            self._files.unlink(path)
        except FileNotFoundError:
            return False
        return True


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Cannot {verb} the blob folder: {error.strerror or error}. Check that the data folder is "
            f"there, writable and has free space."
        ) from error
