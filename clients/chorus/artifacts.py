"""The formats of prompt files. Also reads, without numpy, what can be uploaded as a prompt: a file, a PEFT
folder, bytes, or a two-dimensional array.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from chorus.errors import InvalidArgumentError

Format = Literal["safetensors", "npy", "peft"]
FORMATS: tuple[Format, ...] = get_args(Format)
_FORMAT_BY_ENDING: dict[str, Format] = {".npy": "npy", ".zip": "peft"}

MAX_ARTIFACT_BYTES = 256 * 1024 * 1024
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_PICKLE = "adapter_model.bin"
EPOCH = (1980, 1, 1, 0, 0, 0)

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc since Python 3.12

    Source = str | os.PathLike[str] | Buffer
else:
    Source = Any


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes to upload, and a name that hints at their format."""

    filename: str
    content: bytes


def read_artifact(source: Source) -> Artifact:
    """Make an artifact of whatever the caller has.

    Args:
        source: path of a `.safetensors`, `.npy` or PEFT `.zip` file; path of a PEFT folder, which is zipped
            in memory; the bytes of such a file; or a `[P, D]` float32 or float64 array that has the buffer
            protocol (numpy's, a JAX array on the CPU).

    Raises:
        InvalidArgumentError: there is no such file, the folder is not PEFT's, or the array has another type
            or rank.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            return _zip_peft_folder(path) if path.is_dir() else Artifact(path.name, _read_file(path))
        except OSError as error:
            raise InvalidArgumentError(
                f"{str(path)!r} cannot be read: {error.strerror or error}.", field="artifact"
            ) from error
    try:
        view = memoryview(source)
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidArgumentError(
            f"A prompt is a path, bytes or a float array; {type(source).__name__} is not: {error}.",
            field="artifact",
        ) from error
    if view.ndim == 1 and view.format in ("B", "b", "c"):
        return Artifact("prompt", view.tobytes())
    return Artifact("prompt.npy", npy_bytes(view))


def format_of(path: Path) -> Format:
    """The format for a file's ending: `.npy`, `.zip` (PEFT), else safetensors."""
    return _FORMAT_BY_ENDING.get(path.suffix, "safetensors")


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_ARTIFACT_BYTES + 1)
    if len(content) > MAX_ARTIFACT_BYTES:
        raise InvalidArgumentError(
            f"{str(path)!r} has more than {MAX_ARTIFACT_BYTES} bytes; a prompt has a few megabytes at most.",
            field="artifact",
        )
    return content


def _zip_peft_folder(folder: Path) -> Artifact:
    """The two files of a PEFT adapter, always zipped the same way. Nothing else in the folder is read."""
    present = {name for name in (PEFT_CONFIG, PEFT_WEIGHTS, PEFT_PICKLE) if (folder / name).is_file()}
    if PEFT_CONFIG not in present:
        raise InvalidArgumentError(
            f"The folder {str(folder)!r} has no {PEFT_CONFIG}; a PEFT adapter does.", field="artifact"
        )
    if PEFT_WEIGHTS not in present:
        found = (
            "only a pickle, which is never read; save it"
            if PEFT_PICKLE in present
            else "no weights; save them"
        )
        raise InvalidArgumentError(
            f"The folder {str(folder)!r} has {found}; save {PEFT_WEIGHTS} with safe_serialization.",
            field="artifact",
        )
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in (PEFT_CONFIG, PEFT_WEIGHTS):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), _read_file(folder / name))
    return Artifact(f"{folder.resolve().name}.zip", target.getvalue())


def npy_bytes(view: memoryview) -> bytes:
    """A `[P, D]` array of native float32 or float64 as a `.npy` file, version 1.0 (numpy.lib.format).

    Raises:
        InvalidArgumentError: the array has another rank or element type.
    """
    code = view.format.removeprefix("@").removeprefix("=")
    if sys.byteorder == "little":
        code = code.removeprefix("<")
    if code not in ("f", "d"):
        raise InvalidArgumentError(
            f"The array's elements are {view.format!r}; float32 ('f') or float64 ('d') is needed.",
            field="artifact",
        )
    if view.shape is None or view.ndim != 2:
        raise InvalidArgumentError(
            f"The array has {view.ndim} axes; a prompt has two, [length, d_model].", field="artifact"
        )
    order = "<" if sys.byteorder == "little" else ">"
    shape = f"({view.shape[0]}, {view.shape[1]})"
    header = f"{{'descr': '{order}f{view.itemsize}', 'fortran_order': False, 'shape': {shape}, }}"
    # Magic, version and header length are 10 bytes; the data begins at a multiple of 64.
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return (
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode("ascii") + view.tobytes("C")
    )
