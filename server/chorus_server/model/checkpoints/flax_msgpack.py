"""The msgpack dialect of Flax: nested maps with string keys, whose leaves may be arrays.

An array is extension type 1: a msgpack list of shape, dtype name and bytes. A large one is a map of pieces.
We do not use flax for this, because it would build every array, including the optimiser's, and as JAX arrays.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.tensors import HostArray

_ARRAY = 1
_SCALAR = 3
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float64": np.dtype("<f8"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "uint32": np.dtype("<u4"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("bool"),
}


class Packed:
    """An array that has not been unpacked."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def array(self) -> HostArray:
        """The array. Raises InvalidModelError if its bytes and its shape disagree."""
        try:
            shape, name, data = msgpack.unpackb(self._data, raw=False)
            dtype = _DTYPES[name.decode() if isinstance(name, bytes) else name]
            if len(data) != math.prod(shape) * dtype.itemsize:
                raise ValueError("its bytes do not fill its shape")
            return np.frombuffer(data, dtype).reshape(shape)
        except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
            raise InvalidModelError(f"an array in the msgpack file cannot be read: {error!r}") from error


def unpack(data: bytes) -> dict[str, Any]:
    """The nested maps. Arrays stay `Packed` until they are needed.

    Raises:
        InvalidModelError: it is not msgpack, not a map, or nested too deeply.
    """
    try:
        state = msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_extension)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise InvalidModelError(f"the checkpoint's msgpack file cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise InvalidModelError("the checkpoint's msgpack file does not contain a map")
    return state


def flatten(tree: dict[Any, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Leaves by slash-joined path. A map that has a `driver` is one leaf: tensorstore's description of an
    array."""
    if depth > 32:
        raise InvalidModelError("the checkpoint's msgpack file is nested too deeply")
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and _CHUNKED in value:
            leaves[path] = _joined(path, value)
        elif isinstance(value, dict) and "driver" not in value:
            leaves.update(flatten(value, f"{path}/", depth + 1))
        else:
            leaves[path] = value
    return leaves


def pack_array(array: HostArray) -> msgpack.ExtType:
    """The leaf that `unpack` reads back."""
    data = np.ascontiguousarray(array).tobytes()
    return msgpack.ExtType(
        _ARRAY, msgpack.packb([list(array.shape), array.dtype.name, data], use_bin_type=True)
    )


def _extension(code: int, data: bytes) -> Any:
    return Packed(data) if code in (_ARRAY, _SCALAR) else msgpack.ExtType(code, data)


def _joined(path: str, pieces: dict[str, Any]) -> HostArray:
    """An array that Flax split because msgpack takes at most 4 GiB: `{shape: {0: ...}, chunks: {0: ...}}`."""
    try:
        shape = tuple(int(pieces["shape"][key]) for key in sorted(pieces["shape"], key=int))
        chunks = [pieces["chunks"][key].array() for key in sorted(pieces["chunks"], key=int)]
        return np.concatenate(chunks).reshape(shape)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidModelError(f"tensor {path} is in pieces that do not fit together") from error
