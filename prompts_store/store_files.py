"""The store's data files: upload, show, list, tombstone, read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prompts_store import checks, data_files
from prompts_store.blobs import ContentWriter
from prompts_store.errors import CorruptError, InvalidError
from prompts_store.names import check_name
from prompts_store.pages import DEFAULT_LIMIT
from prompts_store.records import Page
from prompts_store.store_base import StoreBase
from prompts_store.tuning_records import DataFile


class FileWriter:
    """A data file on its way into the store, from `write_file`.

    Not safe for several threads at once; it may go from one to another.
    """

    def __init__(
        self,
        content: ContentWriter,
        commit: Callable[[ContentWriter], DataFile],
        max_bytes: int,
    ) -> None:
        self._content = content
        self._commit = commit
        self._max_bytes = max_bytes

    @property
    def size_bytes(self) -> int:
        """How much was written so far."""
        return self._content.size_bytes

    def write(self, content: bytes) -> None:
        """Append to the file.

        Raises:
            InvalidError: `file_too_large`, field `file`: with this it is larger than it may be.
            StoreError: the disk failed or is full.
        """
        if self._content.size_bytes + len(content) > self._max_bytes:
            raise InvalidError(
                f"The file is larger than {self._max_bytes} bytes, the most that is taken; send less.",
                field="file",
                code="file_too_large",
            )
        self._content.write(content)

    def commit(self) -> DataFile:
        """Make it a file. When this returns, it outlives a power cut; when it raises, there is none.

        Raises:
            StoreError: the disk or the database failed.
        """
        return self._commit(self._content)


class DataFiles(StoreBase):
    """Files of training data. Their bytes are stored once, however many files have them."""

    @contextmanager
    def write_file(
        self, tenant: str, name: str, *, created_by: str = "", max_bytes: int
    ) -> Iterator[FileWriter]:
        """A writer for a new file, as a stream; leaving without `commit` leaves nothing.

        Args:
            name: as the uploader calls it, without folders.
            max_bytes: the most that it may have.

        Raises:
            InvalidError: `invalid_name`, `invalid_file_name`.
            StoreError: the disk failed.
        """
        check_name(tenant, field="tenant")
        data_files.check_file_name(name)
        checks.check_text(created_by, field="created_by")
        contents = self._contents

        def commit(content: ContentWriter) -> DataFile:
            digest = content.seal(self._clock())
            with self._database.write() as connection:
                # Under the lock, so that no collector takes the bytes before their row is there.
                contents.keep(content, digest)
                file = data_files.new_file(
                    tenant, name, content.size_bytes, digest, created_by=created_by, now=self._clock()
                )
                data_files.add_file(connection, file)
            return file

        with contents.writer(self._clock()) as content:
            yield FileWriter(content, commit, max_bytes)

    def get_file(self, tenant: str, file_id: str) -> DataFile:
        """A live file. NotFoundError: `unknown_file`."""
        check_name(tenant, field="tenant")
        with self._database.read() as connection:
            return data_files.file_record(data_files.find_file(connection, tenant, file_id))

    def list_files(
        self, tenant: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[DataFile]:
        """A page of a tenant's live files, newest first. InvalidError: a bad limit or cursor."""
        check_name(tenant, field="tenant")
        with self._database.read() as connection:
            return data_files.list_files(connection, tenant, limit=limit, cursor=cursor)

    def delete_file(self, tenant: str, file_id: str, *, deleted_by: str = "") -> None:
        """Tombstone a file; its bytes go with a later collection, when no live file has the same.

        Raises:
            NotFoundError: `unknown_file`.
            ConflictError: `file_in_use`: an unfinished job names it.
        """
        check_name(tenant, field="tenant")
        checks.check_text(deleted_by, field="by")
        with self._database.write() as connection:
            data_files.delete_file(connection, tenant, file_id, deleted_by=deleted_by, now=self._clock())

    def file_path(self, tenant: str, file_id: str) -> Path:
        """Where the bytes of a live file are, to be read and never written.

        They stay as long as the file lives, and as long as an unfinished job names it.

        Raises:
            NotFoundError: `unknown_file`.
            CorruptError: `corrupt_file`: they are not there, or not as many as there should be.
        """
        file = self.get_file(tenant, file_id)
        found = self._contents.size(file.sha256)
        if found != file.size_bytes:
            what = "is missing" if found is None else f"has {found} bytes, not {file.size_bytes}"
            raise CorruptError(
                f"The content of {file.id} {what}; restore it from a backup, or upload the file again. If "
                f"this process runs on another machine than the server, they must share one data folder.",
                field="file",
                code="corrupt_file",
            )
        return self._contents.path(file.sha256)
