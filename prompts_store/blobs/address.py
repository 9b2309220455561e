"""Where blobs and data files are, as an operator says it: a folder, or a bucket with how to reach it."""

from __future__ import annotations

import configparser
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from prompts_store.blobs.bucket import Bucket
from prompts_store.blobs.bucket_places import BucketBlobs, BucketContents
from prompts_store.blobs.contents import Contents, LocalContents
from prompts_store.blobs.copies import LocalCopies
from prompts_store.blobs.files import Files
from prompts_store.blobs.folder import Incoming, translated
from prompts_store.blobs.interface import Blobs
from prompts_store.blobs.local import LocalBlobs
from prompts_store.errors import InvalidError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", "file")
DEFAULT_CACHE_BYTES = 4 << 30

_COPIED_BYTES = 1 << 20
_SERVER = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_CREDENTIALS_LAST = timedelta(minutes=5)
# A request may begin its last try at the end of `retry_timeout`; both are together less than the 30 s for
# which others wait for the publish lock.
CLIENT = {"timeout": timedelta(seconds=8), "connect_timeout": timedelta(seconds=5)}
RETRY: dict[str, Any] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """Where blobs and data files are.

    Attributes:
        url: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///FOLDER`; `of`
            takes one that says more.
        endpoint: URL of a server that speaks S3, in place of Amazon's.
        region: of the bucket; None leaves it to `AWS_REGION`.
        path_style: whether the bucket is in the path of a request, else it is in its host.
        allow_http: whether an endpoint may be asked without TLS.
        credentials_file: of s3, in the form of `~/.aws/credentials`, section `default`, read again every 5
            minutes; of gs, a service account's JSON. None leaves them to the environment.
        cache_bytes: what copies on this machine may have together.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    path_style: bool = True
    allow_http: bool = False
    credentials_file: Path | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES

    @classmethod
    def of(cls, url: str, *, like: str | None = None, **rest: Any) -> BlobAddress:
        """The place of a URL that may say how to reach its bucket: `s3://BUCKET/PREFIX?endpoint=URL`. The
        others are `region=NAME`, `path_style=false` and `allow_http=true`, with `&` between them.

        Args:
            like: another such URL; what it says holds for one that says nothing.
            rest: `credentials_file` and `cache_bytes`.

        Raises:
            InvalidError: the URL cannot be used; the field is `blob_url`. It is never repeated.
        """
        place, _, said = url.partition("?")
        how = said or (like or "").partition("?")[2]
        found: dict[str, Any] = dict(_reached(how)) if check_url(place).scheme == "s3" else {}
        if said and not found:
            raise _invalid("says how to reach a bucket, which only s3:// may")
        return cls(place, **found, **rest)

    def open(self, cache: Path, files: Files | None = None) -> tuple[Blobs, Contents]:
        """The places for blobs and for data files, which have been reached once.

        Args:
            cache: folder for copies of what is in a bucket, made if it does not exist.

        Raises:
            InvalidError: the address cannot be used; the field is the setting at fault.
            StoreError: the place cannot be reached.
        """
        parts = check_url(self.url)
        if parts.scheme == "file":
            folder = Path(unquote(parts.path))
            return LocalBlobs(folder / "blobs", files=files), LocalContents(folder / "files", files=files)
        bucket = self.bucket()
        copies = LocalCopies(cache, most_bytes=self.cache_bytes, files=files)
        blobs, contents = BucketBlobs(bucket, copies), BucketContents(bucket, copies)
        next(blobs.entries(), None)
        return blobs, contents

    def put_file(self, name: str, source: Path, *, now: datetime) -> None:
        """Store a file beside the blobs, in place of the one that has this name. When this returns, it
        survives a power cut; until then the earlier one is there. Raises StoreError."""
        parts = check_url(self.url)
        if parts.scheme != "file":
            return self.bucket().put_file(name, source)
        files, folder = Files(), Path(unquote(parts.path))
        with translated("write to"):
            incoming = Incoming(files, folder / "blobs" / "incoming", now)
            try:
                with source.open("rb") as opened:
                    while part := opened.read(_COPIED_BYTES):
                        incoming.write(part)
                incoming.seal(now)
                incoming.name(folder / name)
                files.sync_folder(folder)
            finally:
                incoming.discard()
        return None

    def get_file(self, name: str, target: Path) -> bool:
        """Copy a file that is beside the blobs, as it was at one moment. False if there is none. Raises
        StoreError, also if it is written meanwhile."""
        parts = check_url(self.url)
        if parts.scheme == "file":
            source = Path(unquote(parts.path)) / name
            with translated("read"):
                if source.exists():
                    shutil.copyfile(source, target)
                return source.exists()
        bucket = self.bucket()
        if bucket.look(name) is None:
            return False
        with translated("write to"), target.open("wb") as opened:
            opened.writelines(bucket.parts(name, one_version=True))
        return True

    def bucket(self) -> Bucket:
        """The bucket of the URL, which has not been reached yet. Raises InvalidError."""
        parts = check_url(self.url)
        if importlib.util.find_spec("obstore") is None:
            raise _invalid("needs the package obstore; install chorus-prompts[bucket]")
        return Bucket(self._objects(parts), f"{parts.scheme}://{parts.netloc}{parts.path}")

    def _objects(self, parts: SplitResult) -> ObjectStore:
        from obstore.store import AzureStore, GCSStore, S3Store

        prefix = unquote(parts.path).strip("/") or None
        common: dict[str, Any] = {"prefix": prefix, "retry_config": RETRY}
        common["client_options"] = {**CLIENT, "allow_http": self.allow_http}
        if parts.scheme == "az":
            return AzureStore(parts.netloc, **common)
        if parts.scheme == "gs":
            if self.credentials_file is not None:
                common["service_account"] = str(self.credentials_file)
            return GCSStore(parts.netloc, **common)
        if self.credentials_file is not None:
            common["credential_provider"] = _credentials(self.credentials_file)
            common["credential_provider"]()  # now, so that its error is seen
        if self.region is not None:
            common["region"] = self.region
        if self.endpoint is not None:
            common["endpoint"] = self._endpoint(parts.netloc)
        return S3Store(
            parts.netloc,
            virtual_hosted_style_request=not self.path_style,
            checksum_algorithm="SHA256",
            # Not every server that speaks S3 removes several at once.
            disable_bulk_delete=True,
            **common,
        )

    def _endpoint(self, bucket: str) -> str:
        """The endpoint; of the other style it begins with the bucket."""
        assert self.endpoint is not None
        parts = _split(self.endpoint)
        whole = parts.scheme in ("http", "https") and _SERVER.fullmatch(parts.netloc)
        if not whole or parts.query or parts.fragment:
            raise _invalid(
                "has an endpoint that is not the URL of a server, https://HOST or https://HOST:PORT, without "
                "credentials"
            )
        if parts.scheme == "http" and not self.allow_http:
            raise _invalid(
                "has an endpoint without TLS, where everybody on the way can read and change prompts: it "
                "must begin with https://, or say allow_http=true as well"
            )
        host = parts.netloc if self.path_style else f"{bucket}.{parts.netloc}"
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def check_url(url: str) -> SplitResult:
    """The parts of a URL of a place. Raises InvalidError, field `blob_url`, which never repeats it."""
    parts = _split(url)
    in_place = parts.netloc if parts.scheme != "file" else parts.path.startswith("/") and not parts.netloc
    if parts.scheme not in SCHEMES or not in_place or parts.query or parts.fragment:
        raise _invalid(
            "must be s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER"
        )
    if "@" in parts.netloc or ":" in parts.netloc:
        raise _invalid(
            "must have no credentials in it: give them in the environment, or in blob_credentials_file"
        )
    return parts


def _split(url: str) -> SplitResult:
    """The parts of a URL; empty ones if it is none."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    return parts


def _reached(said: str) -> Iterator[tuple[str, Any]]:
    """What the end of a URL says of how to reach its bucket. Raises InvalidError."""
    pairs = parse_qsl(said, keep_blank_values=True)
    if len(dict(pairs)) < len(pairs) or bool(said) > bool(pairs):
        raise _invalid("says something twice, or nothing, after the question mark")
    for name, value in pairs:
        if name in ("endpoint", "region") and value:
            yield name, value
        elif name in ("path_style", "allow_http") and value in ("true", "false"):
            yield name, value == "true"
        else:
            raise _invalid(
                "may say after a question mark endpoint=URL, region=NAME, path_style=false and "
                "allow_http=true, with & between them"
            )


def _credentials(path: Path) -> Callable[[], Any]:
    """What obstore asks for the present keys."""

    def read() -> Any:
        said = configparser.ConfigParser(interpolation=None)
        try:
            said.read_string(path.read_text())
            section = said["default"]
            found = {
                "access_key_id": section["aws_access_key_id"],
                "secret_access_key": section["aws_secret_access_key"],
                "token": section.get("aws_session_token"),
            }
        except (OSError, ValueError, KeyError, configparser.Error):
            raise _invalid(
                "must be a file with [default], aws_access_key_id and aws_secret_access_key",
                "blob_credentials_file",
            ) from None
        return {**found, "expires_at": datetime.now(UTC) + _CREDENTIALS_LAST}

    return read


def _invalid(message: str, field: str = "blob_url") -> InvalidError:
    return InvalidError(f"{field} {message}.", field=field, code="invalid_blob_place")
