"""`/v1/files`: training data."""

from __future__ import annotations

import re
from typing import Any

from chorus.datafiles import DataSource, data_upload
from chorus.errors import InvalidArgumentError
from chorus.methods import Method
from chorus.routes import references
from chorus.routes.paging import PAGE, every
from chorus.routes.tasks import get_page
from chorus.types import DataFile, FilePage
from chorus.wire import Call, Request, Steps, creation, model_of, nothing, query_of

PATH = "/v1/files"

FILE_ID = re.compile(r"file-[0-9a-f]{24}")


def file_id(file: str | DataFile) -> str:
    """The id of a file, given its id or its record."""
    return file.id if isinstance(file, DataFile) else file


def _path(file: str | DataFile) -> str:
    return f"{PATH}/{references.segment(file_id(file), 'file')}"


def push(source: DataSource, *, name: str | None = None) -> Call[DataFile]:
    """Upload training data. A file is sent as it is read, whatever its size.

    Args:
        source: path of a JSONL, CSV, TSV or Parquet file, the bytes of one, or rows (objects), which become
            JSON Lines.
        name: name of the file, whose ending tells the format; by default the path's own.
    """
    upload = data_upload(source, name)
    request = creation(PATH, query_of(name=upload.name), content=upload.content)
    return Call(request, model_of(DataFile))


def push_for(source: Any, field: str) -> Steps[DataFile]:
    """Upload what the caller gave as `field`, which an error names."""
    try:
        return (yield from push(source))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(str(error), field=field) from error


def list_page(*, limit: int | None = None, cursor: str | None = None) -> Call[FilePage]:
    """One page of the files, newest first.

    Args:
        limit: at most 500; default 50.
        cursor: `next_cursor` of the previous page.
    """
    return Call(get_page(PATH, query_of(limit=limit, cursor=cursor)), model_of(FilePage))


def list_all() -> Steps[list[DataFile]]:
    """Every file, newest first; fetches page after page."""
    return (yield from every(lambda cursor: list_page(limit=PAGE, cursor=cursor), lambda page: page.files))


def get(file: str | DataFile) -> Call[DataFile]:
    """Describe one file, without its bytes."""
    return Call(get_page(_path(file), ()), model_of(DataFile))


def content(file: str | DataFile) -> Call[bytes]:
    """The bytes of a file."""
    request = Request("GET", f"{_path(file)}/content", repeatable=True)
    return Call(request, lambda answer: answer.content)


def delete(file: str | DataFile) -> Call[None]:
    """Delete a file.

    Raises:
        ConflictError: an unfinished job needs it.
    """
    return Call(Request("DELETE", _path(file)), nothing)


class FileMethods:
    """The methods of `client.files`."""

    push = Method(push)
    list = Method(list_all)
    page = Method(list_page)
    get = Method(get)
    content = Method(content)
    delete = Method(delete)
