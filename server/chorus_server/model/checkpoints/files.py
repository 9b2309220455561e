"""Recognising files that have not changed, and the folder for facts derived from them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


def identity_of(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over the resolved path, size and modification time of each file."""
    facts = []
    for path in paths:
        status = path.stat()
        facts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()


def cache_folder() -> Path:
    """`$CHORUS_CACHE_DIR`, else `$XDG_CACHE_HOME/chorus`, else `~/.cache/chorus`."""
    explicit = os.environ.get("CHORUS_CACHE_DIR")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "chorus"
