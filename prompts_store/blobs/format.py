"""The bytes of a blob: an `.npy` file, version 1.0, always with the same header for the same shape.

NumPy opens it anywhere, so a prompt outlives this program. But nothing here parses a header: the header for
the shape is built and compared, so each blob has exactly one valid form.

    0      magic \\x93NUMPY, version 1 0, header length 118 (unsigned 16-bit little-endian)
    10     the header, padded with blanks, ended by a newline
    128    P * D float32, little-endian, row after row
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from prompts_store.errors import CorruptError

SUFFIX = ".npy"
"""What the name of a blob's file ends with."""

HEADER_BYTES = 128
_PREFIX = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
_SHAPE = re.compile(rb"'shape': \(([0-9]{1,9}), ([0-9]{1,9})\)")


def encode(values: npt.NDArray[np.float32]) -> bytes:
    """`[P, D]` float32 as a blob."""
    length, width = values.shape
    return _header(length, width) + np.ascontiguousarray(values, dtype="<f4").tobytes()


def decode(blob: bytes, *, digest: str) -> npt.NDArray[np.float32]:
    """`[P, D]` float32 from a blob; read-only, and shares memory with it.

    Args:
        digest: the blob's name, only for the error; the caller compares the content.

    Raises:
        CorruptError: it is not a blob, or is cut short, or too long.
    """
    shape = _SHAPE.search(blob, 0, HEADER_BYTES)
    if shape is None:
        raise CorruptError(f"Blob {digest} does not begin like a prompt; restore it from a backup.")
    length, width = int(shape[1]), int(shape[2])
    if blob[:HEADER_BYTES] != _header(length, width):
        raise CorruptError(f"Blob {digest} has a damaged header; restore it from a backup.")
    if len(blob) != HEADER_BYTES + 4 * length * width:
        raise CorruptError(
            f"Blob {digest} has {len(blob)} bytes, but a [{length}, {width}] prompt has "
            f"{HEADER_BYTES + 4 * length * width}; restore it from a backup."
        )
    return np.frombuffer(blob, dtype="<f4", offset=HEADER_BYTES).reshape(length, width)


def _header(length: int, width: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({length}, {width}), }}"
    return _PREFIX + text.ljust(HEADER_BYTES - 11).encode() + b"\n"
