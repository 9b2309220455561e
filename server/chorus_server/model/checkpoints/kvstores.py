"""Folders that tensorstore can read: local ones, `file://` and `gs://`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from chorus_server.errors import InvalidModelError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}[a-z0-9]")


def folder_spec(source: str | Path) -> dict[str, Any]:
    """tensorstore's key-value store specification of a folder. Its path ends with a slash.

    Raises:
        InvalidModelError: the scheme or bucket name is not valid.
    """
    text = str(source)
    if "://" not in text:
        return {"driver": "file", "path": f"{Path(text).resolve()}/"}
    parts = urlsplit(text)
    path = unquote(parts.path).strip("/")
    if parts.scheme == "file" and not parts.netloc:
        return {"driver": "file", "path": f"/{path}/"}
    if parts.scheme == "gs" and _BUCKET.fullmatch(parts.netloc):
        return {"driver": "gcs", "bucket": parts.netloc, "path": f"{path}/" if path else ""}
    raise InvalidModelError(f"{text} is neither gs://BUCKET/FOLDER nor file:///FOLDER", field="model")


def child_spec(folder: dict[str, Any], name: str) -> dict[str, Any]:
    """The specification of a folder inside another."""
    return {**folder, "path": f"{folder['path']}{name}/"}
