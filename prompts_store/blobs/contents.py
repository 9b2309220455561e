"""The bytes of data files in a local folder, written as a stream and named by their SHA-256.

    write ... write: a temporary file (exclusive), hashed on the way
    seal:            fsync
    keep:            rename, fsync of the folder; the caller holds the publish lock

A file may have gigabytes, so nothing here keeps one in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from prompts_store.blobs.files import Files
from prompts_store.blobs.folder import DigestFolder, Incoming, translated


class ContentWriter:
    """A file that is being written to the disk. See `LocalContents.writer`.

    Attributes:
        size_bytes: bytes written so far.
    """

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.size_bytes = 0
        self._hash = hashlib.sha256()

    def write(self, content: bytes) -> None:
        """Append bytes. Raises StoreError if the disk failed or is full."""
        with translated("write to"):
            self.incoming.write(content)
        self._hash.update(content)
        self.size_bytes += len(content)

    def seal(self, now: datetime) -> str:
        """Wait until the bytes are on the disk. Returns their SHA-256 (hex). Raises StoreError."""
        with translated("write to"):
            self.incoming.seal(now)
        return self._hash.hexdigest()


class LocalContents(DigestFolder):
    """A folder with the bytes of data files, `FOLDER/ab/ab12...`. Equal bytes are stored once.

    Args:
        folder: created if it does not exist.
        files: the operating system's file calls, or a test's.
    """

    def __init__(self, folder: Path, *, files: Files | None = None) -> None:
        super().__init__(folder, suffix="", files=files)

    @contextmanager
    def writer(self, now: datetime) -> Iterator[ContentWriter]:
        """A new file. If it was not kept when the block ends, it is removed. Raises StoreError if the disk
        failed."""
        with translated("write to"):
            incoming = Incoming(self._files, self._incoming, now)
        try:
            yield ContentWriter(incoming)
        finally:
            incoming.discard()

    def keep(self, writer: ContentWriter, digest: str) -> None:
        """Give a sealed file its name. When this returns, the name survives a power cut.

        Bytes that are there already are replaced. They are the same, unless they were damaged.
        """
        with translated("write to"):
            path = self._path(digest)
            self._make_shard(path.parent)
            writer.incoming.name(path)
            self._files.sync_folder(path.parent)

    def path(self, digest: str) -> Path:
        """Where the bytes are or would be."""
        return self._path(digest)

    def digest_of(self, digest: str) -> str | None:
        """The SHA-256 of the bytes that are really stored under a digest, read in pieces; None if there are
        none."""
        with translated("read"):
            try:
                with self._path(digest).open("rb", buffering=0) as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                return None
