"""A tensor in a file, read one block of rows at a time and turned into its canonical array on the way.

Reading one needs host memory for the finished array and a few blocks, whatever the file's size and dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from chorus_server.errors import InvalidModelError

BLOCK_BYTES = 8 * 1024 * 1024

HostArray = np.ndarray[Any, np.dtype[Any]]
TensorProgress = Callable[[str, int, int], None]
"""Called with (what is happening, bytes done, bytes in all) after each tensor."""

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
READABLE = {np.dtype(np.float64), FLOAT32, np.dtype(np.float16), BFLOAT16}


class RawTensor(Protocol):
    """A tensor as its file stores it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[HostArray]:
        """Consecutive blocks of rows along the first axis, in order. None is much larger than
        `block_bytes`."""
        ...


@dataclass(frozen=True)
class ArrayTensor:
    """A tensor that is already in memory."""

    array: HostArray

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[HostArray]:
        for rows in row_ranges(self.shape, self.dtype.itemsize, block_bytes):
            yield self.array[rows]


def row_ranges(shape: tuple[int, ...], itemsize: int, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Slices of the first axis whose rows have at most `block_bytes`; each has at least one row."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * itemsize
    step = max(1, block_bytes // max(1, row_bytes))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def target_dtype(dtype: Any) -> np.dtype[Any]:
    """The numpy dtype that weights are cast to: f32 or bf16.

    Raises:
        InvalidModelError: any other dtype. T5 overflows in fp16.
    """
    try:
        resolved: np.dtype[Any] = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    except TypeError:
        resolved = np.dtype(object)
    if resolved not in (FLOAT32, BFLOAT16):
        raise InvalidModelError(
            f"weights can be kept in float32 or bfloat16, not in {dtype} (T5 overflows in float16)",
            field="dtype",
        )
    return resolved


def read_canonical(
    name: str, raw: RawTensor, transpose: bool, dtype: np.dtype[Any], scale: float = 1.0
) -> HostArray:
    """Read one tensor into its canonical orientation and `dtype`.

    Args:
        name: the file's name for it; for errors.
        transpose: whether the file's axes are swapped (only for rank 2).
        scale: factor for the values, applied in f32 before the cast.

    Raises:
        InvalidModelError: the dtype is not a float, or a value is not finite after the cast.
    """
    if raw.dtype not in READABLE:
        raise InvalidModelError(f"tensor {name} has dtype {raw.dtype}; expected float32, bfloat16 or float16")
    shape = raw.shape[::-1] if transpose else raw.shape
    result = np.empty(shape, dtype)
    # ml_dtypes copies strided arrays element by element through Python-visible casts; plain integers copy
    # fast.
    words = result.view(np.dtype(f"u{dtype.itemsize}"))
    row = 0
    for block in raw.blocks():
        if scale != 1:
            block = block.astype(FLOAT32) * np.float32(scale)
        cast = block.astype(dtype, copy=False)
        require_finite(name, cast)
        bits = np.ascontiguousarray(cast).view(words.dtype)
        if transpose:
            words[:, row : row + len(bits)] = bits.T
        else:
            words[row : row + len(bits)] = bits
        row += len(bits)
    return result


def require_finite(name: str, block: HostArray) -> None:
    """Raise InvalidModelError naming the tensor if an f32 or bf16 block has NaN or an infinity."""
    contiguous = np.ascontiguousarray(block)
    if contiguous.dtype == BFLOAT16:
        bad = (contiguous.view(np.uint16) & 0x7F80 == 0x7F80).any()
    else:
        bad = not np.isfinite(contiguous).all()
    if bad:
        raise InvalidModelError(f"tensor {name} has values that are not finite in {contiguous.dtype}")
