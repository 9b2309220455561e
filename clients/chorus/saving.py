"""Writes downloads to the disk: whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from chorus.artifacts import MAX_ARTIFACT_BYTES, PEFT_CONFIG, PEFT_WEIGHTS
from chorus.errors import InvalidArgumentError, UnexpectedAnswerError


def write_file(path: Path, content: bytes) -> Path:
    """Put `content` at `path`. Raises as `whole_file`."""
    with whole_file(path) as file:
        file.write(content)
    return path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is at `path` once the block has ended well: a temporary one beside it, synced
    and renamed.

    Raises:
        InvalidArgumentError: the folder does not exist or cannot be written.
    """
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InvalidArgumentError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_peft_folder(path: Path, archive: bytes) -> Path:
    """Unpack a PEFT zip as the folder `path`, which must not exist yet, through a temporary folder.

    Raises:
        InvalidArgumentError: `path` exists, or cannot be written.
        UnexpectedAnswerError: the zip does not contain a PEFT adapter.
    """
    files = peft_files(archive)
    with whole_folder(path, advice="give a new folder, or a .zip file") as made:
        for name, content in files.items():
            write_file(made / name, content)
    return path


@contextlib.contextmanager
def whole_folder(path: Path, advice: str = "give a new folder") -> Iterator[Path]:
    """A folder to fill, which is at `path` once the block has ended well.

    Raises:
        InvalidArgumentError: `path` exists, or cannot be written.
    """
    if path.exists():
        raise InvalidArgumentError(f"{str(path)!r} exists already; {advice}.")
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    except OSError as error:
        raise InvalidArgumentError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary)


def peft_files(archive: bytes) -> dict[str, bytes]:
    """The two files of a PEFT adapter, out of the server's zip.

    Raises:
        UnexpectedAnswerError: the zip does not contain exactly them, or is damaged.
    """
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(zipfile.ZipFile(io.BytesIO(archive)))
            names = opened.namelist()
            if sorted(names) != sorted((PEFT_CONFIG, PEFT_WEIGHTS)):
                raise UnexpectedAnswerError(
                    f"The server's zip contains {len(names)} files that are not a PEFT adapter's."
                )
            # Never read more of a file than it claims to have.
            if sum(info.file_size for info in opened.infolist()) > MAX_ARTIFACT_BYTES:
                raise UnexpectedAnswerError(
                    f"The server's zip unpacks to more than {MAX_ARTIFACT_BYTES} bytes; no prompt is that "
                    "large."
                )
            return {name: opened.read(name) for name in names}
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise UnexpectedAnswerError("The server's answer is not a complete zip file.") from error


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def require_folder(path: Path) -> None:
    """Fail before a download that could not be saved."""
    if not path.parent.is_dir():
        raise InvalidArgumentError(f"The folder {str(path.parent)!r} does not exist; create it first.")
