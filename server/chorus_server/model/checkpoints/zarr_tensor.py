"""One zarr array, read through tensorstore one block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.tensors import BLOCK_BYTES, HostArray, row_ranges


def bounded_context() -> ts.Context:
    """No cache and few chunks in flight, so that memory holds only what is being read."""
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            "data_copy_concurrency": {"limit": 2},
            "file_io_concurrency": {"limit": 4},
            "gcs_request_concurrency": {"limit": 8},
        }
    )


@dataclass(frozen=True)
class ZarrTensor:
    """An open zarr array."""

    name: str
    store: ts.TensorStore

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.store.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.store.dtype.numpy_dtype)

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[HostArray]:
        """Reads whole rows of chunks at a time, so that no chunk is decoded twice."""
        rows_in_chunk = self._rows_in_chunk()
        row_bytes = max(1, int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize)
        step = max(1, block_bytes // (row_bytes * rows_in_chunk)) * rows_in_chunk * row_bytes
        for rows in row_ranges(self.shape, self.dtype.itemsize, step):
            try:
                yield self.store[rows].read().result()
            except ValueError as error:
                raise InvalidModelError(f"tensor {self.name} cannot be read: {_brief(error)}") from error

    def _rows_in_chunk(self) -> int:
        shape = self.store.chunk_layout.read_chunk.shape
        rows = shape[0] if shape else None
        return rows or self.shape[0]


def open_all(names: dict[str, dict[str, Any]], context: ts.Context) -> dict[str, ZarrTensor]:
    """Open arrays together.

    Args:
        names: tensor name to the key-value store of its zarr folder.

    Raises:
        InvalidModelError: one is missing or is not zarr; names it.
    """
    # By default a chunk whose file is missing reads as zeros: half a model would load and answer nonsense.
    strict = {"driver": "zarr", "fill_missing_data_reads": False}
    pending = {
        name: ts.open({**strict, "kvstore": kvstore}, open=True, read=True, context=context)
        for name, kvstore in names.items()
    }
    opened: dict[str, ZarrTensor] = {}
    for name, future in pending.items():
        try:
            opened[name] = ZarrTensor(name, future.result())
        except ValueError as error:
            raise InvalidModelError(
                f"tensor {name} is missing or is not a zarr array: {_brief(error)}"
            ) from error
    return opened


def _brief(error: ValueError) -> str:
    """tensorstore's sentence, without the specification that it appends."""
    return str(error).partition(" [")[0]
