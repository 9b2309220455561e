"""Writes a T5X checkpoint (version 3) that T5X and this package can read: norms and biases in msgpack,
matrices in zarr."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import tensorstore as ts

from chorus_server.model.checkpoints.flax_msgpack import pack_array
from chorus_server.model.checkpoints.kvstores import child_spec, folder_spec
from chorus_server.model.checkpoints.t5x import STATE
from chorus_server.model.checkpoints.t5x_names import t5x_place
from chorus_server.model.checkpoints.tensors import BLOCK_BYTES, HostArray, row_ranges
from chorus_server.model.checkpoints.vocabulary_files import FoundVocabulary, write_vocabulary
from chorus_server.model.checkpoints.zarr_tensor import bounded_context
from chorus_server.model.config import T5Config
from chorus_server.model.fingerprint import Fingerprinter

T5X_VERSION = 3
INLINE_BYTES = 1 << 16


def write_t5x(
    folder: Path,
    config: T5Config,
    tensors: Iterable[tuple[str, HostArray]],
    *,
    vocabulary: FoundVocabulary | None,
    inline_bytes: int = INLINE_BYTES,
) -> str:
    """Write into an empty folder and return the fingerprint. The msgpack file is written last.

    Args:
        inline_bytes: matrices up to this size go into the msgpack file.
    """
    collector = Fingerprinter(config)
    context = bounded_context()
    target: dict[str, Any] = {}
    for canonical, array in collector.watch(tensors):
        place = t5x_place(canonical)
        stored = array.T if place.transpose else array
        inline = stored.ndim < 2 or place.transpose or stored.nbytes <= inline_bytes
        leaf = pack_array(stored) if inline else _write_zarr(folder, place.name, stored, context)
        _set(target, place.name, leaf)
        del array, stored
    state = {"version": T5X_VERSION, "optimizer": {"target": target, "state": {"step": 0}}}
    (folder / STATE).write_bytes(msgpack.packb(state, use_bin_type=True))
    write_vocabulary(folder, vocabulary)
    return collector.fingerprint()


def _write_zarr(folder: Path, name: str, array: HostArray, context: ts.Context) -> dict[str, Any]:
    """Write one array and return the description that goes into the msgpack file."""
    directory = "target." + name.replace("/", ".")
    rows = next(iter(row_ranges(array.shape, array.itemsize, BLOCK_BYTES)))
    metadata = {
        "shape": list(array.shape),
        "chunks": [rows.stop, *array.shape[1:]],
        "dtype": "bfloat16" if array.dtype.name == "bfloat16" else array.dtype.str,
        "compressor": {"id": "gzip", "level": 1},
    }
    spec = {
        "driver": "zarr",
        "kvstore": child_spec(folder_spec(folder), directory),
        "metadata": metadata,
        "store_data_equal_to_fill_value": True,
    }
    store = ts.open(spec, create=True, context=context).result()
    for block in row_ranges(array.shape, array.itemsize, BLOCK_BYTES):
        store[block].write(np.ascontiguousarray(array[block])).result()
    return {"driver": "zarr", "kvstore": {"driver": "file", "path": directory}, "metadata": metadata}


def _set(tree: dict[str, Any], path: str, leaf: Any) -> None:
    *parents, last = path.split("/")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = leaf
