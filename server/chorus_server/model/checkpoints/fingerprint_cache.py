"""Fingerprints of checkpoints whose format has no place for one, kept with the user's other caches.

The key is made from the files' paths, sizes and times and from the architecture, so a changed file or flag is
computed again. Losing the cache costs one pass over the weights. If the folder cannot be written, nothing is
kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

from chorus_server.model.checkpoints.files import cache_folder
from chorus_server.model.checkpoints.reader import CheckpointReader
from chorus_server.model.fingerprint import ARCHITECTURE_FIELDS


def cached_fingerprint(reader: CheckpointReader) -> str | None:
    """The fingerprint kept for these files, or None."""
    path = _path(reader)
    if path is None or not path.is_file():
        return None
    text = path.read_text(encoding="ascii", errors="replace").strip()
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def keep_fingerprint(reader: CheckpointReader, fingerprint: str) -> bool:
    """Keep the fingerprint for next time. Returns False if the cache cannot be written."""
    path = _path(reader)
    if path is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(fingerprint + "\n")
        Path(temporary).replace(path)
    except OSError:
        return False
    return True


def _path(reader: CheckpointReader) -> Path | None:
    if reader.identity is None:
        return None
    architecture = [getattr(reader.config, field) for field in ARCHITECTURE_FIELDS]
    key = hashlib.sha256(json.dumps([reader.identity, architecture]).encode()).hexdigest()
    return cache_folder() / "fingerprints" / key
