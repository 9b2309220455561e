"""Parquet files of a folder or bucket, and which of them are answered already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from chorus_server.cluster.questions import RowQuestion
from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings
from chorus_server.storage import blob_address
from prompts_store.blobs.address import check_url
from prompts_store.blobs.bucket import Bucket
from prompts_store.errors import InvalidError

QUESTION = "_question.json"
"""Beside the answered files: what they were asked."""

SOURCE = b"chorus.source"
"""In the metadata of an answered file: the version of its source."""

MOST_ATTEMPTS = 3
"""How often a run begins a file whose process ends each time."""

_SUFFIX = ".parquet"
_FOOTER_BYTES = 1 << 16
_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class AnsweredFile:
    """What came of one file.

    Attributes:
        path: below the source, and below the target.
        rows, failed: how many rows it has, and how many of them have an error.
        skipped: whether it was answered before; its rows were not counted again.
        error: why it has no answers; None if it has.
    """

    path: str
    rows: int = 0
    failed: int = 0
    skipped: bool = False
    error: str | None = None


def bucket_of(settings: Settings, url: str, field: str) -> Bucket:
    """A folder (`file:///FOLDER`) or a bucket, reached with the settings of the store's bucket.

    Args:
        field: to name in an error.

    Raises:
        InvalidInputError: the URL, or such a setting, cannot be used.
    """
    with _naming(field):
        address = blob_address(settings, url)
        parts = check_url(address.url)
        if parts.scheme != "file":
            return address.bucket()
    from obstore.store import LocalStore

    folder = Path(unquote(parts.path))
    if field == "source" and not folder.is_dir():
        raise InvalidInputError("There is no such folder.", field=field)
    return Bucket(LocalStore(folder, mkdir=True), url)


@dataclass(frozen=True, slots=True)
class FileSets:
    """Where files come from, and where they go to, under the same paths."""

    source: str
    target: str

    def begin(self, settings: Settings, question: RowQuestion) -> tuple[dict[str, str], Bucket]:
        """The paths of the source's files, each with its version; and the target, for this question.

        Raises:
            InvalidInputError: one is inside the other, there are no files, or the target has answers to
                another question.
            StoreError: the folder or bucket does not answer.
        """
        source, target = _place(settings, self.source, "source"), _place(settings, self.target, "target")
        if source.overlaps(target):
            raise InvalidInputError("It must be neither the source, nor in it or around it.", field="target")
        found = _files(bucket_of(settings, self.source, "source"))
        if not found:
            raise InvalidInputError(f"There is no file *{_SUFFIX} in it.", field="source")
        bucket = bucket_of(settings, self.target, "target")
        _keep_question(bucket, {"source": str(source), **question.document()})
        return found, bucket


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder, or what is below a prefix of a bucket, always written alike.

    Attributes:
        server: the endpoint of the bucket; None for Amazon's and for what has none. Two names of one server
            are two servers.
    """

    url: str
    server: str | None = None

    def overlaps(self, other: _Place) -> bool:
        """Whether one is the other, or in it."""
        ours, theirs = (f"{each.url.rstrip('/')}/" for each in (self, other))
        return self.server == other.server and (ours.startswith(theirs) or theirs.startswith(ours))

    def __str__(self) -> str:
        return self.url if self.server is None else f"{self.url}?endpoint={self.server}"


def _place(settings: Settings, url: str, field: str) -> _Place:
    """Where a URL leads. Raises InvalidInputError if it cannot be used."""
    with _naming(field):
        address = blob_address(settings, url)
        parts = check_url(address.url)
    path = unquote(parts.path)
    if parts.scheme == "file":
        return _Place(f"file://{Path(path).resolve()}")
    server = address.endpoint and address.endpoint.rstrip("/").lower()
    return _Place(f"{parts.scheme}://{parts.netloc}/{path.strip('/')}", server)


def answered_files(found: Mapping[str, str], target: Bucket) -> list[str]:
    """Which files of a source have their answers in the target.

    Such a file appears whole or not at all, and says which version of its source it answers. If that is the
    one that is there, it is complete.

    Args:
        found: paths and versions, as `FileSets.begin` finds them.
    """
    there = sorted(found.keys() & _files(target).keys())
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as threads:
        versions = zip(there, threads.map(partial(_answered_version, target), there), strict=True)
        return [path for path, version in versions if version == found[path]]


def fetch(bucket: Bucket, path: str, to: Path) -> str:
    """Copy a file to this machine. Returns its version.

    Raises:
        FileNotFoundError: it is gone.
        ConflictError: it was written meanwhile.
        StoreError: the bucket does not answer.
    """
    version = bucket.version(path)
    if version is None:
        raise FileNotFoundError(f"{path} is gone")
    with to.open("wb") as opened:
        opened.writelines(bucket.parts(path, one_version=True))
    return version


@contextmanager
def attempted(target: Bucket, path: str, run: int) -> Iterator[None]:
    """Keep in the target that a file is under way. If that ends its process, Ray begins it again in another
    one, and would do so for ever.

    Args:
        run: its number; another one begins to count anew.

    Raises:
        InvalidInputError: `MOST_ATTEMPTS` processes of this run have ended at it.
        StoreError: the target does not answer.
    """
    key, attempts = f"_attempts/{path}.json", 0
    if (kept := target.get(key)) is not None and (found := json.loads(kept))["run"] == run:
        attempts = found["attempts"]
    if attempts < MOST_ATTEMPTS:
        target.put(key, json.dumps({"run": run, "attempts": attempts + 1}).encode())
    try:
        if attempts >= MOST_ATTEMPTS:
            raise InvalidInputError(
                f"{attempts} processes ended while they answered it: look into their logs, and at its rows."
            )
        yield
    finally:
        target.remove(key)


def _files(bucket: Bucket) -> dict[str, str]:
    """Paths of Parquet files, each with its version; without what others begin with a dot or an underscore to
    have it left out."""
    return {
        path: version
        for path, version in bucket.versions()
        if path.endswith(_SUFFIX) and not any(part[0] in "._" for part in path.split("/") if part)
    }


def _answered_version(target: Bucket, path: str) -> str | None:
    """Which version of its source a file has the answers to; None if it does not say."""
    try:
        footer = target.end(path, _FOOTER_BYTES)  # its length and four letters are the last
        if (size := int.from_bytes(footer[-8:-4], "little") + 8) > _FOOTER_BYTES:
            footer = target.end(path, size)
        found: dict[bytes, bytes] = pq.read_metadata(pa.BufferReader(footer)).metadata or {}
    except (FileNotFoundError, pa.ArrowException):
        return None
    return found.get(SOURCE, b"").decode(errors="replace")


def _keep_question(target: Bucket, question: Mapping[str, Any]) -> None:
    content = json.dumps(question, sort_keys=True, indent=1).encode()
    if target.create(QUESTION, content):
        return
    raise InvalidInputError(
        f"It has answers of another source or to another question, as {QUESTION} there says: choose another.",
        field="target",
    )


@contextmanager
def _naming(field: str) -> Iterator[None]:
    try:
        yield
    except InvalidError as error:
        message = error.message.replace("blob_url", "It", 1)
        raise InvalidInputError(message, field=field if error.field == "blob_url" else error.field) from None
