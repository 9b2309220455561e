"""Blobs in a local folder, with our own short writer.

    put: create a temporary file (exclusive), write, fsync, rename, fsync the folder

obstore's local store never syncs, so a power cut may lose what it has stored. It is used for buckets only.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prompts_store.blobs.files import Files
from prompts_store.blobs.folder import DigestFolder, translated
from prompts_store.blobs.format import SUFFIX


class LocalBlobs(DigestFolder):
    """A `Blobs` in a folder of a local disk, for any number of processes on one machine.

    Args:
        folder: created if it does not exist. A blob is `FOLDER/ab/ab12....npy`.
        files: the operating system's file calls, or a test's.
    """

    def __init__(self, folder: Path, *, files: Files | None = None) -> None:
        super().__init__(folder, suffix=SUFFIX, files=files)

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        """See `Blobs.put`. The bytes are on the disk before the name is, and the name is before this
        returns.

        Also written if it is there: it may be damaged, and to be faster would tell an uploader what others
        have.
        """
        with translated("write"):
            path = self._path(digest)
            self._make_shard(path.parent)
            self._write(path, content, now)
            self._files.sync_folder(path.parent)

    def get(self, digest: str, *, fresh: bool = False) -> bytes | None:
        """See `Blobs.get`."""
        with translated("read"):
            try:
                return self._files.read(self._path(digest))
            except FileNotFoundError:
                return None
