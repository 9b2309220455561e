"""The store's data files: upload, show, list, tombstone, read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from prompts_store import checks
from prompts_store.audit import chain
from prompts_store.base import StoreBase
from prompts_store.blobs import ContentWriter
from prompts_store.database.job_tables import files, job_files, jobs
from prompts_store.errors import ConflictError, CorruptError, NotFoundError, StoreError
from prompts_store.files.records import DataFile, FilePurpose
from prompts_store.files.writing import FileWriter, check_file_name
from prompts_store.ids import FILE, check_cursor_id, is_id, new_id
from prompts_store.names import check_name
from prompts_store.pages import (
    DEFAULT_LIMIT,
    check_limit,
    decode_cursor,
    encode_cursor,
    make_page,
    newest_rows,
)
from prompts_store.records import Page
from prompts_store.tenants import creations, standing, stored
from prompts_store.text import shown

_CURSOR = "files"


class _TakenError(Exception):
    """A collector took the bytes before their row was there."""


class DataFiles(StoreBase):
    """Files of training data. Equal bytes are stored once, however many files have them."""

    @contextmanager
    def write_file(
        self,
        tenant: str,
        name: str,
        *,
        created_by: str = "",
        made_by: str = "",
        max_bytes: int,
        purpose: FilePurpose = "fine-tune",
    ) -> Iterator[FileWriter]:
        """A writer for a new file, which is written as a stream. Leaving without `commit` leaves nothing.

        Args:
            name: the uploader's name for it, without folders.
            created_by, made_by: see `DataFile`.
            max_bytes: the most bytes that it may have.
            purpose: what it is for.

        Raises:
            InvalidError: `invalid_name`, `invalid_file_name`.
            StoreError: the disk failed.
        """
        check_name(tenant, field="tenant")
        check_file_name(name)
        checks.check_text(created_by, field="created_by")
        contents = self._contents

        def commit(content: ContentWriter, purpose: FilePurpose) -> DataFile:
            with suppress(_TakenError):
                return commit_once(content, purpose)
            return commit_once(content, purpose, under_lock=True)

        def commit_once(
            content: ContentWriter, purpose: FilePurpose, *, under_lock: bool = False
        ) -> DataFile:
            digest = content.seal(self._clock())
            with self._database.write(tenant) as connection:
                standing.require_not_deleted(connection, tenant)
                stands = partial(_is_live, connection, tenant)
                now = self._clock()
                said = (name, digest, purpose)
                remember = creations.require_new(connection, tenant, now, *said, stands=stands)
                stored.require_room(connection, tenant, file_bytes=content.size_bytes)
                stored.add(connection, tenant, file_bytes=content.size_bytes)
                # Under the lock, so that no collector removes the bytes before their row exists.
                if not contents.keep(content, digest):
                    if not under_lock:
                        raise _TakenError
                    # Twice would be one collector after another: now none can come between.
                    content.seal(now)
                    if not contents.keep(content, digest):
                        raise StoreError("The file is gone from where it was just stored; send it again.")
                file = DataFile(
                    new_id(FILE),
                    tenant,
                    name,
                    content.size_bytes,
                    digest,
                    now,
                    created_by,
                    purpose=purpose,
                    made_by=made_by,
                )
                _add_file(connection, file)
                chain.append(connection, "file.create", tenant, file.id, now=now, after=_facts(file))
                remember(file.id)
            return file

        with contents.writer(self._clock()) as content:
            yield FileWriter(content, commit, max_bytes, purpose)

    def get_file(self, tenant: str, file_id: str) -> DataFile:
        """A live file. NotFoundError: `unknown_file`."""
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            return _file_record(find_file(connection, tenant, file_id))

    def list_files(
        self,
        tenant: str,
        *,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        name: str | None = None,
        purpose: str | None = None,
        oldest_first: bool = False,
    ) -> Page[DataFile]:
        """A page of a tenant's live files, newest first unless asked otherwise; with `name` or `purpose`,
        only files that have it. Raises InvalidError for a bad limit or cursor."""
        check_name(tenant, field="tenant")
        limit = check_limit(limit)
        before = decode_cursor(_CURSOR, cursor, check_cursor_id)
        query = select(files).where(files.c.tenant == tenant, files.c.deleted_at.is_(None))
        if name is not None:
            query = query.where(files.c.name == name)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        with self._database.read(tenant) as connection:
            rows = newest_rows(connection, query, files, tenant, before, limit, oldest_first=oldest_first)
        return make_page(rows, limit, _file_record, lambda row: encode_cursor(_CURSOR, row.id))

    def delete_file(self, tenant: str, file_id: str, *, deleted_by: str = "") -> None:
        """Tombstone a file. A later collection removes its bytes, if no live file has the same ones.

        Raises:
            NotFoundError: `unknown_file`.
            ConflictError: `file_in_use`: an unfinished job needs it.
        """
        check_name(tenant, field="tenant")
        checks.check_text(deleted_by, field="by")
        with self._database.write(tenant) as connection:
            row = find_file(connection, tenant, file_id)
            uses = (
                select(jobs.c.id)
                .join(job_files, job_files.c.job_number == jobs.c.number)
                .where(job_files.c.file_number == row.number, jobs.c.finished_at.is_(None))
                .limit(1)
            )
            job_id = connection.execute(uses).scalar()
            if job_id is not None:
                raise ConflictError(
                    f"The unfinished {job_id} reads this file; wait for the job, or cancel it first.",
                    field="file",
                    code="file_in_use",
                )
            now = self._clock()
            connection.execute(
                update(files)
                .where(files.c.number == row.number)
                .values(deleted_at=now, deleted_by=deleted_by)
            )
            stored.add(connection, tenant, file_bytes=-row.size_bytes)
            before = _facts(_file_record(row))
            chain.append(connection, "file.delete", tenant, row.id, now=now, before=before)

    def local_file(self, tenant: str, file_id: str) -> LocalFile:
        """A file of this machine with the bytes of a live data file: `with store.local_file(...) as path`.
        Read it until the block ends, and never write there.

        Where the bytes are in a bucket, it is a copy, which others share and which goes when room is needed.
        A file that was opened within the block can be read to its end afterwards.

        Raises:
            NotFoundError: `unknown_file`.
            CorruptError: `corrupt_file`: the bytes are missing, or are others.
            StoreError: the disk or the bucket failed.
        """
        file = self.get_file(tenant, file_id)
        with ExitStack() as held:
            path = held.enter_context(self._contents.local(file.sha256))
            try:
                found = path and path.stat().st_size
            except FileNotFoundError:
                found = None
            if path is None or found != file.size_bytes:
                what = "is missing" if found is None else f"has {found} bytes, not {file.size_bytes}"
                raise CorruptError(
                    f"The content of {file.id} {what}; restore it from a backup, or upload the file again. "
                    f"If this process runs on another machine than the server, they must share one data "
                    f"folder or one bucket.",
                    field="file",
                    code="corrupt_file",
                )
            return LocalFile(path, held.pop_all())


class LocalFile(AbstractContextManager[Path]):
    """What `local_file` found; the copy may go when the block ends."""

    def __init__(self, path: Path, held: ExitStack) -> None:
        self._path = path
        self._held = held

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, *error: object) -> None:
        self._held.close()


def find_file(connection: Connection, tenant: str, file_id: str, *, field: str = "file") -> Row[Any]:
    """The row of a live file.

    Raises:
        NotFoundError: `unknown_file`.
    """
    query = select(files).where(files.c.id == file_id, files.c.tenant == tenant, files.c.deleted_at.is_(None))
    row = connection.execute(query).one_or_none() if is_id(file_id) else None
    if row is None:
        raise unknown_file(file_id, field=field)
    return row


def unknown_file(file_id: str, *, field: str = "file") -> NotFoundError:
    """The error for a file that is not there."""
    return NotFoundError(
        f"There is no file {shown(file_id)}, or it was deleted; upload it first.",
        field=field,
        code="unknown_file",
    )


def _is_live(connection: Connection, tenant: str, file_id: str) -> bool:
    with suppress(NotFoundError):
        find_file(connection, tenant, file_id)
        return True
    return False


def needed(connection: Connection, digests: Iterable[str], *, deleted_after: datetime) -> set[str]:
    """Those of the digests that belong to a live file, or to one deleted after that time."""
    query = select(files.c.sha256).where(
        files.c.sha256.in_(list(digests)),
        files.c.deleted_at.is_(None) | (files.c.deleted_at > deleted_after),
    )
    return set(connection.execute(query).scalars())


def _add_file(connection: Connection, file: DataFile) -> None:
    """Add the row of a new file, whose bytes are on the disk. The caller holds the publish lock."""
    connection.execute(
        insert(files).values(
            id=file.id,
            tenant=file.tenant,
            name=file.name,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            created_at=file.created_at,
            created_by=file.created_by,
            purpose=file.purpose,
            made_by=file.made_by,
        )
    )


def _facts(file: DataFile) -> dict[str, Any]:
    """What the audit log tells of a file."""
    return {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _file_record(row: Row[Any]) -> DataFile:
    """A file, from the columns of `files`."""
    return DataFile(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        created_by=row.created_by,
        deleted_at=row.deleted_at,
        purpose=row.purpose,
        made_by=row.made_by,
    )
