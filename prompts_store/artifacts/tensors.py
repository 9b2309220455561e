"""From a described run of bytes to prompt values, with the checks that all formats share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.artifacts.types import ArtifactLimits, ComputeDtype, PromptValues

# numpy's codes with a byte order. For bfloat16 (two bytes, little-endian) numpy has none.
StoredDtype = Literal["<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "bf16"]

# Rows that are checked together, so that a check never needs a second copy of a large prompt.
_BLOCK_VALUES = 2**18
# If the f32 bits of |x| are these or above, x rounds (to nearest, ties to even) to infinity in bf16. They are
# the midpoint between bf16's largest value 0x7F7F and infinity 0x7F80, and the tie goes to the even one.
_BF16_OVERFLOW_BITS = np.uint32(0x7F7F8000)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a file describes it. Nothing in it has been checked against the limits yet.

    Attributes:
        dtype: type of an element.
        shape: the declared shape.
        data: all bytes after the description.
        fortran_order: whether the first index varies fastest.
    """

    dtype: StoredDtype
    shape: tuple[int, ...]
    data: memoryview
    fortran_order: bool = False

    @property
    def declared_bytes(self) -> int:
        """The number of bytes for this shape and dtype."""
        return math.prod(self.shape) * self.item_bytes

    @property
    def item_bytes(self) -> int:
        """The number of bytes of one element."""
        return 2 if self.dtype == "bf16" else int(self.dtype[2])


def read_values(
    tensor: StoredTensor,
    limits: ArtifactLimits,
    *,
    rows: int | None = None,
    factor: PromptValues | None = None,
) -> tuple[PromptValues, list[str]]:
    """The prompt, and notes on its conversion.

    Args:
        tensor: `[P, D]`, or `[R, D]` with R >= P if `rows` is given.
        limits: of the server.
        rows: P, if only the first rows are the prompt; by default all are.
        factor: `[P, D]`; what those rows are multiplied by to make the prompt.

    Returns:
        `[P, D]` f32 (C-contiguous, read-only, a copy), and sentences.

    Raises:
        ArtifactError: `wrong_rank`, `wrong_width`, `empty_prompt`, `too_long`, `truncated`, `trailing_bytes`,
            `not_finite` or `overflow`.
    """
    check_shape(tensor.shape, limits, rows=rows)
    check_size(tensor)
    stored = array_of(tensor)[:rows]
    values, notes = to_float32(stored, tensor.dtype)
    if factor is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            values = values * factor
    _check_finite(values, limits.compute_dtype)
    # Copied only now, so that refusing a large file never takes twice its memory. A copy, so that the file's
    # bytes can be freed.
    values = np.array(values, dtype=np.float32, order="C", copy=np.shares_memory(values, stored) or None)
    values.setflags(write=False)
    return values, notes


def check_shape(shape: tuple[int, ...], limits: ArtifactLimits, *, rows: int | None = None) -> None:
    """Raise ArtifactError (`wrong_rank`, `wrong_width`, `empty_prompt`, `too_long`) unless the shape fits."""
    if len(shape) != 2:
        raise refusal(
            Reason.WRONG_RANK,
            f"The prompt has {len(shape)} dimensions; expected 2, [length, {limits.width}].",
        )
    length, width = shape[0] if rows is None else rows, shape[1]
    if length == 0 or width == 0:
        raise refusal(Reason.EMPTY_PROMPT, "The prompt has no values; it needs at least one row.")
    if width != limits.width:
        raise refusal(
            Reason.WRONG_WIDTH,
            f"The prompt is {_count(width)} wide; this base model's d_model is {limits.width}. "
            "It was tuned for another model size.",
        )
    if length > limits.max_length:
        raise refusal(
            Reason.TOO_LONG,
            f"The prompt has {_count(length)} rows; this server takes at most {limits.max_length}.",
        )


def check_size(tensor: StoredTensor) -> None:
    """Raise ArtifactError (`truncated`, `trailing_bytes`) unless the bytes are exactly the tensor's."""
    expected, got = tensor.declared_bytes, tensor.data.nbytes
    if got < expected:
        raise refusal(
            Reason.TRUNCATED,
            f"The file ends after {got} bytes of values; its shape needs {expected}. Upload it again.",
        )
    if got > expected:
        raise refusal(
            Reason.TRAILING_BYTES,
            f"The file has {got - expected} bytes after its values. Write it again from the values alone.",
        )


def array_of(tensor: StoredTensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The stored elements in place, without a copy. bfloat16 appears as 16-bit patterns."""
    dtype = "<u2" if tensor.dtype == "bf16" else tensor.dtype
    flat = np.frombuffer(tensor.data, dtype=np.dtype(dtype))
    return flat.reshape(tensor.shape, order="F" if tensor.fortran_order else "C")


def to_float32(
    stored: np.ndarray[tuple[int, ...], np.dtype[np.generic]], dtype: StoredDtype
) -> tuple[PromptValues, list[str]]:
    """Elements as `array_of` gives them, in float32, and notes on the conversion."""
    if dtype == "bf16":
        widened = stored.astype(np.uint32) << np.uint32(16)
        return np.ascontiguousarray(widened).view(np.float32), ["The values were bfloat16, widened exactly."]
    # A double beyond f32's range becomes an infinity here, and the next check refuses it.
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.astype(np.float32, order="C", copy=False)
    if dtype.endswith("f2"):
        return values, ["The values were float16, widened exactly."]
    if dtype.endswith("f8"):
        _check_not_rounded_to_infinity(stored, values)
        changed = int(np.count_nonzero(values != stored))
        return values, [f"The values were float64, rounded to float32 ({changed} of {values.size} changed)."]
    return values, []


def _check_not_rounded_to_infinity(
    stored: np.ndarray[tuple[int, ...], np.dtype[np.generic]], values: PromptValues
) -> None:
    lost = np.isinf(values) & np.isfinite(stored.astype(np.float64, copy=False))
    if lost.any():
        raise _overflow(lost, "float32")


def _check_finite(values: PromptValues, compute_dtype: ComputeDtype) -> None:
    """Check block by block, so that the masks stay small whatever the prompt's size."""
    step = max(1, _BLOCK_VALUES // values.shape[1])
    for start in range(0, values.shape[0], step):
        block = values[start : start + step]
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = _first(bad)
            raise refusal(
                Reason.NOT_FINITE,
                f"The value at row {start + row}, column {column} is {_kind(block[row, column])}; "
                "every value must be finite. Tune again, or take an earlier checkpoint.",
            )
        if compute_dtype == "bfloat16":
            bad = (block.view(np.uint32) & np.uint32(0x7FFFFFFF)) >= _BF16_OVERFLOW_BITS
            if bad.any():
                raise _overflow(bad, "bfloat16", start)


def _overflow(bad: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], dtype: str, start: int = 0) -> Exception:
    row, column = _first(bad)
    return refusal(
        Reason.OVERFLOW,
        f"The value at row {start + row}, column {column} is finite but becomes an infinity in {dtype}, "
        "in which this server computes.",
    )


def _first(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> tuple[int, int]:
    row, column = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return int(row), int(column)


def _kind(value: np.float32) -> str:
    return "NaN" if np.isnan(value) else "an infinity"


def _count(number: int) -> str:
    """A declared number for a message. A header may declare a number with thousands of digits."""
    return str(number) if number < 10**15 else "far too many"
