"""A bucket, through obstore: its few calls, with the store's errors.

What a bucket answers may repeat an access key, so no error and no line of the log has it: they say what was
tried, the status and the code that S3 has for it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prompts_store.errors import ConflictError, StoreError

if TYPE_CHECKING:
    import obstore
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

LOG = logging.getLogger("chorus.store")

PART_BYTES = 8 << 20
"""A file is sent and fetched in parts of so many bytes, each a request of its own."""

_PARTS_AT_ONCE = 2
_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_LATE = re.compile(r"TimedOut|timed out", re.IGNORECASE)


class Bucket:
    """Objects under one prefix of a bucket. Every method raises StoreError if the bucket fails.

    Args:
        objects: where they are.
        name: of the bucket and prefix, for errors.
    """

    def __init__(self, objects: ObjectStore, name: str) -> None:
        self._objects = objects
        self._name = name

    def put(self, key: str, content: bytes) -> None:
        """Store an object whole, in place of the one that has this key."""
        import obstore

        with self._translated("write to"):
            obstore.put(self._objects, key, content, use_multipart=False)

    def put_file(self, key: str, path: Path) -> None:
        """Store a file as an object, in parts; it is there whole or not at all."""
        import obstore

        with self._translated("write to"):
            obstore.put(self._objects, key, path, chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    def create(self, key: str, content: bytes) -> bool:
        """Store an object where none is. False if one with other bytes is there."""
        with self._translated("write to"):
            return self._put_if(key, content, "create")

    def exchange(self, key: str, content: bytes, instead_of: bytes | None) -> bool:
        """Store an object in place of one with these bytes, or of none. False if something else is there."""
        import obstore

        with self._translated("write to"):
            mode: obstore.PutMode = "create"
            with suppress(FileNotFoundError):
                found = obstore.get(self._objects, key)
                if bytes(found.bytes()) != instead_of:
                    return False
                # GCS asks for the version. S3 without versions has none, and would compare None too.
                mode = {"e_tag": found.meta["e_tag"]}
                if found.meta["version"] is not None:
                    mode["version"] = found.meta["version"]
            if instead_of is not None and mode == "create":
                return False
            return self._put_if(key, content, mode)

    def _put_if(self, key: str, content: bytes, mode: obstore.PutMode) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            obstore.put(self._objects, key, content, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            # Perhaps by this very call, if its first answer was lost.
            with suppress(FileNotFoundError):
                return bytes(obstore.get(self._objects, key).bytes()) == content
            return False
        return True

    def get(self, key: str) -> bytes | None:
        """The bytes of an object; None if there is none."""
        import obstore

        with suppress(FileNotFoundError), self._translated("read"):
            return bytes(obstore.get(self._objects, key).bytes())
        return None

    def parts(self, key: str, *, one_version: bool = False) -> Iterator[bytes]:
        """The bytes of an object, in parts. Raises FileNotFoundError if there is none.

        Args:
            one_version: for an object whose bytes may change: raise ConflictError if it was written
                meanwhile.
        """
        import obstore

        with self._translated("read"):
            first = obstore.head(self._objects, key)
        for start in range(0, first["size"], PART_BYTES):
            end = min(start + PART_BYTES, first["size"])
            with self._translated("read"):
                found = obstore.get(self._objects, key, options={"range": (start, end)})
                content = bytes(found.bytes())
            if one_version and found.meta["e_tag"] != first["e_tag"]:
                message = f"{key} in the bucket {self._name} was written while it was read; try again."
                raise ConflictError(message, field="blob_url")
            yield content

    def end(self, key: str, size: int) -> bytes:
        """The last bytes of an object; all, if it has fewer. Raises FileNotFoundError if there is none."""
        import obstore

        with self._translated("read"):
            whole = obstore.head(self._objects, key)["size"]
            start = max(0, whole - size)
            return bytes(obstore.get_range(self._objects, key, start=start, end=whole)) if whole else b""

    def look(self, key: str) -> tuple[int, datetime] | None:
        """The size of an object in bytes, and when it was last written by the bucket's clock; None if there
        is none."""
        import obstore

        with suppress(FileNotFoundError), self._translated("read"):
            found = obstore.head(self._objects, key)
            return found["size"], found["last_modified"]
        return None

    def version(self, key: str) -> str | None:
        """Another text whenever an object has other bytes; None if there is none."""
        import obstore

        with suppress(FileNotFoundError), self._translated("read"):
            return _version(obstore.head(self._objects, key))
        return None

    def remove(self, key: str) -> None:
        """Remove an object, if there is one."""
        import obstore

        with suppress(FileNotFoundError), self._translated("remove from"):
            obstore.delete(self._objects, key)

    def entries(self, prefix: str) -> Iterator[tuple[str, datetime]]:
        """The keys below a prefix, each with the time when it was last written, by the bucket's clock."""
        import obstore

        with self._translated("list"):
            for some in obstore.list(self._objects, prefix):
                for one in some:
                    yield one["path"], one["last_modified"]

    def versions(self) -> Iterator[tuple[str, str]]:
        """All keys, each with what `version` says."""
        import obstore

        with self._translated("list"):
            for some in obstore.list(self._objects):
                for one in some:
                    yield one["path"], _version(one)

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        """Turn what obstore raises into the store's errors, but for a missing object."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            # A bucket that is not there must not look like an empty one.
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                raise
            message = f"Cannot {verb} the bucket {self._name}: {_reason(error)}."
            LOG.warning("%s", message)
            raise StoreError(message, field="blob_url") from None


def _version(found: ObjectMeta) -> str:
    """A folder's tag has the inode and the time in it; a bucket's quotes it in some answers only."""
    tag = found["e_tag"] or f"{found['last_modified']:%Y%m%dT%H%M%S}"
    return f"{found['size']}-{tag.removeprefix('W/').strip(chr(34))}"


def _reason(error: Exception) -> str:
    """Why the bucket could not do it, in words."""
    from obstore.exceptions import UnauthenticatedError

    text = str(error)
    said = [match[1] for pattern in (_STATUS, _CODE) if (match := pattern.search(text))]
    told = f" ({' '.join(said)})" if said else ""
    if "NoSuchBucket" in said:
        return "there is no such bucket"
    if isinstance(error, UnauthenticatedError) or {"401", "403"} & set(said):
        return f"access was denied{told}; check the credentials and what they allow"
    if said:
        return f"it answered with an error{told}"
    return "it did not answer in time" if _LATE.search(text) else "it cannot be reached"
