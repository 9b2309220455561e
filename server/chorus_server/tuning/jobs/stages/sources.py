"""Fetches the source of a job document to a local file: an upload, an allowed path or an allowed URL."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from chorus_server.errors import InvalidInputError
from chorus_server.jobs.download import fetch_url
from chorus_server.tuning.document.data import DataSource
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.urls import split_http_url
from prompts_store.text import shown


@contextmanager
def fetched(attempt: Attempt, source: DataSource, field: str) -> Iterator[tuple[Path, str]]:
    """The local file of a source until the block ends, and its name, whose ending tells the format.

    Args:
        field: dotted path of the source, for errors.

    Raises:
        InvalidInputError: `data_not_allowed`, `data_unreachable`, `file_too_large`.
        StoreError: an uploaded file is not there.
    """
    if source.kind == "file":
        tenant = attempt.job.tenant
        name = attempt.store.get_file(tenant, source.value).name
        with attempt.store.local_file(tenant, source.value) as path:
            yield path, name
    elif source.kind == "path":
        path = allowed_path(source.value, attempt.config.data_paths, f"{field}.path")
        yield path, path.name
    else:
        yield _downloaded(attempt, source.value, f"{field}.url")


def _downloaded(attempt: Attempt, url: str, field: str) -> tuple[Path, str]:
    """The file is kept, so that a later attempt reads the same bytes."""
    config = attempt.config
    check_url(url, config.data_urls, field)
    name = PurePosixPath(unquote(urlsplit(url).path)).name or "data"
    target = attempt.folder / "downloads" / hashlib.sha256(url.encode()).hexdigest()
    if not target.exists():

        def allowed(other: str) -> None:
            check_url(other, config.data_urls, field)

        fetch_url(
            url,
            target,
            max_bytes=config.max_file_bytes,
            seconds=config.download_seconds,
            allowed=allowed,
            interrupt=attempt.interrupt,
            field=field,
        )
    return target, name


def allowed_path(text: str, roots: tuple[Path, ...], field: str) -> Path:
    """The file at a path, with links followed, if it lies under a root.

    A file that is not allowed gets the same answer as one that is not there, so that jobs cannot find out
    what is on the disk.

    Raises:
        InvalidInputError: `data_not_allowed`.
    """
    try:
        real = Path(text).resolve(strict=True) if Path(text).is_absolute() else None
        regular = real is not None and stat.S_ISREG(real.stat().st_mode)
    except (OSError, ValueError, RuntimeError):
        real, regular = None, False
    inside = real is not None and any(real.is_relative_to(_resolved(root)) for root in roots)
    if real is None or not regular or not inside:
        message = (
            f"{shown(text)} is not a file that jobs may read: give the absolute path of a file under a "
            "folder that the operator allows (tuning_data_paths), or upload it"
        )
        raise InvalidInputError(message, field=field, code="data_not_allowed")
    return real


def _resolved(root: Path) -> Path:
    try:
        return root.resolve()
    except (OSError, RuntimeError):  # its links form a loop, so nothing is below it
        return root


def check_url(url: str, allowed: tuple[str, ...], field: str) -> None:
    """Refuse a URL that is not below one that the operator allows: same scheme, host and port, and a path
    below its path.

    Raises:
        InvalidInputError: `data_not_allowed`.
    """
    try:
        wanted = split_http_url(url)
        fits = _is_plain(wanted) and any(_below(wanted, prefix) for prefix in allowed)
    except ValueError:
        fits = False
    if not fits:
        message = (
            f"{shown(url)} is not a URL that jobs may fetch: it must begin with one that the operator "
            "allows (tuning_data_urls); or upload the file"
        )
        raise InvalidInputError(message, field=field, code="data_not_allowed")


def _is_plain(url: SplitResult) -> bool:
    """Whether the URL has no fragment, and its path no hidden way up."""
    path = unquote(unquote(url.path))
    steps = path.replace("\\", "/").split("/")
    return not url.fragment and ".." not in steps and "\\" not in path


def _below(one: SplitResult, prefix: str) -> bool:
    other = urlsplit(prefix)
    same = (one.scheme, one.hostname, _port(one.scheme, one.port)) == (
        other.scheme,
        other.hostname,
        _port(other.scheme, other.port),
    )
    folder = other.path if other.path.endswith("/") else f"{other.path}/"
    return same and (one.path == other.path or f"{one.path}".startswith(folder))


def _port(scheme: str, port: int | None) -> int | None:
    return port if port is not None else {"http": 80, "https": 443}.get(scheme)
