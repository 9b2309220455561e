"""A local folder of immutable files, each named by the SHA-256 of its content.

    FOLDER/incoming/MILLISECONDS-RANDOM      being written
    FOLDER/ab/ab12...SUFFIX                  whole and on the disk
    FOLDER/store-id                          whose folder it is, see `prompts_store.upkeep.identity`

The subclasses decide what such a folder keeps: prompts (`local`) or data files (`contents`).
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

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = re.compile(r"([0-9]{1,16})-[0-9a-f]{16}")
IDENTITY = "store-id"
_SHARD = re.compile(r"[0-9a-f]{2}")


class Incoming:
    """A temporary file that is being written. It has a name of its own until `name` gives it that of its
    digest.

    It is locked as long as it is open, so that no sweep removes it while a slow writer is alive.
    """

    def __init__(self, files: Files, folder: Path, now: datetime) -> None:
        self._files = files
        self._path = folder / f"{int(now.timestamp() * 1000)}-{secrets.token_hex(8)}"
        self._descriptor: int | None = self._files.create(self._path)
        self._files.lock(self._descriptor)

    @property
    def path(self) -> Path:
        """Where the bytes are until the file has its name."""
        return self._path

    def write(self, content: bytes) -> None:
        """Append all of the content. Raises OSError."""
        rest = memoryview(content)
        while rest:
            rest = rest[self._files.write(self._open(), rest) :]

    def seal(self, now: datetime) -> None:
        """Wait until the bytes are on the disk. The file then counts as stored at `now`. Raises OSError."""
        self._files.set_time(self._open(), now.timestamp())
        self._files.sync(self._open())

    def name(self, path: Path) -> None:
        """Give the sealed file its name, replacing the file that had it. Raises OSError."""
        self._files.rename(self._path, path)
        self._close()

    def discard(self) -> None:
        """Remove the file if it has no name yet. Best effort: a sweep removes what is left."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._files.unlink(self._path)

    def _open(self) -> int:
        if self._descriptor is None:
            raise RuntimeError("the file has already been named or discarded")
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._open(), None
        self._files.close(descriptor)


class DigestFolder:
    """A folder of files named by digests, for any number of processes on one machine.

    Args:
        folder: created if it does not exist.
        suffix: ending of every file's name.
        files: the operating system's file calls, or a test's.
    """

    def __init__(self, folder: Path, *, suffix: str, files: Files | None = None) -> None:
        self._folder = folder
        self._suffix = suffix
        self._name = re.compile(rf"([0-9a-f]{{64}}){re.escape(suffix)}")
        self._files = files or Files()
        self._incoming = folder / "incoming"
        self._synced: set[str] = set()
        with translated("prepare"):
            self._files.make_folder(self._incoming)
            self._files.sync_folder(folder)
            self._files.sync_folder(folder.parent)

    def has(self, digest: str) -> bool:
        """Whether there is a file of this digest; does not read it."""
        with translated("read"):
            return self._files.exists(self._path(digest))

    def size(self, digest: str) -> int | None:
        """The size of the file in bytes; None if there is none of this digest."""
        with translated("read"):
            try:
                return self._files.size(self._path(digest))
            except FileNotFoundError:
                return None

    def identity(self) -> str | None:
        """See `Place.identity`."""
        with translated("read"):
            try:
                content = self._files.read(self._folder / IDENTITY)
            except FileNotFoundError:
                return None
        return content.decode(errors="replace").strip()

    def identify(self, identity: str, *, now: datetime, instead_of: str | None) -> bool:
        """See `Place.identify`."""
        if self.identity() not in (instead_of, identity):
            return False
        with translated("write to"):
            self._write(self._folder / IDENTITY, f"{identity}\n".encode(), now)
            self._files.sync_folder(self._folder)
        return True

    def remove(self, digest: str, *, before: datetime | None = None) -> int | None:
        """See `Place.remove`.

        This is not synced: if a power cut brings the file back, it is an orphan, which is collected again.
        """
        path = self._path(digest)
        with translated("remove from"):
            try:
                found = path.stat()
            except FileNotFoundError:
                return None
            if before is not None and datetime.fromtimestamp(found.st_mtime, UTC) > before:
                return None
            return found.st_size if self._unlink(path) else None

    def entries(self) -> Iterator[BlobEntry]:
        """All files, in no order. Files that appear or disappear meanwhile may be missed."""
        with translated("list"):
            shards = [name for name, _ in self._files.scan(self._folder) if _SHARD.fullmatch(name)]
        for shard in shards:
            with translated("list"):
                found = list(self._files.scan(self._folder / shard))
            for name, seconds in found:
                if match := self._name.fullmatch(name):
                    yield BlobEntry(match[1], datetime.fromtimestamp(seconds, UTC))

    def unfinished(self) -> int:
        """The number of temporary files: those being written, and those that dead processes left."""
        with translated("list"):
            return sum(1 for _ in self._files.scan(self._incoming))

    def sweep(self, before: datetime, *, dry_run: bool = False) -> int:
        """Remove files that were begun before this time and never finished. Returns how many.

        A temporary file's age is in its name, because its own time changes with every write. A file that a
        living process is writing stays, whatever its age.
        """
        removed = 0
        with translated("sweep"):
            for name, _ in list(self._files.scan(self._incoming)):
                path, match = self._incoming / name, _TEMPORARY.fullmatch(name)
                old = match and int(match[1]) < before.timestamp() * 1000
                if old and not self._files.is_locked(path):
                    removed += dry_run or self._unlink(path)
        return removed

    def _path(self, digest: str) -> Path:
        return self._folder / digest_name(digest, self._suffix)

    def _write(self, path: Path, content: bytes, now: datetime) -> None:
        temporary = Incoming(self._files, self._incoming, now)
        try:
            temporary.write(content)
            temporary.seal(now)
            temporary.name(path)
        finally:
            temporary.discard()

    def _make_shard(self, shard: Path) -> None:
        # Done once in each process, not only after creating it: its creator may have died before the sync.
        if shard.name not in self._synced:
            self._files.make_folder(shard)
            self._files.sync_folder(self._folder)
            self._synced.add(shard.name)

    def _unlink(self, path: Path) -> bool:
        try:
            self._files.unlink(path)
        except FileNotFoundError:
            return False
        return True


def digest_name(digest: str, suffix: str) -> str:
    """The path of a digest below its folder or prefix. Raises StoreError if it is none."""
    if not _DIGEST.fullmatch(digest):
        raise StoreError("A blob's name is 64 hexadecimal digits.")
    return f"{digest[:2]}/{digest}{suffix}"


@contextmanager
def translated(verb: str) -> Iterator[None]:
    """Turn the operating system's errors into the store's.

    Args:
        verb: what was being done to the folder.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"Cannot {verb} the blob folder: {error.strerror or error}. Check that the data folder is "
            f"there, writable and has free space."
        ) from error
