"""A multipart form with one file, read as a stream: what is fed in comes out as the file's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.errors import InvalidInputError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PART = "file"


class FileForm:
    """Fed the body as it comes; hands out the bytes of the part `file`, which are never kept.

    Args:
        content_type: of the request, with the boundary.

    Attributes:
        filename: as the part's header says; None until that was read, or where it says none.
        begun: whether the part has begun.
        done: whether the form is complete.

    Raises:
        InvalidInputError: no boundary.
    """

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise _unreadable()
        self.filename: str | None = None
        self.begun = False
        self.done = False
        self._names: list[bytes] = []
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._pieces: list[bytes] = []
        self._problem: InvalidInputError | None = None
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError:
            raise _unreadable() from None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The file's bytes in the next part of the body.

        Raises:
            InvalidInputError: it is not a form, or has another part than one `file`.
        """
        self._pieces = []
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _unreadable() from None
        if self._problem is not None:
            raise self._problem
        return self._pieces

    def finish(self) -> None:
        """The body ended. Raises InvalidInputError where the form did not, or had no file."""
        if not self.done:
            raise _unreadable()
        if not self.begun:
            raise InvalidInputError("The form has no file part: send the file as 'file'.", field=PART)

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
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != PART.encode():
            self._refuse("The form has a part of another name than 'file'.", "body", "unknown_field")
        elif self.begun:
            self._refuse("The form has two parts 'file': send one.", PART, None)
        else:
            self.begun = True
            self.filename = _text(options.get(b"filename"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _ends(self) -> None:
        self.done = True

    def _refuse(self, message: str, field: str, code: str | None) -> None:
        """Kept until `feed` returns: the parser does not expect its callbacks to raise."""
        self._problem = self._problem or InvalidInputError(message, field=field, code=code)


def _text(name: bytes | None) -> str | None:
    return None if not name else name.decode("utf-8", "replace")


def _unreadable() -> InvalidInputError:
    return InvalidInputError(
        "The form cannot be read: send multipart/form-data with one part 'file'.", field="body"
    )
