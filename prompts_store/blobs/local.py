"""Blobs in a local folder, by our own short writer.

    put: create a temporary file (exclusive), write, fsync, rename, fsync the folder

obstore's local store never syncs, so what it has stored may be gone after a power cut; it is for buckets
only.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prompts_store.blobs.files import Files
from prompts_store.blobs.folder import DigestFolder, translated


class LocalBlobs(DigestFolder):
    """A `Blobs` in a folder of a local disk, for any number of processes on one machine.

    Args:
        folder: made when it is not there; a blob is `FOLDER/ab/ab12....npy`.
        files: the operating system, or a test's.
    """

    def __init__(self, folder: Path, *, files: Files | None = None) -> None:
        super().__init__(folder, suffix=".npy", files=files)

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        """See `Blobs.put`. The bytes are on the disk before the name, and the name before this returns."""
        with translated("write"):
            path = self._path(digest)
            self._make_shard(path.parent)
            if not self._keep(path, content, now):
                self._write(path, content, now)
            # Also for a blob that was there: whoever renamed it may not have come to this line.
            self._files.sync_folder(path.parent)

    def get(self, digest: str) -> bytes | None:
        """See `Blobs.get`."""
        with translated("read"):
            try:
                return self._files.read(self._path(digest))
            except FileNotFoundError:
                return None

    def _keep(self, path: Path, content: bytes, now: datetime) -> bool:
        """Whether the blob is there, whole; it then counts as stored now."""
        try:
            if self._files.read(path) != content:
                return False
            self._files.touch(path, now.timestamp())
        except FileNotFoundError:
            return False
        return True
