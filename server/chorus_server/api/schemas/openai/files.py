"""Files in OpenAI's fields."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from prompts_store.files.records import FilePurpose


class FileObject(AnswerModel):
    """A file, the same one that `/v1/files` has."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: FilePurpose
    status: Literal["processed"] = Field(description="Rows are checked by the job that reads them.")


class FileObjects(AnswerModel):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(AnswerModel):
    """A file that is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
