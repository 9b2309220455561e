"""The bytes of data files in a local folder, written as a stream and named by their SHA-256.

    write ... write: a temporary file (exclusive), hashed on the way
    seal:            fsync
    keep:            rename, fsync of the folder; the caller holds the publish lock

A file may have gigabytes, so nothing here keeps one in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from prompts_store.blobs.files import Files
from prompts_store.blobs.folder import DigestFolder, Incoming, translated
from prompts_store.blobs.interface import Place


class ContentWriter:
    """A file that is being written to the disk. See `Contents.writer`.

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

    @property
    def sha256(self) -> str:
        """Of the bytes written so far, in hex."""
        return self._hash.hexdigest()

    def seal(self, now: datetime) -> str:
        """Wait until the bytes are on the disk. Returns their SHA-256 (hex). Raises StoreError."""
        with translated("write to"):
            self.incoming.seal(now)
        return self.sha256


class Contents(Place, Protocol):
    """The bytes of data files, named by their SHA-256. A file may have gigabytes, so nothing keeps one in
    memory."""

    def writer(self, now: datetime) -> AbstractContextManager[ContentWriter]:
        """A new file. If it was not kept when the block ends, nothing of it is left, or what the collector
        removes. Raises StoreError."""

    def keep(self, writer: ContentWriter, digest: str) -> bool:
        """Give a sealed file its name. When this returns True, the name survives a power cut.

        The caller holds the publish lock, so from here on no collector removes it. Bytes that are there
        already are replaced. They are the same, unless they were damaged.

        Returns:
            False if a collector has taken the bytes since they were sealed: seal it again, best without the
            lock, because that may take long.
        """

    def local(self, digest: str) -> AbstractContextManager[Path | None]:
        """A file of this machine with the bytes, to read until the block ends; None if there are none.

        Raises:
            CorruptError: `corrupt_file`: what the place has are other bytes.
        """

    def digest_of(self, digest: str) -> str | None:
        """The SHA-256 of the bytes that are really stored under a digest, read in pieces; None if there are
        none."""


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
        """See `Contents.writer`."""
        with translated("write to"):
            incoming = Incoming(self._files, self._incoming, now)
        try:
            yield ContentWriter(incoming)
        finally:
            incoming.discard()

    def keep(self, writer: ContentWriter, digest: str) -> bool:
        """See `Contents.keep`. It is no collector's before it has its name."""
        with translated("write to"):
            path = self._path(digest)
            self._make_shard(path.parent)
            writer.incoming.name(path)
            self._files.sync_folder(path.parent)
        return True

    @contextmanager
    def local(self, digest: str) -> Iterator[Path | None]:
        """See `Contents.local`."""
        path = self._path(digest)
        with translated("read"):
            found = path if self._files.exists(path) else None
        yield found

    def digest_of(self, digest: str) -> str | None:
        """See `Contents.digest_of`."""
        with translated("read"):
            try:
                with self._path(digest).open("rb", buffering=0) as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                return None
