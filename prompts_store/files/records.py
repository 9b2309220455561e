"""The records of data files that the store returns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

FilePurpose = Literal["fine-tune", "batch", "batch_output", "user_data"]
"""What a file is for, in OpenAI's words. Files of the native routes are training data, `fine-tune`."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that was uploaded, or that a job made. Its bytes never change.

    Attributes:
        id: `file-` and 24 hexadecimal digits.
        name: the uploader's name for it, for people and for guessing the format. Never a path.
        sha256: of the bytes, in hex.
        created_by: the name of the key that uploaded it, or made the job that made it.
        deleted_at: set by a tombstone.
        made_by: id of the key that uploaded it, or of the job that made it; empty if that key has none; None
            where an older Chorus stored it.
    """

    id: str
    tenant: str
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime
    created_by: str = ""
    deleted_at: datetime | None = None
    purpose: FilePurpose = "fine-tune"
    made_by: str | None = ""
