"""Data files as OpenAI's clients send and read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chorus_server.errors import InvalidInputError
from prompts_store.files.records import DataFile, FilePurpose

EXPIRES = ("expires_after[anchor]", "expires_after[seconds]")
PARTS = ("purpose", *EXPIRES)
"""Parts of the form beside the file."""

_UPLOADED: Final[tuple[FilePurpose, ...]] = ("fine-tune", "batch", "user_data")


def purpose_of(parts: Mapping[str, str], whole: bool) -> FilePurpose:
    """What a file is for, by its form.

    Args:
        whole: whether no more parts will come.

    Raises:
        InvalidInputError: there is no purpose, or none that this server knows; or it should expire.
    """
    for name in EXPIRES:
        if name in parts:
            raise InvalidInputError(
                "Files stay until they are deleted: leave expires_after out.", field="expires_after"
            )
    asked = parts.get("purpose")
    for known in _UPLOADED:
        if asked == known:
            return known
    if asked is None and not whole:
        return _UPLOADED[0]
    raise InvalidInputError(f"Send a purpose: one of {', '.join(_UPLOADED)}.", field="purpose")


def file_object(file: DataFile) -> dict[str, Any]:
    """A file in OpenAI's fields."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }
