"""What a process keeps on a disk (store, compile cache, journal), opened or tried before a model is
loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings
from prompts_store.blobs import BlobAddress
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore


def blob_address(settings: Settings, url: str) -> BlobAddress:
    """How to reach a bucket with these settings: as the store's, where its URL does not say.

    Raises:
        InvalidError: the URL cannot be used.
    """
    return BlobAddress.of(
        url,
        like=settings.blob_url,
        credentials_file=settings.blob_credentials_file,
        cache_bytes=settings.blob_cache_bytes,
    )


def open_store(settings: Settings, *, make: bool = True) -> PromptStore:
    """Open the store that the settings name. Raises like `PromptStore.open`."""
    address = None if settings.blob_url is None else blob_address(settings, settings.blob_url)
    return PromptStore.open(settings.data_dir, database_url=settings.database_url, blobs=address, make=make)


def open_storage(settings: Settings) -> PromptStore:
    """Open the store, and try to write everything else that is written later.

    Raises:
        InvalidInputError, StoreError: something cannot be written; the error names the setting.
    """
    try:
        store = open_store(settings)
    except StoreError as error:
        # If database_url is set, it or data_dir may be at fault: the message tells them apart.
        field = error.field or (None if settings.database_url else "data_dir")
        where = f"{str(settings.data_dir)[:200]!r} cannot be used. " if error.field is None and field else ""
        raise StoreError(where + error.message, field=field, code=error.code) from error
    try:
        _try_compile_cache(compile_cache(settings))
        _try_journal(settings.journal_file)
    except BaseException:
        store.close()
        raise
    return store


def compile_cache(settings: Settings) -> Path:
    """The folder of the compile cache."""
    return settings.compile_cache_dir or settings.data_dir / "compile_cache"


def can_keep(folder: Path) -> bool:
    """Whether something can be written to the folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _try_compile_cache(folder: Path) -> None:
    with _refusing("compile_cache_dir", folder):
        if any(folder.glob("*/*.program")):  # filled by `chorus compile`: a read-only image may have it
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _try_journal(path: Path | None) -> None:
    if path is not None:
        with _refusing("journal_file", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):
                pass


@contextmanager
def _refusing(field: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors into one that names the setting."""
    try:
        yield
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a file is where a folder must be" if blocked else error.strerror or str(error)
        message = (
            f"{str(path)[:200]} cannot be written: {reason}. Choose another place, or make this one writable."
        )
        raise InvalidInputError(message, field=field) from error
