"""Receiving a data file: which names are allowed, and its bytes up to a limit."""

from __future__ import annotations

from collections.abc import Callable

from prompts_store import checks
from prompts_store.blobs import ContentWriter
from prompts_store.errors import InvalidError
from prompts_store.files.records import DataFile, FilePurpose
from prompts_store.text import has_control_characters, shown

MAX_FILE_NAME_CHARACTERS = 255


class FileWriter:
    """A data file that is being written into the store, made by `write_file`.

    Only one thread may use it at a time, but it may be handed from one to another.

    Attributes:
        purpose: what the file is for; it may be changed before `commit`.
    """

    def __init__(
        self,
        content: ContentWriter,
        commit: Callable[[ContentWriter, FilePurpose], DataFile],
        max_bytes: int,
        purpose: FilePurpose,
    ) -> None:
        self.purpose: FilePurpose = purpose
        self._content = content
        self._commit = commit
        self._max_bytes = max_bytes

    @property
    def size_bytes(self) -> int:
        """How many bytes were written so far."""
        return self._content.size_bytes

    def write(self, content: bytes) -> None:
        """Append to the file.

        Raises:
            InvalidError: `file_too_large`, field `file`: the file would become larger than allowed.
            StoreError: the disk failed or is full.
        """
        if self._content.size_bytes + len(content) > self._max_bytes:
            raise InvalidError(
                f"The file is larger than {self._max_bytes} bytes, which is the limit; send less.",
                field="file",
                code="file_too_large",
            )
        self._content.write(content)

    def commit(self) -> DataFile:
        """Make it a file. When this returns, the file survives a power cut; if it raises, there is no file.

        Raises:
            LimitError: `limit_exceeded`: the tenant may keep no more.
            MadeBefore: see `StoreBase.creating`. Without a key, one that was deleted is made anew.
            StoreError: the disk or the database failed.
        """
        return self._commit(self._content, self.purpose)


def check_file_name(name: object) -> str:
    """Return the name if it is a file name without folders.

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
