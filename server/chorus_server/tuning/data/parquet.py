"""Rows of a Parquet file within bounds: texts stay in their dictionaries until their length is known.

A file of 1,000 bytes may hold one text of 8 MiB a thousand times. Needs pyarrow, which is an extra.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, BinaryIO

_ROWS = 256


class TooLargeToUnpackError(Exception):
    """Some values would exceed a memory bound. `rows`: how many rows were read before them."""

    def __init__(self, rows: int, message: str) -> None:
        super().__init__(message)
        self.rows = rows


def parquet_rows(file: BinaryIO, max_row_bytes: int, max_bytes: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Each row and the bytes of its values.

    Raises:
        ImportError: pyarrow is not installed.
        TooLargeToUnpackError: a row has more than `max_row_bytes`, or a row group more than `max_bytes`.
        Exception: pyarrow's own errors, which have no common class.
    """
    compute: Any = importlib.import_module("pyarrow.compute")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    metadata = parquet.read_metadata(file)
    texts = [
        metadata.row_group(0).column(n).path_in_schema
        for n in range(metadata.num_columns if metadata.num_row_groups else 0)
        if metadata.row_group(0).column(n).physical_type == "BYTE_ARRAY"
    ]
    rows = 0
    fixed = [metadata.schema.column(n).length or 0 for n in range(metadata.num_columns)]
    if sum(fixed) > max_row_bytes:
        raise TooLargeToUnpackError(rows, f"is longer than {max_row_bytes} bytes")
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    if any(group.total_byte_size > max_bytes for group in groups):
        raise TooLargeToUnpackError(
            rows, f"has a row group of more than {max_bytes} bytes; write smaller ones"
        )
    for batch in parquet.ParquetFile(file, read_dictionary=texts).iter_batches(batch_size=_ROWS):
        whole = _unpacked_bytes(compute, batch.columns) <= max_row_bytes
        for part in [batch] if whole else [batch.slice(n, 1) for n in range(batch.num_rows)]:
            if not whole and _unpacked_bytes(compute, part.columns) > max_row_bytes:
                raise TooLargeToUnpackError(rows, f"is longer than {max_row_bytes} bytes")
            for record in part.to_pylist():
                rows += 1
                yield record, _size(record)


def _unpacked_bytes(compute: Any, arrays: Any) -> int:
    """Bytes of the arrays' values once each value has its own text."""
    total = 0
    for array in arrays:
        if hasattr(array, "dictionary"):
            lengths = compute.take(compute.binary_length(array.dictionary), array.indices)
            total += compute.sum(lengths).as_py() or 0
        elif hasattr(array, "keys"):  # a map, which has no `flatten`
            start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
            inner = [each.slice(start, end - start) for each in (array.keys, array.items)]
            total += _unpacked_bytes(compute, inner)
        elif hasattr(array, "flatten") and array.type.num_fields:
            inner = array.flatten()
            total += _unpacked_bytes(compute, inner if isinstance(inner, list) else [inner])
        else:
            total += array.nbytes
    return total


def _size(value: Any) -> int:
    """Characters and bytes in a value and in what is nested in it; a number counts as 8."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(_size(each) for each in value.values())
    return sum(_size(each) for each in value) if isinstance(value, list | tuple) else 8
