"""The records of data files that the store returns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class DataFile:
    """An uploaded file of training data. Its bytes never change.

    Attributes:
        id: `file-` and 24 hexadecimal digits.
        name: the uploader's name for it, for people and for guessing the format. Never a path.
        sha256: of the bytes, in hex.
        deleted_at: set by a tombstone.
    """

    id: str
    tenant: str
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime
    created_by: str = ""
    deleted_at: datetime | None = None
