"""Blobs and data files in a bucket. The keys are the names that files have in a folder, so that a store moves
by copying:

    PREFIX/blobs/ab/ab12....npy, PREFIX/files/ab/ab12...    whole: an object appears with its last byte
    PREFIX/blobs/store-id, PREFIX/files/store-id            whose, see `prompts_store.upkeep.identity`

Each write of an object replaces it and makes it new by the bucket's clock: see decision 0021.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from prompts_store.blobs.bucket import Bucket
from prompts_store.blobs.contents import ContentWriter
from prompts_store.blobs.copies import LocalCopies
from prompts_store.blobs.folder import IDENTITY, Incoming, digest_name, translated
from prompts_store.blobs.format import SUFFIX, decode
from prompts_store.blobs.interface import BlobEntry
from prompts_store.digests import prompt_digest
from prompts_store.errors import CorruptError, StoreError


class _BucketPlace:
    """What blobs and data files in a bucket have in common.

    Args:
        kind: `blobs` or `files`, the first part of every key.
        suffix: ending of every digest's key.
        copies: where copies are kept on this machine.
    """

    def __init__(self, bucket: Bucket, kind: str, suffix: str, copies: LocalCopies) -> None:
        self._bucket = bucket
        self._kind = kind
        self._suffix = suffix
        self._copies = copies
        self._name = re.compile(rf"{kind}/[0-9a-f]{{2}}/([0-9a-f]{{64}}){re.escape(suffix)}")

    def has(self, digest: str) -> bool:
        """See `Place.has`."""
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """See `Place.size`."""
        found = self._bucket.look(self._key(digest))
        return None if found is None else found[0]

    def identity(self) -> str | None:
        """See `Place.identity`."""
        content = self._bucket.get(f"{self._kind}/{IDENTITY}")
        return None if content is None else content.decode(errors="replace").strip()

    def identify(self, identity: str, *, now: datetime, instead_of: str | None) -> bool:
        """See `Place.identify`."""
        if self.identity() == identity:
            return True
        before = None if instead_of is None else _line(instead_of)
        return self._bucket.exchange(f"{self._kind}/{IDENTITY}", _line(identity), before)

    def remove(self, digest: str, *, before: datetime | None = None) -> int | None:
        """See `Place.remove`. Two requests."""
        found = self._bucket.look(self._key(digest))
        if found is not None and before is not None and found[1] > before:
            return None
        if found is not None:
            self._bucket.remove(self._key(digest))
        with suppress(StoreError):
            self._copies.remove(digest)
        return None if found is None else found[0]

    def entries(self) -> Iterator[BlobEntry]:
        """See `Place.entries`."""
        for key, written in self._bucket.entries(self._kind):
            if match := self._name.fullmatch(key):
                yield BlobEntry(match[1], written)

    def unfinished(self) -> int:
        """See `Place.unfinished`: those of this machine. Parts of an upload that died with its process are
        the bucket's to remove."""
        return 0

    def sweep(self, before: datetime, *, dry_run: bool = False) -> int:
        """See `Place.sweep`."""
        return 0

    def _key(self, digest: str) -> str:
        return f"{self._kind}/{digest_name(digest, self._suffix)}"


class BucketBlobs(_BucketPlace):
    """The values of prompts in a bucket: a `Blobs`."""

    def __init__(self, bucket: Bucket, copies: LocalCopies) -> None:
        super().__init__(bucket, "blobs", SUFFIX, copies)

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        """See `Blobs.put`. Also sent if it is there: see `LocalBlobs.put`."""
        self._bucket.put(self._key(digest), content)

    def get(self, digest: str, *, fresh: bool = False) -> bytes | None:
        """See `Blobs.get`. A copy that is damaged is fetched again."""
        if not fresh and (copy := self._copies.read(digest)) is not None:
            if _is_sound(copy, digest):
                return copy
            with suppress(StoreError):
                self._copies.remove(digest)
        content = self._bucket.get(self._key(digest))
        if content is not None and not fresh and _is_sound(content, digest):
            # A full disk keeps nobody from reading.
            with suppress(OSError, StoreError), self._copies.incoming() as incoming:
                incoming.write(content)
                self._copies.keep(digest, incoming)
        return content


class BucketContents(_BucketPlace):
    """The bytes of data files in a bucket: a `Contents`.

    An upload goes to this machine's disk first, because its digest, and so its key, is known at its end.
    """

    def __init__(self, bucket: Bucket, copies: LocalCopies) -> None:
        super().__init__(bucket, "files", "", copies)

    @contextmanager
    def writer(self, now: datetime) -> Iterator[ContentWriter]:
        """See `Contents.writer`."""
        with self._copies.incoming() as incoming:
            yield _Sending(incoming, self)

    def send(self, digest: str, path: Path) -> None:
        """Store a local file under its digest. Raises StoreError."""
        self._bucket.put_file(self._key(digest), path)

    def keep(self, writer: ContentWriter, digest: str) -> bool:
        """See `Contents.keep`. One request."""
        if self.size(digest) != writer.size_bytes:
            return False
        with suppress(OSError):
            self._copies.keep(digest, writer.incoming)
        return True

    @contextmanager
    def local(self, digest: str) -> Iterator[Path | None]:
        """See `Contents.local`."""

        def fetch(incoming: Incoming) -> bool:
            found = hashlib.sha256()
            try:
                for part in self._bucket.parts(self._key(digest)):
                    found.update(part)
                    with translated("write to"):
                        incoming.write(part)
            except FileNotFoundError:
                return False
            if found.hexdigest() != digest:
                raise CorruptError(
                    f"The bytes of {digest} in the bucket are others; upload the file again, or restore it "
                    f"from a backup.",
                    field="file",
                    code="corrupt_file",
                )
            return True

        with self._copies.local(digest, fetch) as path:
            yield path

    def digest_of(self, digest: str) -> str | None:
        """See `Contents.digest_of`."""
        found = hashlib.sha256()
        try:
            for part in self._bucket.parts(self._key(digest)):
                found.update(part)
        except FileNotFoundError:
            return None
        return found.hexdigest()

    def unfinished(self) -> int:
        """See `Place.unfinished`."""
        return self._copies.unfinished()

    def sweep(self, before: datetime, *, dry_run: bool = False) -> int:
        """See `Place.sweep`."""
        return self._copies.sweep(before, dry_run=dry_run)


class _Sending(ContentWriter):
    """A file that is sent to the bucket when it is whole."""

    def __init__(self, incoming: Incoming, contents: BucketContents) -> None:
        super().__init__(incoming)
        self._contents = contents

    def seal(self, now: datetime) -> str:
        """See `ContentWriter.seal`."""
        digest = super().seal(now)
        self._contents.send(digest, self.incoming.path)
        return digest


def _is_sound(content: bytes, digest: str) -> bool:
    """Whether a blob has the values of its digest."""
    with suppress(CorruptError):
        return prompt_digest(decode(content, digest=digest)) == digest
    return False


def _line(identity: str) -> bytes:
    return f"{identity}\n".encode()
