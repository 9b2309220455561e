"""Multipart forms, read as they arrive: feed in the body, get out the bytes of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from chorus_server.api.http.bodies import BodyShare, body_chunks
from chorus_server.errors import InvalidInputError, TooLargeError

_FIELD_BYTES = 256 << 10  # limit of a part that is not a file

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


class Form:
    """Takes the body as it arrives, returns the bytes of its parts, and keeps none of them.

    Args:
        content_type: the request's, with the boundary.
        names: the parts that may occur, each once. The first is a file and is required.

    Attributes:
        filename: from the header of the file's part; None until that was read, or if it has none.
        begun: the parts that have begun.
        done: whether the form is complete.

    Raises:
        InvalidInputError: the content type has no boundary.
    """

    def __init__(self, content_type: str, names: tuple[str, ...]) -> None:
        self._names = names
        self.filename: str | None = None
        self.begun: list[str] = []
        self.done = False
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._pieces: list[tuple[str, bytes]] = []
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise self._unreadable()
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError:
            raise self._unreadable() from None

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """Take the next bytes of the body. Returns the bytes of parts in them, each with the part's name.

        Raises:
            InvalidInputError: the body is not a form, or a part has another name or comes twice.
        """
        self._pieces = []
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise self._unreadable() from None
        return self._pieces

    def finish(self) -> None:
        """The body ended. Raises InvalidInputError if the form is incomplete or has no file."""
        if not self.done:
            raise self._unreadable()
        file = self._names[0]
        if file not in self.begun:
            raise InvalidInputError(f"The form has no part '{file}': send the file as '{file}'.", field=file)

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._ends,
        }

    def _part_begins(self) -> None:
        self._header, self._value, self._disposition = b"", b"", b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_end(self) -> None:
        """An error raised here stops the parser at once; it gets no further bytes."""
        _, options = parse_options_header(self._disposition)
        name = (options.get(b"name") or b"").decode("utf-8", "replace")
        if name not in self._names:
            raise InvalidInputError(
                f"The form has a part with a name other than {self._shown()}.",
                field="body",
                code="unknown_field",
            )
        if name in self.begun:
            raise InvalidInputError(f"The form has two parts '{name}': send one.", field=name)
        if name == self._names[0]:
            self.filename = (options.get(b"filename") or b"").decode("utf-8", "replace") or None
        self.begun.append(name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append((self.begun[-1], data[start:end]))

    def _ends(self) -> None:
        self.done = True

    def _shown(self) -> str:
        return " and ".join(f"'{name}'" for name in self._names)

    def _unreadable(self) -> InvalidInputError:
        parts = "the parts" if len(self._names) > 1 else "one part"
        return InvalidInputError(
            f"The form cannot be read: send multipart/form-data with {parts} {self._shown()}.", field="body"
        )


async def read_multipart(
    request: Request, names: tuple[str, ...], limit: int, share: BodyShare
) -> dict[str, bytearray]:
    """The parts of a form by name.

    Raises:
        InvalidInputError: see `Form`.
        TooLargeError: a part that is not a file has more than 256 KiB; or raised by `body_chunks`.
        OverloadedError: raised by `body_chunks`.
    """
    form = Form(request.headers["content-type"], names)
    parts = {name: bytearray() for name in names}
    async for chunk in body_chunks(request, limit, share):
        for name, piece in form.feed(chunk):
            parts[name] += piece
            if name != names[0] and len(parts[name]) > _FIELD_BYTES:
                raise TooLargeError(f"The part '{name}' is larger than {_FIELD_BYTES} bytes.", field=name)
    form.finish()
    return {name: parts[name] for name in form.begun}
