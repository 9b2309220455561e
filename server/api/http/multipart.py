"""Multipart forms, in memory: the body was read under its limit before, nothing is spooled to disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from server.errors import InvalidInputError

_MAX_PARTS = 8


async def read_multipart(request: Request, body: bytes, names: set[str]) -> dict[str, bytes]:
    """The parts of a form by name.

    Args:
        body: of the request, whole.
        names: that may occur, each once.

    Raises:
        InvalidInputError: not a form, an unknown part, or one that comes twice.
    """

    async def replay() -> AsyncGenerator[bytes, None]:
        yield body

    size = len(body) + 1
    parser = MultiPartParser(
        request.headers, replay(), max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=size
    )
    parser.spool_max_size = size
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError):
        raise InvalidInputError(
            "The form cannot be read: send multipart/form-data with the parts 'file' and 'metadata'.",
            field="body",
        ) from None
    parts: dict[str, bytes] = {}
    try:
        for name, value in form.multi_items():
            if name not in names:
                raise InvalidInputError(
                    f"The form has a part of another name than {' and '.join(sorted(names))}.",
                    field="body",
                    code="unknown_field",
                )
            if name in parts:
                raise InvalidInputError(f"The form has two parts '{name}': send one.", field=name)
            parts[name] = (
                await value.read()
                if isinstance(value, UploadFile)
                else value.encode("utf-8", "surrogatepass")
            )
    finally:
        for file in parser._files_to_close_on_error:  # also those of parts that did not end
            file.close()
    return parts
