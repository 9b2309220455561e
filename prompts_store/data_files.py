"""Data files: the rows of what tenants uploaded to tune on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from prompts_store import checks
from prompts_store.database.tuning_tables import files, tuning_job_files, tuning_jobs
from prompts_store.errors import ConflictError, InvalidError, NotFoundError
from prompts_store.ids import FILE, check_cursor_id, is_id, new_id
from prompts_store.pages import check_limit, decode_cursor, encode_cursor, invalid_cursor, make_page
from prompts_store.records import Page
from prompts_store.text import has_control_characters, shown
from prompts_store.tuning_records import DataFile

MAX_FILE_NAME_CHARACTERS = 255

_CURSOR = "files"


def check_file_name(name: object) -> str:
    """The name itself, if it is one: of a file, without folders.

    Raises:
        InvalidError: `invalid_file_name`, field `name`.
    """
    try:
        text = checks.check_text(name, field="name", limit=MAX_FILE_NAME_CHARACTERS)
    except InvalidError:
        text = ""
    if not text.strip(" .") or has_control_characters(text) or "/" in text or "\\" in text:
        raise InvalidError(
            f"{shown(name)} is not a file name: send 1 to {MAX_FILE_NAME_CHARACTERS} characters without "
            f"'/', '\\' and control characters, as in 'train.jsonl'.",
            field="name",
            code="invalid_file_name",
        )
    return text


def add_file(connection: Connection, file: DataFile) -> None:
    """The row of a new file, whose bytes are on the disk. The caller holds the publish lock."""
    connection.execute(
        insert(files).values(
            id=file.id,
            tenant=file.tenant,
            name=file.name,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            created_at=file.created_at,
            created_by=file.created_by,
        )
    )


def new_file(
    tenant: str, name: str, size_bytes: int, sha256: str, *, created_by: str, now: datetime
) -> DataFile:
    """A file with a fresh id."""
    return DataFile(new_id(FILE), tenant, name, size_bytes, sha256, now, created_by)


def find_file(connection: Connection, tenant: str, file_id: str, *, field: str = "file") -> Row[Any]:
    """The row of a live file.

    Raises:
        NotFoundError: `unknown_file`.
    """
    query = select(files).where(files.c.id == file_id, files.c.tenant == tenant, files.c.deleted_at.is_(None))
    row = connection.execute(query).one_or_none() if is_id(file_id) else None
    if row is None:
        raise NotFoundError(
            f"There is no file {shown(file_id)}, or it was deleted; upload it first.",
            field=field,
            code="unknown_file",
        )
    return row


def list_files(connection: Connection, tenant: str, *, limit: int, cursor: str | None) -> Page[DataFile]:
    """A page of a tenant's live files, newest first.

    Raises:
        InvalidError: a bad limit or cursor.
    """
    limit = check_limit(limit)
    before = decode_cursor(_CURSOR, cursor, check_cursor_id)
    query = select(files).where(files.c.tenant == tenant, files.c.deleted_at.is_(None))
    if before is not None:
        # The id stands for its row's number, which would tell how many files all tenants have.
        of_tenant = select(files.c.number).where(files.c.id == before, files.c.tenant == tenant)
        number = connection.execute(of_tenant).scalar()
        if number is None:
            raise invalid_cursor()
        query = query.where(files.c.number < number)
    rows = connection.execute(query.order_by(files.c.number.desc()).limit(limit + 1)).all()
    return make_page(rows, limit, file_record, lambda row: encode_cursor(_CURSOR, row.id))


def delete_file(
    connection: Connection, tenant: str, file_id: str, *, deleted_by: str, now: datetime
) -> DataFile:
    """Tombstone a file; its bytes go later, when no live file has the same.

    Raises:
        NotFoundError: `unknown_file`.
        ConflictError: `file_in_use`: an unfinished job names it.
    """
    row = find_file(connection, tenant, file_id)
    uses = (
        select(tuning_jobs.c.id)
        .join(tuning_job_files, tuning_job_files.c.job_number == tuning_jobs.c.number)
        .where(tuning_job_files.c.file_number == row.number, tuning_jobs.c.finished_at.is_(None))
        .limit(1)
    )
    job_id = connection.execute(uses).scalar()
    if job_id is not None:
        raise ConflictError(
            f"The file is what the unfinished {job_id} learns from; wait for the job, or cancel it first.",
            field="file",
            code="file_in_use",
        )
    connection.execute(
        update(files).where(files.c.number == row.number).values(deleted_at=now, deleted_by=deleted_by)
    )
    return file_record(row)


def needed(connection: Connection, digests: Iterable[str], *, deleted_after: datetime) -> set[str]:
    """Those of the digests that a live file has, or one that was deleted after that moment."""
    query = select(files.c.sha256).where(
        files.c.sha256.in_(list(digests)),
        files.c.deleted_at.is_(None) | (files.c.deleted_at > deleted_after),
    )
    return set(connection.execute(query).scalars())


def file_record(row: Row[Any]) -> DataFile:
    """A file from the columns of `files`."""
    return DataFile(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        created_by=row.created_by,
        deleted_at=row.deleted_at,
    )
