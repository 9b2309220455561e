"""Copies of what is in a bucket, in a local folder with a bound on its bytes.

    FOLDER/ab/ab12...    the bytes of a prompt or of a data file
    FOLDER/incoming/...  being fetched, or uploaded

The least recently used go first, but none that somebody reads. Any number of processes of one machine may
share the folder. Nothing is lost with it, and nothing in it is trusted: a prompt is compared with its digest
each time, a data file when it is fetched and when a process first uses it, because a power cut or a disk may
have spoilt it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from prompts_store.blobs.files import Files
from prompts_store.blobs.folder import DigestFolder, Incoming, translated
from prompts_store.errors import StoreError

_LOCKS = 16
_TRIES = 3
# Of the bound, after others went: so that not every new copy makes the folder be listed.
_LEFT = 0.9
# Files that a process remembers to have compared; after so many it begins again.
_REMEMBERED = 100_000


class LocalCopies(DigestFolder):
    """Copies by digest.

    Args:
        folder: created if it does not exist.
        most_bytes: what all copies may have together. Those that are being read may have more.
        files: the operating system's file calls, or a test's.
    """

    def __init__(self, folder: Path, *, most_bytes: int, files: Files | None = None) -> None:
        super().__init__(folder, suffix="", files=files)
        self._most_bytes = most_bytes
        self._fetching = [threading.Lock() for _ in range(_LOCKS)]
        self._trimming = threading.Lock()
        self._compared: set[str] = set()
        self._bytes = self._trim(0)

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A temporary file, which is removed unless it gets a name. Raises StoreError."""
        with translated("write to"):
            incoming = Incoming(self._files, self._incoming, datetime.now(UTC))
        try:
            yield incoming
        finally:
            incoming.discard()

    @contextmanager
    def local(self, digest: str, fetch: Callable[[Incoming], bool]) -> Iterator[Path | None]:
        """The copy of a data file, which stays until the block ends. One with other bytes is fetched again.

        Args:
            fetch: writes the bytes of this SHA-256 if there is no copy. False if there are none.
        """
        path, held = self._path(digest), None
        # Another process may remove what was just fetched, before this one holds it.
        for _ in range(_TRIES):
            with self._fetching[hash(digest) % _LOCKS], translated("read"):
                held = self._hold_sound(digest)
                if held is None and not self._fetched(digest, fetch):
                    break
                held = self._files.hold(path) if held is None else held
            if held is not None:
                break
        else:
            raise StoreError(
                "The folder of copies is too small for those that are being read; allow it more."
            )
        try:
            self._make_room()
            yield None if held is None else path
        finally:
            if held is not None:
                os.close(held)
            self._make_room()

    def read(self, digest: str) -> bytes | None:
        """The copy's bytes; None if there is no copy that can be read."""
        with suppress(OSError):
            held = self._files.hold(self._path(digest))
            if held is not None:
                with os.fdopen(held, "rb") as file:
                    return file.read()
        return None

    def keep(self, digest: str, incoming: Incoming) -> None:
        """Make a whole temporary file the copy of a digest, unless there is one of its size, which somebody
        may be reading. Raises OSError."""
        self._name_it(digest, incoming)
        self._make_room()

    def _hold_sound(self, digest: str) -> int | None:
        """Hold the copy of a data file, compared once in each process; None if there is none, or was none
        with its bytes."""
        path = self._path(digest)
        held = self._files.hold(path)
        if held is None or digest in self._compared:
            return held
        found = None  # what cannot be read is as good as other bytes
        with suppress(OSError), os.fdopen(os.dup(held), "rb", buffering=0) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == digest:
            self._remember(digest)
            return held
        os.close(held)
        self.remove(digest)
        return None

    def _remember(self, digest: str) -> None:
        if len(self._compared) >= _REMEMBERED:
            self._compared.clear()
        self._compared.add(digest)

    def _fetched(self, digest: str, fetch: Callable[[Incoming], bool]) -> bool:
        with self.incoming() as incoming:
            found = fetch(incoming)
            if found:
                incoming.seal(datetime.now(UTC))
                self._name_it(digest, incoming)
                self._remember(digest)
        return found

    def _name_it(self, digest: str, incoming: Incoming) -> None:
        path = self._path(digest)
        size = incoming.path.stat().st_size
        # Another file in its place would be held by nobody, and could go while the old one is read.
        if (held := self._files.hold(path)) is not None:
            same = os.fstat(held).st_size == size
            os.close(held)
            if same:
                return
        self._files.make_folder(path.parent)
        incoming.name(path)
        with self._trimming:
            self._bytes += size

    def _make_room(self) -> None:
        with self._trimming:
            if self._bytes > self._most_bytes:
                self._bytes = self._trim(self._most_bytes)

    def _trim(self, most_bytes: int) -> int:
        """Remove copies until a tenth less than this is left; 0 removes none. Best effort. Returns the bytes
        that are left."""
        used = []
        with suppress(OSError, StoreError):
            for entry in self.entries():
                path = self._path(entry.digest)
                with suppress(FileNotFoundError):
                    used.append((entry.stored_at, self._files.size(path), path))
        left = sum(size for _, size, _ in used)
        if most_bytes and left > most_bytes:
            for _, size, path in sorted(used):
                with suppress(OSError):
                    left -= size * self._files.remove_unheld(path)
                if left <= most_bytes * _LEFT:
                    break
        return left
